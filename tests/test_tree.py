# SPDX-License-Identifier: Apache-2.0
"""The trees of `netns-shim status`: facts in, text out."""

from __future__ import annotations

from typing import Any

import pytest
from looks import NOW, attachment, command, facts, link, netns, plain, port, uplink
from rich.console import Console
from rich.text import Text

from netns_shim.cli import tree

FULL = netns(
    addresses=["192.0.2.7", "2001:db8::7"],
    ports=[port(8443, 443), port(53, 53, protocol="udp", state=None)],
    references=[
        attachment(
            "web",
            "10.0.0.2/24",
            "fd00::2/64",
            ports=[
                port(8080, 80, address="*"),
                port(53, 53, address="127.0.0.1", state="refused", holder="x (PID 7)"),
            ],
            publisher={"driver": "pasta", "pid": 7, "alive": True, "interface": "pub1"},
        ),
        attachment("db", "10.0.0.3/24", hostInterfaces=["cni0", "veth1"]),
        attachment("printer", "192.168.1.9/24", network="lan", bridge=None, plugins=["macvlan"]),
    ],
    commands=[command("curl", "-v", "a b")],
    links=[
        link("tap0", "tun", "192.0.2.7/24"),
        link("cni0", "bridge", "10.0.0.1/24", "fd00::1/64"),
        link("veth1", "veth", master="cni0"),
        link("veth2", "veth", master="cni0", up=False),
        link("cni1", "bridge", up=False),
        link("wg0", "wireguard", "10.9.9.1/32"),
        link("vlan7", "vlan", parent="wg0"),
        link("odd", None, master="bond0"),
        link("pub1", "tun"),
    ],
)


def draw(*found: dict[str, Any], width: int = 99, **options: Any) -> list[str]:
    """Draw netns's; give the lines."""
    return plain(tree.draw(facts(*found), NOW, **options), width)


def test_all_there_is() -> None:
    """Uplink, bridges with what is at them, what is at none, other links and commands."""
    assert draw(FULL) == [
        "default",
        "├── ● uplink pasta  tap0  192.0.2.7  2001:db8::7  PID 4711  2 h 5 min  guardian PID 4712",
        "├── ports of the namespace itself",
        "│   ├── 0.0.0.0:8443 → default:443/tcp  open",
        "│   └── 0.0.0.0:53 → default:53/udp",
        "├── bridge cni0  10.0.0.1/24  fd00::1/64  MTU 65520",
        "│   ├── ● web  eth0  10.0.0.2/24, fd00::2/64  net  3 min",
        "│   │   ├── 127.0.0.1:53 → web:53/tcp  refused: x (PID 7) has the port",
        "│   │   └── *:8080 → web:80/tcp        open",
        "│   ├── ● db   eth0  10.0.0.3/24              net  3 min",
        "│   └── - veth  veth2  down",
        "├── bridge cni1  down",
        "├── without a bridge",
        "│   └── ● printer  eth0  192.168.1.9/24  macvlan  lan  3 min",
        "├── other links",
        "│   ├── - wireguard  wg0            10.9.9.1/32",
        "│   ├── - vlan       vlan7  on wg0",
        "│   └── - link       odd",
        "├── commands",
        "│   └── ● curl -v 'a b'  PID 9  3 min",
        "└── ! 1 published port is not open: netns-shim refresh opens what is free",
    ]


def test_what_is_wrong_is_marked() -> None:
    """An uplink, containers and commands that are gone have a mark, a word, and what to do."""
    found = netns(
        uplink=uplink(alive=False, since=None, guardian=None, changes=["nameServers", "routes"]),
        references=[
            attachment("a", "10.0.0.2/24", alive=False, sign=""),
            attachment("b", "10.0.0.3/24", alive=None, sign="veth7 leads somewhere unknown"),
            attachment("c", "10.0.0.4/24", alive=None, sign=""),
            attachment("d", phase="adding", ports=[port(1, 2, state="closed")]),
            attachment("e", phase="deleting", alive=None, sign=""),
            attachment("f", phase="deleting", alive=False, sign=""),
        ],
        commands=[command("top", alive=False)],
        problem="no way in",
    )

    assert draw(found, width=120) == [
        "default",
        "├── ✗ uplink pasta  tap0  192.0.2.7  PID 4711  gone",
        "│   ├── ! the next ADD starts it again",
        "│   └── ! the host's name servers and routes have changed since it started: netns-shim "
        "refresh renews it",
        "├── bridge cni0",
        "│   ├── ✗ a  eth0  10.0.0.2/24  net  3 min  gone",
        "│   ├── ○ b  eth0  10.0.0.3/24  net  3 min  may be gone",
        "│   ├── ○ c  eth0  10.0.0.4/24  net  3 min",
        "│   ├── ◌ d  eth0  no address   net  3 min  adding",
        "│   │   └── 0.0.0.0:1 → d:2/tcp  closed",
        "│   ├── ◌ e  eth0  no address   net  3 min  deleting",
        "│   └── ✗ f  eth0  no address   net  3 min  deleting, gone",
        "├── commands",
        "│   └── ✗ top  PID 9  3 min  gone",
        "├── ! 2 containers are gone: netns-shim gc detaches what is left",
        "└── ! not all can be seen: no way in",
    ]


@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        ({"guardian": None}, ["  2 h 5 min", "! it has no guardian to restart it: netns-shim "]),
        (
            {"guardian": {"pid": 8, "alive": False, "problem": "x"}, "alive": False},
            ["  2 h 5 min  gone", "! the next ADD starts it again"],
        ),
        (
            {"guardian": {"pid": 8, "alive": True, "problem": None}, "alive": False},
            ["  guardian PID 8  gone", "! its guardian starts it again"],
        ),
        (
            {"guardian": {"pid": 8, "alive": True, "problem": "x\n"}, "alive": False},
            ["  guardian PID 8  gone", "! its guardian starts it again, but could not so far: x"],
        ),
    ],
)
def test_guardian(keys: dict[str, Any], lines: list[str]) -> None:
    """It is shown beside its uplink; where it is gone or does not succeed, that is said."""
    _, first, second, *_ = draw(netns(uplink=uplink(**keys)), width=150)

    assert first.endswith(lines[0])
    assert second.startswith(f"    └── {lines[1]}")


def test_pause_process() -> None:
    """It stays as long as a netns is up, and so it is shown after them."""
    found = {**facts(netns()), "pauseProcess": {"pid": 7, "alive": True}}

    assert plain(tree.draw(found, NOW))[-1] == "pause process  PID 7"


def test_files_alone() -> None:
    """Where the netns cannot be entered, what the files say is drawn."""
    found = netns(
        links=None, problem="it is elsewhere", references=[attachment("c", "10.0.0.2/24")]
    )

    assert draw(found) == [
        "default",
        "├── ● uplink pasta  tap0  192.0.2.7  PID 4711  2 h 5 min  guardian PID 4712",
        "├── bridge cni0",
        "│   └── ● c  eth0  10.0.0.2/24  net  3 min",
        "└── ! not all can be seen: it is elsewhere",
    ]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"problems": ["the process 4711 is stopped"]},
            [
                "├── ✗ uplink pasta  tap0  192.0.2.7  PID 4711  2 h 5 min  guardian PID 4712",
                "│   └── ! the process 4711 is stopped: netns-shim refresh renews it",
            ],
        ),
        (
            {"pid": None, "alive": False, "since": None, "pending": "no interface"},
            [
                "├── ✗ uplink pasta  tap0  192.0.2.7  guardian PID 4712",
                "│   └── ! waits until the host has a network: no interface",
            ],
        ),
    ],
    ids=["stopped", "waiting"],
)
def test_an_uplink_that_does_not_work(keys: dict[str, Any], expected: list[str]) -> None:
    """One that is there and does not work, or waits for a network, has a mark and a reason."""
    assert draw(netns(uplink=uplink(**keys), references=[attachment("a")]))[1:3] == expected


def test_no_uplink_and_an_unknown_one() -> None:
    """Without an uplink there is nothing to say of it; an unreadable record is an unknown one."""
    nothing = {"pid": None, "since": None, "interface": "", "changes": None, "guardian": None}
    none = netns("a", uplink=uplink(driver="none", **nothing), addresses=[])
    unknown = netns("b", uplink=uplink(driver=None, alive=False, **nothing), addresses=[])

    assert draw(none, unknown) == [
        "a",
        "├── ● uplink none",
        "└── other links",
        "    └── - tun  tap0  192.0.2.7/24",
        "b",
        "├── ✗ uplink unknown  gone",
        "│   └── ! the next ADD starts it again",
        "└── other links",
        "    └── - tun  tap0  192.0.2.7/24",
    ]


def test_nothing_is_up() -> None:
    """Where nothing is up, it says so and where it has looked."""
    assert draw() == ["no shared network namespace is up (/base)"]


def test_without_unicode() -> None:
    """Where the encoding has no such marks, there are others."""
    found = netns(
        references=[
            attachment("c", phase="adding", ports=[port(1, 2)]),
            attachment("d", alive=False),
        ]
    )

    text = "\n".join(draw(found, is_ascii=True))

    assert "* uplink pasta" in text
    assert "~ c " in text
    assert "x d " in text
    assert "0.0.0.0:1 -> c:2/tcp  open" in text
    assert "! 1 container is gone" in text


@pytest.mark.parametrize(("is_whole", "shown"), [(True, "d" * 64), (False, "d" * 12)])
def test_long_ids(is_whole: bool, shown: str) -> None:
    """IDs that no person chose are shortened where there is a reader and no program."""
    found = netns(references=[attachment("d" * 64), attachment("a-name-that-somebody-chose")])

    lines = draw(found, width=200, is_whole=is_whole)

    assert lines[3].startswith(f"    ├── ● {shown}  ")
    assert "● a-name-that-somebody-chose  " in lines[4]


HOSTILE = "\x1b[31mred\x9b\x07\n[bold]x[/bold]:smile:\u202e\udcff"


def test_nothing_harms_a_terminal() -> None:
    """Whatever names and texts hold, no control character and no markup reaches the terminal."""
    odd = netns(
        HOSTILE,
        uplink=uplink(driver=HOSTILE, interface=HOSTILE, pid=HOSTILE),
        addresses=[HOSTILE],
        references=[
            attachment(
                HOSTILE,
                HOSTILE,
                ifname=HOSTILE,
                network=HOSTILE,
                phase=HOSTILE,
                since=HOSTILE,
                bridge=HOSTILE,
                ports=[
                    port(1, 2, protocol=HOSTILE, hostIP=HOSTILE, address=None),
                    port(3, 4, state="refused", holder=HOSTILE),
                ],
            ),
            attachment("c", bridge=None, plugins=[HOSTILE]),
        ],
        commands=[command(HOSTILE, pid=HOSTILE, since=HOSTILE)],
        links=[
            link(HOSTILE, "bridge", HOSTILE),
            link("x" + HOSTILE, HOSTILE, HOSTILE, parent=HOSTILE),
        ],
        problem=HOSTILE,
    )

    lines = draw(odd, width=5000)

    assert all(line.isprintable() for line in lines)
    escaped = r"\x1b[31mred\x9b\x07\n[bold]x[/bold]:smile:\u202e\udcff"
    assert lines[0] == escaped
    assert sum(line.count(escaped) for line in lines) == 25


def test_wide_letters_are_aligned() -> None:
    """Columns begin at the same place where letters take two cells."""
    found = netns(references=[attachment("网络", "10.0.0.2/24"), attachment("net", "10.0.0.3/24")])

    lines = draw(found)

    assert lines[3].endswith("● 网络  eth0  10.0.0.2/24  net  3 min")
    assert lines[4].endswith("● net   eth0  10.0.0.3/24  net  3 min")


def test_colours_say_nothing_alone() -> None:
    """The text is the same with colours and without."""
    console = Console(width=99, force_terminal=True, color_system="truecolor", highlight=False)
    with console.capture() as capture:
        console.print(tree.draw(facts(FULL), NOW))

    assert "\x1b[" in capture.get()
    assert Text.from_ansi(capture.get()).plain.splitlines() == draw(FULL)

# SPDX-License-Identifier: Apache-2.0
"""`netns-shim show`: which attachments are meant, and what is told of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bench
import pytest
from looks import LIVE, NOW, SINCE, attachment, make, port
from runtime import PLUGIN, Runtime, bridge

from netns_shim.cli import show
from netns_shim.main import main

CONF = {"type": "netns-shim", "delegate": {"type": "bridge", "bridge": "br7"}}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A state directory with two netns's and three containers."""
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    make(
        path,
        "default",
        **{
            "net:web-1:eth0:bridge": {**LIVE, "conf": CONF, "path": "/opt/cni/bin", "args": "K=V"},
            "lan:web-1:eth1:macvlan": LIVE,
            "net:web-2:eth0:bridge": LIVE,
        },
    )
    make(path, "other", **{"wire:web:eth0:ptp": LIVE})
    return path


def ask(base: Path, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """Ask for JSON; give it."""
    assert main(["netns-shim", "show", "--json", "--state-dir", str(base), *words]) == 0
    return json.loads(capsys.readouterr().out)


def refuse(base: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Ask for what there is not; give what it says."""
    assert main(["netns-shim", "show", "--state-dir", str(base), *words]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["web"], ["web eth0 other"]),  # though others begin with it
        (["web-1"], ["web-1 eth1 default", "web-1 eth0 default"]),
        (["web-2"], ["web-2 eth0 default"]),
        (["web-1", "--ifname", "eth1"], ["web-1 eth1 default"]),
        (["web-1", "--network", "net"], ["web-1 eth0 default"]),
    ],
)
def test_which(base: Path, capsys: pytest.CaptureFixture[str], words: Any, found: Any) -> None:
    """All attachments of the container that has this ID, or of the only one that begins so."""
    entries = ask(base, capsys, *words)

    names = [f"{e['containerID']} {e['ifname']} {e['sharedNetns']}" for e in entries]
    assert names == found


def test_beginning_of_an_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The beginning of an ID is enough where no other begins so."""
    tmp_path.chmod(0o700)
    make(tmp_path, "default", **{"net:abc:eth0:x": LIVE, "net:abd:eth0:x": LIVE})

    assert [entry["containerID"] for entry in ask(tmp_path, capsys, "abd")] == ["abd"]
    assert refuse(tmp_path, capsys, "ab") == (
        "netns-shim: 'ab' can be any of 2 containers: attached are abc, abd\n"
    )


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nope"], "no container 'nope' is attached: attached are web, web-1, web-2"),
        (["\x1b[31m"], r"no container '\x1b[31m' is attached: attached are web, web-1, web-2"),
        (["web-"], "'web-' can be any of 2 containers: attached are web-1, web-2"),
        (
            ["web-1", "--ifname", "eth9"],
            "container 'web-1' is not attached in that way: attached are eth1 in lan, eth0 in net",
        ),
        (
            ["web", "--network", "net"],
            "container 'web' is not attached in that way: attached is eth0 in wire",
        ),
    ],
)
def test_what_there_is_not(
    base: Path, capsys: pytest.CaptureFixture[str], words: Any, error: str
) -> None:
    """What is not there is an error that names what is."""
    assert refuse(base, capsys, *words) == f"netns-shim: {error}\n"


def test_where_nothing_is_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing is attached it says so."""
    assert refuse(tmp_path / "none", capsys, "c") == (
        "netns-shim: no container 'c' is attached: nothing is there\n"
    )


def test_shape(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For programs there are the facts of `status --json`, and what made the attachment."""
    (entry,) = ask(base, capsys, "web-1", "--network", "net")

    made = entry.pop("madeFrom")
    assert entry.pop("sharedNetns") == "default"
    assert main(["netns-shim", "status", "--json", "--state-dir", str(base)]) == 0
    known = json.loads(capsys.readouterr().out)["netns"][0]["references"]
    assert entry in known
    assert made == [
        {
            "reference": f"{base}/default/refs/net:web-1:eth0:bridge",
            "args": "K=V",
            "path": "/opt/cni/bin",
            "configuration": CONF,
            "result": LIVE["result"],
        }
    ]


def text(**keys: Any) -> list[str]:
    """Write an attachment for people."""
    origin = {
        "reference": "/refs/net:c:eth0:x",
        "args": "",
        "path": None,
        "configuration": {"delegate": {"type": "x"}},
        "result": None,
    }
    entry = {"sharedNetns": "default", "madeFrom": [origin], **attachment("c"), **keys}
    lines = [line.plain for line in show.describe(entry, NOW)]
    return "\n".join(lines).split("\n")


def test_text() -> None:
    """For people there is a line for each fact that is known, and JSON as it is written."""
    shown = text(
        ips=["10.0.0.2/24", "fd00::2/64"],
        ports=[port(8080, 80), port(53, 53, address="*", state="closed")],
        publisher={"driver": "pesto", "pid": 4711, "alive": True, "interface": None},
    )

    assert shown == [
        "c: eth0 in network net",
        "  phase         live",
        f"  since         {SINCE} (3 min)",
        "  container     alive: its network namespace is /proc/7/ns/net",
        "  netns         /proc/7/ns/net",
        "  shared netns  default",
        "  bridge        cni0",
        "  plugins       bridge",
        "  addresses     10.0.0.2/24, fd00::2/64",
        "  ports         *:53 → c:53/tcp  closed",
        "                0.0.0.0:8080 → c:80/tcp  open",
        "  publisher     pesto (PID 4711)",
        "  reference     /refs/net:c:eth0:x",
        "  configuration",
        "    {",
        '      "delegate": {',
        '        "type": "x"',
        "      }",
        "    }",
    ]


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ({"driver": "pasta", "pid": 7, "alive": False, "interface": None}, "pasta (PID 7), gone"),
        ({"driver": "pasta", "pid": None, "alive": False, "interface": None}, "pasta, gone"),
    ],
)
def test_publisher_that_is_gone(who: Any, words: str) -> None:
    """Of a publisher it says whether it has ended."""
    assert f"  publisher     {words}" in text(ports=[port(1, 2)], publisher=who)


@pytest.mark.parametrize(
    ("alive", "sign", "words"),
    [
        (False, "", "gone: netns-shim gc detaches what is left"),
        (None, "it is unknown", "may be gone: it is unknown"),
        (None, "", "not known whether it lives"),
    ],
)
def test_life(alive: Any, sign: str, words: str) -> None:
    """It says whether the container lives, and by what that is known."""
    assert f"  container     {words}" in text(alive=alive, sign=sign)


def test_nothing_harms_a_terminal() -> None:
    """Whatever an attachment holds, no control character reaches the terminal."""
    odd = "\x1b[31m\x9b\n[bold]\u202e\udcff"
    origin = {
        "reference": odd,
        "args": odd,
        "path": odd,
        "configuration": {odd: odd},
        "result": odd,
    }

    shown = text(
        **{key: odd for key in ("containerID", "ifname", "network", "netns", "phase", "since")},
        **{key: odd for key in ("bridge", "sign", "sharedNetns")},
        **{key: [odd] for key in ("ips", "plugins", "hostInterfaces")},
        ports=[port(1, 2, protocol=odd, state="refused", holder=odd)],
        publisher={"driver": odd, "pid": odd, "alive": False},
        madeFrom=[origin],
    )

    assert all(line.isprintable() for line in shown)


def test_the_real_thing(world: bench.World, session: bench.Session) -> None:
    """What made an attachment is shown with the configuration and result that it had."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container:
        result = runtime.add("c1", container)

        done = session.run([PLUGIN, "show", "--json", "c"], check=True)
        shown = session.run([PLUGIN, "show", "c1"], check=True).stdout

        (entry,) = json.loads(done.stdout)
        (made,) = entry["madeFrom"]
        assert made["configuration"] == runtime.conf
        assert made["result"] == result
        assert entry["alive"] is True
        assert shown.startswith("c1: eth0 in network rootless\n  phase         live\n")
        assert '\n          "address": "10.89.0.2/24",\n' in shown
        runtime.delete("c1", container)
    assert world.leftovers() == []

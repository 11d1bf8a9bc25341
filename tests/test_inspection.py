# SPDX-License-Identifier: Apache-2.0
"""The facts that are shown: of state directories, whatever they hold, and of the real thing."""

from __future__ import annotations

import calendar
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench
import pytest
from looks import LIVE, NOW, SINCE, asked, make, plain
from runtime import DUAL, PLUGIN, Runtime, bridge, kill_for_good, until

from netns_shim.cli import inspection, tree
from netns_shim.errors import ShimError
from netns_shim.proc import start_time

CONF = Path(__file__).resolve().parent.parent / "conf"
ORDER = ["2a", "10", "c", "c01", "c1", "c1a", "c2", "c2x", "c2x3", "c2x12", "c10", "cont"]
HERE = os.stat("/proc/self/ns/net").st_ino


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A state directory."""
    path = tmp_path / "netns-shim"
    path.mkdir(mode=0o700)
    return path


def only(base: Path) -> dict[str, Any]:
    """Return the facts of the only netns."""
    netns: dict[str, Any]
    (netns,) = inspection.collect(str(base))["netns"]
    return netns


def text(base: Path) -> str:
    """Return what is drawn of the facts."""
    return "\n".join(plain(tree.draw(inspection.collect(str(base)), NOW)))


def test_natural_order(base: Path) -> None:
    """What has a number in its name is in the order of the numbers, as people count."""
    for name in ("net10", "net2", "net"):
        make(base, name, {"driver": "none"}, **{f"n:{c}:eth0:bridge": LIVE for c in ORDER[::-1]})

    found = inspection.collect(str(base))["netns"]

    assert [netns["name"] for netns in found] == ["net", "net2", "net10"]
    for netns in found:
        assert [entry["containerID"] for entry in netns["references"]] == ORDER


def test_nothing_is_up(base: Path) -> None:
    """Where nothing is up there are no facts, and nothing is made."""
    for path in (base, base / "no" / "such"):
        nothing: dict[str, Any] = {
            "stateDir": str(path),
            "netns": [],
            "inPlace": [],
            "pauseProcess": None,
        }
        assert inspection.collect(str(path)) == nothing
    assert os.listdir(base) == []


def test_shape(base: Path) -> None:
    """The facts have these keys; of what cannot be seen they are null, and why is said."""
    ours = os.stat("/proc/self/ns/net").st_ino
    uplink = {
        "driver": "pasta",
        "pid": os.getpid(),
        "startTime": start_time(os.getpid()),
        "interface": "eth0",
        "addresses": ["192.0.2.7", "2001:db8::7"],
        "hostNetns": ours,
        "host": {"routes": ["none that there is"]},
    }
    ports = [{"hostPort": 8080, "containerPort": 80}, {"hostPort": "x"}, 7]
    conf = {"runtimeConfig": {"portMappings": ports}, "delegate": {"type": "bridge"}}
    make(base, "default", uplink, **{"net:c:eth0:bridge+portmap": {**LIVE, "conf": conf}})

    found = inspection.collect(str(base))

    # To the second, as the clocks of the machine and of its start agree.
    since = found["netns"][0]["uplink"].pop("since")
    running = time.clock_gettime(time.CLOCK_BOOTTIME) - (
        start_time(os.getpid()) / os.sysconf("SC_CLK_TCK")
    )
    then = calendar.timegm(time.strptime(since, "%Y-%m-%dT%H:%M:%SZ"))
    assert abs(time.time() - then - running) < 3
    assert found == {
        "stateDir": str(base),
        "netns": [
            {
                "name": "default",
                "path": f"{base}/default/netns",
                "uplink": {
                    "driver": "pasta",
                    "pid": os.getpid(),
                    "alive": True,
                    "pending": None,
                    "interface": "eth0",
                    "mtu": None,
                    "guardian": None,
                    "changes": ["routes"],
                    "problems": None,
                },
                "addresses": ["192.0.2.7", "2001:db8::7"],
                "ports": [],
                "publisher": None,
                "names": None,
                "references": [
                    {
                        "network": "net",
                        "containerID": "c",
                        "ifname": "eth0",
                        "netns": "/proc/7/ns/net",
                        "ips": ["10.0.0.2/24"],
                        "since": SINCE,
                        "phase": "live",
                        "plugins": ["bridge", "portmap"],
                        "ports": [
                            {
                                "hostPort": 8080,
                                "containerPort": 80,
                                "protocol": "tcp",
                                "hostIP": "",
                                "address": None,
                                "state": None,
                                "holder": None,
                            }
                        ],
                        "publisher": None,
                        "names": [],
                        "bridge": "cni0",
                        "hostInterfaces": [],
                        "alive": None,
                        "sign": "",
                    }
                ],
                "commands": [],
                "links": None,
                "problem": "the network namespace is lost; the next ADD makes it again",
            }
        ],
        "inPlace": [],
        "pauseProcess": None,
    }


def test_what_is_no_netns(base: Path) -> None:
    """Locks, what is kept for plugins run in place, and unfinished netns are passed over."""
    (base / ".lock-default").touch()
    make(base, ".in-place")
    (base / "unfinished").mkdir(mode=0o700)

    assert inspection.collect(str(base))["netns"] == []


def test_state_of_others_is_refused(base: Path) -> None:
    """What others can write into is not believed."""
    make(base, "default")
    base.chmod(0o777)

    with pytest.raises(ShimError, match="refusing the state directory"):
        inspection.collect(str(base))


def test_one_that_is_odd(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A netns that others can write into is left out with a warning, and hides no other."""
    make(base, "default")
    make(base, "odd")
    (base / "odd").chmod(0o777)
    (base / "junk").touch()

    found = inspection.collect(str(base))

    assert [entry["name"] for entry in found["netns"]] == ["default"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("refusing the state directory" in line for line in lines)


def test_attachment_with_two_references(base: Path) -> None:
    """Plugins that are wrapped one by one are one attachment, with the address of any."""
    make(
        base,
        "default",
        **{"net:c:eth0:a": {**LIVE, "result": None}, "net:c:eth0:b": LIVE},
    )

    (entry,) = only(base)["references"]
    assert entry["ips"] == ["10.0.0.2/24"]
    assert entry["plugins"] == ["a", "b"]


def test_attachment_that_is_not_whole(base: Path) -> None:
    """An attachment is live only if each of its references is."""
    make(
        base,
        "default",
        **{"net:c:eth0:a": LIVE, "net:c:eth0:b": {**LIVE, "phase": "deleting"}},
    )

    assert only(base)["references"][0]["phase"] == "deleting"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "\0\0\0",
        "[]\n7\n",
        '{"phase":"li',
        '{"network":["x"],"containerID":{}}\n',
        '{"network":"other"}\n',
        '{"result":7,"ips":7}\n',
        '{"result":{"ips":[7,{"address":8}]}}\n',
        '{"conf":7}\n',
        '{"conf":{"delegate":7,"plugins":{},"runtimeConfig":[]}}\n',
        '{"conf":{"plugins":[7,{"type":["bridge"]}],"runtimeConfig":{"portMappings":{}}}}\n',
        '{"netns":"/proc/self/ns/net","netnsID":[1]}\n',
    ],
)
def test_damaged_reference(base: Path, content: str) -> None:
    """A damaged reference is shown by its name, as it keeps the netns all the same."""
    make(base, "default", **{"net:c:eth0:bridge": content})

    (entry,) = only(base)["references"]
    assert (entry["network"], entry["containerID"], entry["ifname"]) == ("net", "c", "eth0")
    assert (entry["phase"], entry["ips"], entry["since"]) == ("adding", [], None)
    assert (entry["alive"], entry["ports"], entry["bridge"]) == (None, [], None)
    assert "◌ c  eth0  no address  bridge  net  adding" in text(base)


@pytest.mark.parametrize("content", ["", "[]\n", '{"command":"ls","pid":[]}\n'])
def test_damaged_command(base: Path, content: str) -> None:
    """A command of which nothing is known is shown, and breaks nothing."""
    make(base, "default", **{":run:9": content})

    (command,) = only(base)["commands"]

    assert (command["command"], command["since"]) == ([], None)
    assert "○ unknown" in text(base)


@pytest.mark.parametrize("name", [":gc:7", "nonsense", "a:b"])
def test_file_that_is_no_attachment(base: Path, name: str) -> None:
    """References of other kinds are none of the attachments."""
    make(base, "default", **{name: ""})

    assert (only(base)["references"], only(base)["commands"]) == ([], [])


@pytest.mark.parametrize(
    "uplink",
    [
        None,
        [],
        {},
        {"driver": 7, "pid": "x", "addresses": "y"},
        {"addresses": [1, None]},
        {"driver": "pasta", "interface": 7, "hostNetns": [], "host": 7},
        {"driver": "pasta", "hostNetns": HERE, "host": {"addresses": [7], "routes": 7}},
    ],
)
def test_damaged_record(base: Path, uplink: Any) -> None:
    """An uplink of which nothing is known is not alive."""
    make(base, "default", uplink, **{"net:c:eth0:bridge": LIVE})

    found = only(base)

    assert found["uplink"]["alive"] is False
    assert found["addresses"] == []
    assert "✗ uplink " in text(base)


@pytest.mark.parametrize(
    ("conf", "bridge"),
    [
        ({"delegate": {"type": "bridge"}}, "cni0"),
        ({"delegate": {"type": "bridge", "bridge": "br7"}}, "br7"),
        ({"delegate": {"type": "bridge", "bridge": 7}}, "cni0"),
        ({"plugins": [{"type": "tuning"}, {"type": "bridge", "bridge": "br7"}]}, "br7"),
        ({"delegate": {"type": "macvlan", "bridge": "br7"}}, None),
        ({}, None),
    ],
)
def test_bridge_of_a_configuration(base: Path, conf: Any, bridge: str | None) -> None:
    """Where no link can be seen, the bridge is the one of the configuration."""
    make(base, "default", **{"net:c:eth0:x": {**LIVE, "conf": conf}})

    assert only(base)["references"][0]["bridge"] == bridge


def test_a_command_that_has_ended(base: Path) -> None:
    """A command whose process is gone is not alive; one that is there is."""
    with subprocess.Popen(["true"]) as child:
        child.wait()
    make(
        base,
        "default",
        **{
            ":run:a": {"phase": "running", "pid": child.pid, "command": ["true"], "since": SINCE},
            ":run:b": {"phase": "running", "pid": os.getpid(), "command": ["x"], "since": SINCE},
        },
    )

    gone, there = only(base)["commands"]

    assert (gone["alive"], there["alive"]) == (False, True)


def test_ports_of_go_cni(base: Path) -> None:
    """Ports that containerd or nerdctl has asked for are shown, also of an earlier version."""
    port = {"HostPort": 8080, "ContainerPort": 80, "Protocol": "udp", "HostIP": ""}
    conf = {"runtimeConfig": {"portMappings": [port]}}
    make(base, "default", **{"net:c:eth0:bridge+portmap": {**LIVE, "conf": conf}})

    (entry,) = only(base)["references"]

    assert entry["ports"] == [asked(8080, 80, protocol="udp")]


def test_what_made_an_attachment(base: Path) -> None:
    """Each reference of an attachment tells its configuration and result, and of no other."""
    conf = {"type": "netns-shim", "delegate": {"type": "a"}}
    make(
        base,
        "default",
        **{
            "net:c:eth0:a": {**LIVE, "conf": conf, "args": "K=V", "path": "/opt/cni/bin"},
            "net:c:eth0:b": {**LIVE, "result": None},
            "net:c:eth1:a": LIVE,
            "other:c:eth0:a": LIVE,
            "net:d:c:a": LIVE,
        },
    )

    found = inspection.made_from(str(base), "default", "c")

    assert set(found) == {("net", "c", "eth0"), ("net", "c", "eth1"), ("other", "c", "eth0")}
    assert found["net", "c", "eth0"] == [
        {
            "reference": f"{base}/default/refs/net:c:eth0:a",
            "args": "K=V",
            "path": "/opt/cni/bin",
            "configuration": conf,
            "result": LIVE["result"],
        },
        {
            "reference": f"{base}/default/refs/net:c:eth0:b",
            "args": None,
            "path": None,
            "configuration": None,
            "result": None,
        },
    ]


@pytest.fixture
def listening() -> Iterator[int]:
    """A port on which this process listens."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


def here(**keys: Any) -> dict[str, Any]:
    """Write the record of an uplink that is this process."""
    since = start_time(os.getpid())
    return {"driver": "pasta", "pid": os.getpid(), "startTime": since, "hostNetns": HERE, **keys}


def publishing(*ports: int) -> dict[str, Any]:
    """Write what the record of an attachment has of the ports that its uplink has open."""
    entry = {"protocol": "tcp", "hostIP": "", "containerPort": 80}
    recorded = [{**entry, "hostPort": port, "insidePort": port} for port in ports]
    return {**LIVE, "ports": recorded, "families": [4], "publisher": {"driver": "pesto"}}


def who(driver: str, **keys: Any) -> dict[str, Any]:
    """Describe a publisher that is this process."""
    return {"driver": driver, "pid": os.getpid(), "alive": True, "interface": None, **keys}


def test_ports_with_their_state(base: Path, listening: int) -> None:
    """A recorded port has its address, its state and its publisher; one only asked for has not."""
    wanted = [
        {"hostPort": listening, "containerPort": 80},
        {"hostPort": 9899, "containerPort": 9, "protocol": "sctp"},
    ]
    conf = {"runtimeConfig": {"portMappings": wanted}}
    record = {**publishing(listening, 1), "conf": conf}
    make(base, "default", here(), **{"net:c:eth0:portmap": record})

    (entry,) = only(base)["references"]

    assert [(p["hostPort"], p["address"], p["state"]) for p in entry["ports"]] == [
        (listening, "0.0.0.0", "open"),
        (1, "0.0.0.0", "closed"),
        (9899, None, None),
    ]
    assert entry["publisher"] == who("pesto")
    drawn = text(base)
    assert f"0.0.0.0:{listening} → c:80/tcp  open" in re.sub(" +$", "", drawn, flags=re.M)
    assert "! 1 published port is not open: netns-shim refresh opens what is free" in drawn


def test_ports_of_a_publisher_that_is_gone(base: Path, listening: int) -> None:
    """Where the publisher has ended, what listens on its port is another program."""
    made = {"driver": "pasta", "number": 1, "pid": os.getpid(), "startTime": 1}
    record = {**publishing(listening), "publisher": made}
    make(base, "default", here(), **{"net:c:eth0:portmap": record})

    (entry,) = only(base)["references"]

    assert [port["state"] for port in entry["ports"]] == ["refused"]
    assert f"(PID {os.getpid()})" in entry["ports"][0]["holder"]
    assert entry["publisher"] == who("pasta", alive=False, interface="pub1")


def test_ports_of_the_netns_itself(base: Path, listening: int) -> None:
    """The ports that a netns publishes itself are facts of the netns."""
    make(base, "default", here(wanted={"publish": [f"{listening}:443"]}, addresses=["192.0.2.7"]))

    found = only(base)

    (port,) = found["ports"]
    assert (port["containerPort"], port["state"]) == (443, "open")
    assert found["publisher"] == who("pasta")


def test_ports_of_an_earlier_version(base: Path) -> None:
    """An attachment whose record has no ports shows those it was asked for, without a state."""
    conf = {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}}
    make(base, "default", here(), **{"net:c:eth0:portmap": {**LIVE, "conf": conf}})

    (entry,) = only(base)["references"]

    assert [(p["hostPort"], p["state"]) for p in entry["ports"]] == [(8080, None)]
    assert entry["publisher"] is None
    assert "── 8080 → c:80/tcp\n" in text(base)


PORTS = {
    "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp"}]}
}
PORTMAP = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
WAIT = ["sh", "-c", "echo ready; exec cat"]


def chain(session: bench.Session, **keys: Any) -> Runtime:
    """Configure a bridge with published ports."""
    capabilities = {"portMappings": True}
    return Runtime(session, capabilities=capabilities, plugins=[bridge(*DUAL), PORTMAP], **keys)


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Index the attachments of a netns by container."""
    return {entry["containerID"]: entry for entry in found["references"]}


def test_the_real_thing(world: bench.World, session: bench.Session) -> None:
    """Two netns's, at a bridge and at none, a published port, a dead container and a command."""
    runtime = chain(session)
    wire = {
        "type": "ptp",
        "ipMasq": True,
        "ipam": {"type": "host-local", "subnet": "10.90.0.0/24"},
    }
    other = Runtime(session, delegate=wire, netns="other", uplink="none")
    with session.container() as web, session.container() as alone:
        with session.container() as dead:
            runtime.add("web", web, conf=PORTS)
            runtime.add("dead", dead)
            other.add("alone", alone)
        argv = [PLUGIN, "run", "--", *WAIT]
        child = session.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        child.stdout.readline()

        default, second = runtime.status()
        drawn = session.run([PLUGIN, "status"], check=True).stdout

        links = {link["name"]: link for link in default["links"]}
        assert default["problem"] is None
        assert default["uplink"]["changes"] == []
        assert links[default["uplink"]["interface"]]["kind"] == "tun"
        assert links["cni0"]["addresses"] == ["10.89.0.1/24", "fd00:89::1/64"]
        seen = by_name(default)
        assert seen["web"]["bridge"] == seen["dead"]["bridge"] == "cni0"
        assert seen["web"]["plugins"] == ["bridge", "portmap"]
        assert [(p["hostPort"], p["containerPort"]) for p in seen["web"]["ports"]] == [(8080, 80)]
        assert [(c["command"], c["alive"]) for c in default["commands"]] == [(WAIT, True)]
        ptp = by_name(second)["alone"]
        assert (ptp["alive"], ptp["bridge"], ptp["plugins"]) == (True, None, ["ptp"])
        assert {link["name"] for link in second["links"]} == {*ptp["hostInterfaces"]}
        assert seen["web"]["alive"] is True
        assert until(lambda: by_name(runtime.status()[0])["dead"]["alive"] is False)

        drawn = session.run([PLUGIN, "status"], check=True).stdout
        assert "● uplink pasta  " in drawn
        assert "├── bridge cni0  10.89.0.1/24  fd00:89::1/64  MTU 65520\n" in drawn
        assert "● web   eth0  10.89.0.2/24, fd00:89::2/64  rootless  " in drawn
        assert "│       └── *:8080 → web:80/udp  open\n" in drawn
        assert "other links" not in drawn
        assert "! 1 container is gone: netns-shim gc detaches what is left" in drawn
        assert "├── ● uplink none\n└── without a bridge\n    └── ● alone  eth0  " in drawn
        assert "● sh -c 'echo ready; exec cat'  PID " in drawn
        assert "veth" not in drawn
        child.communicate()
        assert session.run([PLUGIN, "gc"]).returncode == 0
        runtime.delete("web", web)
        other.delete("alone", alone)
    assert world.leftovers() == []


def test_from_elsewhere(world: bench.World, session: bench.Session) -> None:
    """A user without capabilities and another session see what the files say, and why no more."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container:
        runtime.add("c", container)
        with world.session() as another:
            for place, alive in ((world, True), (another, None)):
                (found,) = Runtime(place).status()
                drawn = place.run([PLUGIN, "status"], check=True).stdout

                assert found["links"] is None
                assert "is pinned in another mount namespace; you see more" in found["problem"]
                assert found["uplink"]["alive"] is True
                entry = by_name(found)["c"]
                # Its path leads to it, where that can be looked at.
                assert (entry["alive"], entry["bridge"]) == (alive, "cni0")
                assert entry["ips"] == ["10.89.0.2/24"]
                assert "! not all can be seen: the shared netns 'default' is pinned" in drawn
                assert "gone" not in drawn
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_without_power_where_the_pin_is_seen(world: bench.World, session: bench.Session) -> None:
    """Who sees the pin and has no capabilities cannot enter the netns, and is told so."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container:
        runtime.add("c", container)
        bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", PLUGIN, "status", "--json"]

        done = session.run(bare, check=True)

        (found,) = json.loads(done.stdout)["netns"]
        assert found["links"] is None
        assert found["problem"].startswith("no capabilities over the network namespace; ")
        assert by_name(found)["c"]["alive"] is None  # as its path cannot be looked at
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_a_dead_uplink(world: bench.World, session: bench.Session) -> None:
    """An uplink that was killed is shown as gone, and all else as it is."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container:
        runtime.add("c", container)
        kill_for_good(runtime.status()[0]["uplink"])

        (found,) = runtime.status()
        drawn = session.run([PLUGIN, "status"], check=True).stdout

        assert (found["uplink"]["alive"], found["uplink"]["since"]) == (False, None)
        assert by_name(found)["c"]["alive"] is True
        assert "✗ uplink pasta  " in drawn
        assert "  gone\n│   └── ! the next ADD starts it again\n" in drawn
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_the_host_has_moved(world: bench.World, session: bench.Session) -> None:
    """What of the host's network has changed is seen in the host's netns, and nowhere else."""
    uplink = {"driver": "pasta", "options": ["-i", "eth0"]}  # it copies what the host has
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    route = ["0.0.0.0/1", "via", bench.PAGE]
    with session.container() as container:
        runtime.add("c", container)
        try:
            world.root.run(["ip", "route", "add", *route], check=True)

            assert runtime.status()[0]["uplink"]["changes"] == ["routes"]
            drawn = session.run([PLUGIN, "status"], check=True).stdout
            assert "! the host's routes have changed since it started: " in drawn
            inside = session.run([PLUGIN, "run", "--", PLUGIN, "status", "--json"], check=True)
            (found,) = json.loads(inside.stdout)["netns"]
            assert found["uplink"]["changes"] is None
            assert found["problem"] is None
        finally:
            world.root.run(["ip", "route", "del", *route], check=True)
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_bridge_by_address(world: bench.World, session: bench.Session) -> None:
    """A driver of netavark names no veth: its bridge is told by the address."""
    sample = json.loads((CONF / "80-netavark.conflist").read_text())
    delegate = sample["plugins"][0]["delegate"]
    runtime = Runtime(session, delegate=delegate)
    with session.container() as container:
        runtime.add("c", container)

        (found,) = runtime.status()

        entry = by_name(found)["c"]
        bridges = [link["name"] for link in found["links"] if link["kind"] == "bridge"]
        assert entry["hostInterfaces"] == [entry["bridge"]] == bridges
        (veth,) = [link for link in found["links"] if link["kind"] == "veth"]
        assert (veth["master"], veth["leadsTo"]) == (entry["bridge"], container.netns)
        assert "veth" not in session.run([PLUGIN, "status"], check=True).stdout
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_a_container_without_a_name(base: Path) -> None:
    """A damaged record that still knows its network namespace is judged by that."""
    info = os.stat("/proc/self/ns/net")
    record = {"netns": "/proc/self/ns/net", "netnsID": [info.st_dev, info.st_ino]}
    make(base, "default", **{"net:c:eth0:x": record})

    assert only(base)["references"][0]["alive"] is True

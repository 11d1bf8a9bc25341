# SPDX-License-Identifier: Apache-2.0
"""The MTU of networks that say nothing about it: that of their uplink, through real plugins."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from subprocess import PIPE
from typing import Any

import bench
import fakes
import pytest
import releases
from diagnosis import ask
from runtime import PLUGIN, Runtime, bridge, ips, page

RELEASES = releases.versions()
BIG = 65520
SUBNET = "10.89.0.0/24"
# Sends itself what it gets, or sends a packet and prints the length of the answer.
ECHO = """
import socket, sys
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(("0.0.0.0", 4444))
print("ready", flush=True)
while True:
    text, address = here.recvfrom(1 << 16)
    here.sendto(text, address)
"""
ASK = """
import socket, sys
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.settimeout(5)
here.connect((sys.argv[1], 4444))
here.send(bytes(int(sys.argv[2])))
print(len(here.recv(1 << 16)))
"""
PTP = {"type": "ptp", "ipMasq": True, "ipam": bridge()["ipam"]}


def mtu(place: bench.Place, name: str = "eth0") -> int:
    """Tell the MTU of an interface."""
    links = json.loads(place.run(["ip", "-json", "link", "show", name], check=True).stdout)
    found: int = links[0]["mtu"]
    return found


def inside(session: bench.Session) -> dict[str, int]:
    """Tell the MTU of each link of the shared netns but its loopback."""
    argv = [PLUGIN, "run", "--", "ip", "-json", "link"]
    links = json.loads(session.run(argv, check=True).stdout)
    return {link["ifname"]: link["mtu"] for link in links if link["ifname"] != "lo"}


@contextmanager
def echo(place: bench.Place) -> Iterator[None]:
    """Run the echo in a place."""
    with place.popen(["/usr/bin/python3", "-Ic", ECHO], stdout=PIPE, text=True) as server:
        assert server.stdout.readline() == "ready\n"
        yield
        server.kill()


def is_echoed(container: bench.Container, address: str, size: int) -> bool:
    """Tell whether a packet of UDP comes back whole."""
    argv = ["/usr/bin/python3", "-Ic", ASK, address, str(size)]
    return container.run(argv).stdout == f"{size}\n"


def change_record(world: bench.World, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what is written down of the uplink."""
    path = world.path(f"{world.state_dir}/default/uplink.json")
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("uplink", ["pasta", "slirp4netns"])
def test_links_carry_what_the_uplink_does(session: bench.Session, uplink: str) -> None:
    """Every link of a bridge has the MTU of the tap, and large packets get through to anywhere."""
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    other = Runtime(session, name="other", delegate=bridge("10.90.0.0/24", name="cni1"))
    with session.container() as first, session.container() as second, session.container() as far:
        runtime.add("first", first)
        (beside,) = ips(runtime.add("second", second))
        (beyond,) = ips(other.add("far", far))

        assert set(inside(session).values()) == {BIG}
        assert mtu(first) == mtu(far) == BIG
        assert page(first, bench.PAGE_BEYOND)
        for place, address in ((second, beside), (far, beyond)):
            with echo(place):
                assert is_echoed(first, address, 2000)
                assert is_echoed(first, address, 65000)


@pytest.mark.parametrize("uplink", ["pasta", "slirp4netns"])
def test_large_packets_of_udp_reach_the_outside(
    world: bench.World, session: bench.Session, uplink: str
) -> None:
    """A packet that is larger than the host's link gets through, in parts, and its answer too."""
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    with echo(world.internet), session.container() as container:
        runtime.add("c", container)

        assert is_echoed(container, bench.PAGE, 2000)


@pytest.mark.parametrize(
    ("keys", "entry", "expected"),
    [
        ({}, {}, BIG),
        ({"mtu": "uplink"}, {}, BIG),
        ({"mtu": 9000}, {}, 9000),
        ({"mtu": False}, {}, 1500),
        ({}, {"mtu": 1400}, 1400),
        ({"mtu": 9000}, {"mtu": 1400}, 1400),
        ({}, {"mtu": 0}, 1500),
        ({"uplink": "none"}, {}, 1500),
        ({"uplink": "none", "mtu": 9000}, {}, 9000),
        ({"uplink": {"driver": "pasta", "options": ["-m", "1400"]}}, {}, 1400),
        ({"uplink": {"driver": "pasta", "options": ["--mtu=4000"]}}, {}, 4000),
        ({"uplink": {"driver": "slirp4netns", "options": ["--mtu=1400"]}}, {}, 1400),
        ({"uplink": {"driver": "slirp4netns", "options": ["-m", "4000"]}}, {}, 4000),
    ],
)
def test_what_decides(
    session: bench.Session,
    keys: dict[str, Any] | dict[str, bool] | dict[str, int] | dict[str, str],
    entry: dict[str, int],
    expected: int,
) -> None:
    """The network itself, then the key of the shim, then the tap as it is, decide."""
    runtime = Runtime(session, delegate={**bridge(), **entry}, **keys)
    with session.container() as container:
        runtime.add("c", container)

        assert mtu(container) == inside(session)["cni0"] == expected


def test_ptp(session: bench.Session) -> None:
    """Both ends of a link of ptp have the MTU of the uplink."""
    runtime = Runtime(session, delegate=PTP)
    with session.container() as container:
        runtime.add("c", container)

        assert mtu(container) == BIG
        assert set(inside(session).values()) == {BIG}


def test_plugins_that_take_the_mtu_of_their_master(session: bench.Session) -> None:
    """A macvlan works on a link of 1500 bytes, which allows it no more."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.91.0.0/24"}]]}
    small = Runtime(session, delegate={**bridge(), "mtu": 1500})
    runtime = Runtime(
        session, name="on", delegate={"type": "macvlan", "master": "cni0", "ipam": ipam}
    )
    with session.container() as first, session.container() as second:
        small.add("first", first)
        runtime.add("second", second)

        assert mtu(second) == 1500


def test_in_a_chain_only_one_is_given_it(world: bench.World, session: bench.Session) -> None:
    """Only the plugin that knows the key gets it, and the same for ADD, CHECK, GC and DEL."""
    path = "/opt/bench/fakes"
    directory = world.path(path)
    directory.mkdir()
    directory.chmod(0o777)
    try:
        for name in ("bridge", "portmap"):
            fakes.strict_plugin(directory, name)
        plugins = [{"type": "bridge"}, {"type": "portmap"}]
        runtime = Runtime(session, path=path, plugins=plugins, uplink="pasta")
        runtime.conf["cniVersion"] = "1.1.0"
        with session.container() as container:
            result = runtime.add("c", container)
            runtime.succeed("CHECK", "c", container.netns, conf={"prevResult": result})
            # The record of another uplink by now.
            change_record(world, lambda record: record.update(mtu=1400))
            runtime.delete("c", container)
        calls = [call for call in fakes.calls(directory) if call.verb != "VERSION"]
    finally:
        shutil.rmtree(directory)
    found = [(call.verb, call.name, call.conf.get("mtu")) for call in calls]
    assert found == [
        ("ADD", "bridge", BIG),
        ("ADD", "portmap", None),
        ("CHECK", "bridge", BIG),
        ("CHECK", "portmap", None),
        ("DEL", "portmap", None),
        ("DEL", "bridge", BIG),
    ]


def test_a_netns_of_before_stays_as_it_is(world: bench.World, session: bench.Session) -> None:
    """One whose record says nothing has small links until it is made again, also if refreshed.

    A bridge has the MTU of its smallest port, and loses larger packets on their way to that.
    """
    runtime = Runtime(session, delegate={**bridge(), "mtu": 1500})
    later = Runtime(session, delegate=bridge())
    with session.container() as first, session.container() as second, session.container() as third:
        runtime.add("first", first)
        change_record(world, lambda record: record.pop("mtu"))

        later.add("second", second)
        session.run([PLUGIN, "refresh"], check=True)
        later.add("third", third)

        assert mtu(second) == mtu(third) == 1500
        for name, container in (("first", first), ("second", second), ("third", third)):
            later.delete(name, container)
        later.add("third", third)
        assert mtu(third) == BIG


def test_in_place_nothing_is_changed(session: bench.Session) -> None:
    """In the netns of the caller, plugins get the configuration as it was written."""
    runtime = Runtime(session, delegate=bridge(), stateDir="/run/netns/state", mtu=9000)
    with session.container() as outer, session.container() as container:
        runtime.place = outer
        runtime.add("c", container)

        assert mtu(container) == mtu(outer, "cni0") == 1500


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("options", "expected"), [({}, BIG), ({"isolate": "true"}, BIG), ({"mtu": "1400"}, 1400)]
)
def test_bridge_of_netavark(
    session: bench.Session,
    netavark: dict[str, str],
    release: str,
    options: dict[str, str],
    expected: int,
) -> None:
    """netavark's bridge is given the option, unless the network has one, whatever else it has."""
    path = f"{netavark[release]}/netavark"
    entry = {"driver": "bridge", "path": path, "network_interface": "nv0", "options": options}
    runtime = Runtime(session, delegate={**entry, "subnets": [{"subnet": SUBNET}]})
    with session.container() as container:
        runtime.add("c", container)

        assert mtu(container) == inside(session)["nv0"] == expected
        runtime.delete("c", container)


def test_status_shows_it(session: bench.Session) -> None:
    """`status` shows the MTU of the uplink and of each bridge that has a port."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container:
        runtime.add("c", container)

        (found,) = runtime.status()
        drawn = session.run([PLUGIN, "status"], check=True).stdout

    assert found["uplink"]["mtu"] == BIG
    assert {link["mtu"] for link in found["links"]} == {BIG}
    assert f"bridge cni0  10.89.0.1/24  MTU {BIG}\n" in drawn


def test_doctor_compares(session: bench.Session) -> None:
    """A bridge whose network makes it smaller than the uplink is a warning that names it."""
    assert ask(session)["MTU"]["result"] == "skipped"
    small = Runtime(session, name="small", delegate={**bridge("10.90.0.0/24"), "mtu": 1500})
    large = Runtime(session, delegate=bridge(name="cni1"))
    with session.container() as first, session.container() as second:
        large.add("first", first)
        alone = ask(session)["MTU"]
        small.add("second", second)
        both = ask(session)["MTU"]

    assert alone["result"] == "ok"
    assert both["result"] == "warning"
    why = f"default: the bridge cni0 has an MTU of 1500 bytes, its uplink of {BIG}"
    assert both["details"] == [why]

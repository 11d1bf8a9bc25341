# SPDX-License-Identifier: Apache-2.0
"""Whether an uplink works is found out by asking it, without the outside."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import bench
import ports
import pytest
from diagnosis import ask
from runtime import PLUGIN, Runtime, bridge, page, until

from netns_shim import errors, hostnet
from netns_shim.proc import start_time
from netns_shim.records import UplinkRecord
from netns_shim.shared import health

DRIVERS = ("pasta", "slirp4netns")
IPV6 = "fd00:89::/64"
# A pasta that has made its interface, and then does nothing.
DEAF = """#!/usr/bin/python3
import ctypes, fcntl, os, struct, subprocess, sys, time
told = dict(zip(sys.argv, sys.argv[1:]))
netns = os.open(told["--netns"], os.O_RDONLY)
assert ctypes.CDLL(None).setns(netns, 0x40000000) == 0
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"eth0", 0x1002))
for command in ("address add 198.51.100.2/24 dev eth0", "link set eth0 up",
                "route add default via 198.51.100.1"):
    subprocess.run(["ip", *command.split()], check=True)
with open(told["--pid"], "w") as file:
    file.write(str(os.getpid()))
while True:
    time.sleep(1000)
"""


def stop(runtime: Runtime) -> int:
    """Stop the uplink; give its process ID."""
    pid: int = runtime.status()[0]["uplink"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    return pid


def check_fails(runtime: Runtime, container: bench.Container) -> str:
    """Call CHECK, which has to say that the uplink does not work; give its details."""
    error = runtime.fail("CHECK", "c", container.netns)
    assert error["code"] == errors.UPLINK_FAILED
    assert "does not work" in error["msg"]
    assert "`netns-shim refresh --netns default` starts it again" in error["details"]
    return str(error["details"])


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_uplink_that_is_stopped(
    world: bench.World, session: bench.Session, driver: str
) -> None:
    """CHECK, STATUS and `doctor` notice it, and say what to do; `refresh` mends it, at once."""
    runtime = Runtime(session, delegate=bridge(), uplink=driver, cniVersion="1.1.0")
    with session.container() as container:
        runtime.add("c", container)
        runtime.succeed("CHECK", "c", container.netns)
        runtime.succeed("STATUS")
        healthy = ask(session)["uplinks"]
        pid = stop(runtime)

        began = time.monotonic()
        assert f"the process {pid} is stopped" in check_fails(runtime, container)
        noticed = time.monotonic()
        assert runtime.fail("STATUS")["code"] == errors.LIMITED_CONNECTIVITY
        found = ask(session)["uplinks"]
        (seen,) = runtime.status()
        renewed = time.monotonic()
        session.run([PLUGIN, "refresh"], check=True)
        mended = time.monotonic()

        assert start_time(pid) == 0
        # Less than what a process has that heeds no SIGTERM: five seconds.
        assert mended - renewed < 5
        assert noticed - began < 5
        assert healthy["result"] == "ok"
        assert found["result"] == "problem"
        assert f"the process {pid} is stopped" in found["message"]
        assert found["advice"] == "netns-shim refresh --netns default"
        assert seen["uplink"]["problems"] == [f"the process {pid} is stopped"]
        assert runtime.status()[0]["uplink"]["problems"] == []
        runtime.succeed("CHECK", "c", container.netns)
        assert page(container, bench.PAGE_BEYOND)
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_add_beside_a_stopped_uplink(
    world: bench.World, session: bench.Session, driver: str
) -> None:
    """It succeeds, as containers reach each other, and warns that nothing leads out."""
    runtime = Runtime(session, delegate=bridge(), uplink=driver)
    with session.container() as container, session.container() as other:
        runtime.add("c", container)
        pid = stop(runtime)

        done = runtime.call("ADD", "d", other.netns)

        assert done.returncode == 0, done.stdout
        assert f"the process {pid} is stopped: `netns-shim refresh" in done.stderr
        session.run([PLUGIN, "refresh"], check=True)
        assert runtime.call("ADD", "d", other.netns, CNI_IFNAME="eth1").stderr == ""
        runtime.delete("d", other, CNI_IFNAME="eth1")
        runtime.delete("d", other)
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_publisher_that_is_stopped(
    world: bench.World, session: bench.Session, driver: str
) -> None:
    """Its ports are not open, though the kernel takes clients; `refresh` opens them again."""
    runtime = ports.runtime(session, uplink=driver)
    conf = ports.publishing(ports.mapping(8080))

    def state() -> str:
        return str(runtime.status()[0]["references"][0]["ports"][0]["state"])

    with session.container() as container, ports.answering(world, container):
        runtime.add("c", container, conf=conf)
        before = state()
        publisher: int = runtime.status()[0]["references"][0]["publisher"]["pid"]
        os.kill(publisher, signal.SIGSTOP)

        assert (before, state()) == ("open", "closed")
        session.run([PLUGIN, "refresh"], check=True)

        assert state() == "open"
        assert ports.ask(world.internet, bench.HOST, 8080) == bench.PAGE
        runtime.delete("c", container, conf=conf)
    assert world.leftovers() == []


def test_an_uplink_that_does_nothing(world: bench.World, session: bench.Session) -> None:
    """One that runs and reads nothing is noticed as well; another program takes its place."""
    program = f"{world.env['HOME']}/pasta"
    session.run(["sh", "-c", 'cat >"$0"; chmod +x "$0"', program], input=DEAF, check=True)
    uplink = {"driver": "pasta", "path": program}
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    with session.container() as container:
        runtime.add("c", container)

        assert "does not answer" in check_fails(runtime, container)

        session.run(["ln", "-sf", "/usr/bin/pasta", program], check=True)
        session.run([PLUGIN, "refresh"], check=True)
        runtime.succeed("CHECK", "c", container.netns)
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize(
    "options",
    [["-4"], ["-6"], ["-6", "--no-ndp"], ["--no-ndp"], ["-6", "--no-icmp"], ["--no-icmp"]],
    ids=" ".join,
)
def test_options_of_the_user(
    world: bench.World, session: bench.Session, options: list[str]
) -> None:
    """With one family only, or without its answers, a healthy uplink is healthy, a stopped not."""
    uplink = {"driver": "pasta", "options": options}
    subnet = IPV6 if "-6" in options else "10.89.0.0/24"
    runtime = Runtime(session, delegate=bridge(subnet), uplink=uplink)
    with session.container() as container:
        runtime.add("c", container)
        runtime.succeed("CHECK", "c", container.netns)
        pid = stop(runtime)

        assert f"the process {pid} is stopped" in check_fails(runtime, container)

        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_host_that_is_offline(world: bench.World, session: bench.Session, driver: str) -> None:
    """An uplink is healthy while the host has no network: it answers by itself."""
    runtime = Runtime(session, delegate=bridge(), uplink=driver)
    with session.container() as container:
        runtime.add("c", container)
        world.root.run(["ip", "link", "set", "eth0", "down"], check=True)
        try:
            runtime.succeed("CHECK", "c", container.netns)
            assert ask(session)["uplinks"]["result"] == "ok"
        finally:
            world.replug()
            world.settle()
        runtime.delete("c", container)
    assert world.leftovers() == []


CHANGES: dict[str, tuple[list[str], str]] = {
    "no route": (["route", "del", "default"], "has lost its default route of IPv4"),
    "no IPv6 route": (["-6", "route", "del", "default"], "has lost its default route of IPv6"),
    "interface down": (["link", "set", "{interface}", "down"], "is down or gone"),
}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", CHANGES)
def test_what_the_uplink_made_is_changed(
    world: bench.World, session: bench.Session, driver: str, name: str
) -> None:
    """CHECK and `doctor` notice a route that is gone, and an interface that is down."""
    runtime = Runtime(session, delegate=bridge(), uplink=driver)
    change, text = CHANGES[name]
    with session.container() as container:
        runtime.add("c", container)
        interface = runtime.status()[0]["uplink"]["interface"]
        command: list[Any] = [word.format(interface=interface) for word in change]
        session.run([PLUGIN, "run", "--", "ip", *command], check=True)

        assert text in check_fails(runtime, container)
        assert text in ask(session)["uplinks"]["message"]

        session.run([PLUGIN, "refresh"], check=True)
        runtime.succeed("CHECK", "c", container.netns)
        assert page(container, bench.PAGE_BEYOND)
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.usefixtures("session")
def test_a_user_without_capabilities(world: bench.World) -> None:
    """`doctor` looks into the user's own namespace by itself."""
    with world.unshared() as place, place.container() as container:
        runtime = Runtime(place, delegate=bridge(), uplink="pasta")
        runtime.add("c", container)

        healthy = ask(world)["uplinks"]
        stop(runtime)
        found = ask(world)["uplinks"]

        assert healthy["result"] == "ok"
        assert found["result"] == "problem"
        runtime.delete("c", container)
    assert until(lambda: world.leftovers() == [])  # with the last process of `unshare`


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"addresses": ["192.0.2.1"]}, [6]),
        ({"addresses": ["2001:db8::1"]}, [4]),
        ({"addresses": ["192.0.2.1", "2001:db8::1"]}, []),
        ({"addresses": ["192.0.2.1"], "wanted": {"options": ["-4"]}}, []),
        ({"addresses": ["192.0.2.1"], "driver": "slirp4netns"}, []),
        ({"addresses": [], "pid": None, "pending": "no interface"}, []),
    ],
    ids=["IPv6", "IPv4", "nothing", "an option", "slirp4netns", "waiting"],
)
def test_lacks(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], expected: list[int]
) -> None:
    """A netns lacks a family that the host has a default route of, unless that was wanted."""
    there = ["00000000/00000000 016433C6 eth0", f"::/0 {'0' * 31}1 eth0"]
    monkeypatch.setattr(hostnet, "routes", lambda: there)
    record = UplinkRecord({"driver": "pasta", "pid": 1, **fields})

    assert health.lacks(record) == expected
    monkeypatch.setattr(hostnet, "routes", list)
    assert health.lacks(record) == []

# SPDX-License-Identifier: Apache-2.0
"""The host's network changes, and containers go on: see roaming.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import bench
import ports
import pytest
import roaming
from roaming import CHANGES, Change
from runtime import DUAL, PLUGIN, Runtime, bridge, page, until

pytestmark = pytest.mark.netns

# It connects, and goes on when it is told to.
OPEN = """
import socket, sys
with socket.create_connection((sys.argv[1], 80), timeout=10) as client:
    print("open", flush=True)
    sys.stdin.readline()
    client.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    while data := client.recv(4096):
        sys.stdout.write(data.decode())
"""
# It prints how a connection to each of its arguments ends, and whether that took a second.
KNOCK = """
import socket, sys, time
for address in sys.argv[1:]:
    begin = time.monotonic()
    try:
        socket.create_connection((address, 8000), timeout=5).close()
        said = "open"
    except OSError as error:
        said = error.strerror or str(error)
    print(said, "late" if time.monotonic() - begin > 1 else "at once")
"""
SERVER = """
import socket
server = socket.create_server(("", 8000))
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""
ADDRESSES = """
import socket
for *_, address in socket.getaddrinfo("www.example.test", 80, type=socket.SOCK_STREAM):
    print(address[0])
"""
MAPPED = "169.254.1.2"
# How long it may take until that leads to another address of the host, in seconds.
SECONDS = 15
REFUSED = "Connection refused at once"


@pytest.fixture
def networks(world: bench.World, session: bench.Session) -> Iterator[None]:
    """The further interfaces of the machine, and all as it was afterwards."""
    with roaming.networks(world):
        yield


@pytest.fixture
def runtime(session: bench.Session) -> Runtime:
    """A runtime with a network of both families."""
    return Runtime(session, delegate=bridge(*DUAL))


@pytest.mark.parametrize("change", CHANGES, ids=[change.name for change in CHANGES])
def test_change(
    world: bench.World, session: bench.Session, networks: None, runtime: Runtime, change: Change
) -> None:
    """New connections work at once, open ones if the host's do, and the next ADD has no doubts."""
    target = bench.PAGE6 if change.ipv6 else bench.PAGE_BEYOND
    if change.before:
        roaming.root(world, change.before)
    with session.container() as container, ExitStack() as undo:
        runtime.add("c", container)
        if change.keeps:
            client = undo.enter_context(
                container.popen(["python3", "-c", OPEN, target], stdin=-1, stdout=-1)
            )
            assert client.stdout.readline() == "open\n"
        pid = runtime.status()[0]["uplink"]["pid"]
        if change.suspends:
            os.kill(pid, signal.SIGSTOP)
        roaming.happen(world, change)
        if change.suspends:
            os.kill(pid, signal.SIGCONT)
        found = page(container, target)
        kept = client.communicate("\n")[0] if change.keeps else ""
        shown = runtime.status()[0]["uplink"]
        done = runtime.call("ADD", "new", container.netns, CNI_IFNAME="eth1")
        runtime.delete("new", container, CNI_IFNAME="eth1")
        runtime.delete("c", container)

    assert "hello from the internet" in found
    assert "hello from the internet" in kept or not change.keeps
    assert shown["pid"] == pid
    assert done.returncode == 0, done.stdout
    if "resolv.conf" not in change.name:
        assert shown["changes"] == []
        # pasta of 2023 finds no interface for IPv6 then, so that is said once it is missed.
        usage = world.run(["pasta", "--help"])
        is_old = "--map-guest-addr" not in usage.stdout + usage.stderr
        lacks_ipv6 = is_old and change.before == roaming.NO_NETWORK
        assert ("pasta gave none" in done.stderr) == lacks_ipv6
        assert done.stderr == "" or lacks_ipv6
    assert roaming.leftovers(world) == []


def test_the_host_stays_where_it_is(
    world: bench.World, session: bench.Session, networks: None, runtime: Runtime
) -> None:
    """The host is at its own addresses, and at one that leads there again without a call.

    So it is when the host has been without an address meanwhile.
    """
    with (
        session.container() as container,
        world.root.popen(["python3", "-c", SERVER], stdout=-1) as server,
    ):
        server.stdout.readline()
        runtime.add("c", container)
        here = knock(container, MAPPED, bench.HOST)
        roaming.root(world, roaming.CARRIED)
        there = knock(container, "192.0.2.130")
        is_back = until(lambda: knock(container, MAPPED) == ["open at once"], SECONDS)
        roaming.root(world, roaming.NO_NETWORK)
        is_gone = until(lambda: knock(container, MAPPED) != ["open at once"], SECONDS)
        roaming.root(world, roaming.SETTLE)
        is_back_again = until(lambda: knock(container, MAPPED) == ["open at once"], SECONDS)
        inside = session.run([PLUGIN, "run", "--", "python3", "-c", KNOCK, MAPPED], check=True)
        server.kill()
        runtime.delete("c", container)

    assert here == ["open at once"] * 2
    assert (is_back, is_gone, is_back_again) == (True, True, True)
    assert there == inside.stdout.splitlines() == ["open at once"]
    assert roaming.leftovers(world) == []


def test_a_host_without_ipv6(
    world: bench.World, session: bench.Session, networks: None, runtime: Runtime
) -> None:
    """IPv6 that the host does not have is refused at once, and programs try IPv4 first."""
    roaming.root(world, f"{roaming.NO_IPV6}\necho nameserver {bench.PAGE} >/etc/resolv.conf")
    order = ["python3", "-c", ADDRESSES]
    with session.container() as container:
        runtime.add("c", container)
        nowhere = knock(container, bench.PAGE6, roaming.SERVER6)
        inside = session.run([PLUGIN, "run", "--", *order], check=True).stdout.split()
        runtime.delete("c", container)

    assert nowhere == [REFUSED, REFUSED]
    assert inside == [bench.PAGE_BEYOND, bench.PAGE6]
    assert roaming.leftovers(world) == []


def test_a_host_without_ipv4(
    world: bench.World, session: bench.Session, networks: None, runtime: Runtime
) -> None:
    """IPv4 that the host does not have is refused at once."""
    roaming.root(world, "ip -4 route del default; ip -4 address flush dev eth0")
    with session.container() as container:
        runtime.add("c", container)
        nowhere = knock(container, bench.PAGE_BEYOND)
        found = page(container, bench.PAGE6)
        runtime.delete("c", container)

    assert nowhere == [REFUSED]
    assert "hello from the internet" in found
    assert roaming.leftovers(world) == []


def test_a_port_that_is_closed(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """A connection that is refused outside is refused inside, at once."""
    with session.container() as container:
        runtime.add("c", container)
        found = knock(container, bench.PAGE, bench.HOST, MAPPED)
        runtime.delete("c", container)

    assert found == [REFUSED] * 3
    assert roaming.leftovers(world) == []


def test_ipv6_that_is_turned_off(world: bench.World, session: bench.Session) -> None:
    """Where the administrator wants no IPv6, there is none inside."""
    switch = "/proc/sys/net/ipv6/conf/all/disable_ipv6"
    runtime = Runtime(session, delegate=bridge())
    roaming.root(world, f"echo 1 >{switch}")
    try:
        with session.container() as container:
            runtime.add("c", container)
            addresses = runtime.status()[0]["addresses"]
            runtime.delete("c", container)
    finally:
        roaming.root(world, f"echo 0 >{switch}")
        world.replug()
        world.settle()

    assert addresses == ["198.19.110.114"]
    assert roaming.leftovers(world) == []


def knock(container: bench.Container, *addresses: str) -> list[str]:
    """Tell how connections from a container end."""
    return container.run(["python3", "-c", KNOCK, *addresses], check=True).stdout.splitlines()


def test_the_names_of_interfaces(world: bench.World, session: bench.Session) -> None:
    """What is called as the host's interface can be made in the shared netns."""
    entry: dict[str, Any] = bridge(name="eth0")
    runtime = Runtime(session, delegate=entry)
    with session.container() as container:
        runtime.add("c", container)
        found = page(container, bench.PAGE_BEYOND)
        runtime.delete("c", container)

    assert "hello from the internet" in found
    assert roaming.leftovers(world) == []


def test_a_port_that_is_published_without_a_network(
    world: bench.World, session: bench.Session, networks: None
) -> None:
    """It is open, and clients come in as soon as there is a network, also after the next one."""
    client = ports.runtime(session, uplink="pasta")
    conf = ports.publishing(ports.mapping(8080))
    roaming.root(world, roaming.NO_NETWORK)
    with session.container() as container, ports.answering(world, container):
        client.succeed("ADD", "web", container.netns, conf=conf)
        roaming.root(world, roaming.SETTLE)
        found = [ports.ask(world.internet, bench.HOST, 8080), ports.ask(world, bench.HOST, 8080)]
        roaming.root(world, roaming.CARRIED)
        found.append(ports.ask(world.internet, "192.0.2.130", 8080))
        client.succeed("DEL", "web", container.netns, conf=conf)

    assert found == [bench.PAGE, bench.HOST, "192.0.2.129"]
    assert roaming.leftovers(world) == []


LAN = """
ip address add 198.19.110.1/24 dev eth0
ip address add 10.0.2.15/24 dev eth0
"""


def test_a_lan_with_addresses_of_ours(
    world: bench.World, session: bench.Session, networks: None, runtime: Runtime
) -> None:
    """What has an address of the same networks as the uplink, or as QEMU gives, is reached."""
    there = ["198.19.110.116", "198.19.110.50", "10.0.2.2", "10.0.2.100"]
    add = [f"address add {address}/24 dev eth0\n" for address in there]
    world.internet.run(["ip", "-batch", "-"], input="".join(add), check=True)
    roaming.root(world, LAN)
    try:
        with session.container() as container:
            runtime.add("c", container)
            found = knock(container, *there)
            runtime.delete("c", container)
    finally:
        # The last first: without promote_secondaries, the first one takes the others along.
        delete = "".join(reversed(add)).replace(" add ", " del ")
        world.internet.run(["ip", "-batch", "-"], input=delete, check=True)

    # They have no server, and say so.
    assert found == [REFUSED] * 4
    assert roaming.leftovers(world) == []

# SPDX-License-Identifier: Apache-2.0
"""The main job, end to end: real plugins, real uplinks, an unprivileged user."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import bench
import pytest
from runtime import DUAL, Runtime, bridge, ips, page, reaches

CHAIN = [
    bridge(*DUAL),
    {"type": "portmap", "capabilities": {"portMappings": True}},
    {"type": "firewall"},
    {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}},
]
WRAPPED: dict[str, Any] = {"plugins": CHAIN, "capabilities": {"portMappings": True}}


@pytest.mark.parametrize("uplink", ["pasta", "slirp4netns"])
def test_containers_reach_each_other_and_the_outside(
    world: bench.World, session: bench.Session, uplink: str
) -> None:
    """Two containers reach each other and the internet over both families; nothing is left."""
    runtime = Runtime(session, delegate=bridge(*DUAL), uplink=uplink)
    with session.container() as first, session.container() as second:
        runtime.add("first", first)
        result = runtime.add("second", second)

        assert all(reaches(first, address) for address in ips(result))
        assert page(first, bench.PAGE_BEYOND).endswith(f"{bench.HOST}\n")
        assert page(second, bench.PAGE6).endswith(f"{bench.HOST6}\n")

        runtime.delete("first", first)
        assert page(second, bench.PAGE)
        runtime.delete("second", second)
    assert world.leftovers() == []


def test_without_an_uplink_containers_reach_each_other_only(
    world: bench.World, session: bench.Session
) -> None:
    """With `uplink: none` there is no process, and no way out."""
    runtime = Runtime(session, delegate=bridge(*DUAL), uplink="none")
    with session.container() as first, session.container() as second:
        runtime.add("first", first)
        result = runtime.add("second", second)

        assert all(reaches(first, address) for address in ips(result))
        assert page(first, bench.PAGE) == ""
        (netns,) = runtime.status()
        assert netns["uplink"].items() >= {"driver": "none", "pid": None, "alive": True}.items()

        runtime.delete("first", first)
        runtime.delete("second", second)
    assert world.leftovers() == []


def test_the_first_after_the_last_works_again(world: bench.World, session: bench.Session) -> None:
    """A netns that was destroyed is made again by the next ADD."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container:
        for _ in range(3):
            runtime.add("c", container)
            assert page(container, bench.PAGE)
            runtime.delete("c", container)
            assert world.leftovers() == []


@pytest.mark.parametrize("at_once", [1, 20], ids=["in sequence", "at once"])
def test_twenty_containers(world: bench.World, session: bench.Session, at_once: int) -> None:
    """Twenty containers with a chain of four plugins reach each other and the outside.

    Added in sequence or all at once, deleted in random order: in the end nothing is left.
    """
    runtime = Runtime(session, **WRAPPED)

    def add(name: str) -> list[str]:
        port = 8000 + int(name[1:])
        mappings = [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]
        conf = {"runtimeConfig": {"portMappings": mappings}}
        return ips(runtime.add(name, containers[name], conf=conf))

    with ExitStack() as stack, ThreadPoolExecutor(at_once) as pool:
        containers = {f"c{i}": stack.enter_context(session.container()) for i in range(20)}
        addresses = list(pool.map(add, containers))
        assert len({v4 for v4, _ in addresses}) == 20
        (netns,) = runtime.status()
        assert {r["containerID"] for r in netns["references"]} == set(containers)

        everybody = ["ping", "-c1", "-W2"]
        one, other = random.sample(list(containers.values()), 2)
        assert [v4 for v4, _ in addresses if one.run([*everybody, v4]).returncode] == []
        assert page(other, bench.PAGE_BEYOND)

        order = random.sample(list(containers), 20)
        list(pool.map(lambda name: runtime.delete(name, containers[name]), order))
    assert world.leftovers() == []


MAPPINGS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}


def check_published_port(
    runtime: Runtime, server: bench.Container, client: bench.Container
) -> None:
    """Attach two containers, have one ask the other by its published port, and detach them."""
    conf = {"runtimeConfig": MAPPINGS}
    runtime.add("server", server, conf=conf)
    gateway = runtime.add("client", client)["ips"][0]["gateway"]
    script = (
        "import socket; s = socket.create_server(('', 80)); print(flush=True); "
        "c, _ = s.accept(); c.recv(99); c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\nhere')"
    )
    listener = server.popen(["python3", "-c", script], stdout=-1, text=True)
    listener.stdout.readline()

    assert client.run(["fetch", gateway, "8080"]).stdout == "here"
    assert page(client, bench.PAGE_BEYOND).endswith(f"{bench.HOST}\n")

    runtime.delete("server", server, conf=conf)
    runtime.delete("client", client)


def test_published_port(world: bench.World, session: bench.Session) -> None:
    """A capability given to the shim reaches the plugin of the chain that has it: portmap."""
    with session.container() as server, session.container() as client:
        check_published_port(Runtime(session, **WRAPPED), server, client)
    assert world.leftovers() == []


@pytest.mark.parametrize("is_told", [True, False])
def test_nftables_only(world: bench.World, session: bench.Session, is_told: bool) -> None:
    """Plugins that can make rules with nft do so: told by their keys, or where iptables lacks."""
    versions = session.run(["/opt/cni/bin/bridge"], env={"CNI_COMMAND": "VERSION"}, input="{}")
    if "1.1.0" not in versions.stdout:
        pytest.skip("plugins of before release 1.6 know iptables only")
    first = {**bridge(*DUAL), **({"ipMasqBackend": "nftables"} if is_told else {})}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    ports |= {"backend": "nftables"} if is_told else {}
    runtime = Runtime(session, plugins=[first, ports], capabilities={"portMappings": True})
    hide = 'for name in /usr/sbin/*tables*; do mount --bind /dev/null "$name"; done'
    if not is_told:
        session.run(["sh", "-euc", hide], check=True)
    with session.container() as server, session.container() as client:
        check_published_port(runtime, server, client)
    assert world.leftovers() == []


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_every_version(world: bench.World, session: bench.Session, version: str) -> None:
    """ADD, CHECK and DEL in each version, also the one that Debian's plugins do not speak."""
    runtime = Runtime(session, delegate=bridge(*DUAL), cniVersion=version, uplink="none")
    with session.container() as container:
        result = runtime.add("c", container)

        assert result["cniVersion"] == version
        assert {ip.get("version") for ip in result["ips"]} == (
            {None} if version >= "1" else {"4", "6"}
        )
        if version >= "0.4.0":
            runtime.succeed("CHECK", "c", container.netns, conf={"prevResult": result})
        conf = {"prevResult": result} if version >= "0.4.0" else {}
        runtime.delete("c", container, conf=conf)
    assert world.leftovers() == []


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_the_oldest_versions(world: bench.World, session: bench.Session, version: str) -> None:
    """A runtime of the first versions gets a result as they had it."""
    runtime = Runtime(session, delegate=bridge(), cniVersion=version, uplink="none")
    with session.container() as container:
        result = runtime.add("c", container)

        assert result["cniVersion"] == version
        assert result["ip4"]["ip"].startswith("10.89.0.")
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize("way", ["below /proc", "pinned under /run", "through a link"])
def test_where_the_container_is(world: bench.World, session: bench.Session, way: str) -> None:
    """A CNI_NETNS keeps its path inside, wherever it is: the /run of plugins is another one."""
    runtime = Runtime(session, delegate=bridge(), uplink="none")
    pinned = "" if way == "below /proc" else "/run/netns/pinned"
    with session.container(pinned=pinned) as container:
        netns = container.netns
        if way == "through a link":
            netns = f"{world.env['HOME']}/link"
            session.run(["ln", "-s", container.netns, netns], check=True)

        result = runtime.succeed("ADD", "c", netns)

        assert result["interfaces"][-1]["sandbox"] == netns
        conf = {"prevResult": result}
        runtime.succeed("CHECK", "c", netns, conf=conf)
        runtime.succeed("DEL", "c", netns, conf=conf)
    assert world.leftovers() == []


def test_networks_side_by_side(world: bench.World, session: bench.Session) -> None:
    """Networks with netns's of their own do not meet; one container can be in several."""
    one = Runtime(session, delegate=bridge("10.1.0.0/24"), netns="one", name="one")
    two = Runtime(session, delegate=bridge("10.2.0.0/24"), netns="two", name="two", uplink="none")
    with session.container() as both, session.container() as second:
        one.add("both", both)
        two.add("both", both, CNI_IFNAME="eth1", conf={"delegate": bridge("10.2.0.0/24")})
        (address,) = ips(two.add("second", second))

        assert reaches(both, address)
        assert not reaches(second, "10.1.0.1")
        assert {n["name"]: len(n["references"]) for n in one.status()} == {"one": 1, "two": 2}

        two.delete("second", second)
        two.delete("both", both, CNI_IFNAME="eth1")
        assert [n["name"] for n in one.status()] == ["one"]
        one.delete("both", both)
    assert world.leftovers() == []

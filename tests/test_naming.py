# SPDX-License-Identifier: Apache-2.0
"""Names end to end: containers find each other, exactly as long as they are attached."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import bench
import podman
import pytest
import releases
from bench import NAME, PAGE_BEYOND
from naming import NO_SUCH_NAME, SERVER, ask, called, named
from runtime import DUAL, PLUGIN, Runtime, bridge, ips, kill, until

pytestmark = pytest.mark.netns
ID = "0123456789abcdef" * 4
PROGRAM = "/usr/lib/podman/aardvark-dns"
UPLINKS = ("pasta", "slirp4netns")
# Makes attachments like the one that is there, each with a name of its own.
POPULATE = """
import json, os, sys
refs, many = sys.argv[1], int(sys.argv[2])
(name,) = os.listdir(refs)
first = {}
for line in open(f"{refs}/{name}"):
    first |= json.loads(line)
for n in range(many):
    naming = {**first["naming"], "names": [f"c{n}"], "ips": [f"10.1.{n >> 8}.{n & 255}"]}
    with open(f"{refs}/rootless:c{n}:eth0:bridge", "w") as file:
        file.write(json.dumps({**first, "containerID": f"c{n}", "naming": naming}) + "\\n")
"""


def server_of(session: bench.Session) -> list[int]:
    """List the process IDs of the servers that run."""
    found = session.run(["pgrep", "-u", "0", "-f", "aardvark-dns.*run"]).stdout.split()
    return [int(pid) for pid in found]


def guardian_of(session: bench.Session) -> int:
    """Tell the process ID of the guardian of the server that runs."""
    argv = ["pgrep", "-u", "0", "-f", "netns-shim-guardian.*names$"]
    return int(session.run(argv, check=True).stdout)


def test_containers_find_each_other(world: bench.World, session: bench.Session) -> None:
    """By name, alias and ID, over both families, both ways, back from the address, until DEL."""
    client = named(session, *DUAL)
    aliases = {"runtimeConfig": {"aliases": ["db", "Store"]}, "capabilities": {"aliases": True}}
    with session.container() as web, session.container() as data:
        first = client.add("web1", web, **called("web"))
        second = client.add(ID, data, conf=aliases, **called("data"))
        four, six = ips(second)
        asked = {
            name: (ask(web, name), ask(web, name, kind="AAAA"))
            for name in ("data", "db", "store", ID[:12], "data.dns.podman")
        }
        back = ask(data, "web"), ask(data, "web1", "fd00:89::1")
        reverse = [ask(web, address, kind="PTR").split() for address in (four, six)]
        client.delete(ID, data, conf=aliases, **called("data"))
        afterwards = ask(web, "data")
        client.delete("web1", web, **called("web"))

    assert first["dns"] == {"nameservers": [SERVER, "fd00:89::1"], "search": ["dns.podman"]}
    assert asked == dict.fromkeys(asked, (four, six))
    assert back == (ips(first)[0], ips(first)[0])
    assert [set(names) for names in reverse] == [{"data", "db", "store", ID[:12]}] * 2
    assert afterwards == NO_SUCH_NAME
    assert world.leftovers() == []


@pytest.mark.parametrize("uplink", UPLINKS)
def test_other_names(session: bench.Session, uplink: str) -> None:
    """The server asks the uplink's about other names, and knows the host where it is reached."""
    client = named(session, uplink=uplink)
    with session.container() as web:
        answer = client.add("web", web)
        outside, host = ask(web, NAME), ask(web, "host.containers.internal")
        client.delete("web", web)

    assert answer["dns"]["nameservers"] == [SERVER]
    assert outside == PAGE_BEYOND
    assert host == ("169.254.1.2" if uplink == "pasta" else NO_SUCH_NAME)


def test_isolated_network(session: bench.Session) -> None:
    """Without an uplink, other names do not exist, and the answer comes at once."""
    client = named(session)
    with session.container() as web:
        client.add("web", web)

        assert ask(web, "web") != NO_SUCH_NAME
        assert ask(web, NAME) == NO_SUCH_NAME

        client.delete("web", web)


def side_by_side(
    session: bench.Session, stack: ExitStack, one: Runtime, two: Runtime
) -> tuple[list[bench.Container], str, str]:
    """Attach `left` to one network, `right` to two, and `middle` to both.

    Give the three, and the addresses of the first and of the last.
    """
    left, middle, right = (stack.enter_context(session.container()) for _ in range(3))
    at_left = ips(one.add("left", left))[0]
    one.add("middle", middle)
    two.add("middle", middle, CNI_IFNAME="eth1")
    at_right = ips(two.add("right", right))[0]
    return [left, middle, right], at_left, at_right


def test_two_networks(world: bench.World, session: bench.Session) -> None:
    """A container in both finds the names of both; one in each does not find the other's."""
    one = named(session, name="one")
    two = named(session, "10.90.0.0/24", name="two", bridge_name="cni1")
    with ExitStack() as stack:
        (left, middle, right), at_left, at_right = side_by_side(session, stack, one, two)
        of_both = [
            ask(middle, name, at) for name in ("left", "right") for at in (SERVER, "10.90.0.1")
        ]
        of_one = (
            ask(left, "right"),
            ask(right, "left", "10.90.0.1"),
        )
        two.delete("middle", middle, CNI_IFNAME="eth1")
        after = ask(middle, "right")
        for client, name, container in ((one, "left", left), (one, "middle", middle)):
            client.delete(name, container)
        two.delete("right", right)

    assert of_both == [at_left, at_left, at_right, at_right]
    assert of_one == (NO_SUCH_NAME,) * 2
    assert after == NO_SUCH_NAME
    assert world.leftovers() == []


@pytest.mark.parametrize("release", [*releases.RELEASES])
def test_netavarks_bridge(
    world: bench.World, session: bench.Session, netavark: dict[str, str], release: str
) -> None:
    """With the key `names` it is a network like any other: the same server, behind the same wall.

    A container in it and in a network of a CNI plugin finds the names of both.
    """
    delegate = {**DRIVER, "dns_enabled": False, "network_interface": "nv0"}
    delegate["path"] = f"{netavark[release]}/netavark"
    one = named(session, name="one", delegate=delegate)
    two = named(session, "10.90.0.0/24", name="two", bridge_name="cni1")
    with ExitStack() as stack:
        (left, middle, right), at_left, at_right = side_by_side(session, stack, one, two)
        of_both = [
            ask(middle, name, at) for name in ("left", "right") for at in (SERVER, "10.90.0.1")
        ]
        of_one = ask(left, "right"), ask(right, "left"), ask(left, "right", "10.90.0.1")
        servers = server_of(session)
        two.delete("middle", middle, CNI_IFNAME="eth1")
        for client, name, container in ((one, "left", left), (one, "middle", middle)):
            client.delete(name, container)
        two.delete("right", right)

    assert of_both == [at_left, at_left, at_right, at_right]
    assert of_one == (NO_SUCH_NAME, "silent", "silent")
    assert len(servers) == 1
    assert world.leftovers() == []


@pytest.mark.parametrize("names", [True, False])
def test_the_server_of_another_network(
    world: bench.World, session: bench.Session, names: bool
) -> None:
    """It does not answer, over either family, whether or not the own network has names."""
    one = named(session, *DUAL, name="one")
    subnets = "10.90.0.0/24", "fd00:90::/64"
    two = named(session, *subnets, name="two", bridge_name="cni1", names=names)
    with session.container() as left, session.container() as right:
        at_left = ips(one.add("left", left))[0]
        two.add("right", right)
        servers = SERVER, "fd00:89::1"
        before = [ask(right, "left", server) for server in servers]
        own = [ask(left, "left", server) for server in servers]
        ping = right.run(["ping", "-c1", "-W5", SERVER]).returncode
        two.delete("right", right)
        one.delete("left", left)

    assert before == ["silent", "silent"]
    assert own == [at_left, at_left]
    assert ping == 0
    assert world.leftovers() == []


def test_walls_go_with_the_names(session: bench.Session) -> None:
    """The rules of names leave the netns with the last name; a call makes them again before."""
    client = named(session)
    plain = named(session, "10.90.0.0/24", name="two", bridge_name="cni1", names=False)

    def tables() -> bool:
        listed = session.run([PLUGIN, "run", "--", "nft", "list", "tables"], check=True).stdout
        return "netns-shim-walls" in listed

    with ExitStack() as stack:
        web, more, other = (stack.enter_context(session.container()) for _ in range(3))
        plain.add("other", other)
        client.add("web", web)
        there = tables()
        session.run([PLUGIN, "run", "--", "nft", "flush", "ruleset"], check=True)
        client.add("more", more)
        again = tables()
        client.delete("more", more)
        client.delete("web", web)
        gone = not tables()
        plain.delete("other", other)

    assert (there, again, gone) == (True, True, True)


def test_id_of_an_entry_of_ours(session: bench.Session) -> None:
    """No ID makes a container a member of all networks."""
    one = named(session, name="one")
    two = named(session, "10.90.0.0/24", name="two", bridge_name="cni1")
    with session.container() as left, session.container() as right:
        one.add("left", left)
        two.add("netns-shim", right)
        found = ask(right, "left", "10.90.0.1")
        two.delete("netns-shim", right)
        one.delete("left", left)

    assert found == NO_SUCH_NAME


def test_a_killed_server(world: bench.World, session: bench.Session) -> None:
    """It comes back by itself, and by the next call where its guardian was killed as well."""
    client = named(session)
    with session.container() as web, session.container() as data:
        address = ips(client.add("web", web))[0]
        (first,) = server_of(session)
        kill(first)
        came_back = until(lambda: ask(web, "web") == address)
        (second,) = server_of(session)
        guardian = guardian_of(session)
        kill(guardian)
        kill(second)
        client.add("data", data)
        (third,) = server_of(session)
        answer = ask(data, "web")
        client.delete("data", data)
        client.delete("web", web)

    assert came_back
    assert len({first, second, third}) == 3
    assert answer == address
    assert world.leftovers() == []


@pytest.mark.parametrize("verb", ["ADD", "DEL", "refresh"])
def test_a_server_that_hangs(world: bench.World, session: bench.Session, verb: str) -> None:
    """The next call starts another one in its place, which has all names; so does `refresh`."""
    client = named(session)
    with session.container() as web, session.container() as data, session.container() as more:
        address = ips(client.add("web", web))[0]
        client.add("data", data)
        (first,) = server_of(session)
        os.kill(first, signal.SIGSTOP)
        check = client.fail("CHECK", "web", web.netns)
        if verb == "ADD":
            client.add("more", more)
        elif verb == "DEL":
            client.delete("data", data)
        else:
            session.run([PLUGIN, "refresh"], check=True)
        servers = server_of(session)
        found = ask(web, "web"), ask(web, "data" if verb == "DEL" else "nobody")
        guarded = until(lambda: client.status()[0]["names"]["guardian"])
        for name, container in (("more", more), ("data", data), ("web", web)):
            client.delete(name, container)

    assert check["code"] == 107
    assert len(servers) == 1
    assert servers != [first]
    assert found == (address, NO_SUCH_NAME)
    assert guarded
    assert world.leftovers() == []


WRONG = ("not.an.address", "fe80::1%eth0", "192.0.2.1:53")


def test_servers_that_cannot_be_asked(session: bench.Session) -> None:
    """What a plugin's result names as a server, and is none, does not end the server of names."""
    dns = {"nameservers": [*WRONG, "", "2001:db8::1"]}
    client = named(session, delegate={**bridge(), "dns": dns})
    with session.container() as web, session.container() as data:
        client.add("web", web)
        done = client.call("ADD", "data", data.netns)
        assert done.returncode == 0, done.stdout
        found = ask(web, "data")
        client.delete("data", data)
        client.delete("web", web)

    assert found == ips(json.loads(done.stdout))[0]
    assert f"cannot ask these about other names: {', '.join(WRONG)}\n" in done.stderr


@pytest.mark.parametrize("way", ["type", "driver"])
def test_networks_of_podman(world: bench.World, session: bench.Session, way: str) -> None:
    """A network with `dns_enabled` has names; the StatusBlock says whom to ask."""
    client = podman.Netavark(session)
    options = {way: "bridge", "uplink": "none"}
    wanted = {**podman.network("10.89.0.0/24", **options), "dns_enabled": True}
    made = client.succeed("create", **wanted)
    with session.container() as web, session.container() as data:
        asked = [
            podman.request(made, "web", "10.89.0.2", aliases=["shop"]),
            podman.request(made, "data", "10.89.0.3"),
        ]
        status = client.succeed("setup", web.netns, **asked[0])
        client.setup(data, **asked[1])
        found = ask(data, "name-of-web"), ask(data, "shop"), ask(web, "name-of-data")
        for container, request in zip((web, data), asked, strict=True):
            client.teardown(container, **request)

    assert made["dns_enabled"] is True
    assert status["dns_server_ips"] == [SERVER]
    assert status["dns_search_domains"] == ["dns.podman"]
    assert found == ("10.89.0.2", "10.89.0.2", "10.89.0.3")
    assert world.leftovers() == []


def test_in_place(world: bench.World, session: bench.Session) -> None:
    """Where plugins work already, as in Podman's rootless netns, each such netns has a server.

    It comes back as it does in a shared netns.
    """
    with ExitStack() as stack:
        one, other, web, data = (stack.enter_context(session.container()) for _ in range(4))
        first, second = named(one), named(other)
        address = ips(first.add("web", web))[0]
        second.add("data", data)
        servers = server_of(session)
        found = ask(web, "web"), ask(web, "data.dns.podman"), ask(one, "web")
        kill(servers[0])
        came_back = until(lambda: ask(web, "web") == address)
        guardians = session.run(["pgrep", "-f", "netns-shim-guardian.*names$"], check=True).stdout
        for pid in (*map(int, guardians.split()), *server_of(session)):
            kill(pid)
        with session.container() as more:
            first.add("more", more)
            again = ask(more, "web")
            first.delete("more", more)
        first.delete("web", web)
        second.delete("data", data)
        after = server_of(session)

    assert len(servers) == 2
    assert found == (address, NO_SUCH_NAME, address)
    assert came_back
    assert again == address
    assert after == []
    assert [line for line in world.leftovers() if "names" in line] == []


NOWHERE = {"isGateway": False, "ipMasq": False}


@pytest.mark.parametrize("keys", [NOWHERE, {**NOWHERE, "ipam": {}}])
def test_no_gateway(world: bench.World, session: bench.Session, keys: dict[str, object]) -> None:
    """Where no server can listen, the ADD says so, and leaves nothing."""
    client = named(session, delegate={**bridge(), **keys})
    with session.container() as web:
        error = client.fail("ADD", "web", web.netns)

    assert error["code"] == 107
    assert "no server can listen for the network 'rootless'" in error["msg"]
    assert "isGateway" in error["details"]
    assert world.leftovers() == []


DRIVER = {
    "driver": "bridge",
    "dns_enabled": True,
    "network_interface": "cni0",
    "subnets": [{"subnet": "10.89.0.0/24"}],
}


HOLDER = """
import socket, sys
holder = socket.socket(socket.AF_INET, getattr(socket, sys.argv[1]))
holder.bind(("10.89.0.1", 53))
if sys.argv[1] == "SOCK_STREAM":
    holder.listen()
print(flush=True)
input()
"""


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_STREAM"])
def test_the_port_of_another_program(session: bench.Session, kind: str) -> None:
    """Where another program has the port of the server, the ADD says so; later it succeeds."""
    client = named(session)
    with session.container() as first, session.container() as web:
        client.add("first", first, conf={"names": False})
        run = [PLUGIN, "run", "--", "python3", "-c", HOLDER, kind]
        with session.popen(run, stdin=-1, stdout=-1, text=True) as holder:
            holder.stdout.readline()
            error = client.fail("ADD", "web", web.netns)
            holder.communicate("\n")
        client.add("web", web)
        found = ask(web, "web")
        client.delete("web", web)
        client.delete("first", first)

    assert (error["code"], error["msg"]) == (
        107,
        "names: another program has port 53 of 10.89.0.1",
    )
    assert found != NO_SUCH_NAME


def test_a_container_with_the_port(session: bench.Session) -> None:
    """A container that publishes port 53, as a name server does, gets no questions of others."""
    mappings = {"portMappings": [{"hostPort": 53, "containerPort": 53, "protocol": "udp"}]}
    takes = {"portMappings": True}
    plugins = [bridge(), {"type": "portmap", "capabilities": takes}]
    client = Runtime(
        session, plugins=plugins, uplink="none", names=True, publish=False, capabilities=takes
    )
    with session.container() as web, session.container() as pihole, session.container() as more:
        address = ips(client.add("web", web))[0]
        client.add("pihole", pihole, conf={"runtimeConfig": mappings})
        client.add("more", more)
        found = ask(web, "web"), ask(more, "web"), ask(pihole, "nobody")
        for name, container in (("more", more), ("pihole", pihole), ("web", web)):
            client.delete(name, container)

    assert found == (address, address, NO_SUCH_NAME)


@pytest.mark.parametrize("removed", ["*/conf/aardvark.pid", "*"])
def test_files_that_were_removed(world: bench.World, session: bench.Session, removed: str) -> None:
    """A server of which no file tells is found, by the next ADD and by the last DEL."""
    client = named(session)
    remove = ["sh", "-c", f"rm -r {world.state_dir}/default/names/{removed}"]
    with session.container() as web, session.container() as data:
        address = ips(client.add("web", web))[0]
        session.run(remove, check=True)
        client.add("data", data)
        found, servers = ask(data, "web"), server_of(session)
        client.delete("data", data)
        session.run(remove, check=True)
        client.delete("web", web)

    assert found == address
    assert len(servers) == 1
    assert until(lambda: world.leftovers() == []), world.leftovers()


def test_names_twice(session: bench.Session) -> None:
    """A driver with names of its own has the port already; one without them gets ours."""
    with session.container() as web:
        own = named(session, delegate={**DRIVER, "dns_enabled": False})
        own.add("web", web)
        found = ask(web, "web")
        own.delete("web", web)
        error = named(session, delegate=DRIVER).fail("ADD", "web", web.netns)

    assert found != NO_SUCH_NAME
    assert error["code"] == 107
    assert "dns_enabled" in error["details"]


def test_without_the_program(world: bench.World, session: bench.Session) -> None:
    """ADD and STATUS say that it is missing; DEL succeeds, whether or not the server runs."""
    client = named(session)
    with session.container() as web, session.container() as data, session.container() as more:
        client.add("web", web)
        client.add("data", data)
        session.run(["mount", "--bind", "/dev/null", PROGRAM], check=True)
        client.delete("data", data)
        after = ask(web, "data"), ask(web, "web")
        error = client.fail("ADD", "more", more.netns)
        status = client.fail("STATUS", conf={"cniVersion": "1.1.0"})
        seen = client.status()[0]["names"]
        kill(seen["guardian"])
        kill(seen["pid"])
        client.delete("web", web)

    assert after[0] == NO_SUCH_NAME
    assert after[1] != NO_SUCH_NAME
    assert (error["code"], error["msg"]) == (107, "names: aardvark-dns is not installed")
    assert (status["code"], status["msg"]) == (50, error["msg"])
    assert world.leftovers() == []


# As aardvark-dns since 1.5 does, whose parent ends before the child has said why.
FAILING = """#!/bin/sh
echo Error from child process >&2
(while kill -0 $$ 2>/dev/null; do :; done; echo the reason >&2) &
exit 1
"""


def test_why_it_fails(world: bench.World, session: bench.Session) -> None:
    """Where the server cannot start, the ADD says what the server has said last."""
    client = named(session)
    hide = 'cat >/tmp/failing; chmod +x /tmp/failing; mount --bind /tmp/failing "$0"'
    session.run(["sh", "-euc", hide, PROGRAM], input=FAILING, check=True)
    with session.container() as web:
        error = client.fail("ADD", "web", web.netns)

    assert (error["code"], error["msg"]) == (107, "names: no server")
    assert "Error from child process\n" in error["details"]
    assert error["details"].endswith("the reason")
    assert world.leftovers() == []


def test_ptp(world: bench.World, session: bench.Session) -> None:
    """Behind `ptp`, where each container has a link of its own, names are found as well."""
    plugin = bridge()
    delegate = {"type": "ptp", "ipMasq": True, "ipam": plugin["ipam"]}
    client = named(session, delegate=delegate)
    with session.container() as web, session.container() as data:
        address = ips(client.add("web", web))[0]
        client.add("data", data)
        found = ask(data, "web")
        client.delete("web", web)
        after = ask(data, "web")
        client.delete("data", data)

    assert (found, after) == (address, NO_SUCH_NAME)
    assert world.leftovers() == []


def test_check(session: bench.Session) -> None:
    """CHECK says whether the names resolve."""
    client = named(session)
    with session.container() as web:
        client.add("web", web)
        client.succeed("CHECK", "web", web.netns)
        guardian = guardian_of(session)
        kill(guardian)
        kill(server_of(session)[0])

        assert client.fail("CHECK", "web", web.netns)["code"] == 107

        client.delete("web", web)


@pytest.fixture
def without_manager(world: bench.World) -> Iterator[None]:
    """A machine with systemd, to which the user has come without a log-in."""
    world.root.run(["mkdir", "-p", "/run/systemd/system"], check=True)
    yield
    # All of it: a sweep counts steps on machines that have to be alike.
    world.root.run(
        ["rmdir", "-p", "--ignore-fail-on-non-empty", "/run/systemd/system"], check=True
    )


@pytest.mark.parametrize("keys", [{}, {"names": False, "delegate": DRIVER}])
@pytest.mark.usefixtures("without_manager")
def test_no_service_manager(
    world: bench.World, session: bench.Session, keys: dict[str, Any]
) -> None:
    """Where systemd runs, and has no manager for the user, names resolve as anywhere."""
    client = named(session, **keys)
    with session.container() as web, session.container() as data:
        address = ips(client.add("web", web))[0]
        client.add("data", data)
        found = until(lambda: ask(data, "web") == address)
        client.delete("data", data)
        client.delete("web", web)

    assert found
    assert world.leftovers() == []


def test_a_thousand(world: bench.World, session: bench.Session) -> None:
    """With a thousand names all of them are found, and the first and the last are."""
    client = named(session)
    with session.container() as web, session.container() as data:
        client.add("web", web)
        populate = ["python3", "-I", "-c", POPULATE, f"{world.state_dir}/default/refs", "998"]
        session.run(populate, check=True)
        address = ips(client.add("data", data))[0]
        found = [ask(web, name) for name in ("data", "c0", "c997")]
        listed = len(client.status()[0]["references"])
        client.delete("data", data)
        after = [ask(web, name) for name in ("data", "c997")]
        session.run(["sh", "-c", f"rm {world.state_dir}/default/refs/*:c[0-9]*"], check=True)
        client.delete("web", web)

    assert listed == 1000
    assert found == [address, "10.1.0.0", "10.1.3.229"]
    assert after == [NO_SUCH_NAME, "10.1.3.229"]
    assert world.leftovers() == []


def doctor(place: bench.Place) -> dict[str, Any]:
    """Let `doctor` ask for the names of containers; give what it says."""
    done = place.run([PLUGIN, "doctor", "--json"])
    (found,) = (
        each for each in json.loads(done.stdout)["results"] if each["check"] == "container names"
    )
    return dict(found)


def test_what_is_seen(session: bench.Session) -> None:
    """`status` and `show` tell names and server, and `doctor` asks for a name."""
    client = named(session)
    before = doctor(session)["result"]
    with session.container() as web:
        client.add("web1", web, **called("web"))
        (netns,) = client.status()
        tree = session.run([PLUGIN, "status"], check=True).stdout
        shown = session.run([PLUGIN, "show", "web1"], check=True).stdout
        well = doctor(session)["result"]
        kill(netns["names"]["guardian"])
        kill(netns["names"]["pid"])
        (gone,) = client.status()
        ill = doctor(session)["result"]
        client.delete("web1", web, **called("web"))

    assert netns["names"]["addresses"] == [SERVER]
    assert netns["references"][0]["names"] == ["web", "web1"]
    assert f"names  {SERVER}  PID {netns['names']['pid']}" in tree
    assert "web, web1" in tree
    assert "names         web, web1" in shown
    assert (gone["names"]["alive"], gone["names"]["guardian"]) == (False, None)
    assert (before, well, ill) == ("skipped", "ok", "problem")


def test_what_is_seen_in_place(world: bench.World, session: bench.Session) -> None:
    """Also of a server in the netns of a caller, from there and from outside, as with Podman."""
    with session.container() as caller, session.container() as web:
        client = named(caller)
        client.add("web", web)
        listed = json.loads(world.run([PLUGIN, "status", "--json"], check=True).stdout)
        (seen,) = (each["names"] for each in listed["inPlace"])
        tree = world.run([PLUGIN, "status"], check=True).stdout
        well = [doctor(place) for place in (world, session, caller)]
        kill(seen["guardian"])
        kill(seen["pid"])
        gone = world.run([PLUGIN, "status"], check=True).stdout
        ill = [doctor(place) for place in (world, session, caller)]
        client.delete("web", web)

    assert seen["addresses"] == [SERVER]
    assert f"● names  {SERVER}  PID {seen['pid']}" in tree
    assert [each["message"] for each in well] == ["1 in networks in place"] * 3
    assert "✗ names" in gone
    assert [(each["result"], each["details"]) for each in ill] == [
        ("problem", ["in place: web"])
    ] * 3


def test_a_container_that_is_gone(world: bench.World, session: bench.Session) -> None:
    """Its names go with `gc`, and all of them with `stop`."""
    client = named(session)
    with session.container() as web:
        client.add("web", web)
        with session.container() as data:
            client.add("data", data)
        before = ask(web, "data")
        done = until(lambda: "detached" in session.run([PLUGIN, "gc"], check=True).stdout)
        after = ask(web, "data"), ask(web, "web")
        session.run([PLUGIN, "stop", "--force"], check=True)

    assert done
    assert before != NO_SUCH_NAME
    assert after[0] == NO_SUCH_NAME
    assert after[1] != NO_SUCH_NAME
    assert world.leftovers() == []


def test_many_at_once(world: bench.World, session: bench.Session) -> None:
    """Twenty that come and go at once are all there, and then all gone."""
    client = named(session)
    names = [f"c{number}" for number in range(20)]
    with ExitStack() as stack:
        containers = {name: stack.enter_context(session.container()) for name in names}
        with ThreadPoolExecutor(8) as pool:
            added = dict(
                zip(names, pool.map(lambda n: client.add(n, containers[n]), names), strict=True)
            )
            found = {name: ask(containers["c0"], name) for name in names}
            list(pool.map(lambda name: client.delete(name, containers[name]), names[1:]))
        left = {name: ask(containers["c0"], name) for name in names}
        client.delete("c0", containers["c0"])

    assert found == {name: ips(result)[0] for name, result in added.items()}
    assert left == {**dict.fromkeys(names, NO_SUCH_NAME), "c0": found["c0"]}
    assert world.leftovers() == []

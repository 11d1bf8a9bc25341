# SPDX-License-Identifier: Apache-2.0
"""An uplink that cannot be started: it waits for a network of the host, or another takes over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import bench
import ports
import pytest
from diagnosis import ask
from runtime import PLUGIN, Runtime, bridge, page, reaches, until

from netns_shim import errors

UNROUTED = {
    "no default route": "ip -4 route del default; ip -6 route del default",
    "no route": "ip -4 route flush table main; ip -6 route flush table main",
    "no link": "ip link set eth0 down",
}
# What the pasta of Debian 12 does on a host without a default route, also if it is a newer one.
GIVING_UP = """#!/bin/sh
case $* in *--config-net*)
    ip route | grep -q default || {
        echo 'No external routable interface for IPv4' >&2
        echo 'External interface not usable' >&2
        exit 1
    } ;;
esac
exec /usr/bin/pasta "$@"
"""
# One that fails because of the host's kernel, or of its routes.
BROKEN = """#!/bin/sh
echo "Couldn't set IPv6 route(s) in guest: Network is unreachable" >&2
exit 1
"""
# On a kernel without IPv6, unless it is told so.
NO_IPV6 = """#!/bin/sh
case $* in *-4*) exec /usr/bin/pasta "$@" ;; esac
echo "Failed to open IPv6 socket: Address family not supported by protocol" >&2
exit 1
"""


@pytest.fixture
def no_ipv6(world: bench.World) -> Iterator[None]:
    """Let the kernel have no IPv6, as far as /proc tells."""
    place = "/proc/sys/net/ipv6"
    world.root.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    yield
    world.root.run(["umount", place], check=True)


@pytest.fixture(params=UNROUTED)
def offline(request: pytest.FixtureRequest, world: bench.World) -> Iterator[None]:
    """A machine that is offline, and is connected again after the test."""
    world.root.run(["sh", "-euc", UNROUTED[request.param]], check=True)
    yield
    connect(world)


def connect(world: bench.World) -> None:
    """Connect the machine."""
    world.replug()
    world.settle()


def install(session: bench.Session, world: bench.World, text: str) -> str:
    """Put a pasta into the user's home; give its path."""
    program = f"{world.env['HOME']}/pasta"
    session.run(["sh", "-c", 'cat >"$0"; chmod +x "$0"', program], input=text, check=True)
    return program


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_a_host_that_is_offline(world: bench.World, session: bench.Session, driver: str) -> None:
    """Containers start and reach each other; and the outside after an ADD, with a network."""
    runtime = Runtime(session, delegate=bridge(), uplink=driver)
    with session.container() as one, session.container() as two, session.container() as three:
        runtime.add("one", one)
        runtime.add("two", two)
        assert reaches(one, "10.89.0.3")
        assert reaches(two, "10.89.0.2")
        runtime.succeed("CHECK", "one", one.netns)
        connect(world)

        runtime.add("three", three)

        assert page(one, bench.PAGE_BEYOND)
        assert page(three, bench.PAGE_BEYOND)
        for name, container in (("one", one), ("two", two), ("three", three)):
            runtime.succeed("CHECK", name, container.netns)
            runtime.delete(name, container)
    assert world.leftovers() == []


@pytest.mark.usefixtures("offline")
def test_an_uplink_that_comes_by_itself(world: bench.World, session: bench.Session) -> None:
    """The guardian of one that waits starts it without a call, once the host has a network."""
    uplink = {"driver": "pasta", "path": install(session, world, GIVING_UP)}
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    with session.container() as container:
        runtime.add("c", container)
        connect(world)

        assert until(lambda: runtime.status()[0]["uplink"]["pending"] is None)
        assert page(container, bench.PAGE_BEYOND)
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.usefixtures("offline")
def test_an_uplink_that_waits(world: bench.World, session: bench.Session) -> None:
    """It is said by each ADD, `status`, `doctor` and `refresh`; STATUS and CHECK are content."""
    uplink = {"driver": "pasta", "path": install(session, world, GIVING_UP)}
    runtime = Runtime(session, delegate=bridge(), uplink=uplink, cniVersion="1.1.0")
    with session.container() as one, session.container() as two:
        for name, container in (("one", one), ("two", two)):
            done = runtime.call("ADD", name, container.netns)
            assert done.returncode == 0, done.stdout
            (line,) = done.stderr.splitlines()
            assert "the uplink pasta of the shared netns 'default' waits until the host" in line
            assert line.endswith(": External interface not usable")
        assert reaches(one, "10.89.0.3")

        runtime.succeed("CHECK", "one", one.netns)
        runtime.succeed("STATUS")
        (netns,) = runtime.status()
        assert netns["uplink"]["pending"] == "External interface not usable"
        shown = session.run([PLUGIN, "status"], check=True).stdout
        assert "waits until the host has a network" in " ".join(shown.split())
        found = ask(session)
        assert found["uplinks"]["result"] == "warning"
        assert "pasta waits until the host has a network" in found["uplinks"]["message"]
        assert found["default route"]["result"] == "warning"
        assert found["state"]["result"] == "ok"
        again = session.run([PLUGIN, "refresh"], check=True).stdout
        assert again == "default: uplink pasta waits until the host has a network\n"

        connect(world)
        session.run([PLUGIN, "refresh"], check=True)
        runtime.succeed("CHECK", "one", one.netns)
        assert page(one, bench.PAGE_BEYOND)
        assert page(two, bench.PAGE_BEYOND)
        assert runtime.status()[0]["uplink"]["pending"] is None
        assert ask(session)["default route"]["result"] == "ok"
        runtime.delete("one", one)
        runtime.delete("two", two)
    assert world.leftovers() == []


@pytest.mark.usefixtures("offline")
def test_a_published_port_while_it_waits(world: bench.World, session: bench.Session) -> None:
    """It is open to the host itself at once, and to others when the host has a network."""
    uplink = {"driver": "pasta", "path": install(session, world, GIVING_UP)}
    runtime = ports.runtime(session, uplink=uplink)
    conf = ports.publishing(ports.mapping(8080))
    with session.container() as container, session.container() as other:
        with ports.answering(world, container):
            runtime.add("c", container, conf=conf)
            assert "." in ports.ask(world.root, "127.0.0.1", 8080)
            assert runtime.status()[0]["references"][0]["ports"][0]["state"] == "open"
            connect(world)

            runtime.add("other", other)

            assert ports.ask(world.internet, bench.HOST, 8080) == bench.PAGE
        runtime.delete("c", container, conf=conf)
        runtime.delete("other", other)
    assert world.leftovers() == []


def test_the_last_delete_while_it_waits(world: bench.World, session: bench.Session) -> None:
    """Nothing is left of a netns whose uplink never came."""
    uplink = {"driver": "pasta", "path": install(session, world, GIVING_UP)}
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    world.root.run(["sh", "-euc", UNROUTED["no default route"]], check=True)
    try:
        with session.container() as container:
            runtime.add("c", container)
            runtime.delete("c", container)
        assert world.leftovers() == []
    finally:
        connect(world)


def test_slirp4netns_takes_over(world: bench.World, session: bench.Session) -> None:
    """Where pasta fails and the user has not asked for it, slirp4netns is used, with a warning."""
    env: dict[str, Any] = {"PATH": f"{world.env['HOME']}:/usr/bin:/bin:/usr/sbin:/sbin"}
    install(session, world, BROKEN)
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container, session.container() as other:
        done = runtime.call("ADD", "c", container.netns, **env)

        assert done.returncode == 0, done.stdout
        (line,) = done.stderr.splitlines()
        assert "slirp4netns takes its place" in line
        assert "Couldn't set IPv6 route(s) in guest" in line
        assert runtime.status()[0]["uplink"]["driver"] == "slirp4netns"
        assert page(container, bench.PAGE_BEYOND)
        again = runtime.call("ADD", "other", other.netns, **env)
        assert (again.returncode, again.stderr) == (0, "")
        runtime.delete("c", container)
        runtime.delete("other", other)
    assert world.leftovers() == []


@pytest.mark.parametrize("key", ["driver", "options", "path"])
def test_a_pasta_that_was_asked_for(world: bench.World, session: bench.Session, key: str) -> None:
    """Where the user has asked for pasta the ADD fails, and the error says what can be done."""
    program = install(session, world, BROKEN)
    env: dict[str, Any] = {"PATH": f"{world.env['HOME']}:/usr/bin:/bin:/usr/sbin:/sbin"}
    more: dict[str, Any] = {"driver": "pasta", "options": ["-6"], "path": program}
    uplink = {"driver": "pasta", key: more[key]}
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    with session.container() as container:
        done = runtime.call("ADD", "c", container.netns, **env)

        error = json.loads(done.stdout)
        assert error["code"] == errors.UPLINK_FAILED
        assert error["details"].startswith("Couldn't set IPv6 route(s) in guest")
        assert '"slirp4netns" or "none"' in error["details"]
        assert '["-4"]' in error["details"]
    assert world.leftovers() == []


def test_a_wrong_option_on_a_host_that_is_offline(
    world: bench.World, session: bench.Session
) -> None:
    """An uplink that would never start does not wait: the error is that of the option."""
    uplink = {"driver": "pasta", "options": ["--no-such-option"]}
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    world.root.run(["sh", "-euc", UNROUTED["no default route"]], check=True)
    try:
        with session.container() as container:
            error = runtime.fail("ADD", "c", container.netns)
    finally:
        connect(world)
    assert "no-such-option" in error["details"]
    assert "slirp4netns" not in error["details"]
    assert world.leftovers() == []


@pytest.mark.usefixtures("no_ipv6")
@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_a_kernel_without_ipv6(world: bench.World, session: bench.Session, driver: str) -> None:
    """The uplink is told to do without, and IPv4 works; published ports, too."""
    uplink: Any = {"driver": driver}
    if driver == "pasta":
        uplink["path"] = install(session, world, NO_IPV6)
    runtime = ports.runtime(session, uplink=uplink)
    with session.container() as container:
        mapped = ports.publishing(ports.mapping(8080))
        done = runtime.call("ADD", "c", container.netns, conf=mapped)

        assert done.returncode == 0, done.stdout
        assert "Traceback" not in done.stderr
        assert page(container, bench.PAGE_BEYOND)
        if driver == "pasta":
            assert runtime.status()[0]["addresses"] == ["198.19.110.114"]
        with ports.answering(world, container):
            assert ports.ask(world, "127.0.0.1", 8080)
        runtime.delete("c", container, conf=mapped)
    assert world.leftovers() == []

# SPDX-License-Identifier: Apache-2.0
"""Two user namespaces of one user at once, as two Buildahs make them: each has a netns."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor

import bench
import pytest
from bench import PAGE
from runtime import PLUGIN, Runtime, bridge, page, reaches

from netns_shim import errors

VALID = "cni.dev/valid-attachments"


@pytest.mark.parametrize("uplink", ["none", "pasta"])
def test_each_has_its_own(world: bench.World, session: bench.Session, uplink: str) -> None:
    """A network that names no netns works in both; the second one stays in its own."""
    first = Runtime(session, delegate=bridge(), uplink=uplink, cniVersion="1.1.0")
    with session.container() as one, world.session() as sibling, sibling.container() as two:
        second = Runtime(sibling, delegate=bridge(), uplink=uplink, cniVersion="1.1.0")
        own = f"default.{os.stat(f'/proc/{sibling.pid}/ns/user').st_ino}"
        first.add("one", one)

        done = second.call("ADD", "two", two.netns)

        assert done.returncode == 0, done.stdout
        assert f"this user namespace has the shared netns '{own}' of its own" in done.stderr
        for container in (one, two):
            assert reaches(container, "10.89.0.1")
            assert uplink == "none" or page(container, PAGE)
        second.succeed("CHECK", "two", two.netns)
        second.succeed("STATUS")
        assert [netns["name"] for netns in second.status()] == ["default", own]
        first.delete("one", one)
        with sibling.container() as three:
            second.add("three", three)  # beside its sister, though `default` is free by now
            assert [netns["name"] for netns in second.status()] == [own]
            second.succeed("GC", conf={VALID: [{"containerID": "two", "ifname": "eth0"}]})
            assert "eth0" not in three.run(["ip", "-brief", "link"]).stdout
        assert reaches(two, "10.89.0.1")
        second.delete("two", two)
    assert world.leftovers() == []


def test_what_was_never_attached(world: bench.World, session: bench.Session) -> None:
    """A DEL of it is a success in both, and CHECK knows nothing of the other one's."""
    first = Runtime(session, delegate=bridge(), uplink="none")
    with session.container() as one, world.session() as sibling, sibling.container() as two:
        second = Runtime(sibling, delegate=bridge(), uplink="none")
        first.add("one", one)

        second.delete("two", two)
        second.delete("two", two)
        assert second.fail("CHECK", "two", two.netns)["code"] == errors.UNKNOWN_CONTAINER

        first.delete("one", one)
    assert world.leftovers() == []


def test_a_netns_that_is_named(world: bench.World, session: bench.Session) -> None:
    """A network that names its netns is meant to be in that one; the error says what to do."""
    first = Runtime(session, delegate=bridge(), uplink="none", netns="mine")
    with session.container() as one, world.session() as sibling, sibling.container() as two:
        second = Runtime(sibling, delegate=bridge(), uplink="none", netns="mine")
        first.add("one", one)

        error = second.fail("ADD", "two", two.netns)

        assert error["code"] == errors.CANNOT_ENTER
        assert "set another 'netns'" in error["details"]
        first.delete("one", one)
    assert world.leftovers() == []


def test_many_at_once(world: bench.World) -> None:
    """Four sessions that start at once each attach and detach, and nothing is left."""

    def build(number: int) -> int:
        with world.session() as place:
            runtime = Runtime(place, delegate=bridge(), uplink="pasta")
            for step in range(3):
                with place.container() as container:
                    runtime.add(f"c{number}-{step}", container)
                    assert page(container, PAGE)
                    runtime.delete(f"c{number}-{step}", container)
        return number

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(build, range(4))) == [0, 1, 2, 3]
    assert world.leftovers() == []


def test_commands(world: bench.World, session: bench.Session) -> None:
    """`gc` and `stop` of a sibling leave what is not theirs, and say where it is."""
    runtime = Runtime(session, delegate=bridge(), uplink="none")
    with session.container() as one, world.session() as sibling:
        runtime.add("one", one)

        for words in (["gc"], ["stop", "--force"]):
            done = sibling.run([PLUGIN, *words])
            assert "is pinned in another mount namespace" in done.stdout + done.stderr

        assert reaches(one, "10.89.0.1")
        runtime.delete("one", one)
    assert world.leftovers() == []


def test_a_user_namespace_that_cannot_mount(world: bench.World) -> None:
    """Where nothing can be attached, an ADD says why, and a DEL of it has nothing to do."""
    runtime = Runtime(world, delegate=bridge(), uplink="none")
    words = ["unshare", "--user", "--map-root-user", PLUGIN]
    found = {}
    for verb in ("ADD", "DEL"):
        env = {**world.env, **runtime.environment(verb, "c", "/proc/self/ns/net")}
        found[verb] = world.run(words, env=env, input=json.dumps(runtime.conf))

    assert json.loads(found["ADD"].stdout)["code"] in (errors.CANNOT_ENTER, errors.INVALID_NETNS)
    assert (found["DEL"].returncode, found["DEL"].stdout) == (0, "")
    assert "'c' was not attached: this user namespace cannot mount" in found["DEL"].stderr
    assert world.leftovers() == []

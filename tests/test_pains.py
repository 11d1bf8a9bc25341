# SPDX-License-Identifier: Apache-2.0
"""What has hurt users of rootless networks elsewhere, provoked here; see docs/reliability.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import bench
import pytest
from gate import Gate
from runtime import Runtime, bridge, kill, page, reaches

from netns_shim import errors


@pytest.fixture
def state(world) -> str:
    """The directory of the default netns, as it is called in the machine."""
    return f"{world.runtime_dir}/netns-shim/default"


@pytest.fixture
def runtime(session) -> Runtime:
    """A runtime with a bridge and pasta."""
    return Runtime(session, delegate=bridge(), uplink="pasta")


@pytest.fixture
def gate(session) -> Iterator[Gate]:
    """A plugin that stops where it is told to."""
    with closing(Gate(session)) as gate:
        yield gate


def references(runtime: Runtime) -> list[str]:
    """List who is attached."""
    return [r["containerID"] for netns in runtime.status() for r in netns["references"]]


def uplink(runtime: Runtime) -> int:
    """Give the process ID of the uplink."""
    return runtime.status()[0]["uplink"]["pid"]


def test_add_spares_who_has_the_path_now(world, session):
    """An ADD that removes what is left of its container leaves the one alone that has its path."""
    runtime = Runtime(session, delegate={**bridge(), "ipMasq": False}, uplink="none")
    path, new = "/run/netns/reused", "/run/netns/new"
    with session.container(pinned=path) as container:
        runtime.add("first", container)
    with session.container(pinned=path) as second, session.container(pinned=new) as again:
        runtime.add("second", second)

        runtime.add("first", again)

        assert reaches(second, "10.89.0.1")
        assert reaches(again, "10.89.0.1")
        assert sorted(references(runtime)) == ["first", "second"]
        runtime.delete("first", again)
        runtime.delete("second", second)
    assert world.leftovers() == []


@pytest.mark.parametrize("where", ["default", ".in-place"])
def test_the_same_container_after_a_restart_of_the_machine(world, session, where):
    """A container with the ID of before, and even the number of its netns, is attached again."""
    top = f"{world.runtime_dir}/netns-shim"
    with session.container() as outer, session.container() as container:
        place = session if where == "default" else outer
        runtime = Runtime(place, delegate={**bridge(), "ipMasq": False}, uplink="none")
        runtime.add("c", container)
        for file in ("default/uplink.json", f"{where}/refs/rootless:c:eth0:bridge"):
            path = session.path(f"{top}/{file}")
            if path.exists():
                path.write_text(re.sub('"bootID": ?"', '"bootID":"another', path.read_text()))
        session.run(["umount", "-l", f"{top}/default/netns"])
        container.run(["ip", "link", "delete", "eth0"])  # it is a new one

        done = runtime.call("ADD", "c", container.netns)

        assert done.returncode == 0, done.stdout
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
        assert references(runtime) == []


BROKEN = """#!/bin/sh
[ $CNI_COMMAND = VERSION ] && echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' && exit
[ ! -e "$0.$CNI_COMMAND" ] || { echo '{"code": 142, "msg": "broken"}'; exit 1; }
[ $CNI_COMMAND != ADD ] || sed 's/.*"prevResult": *\\({.*}\\)}$/\\1/'
"""


@pytest.fixture
def broken(world, session) -> str:
    """A directory with a plugin that fails in the verbs for which there is a file."""
    directory = f"{world.env['HOME']}/broken"
    script = 'mkdir "$0"; cat >"$0/broken"; chmod +x "$0/broken"'
    session.run(["sh", "-euc", script, directory], input=BROKEN, check=True)
    return directory


@pytest.fixture
def routes(world) -> Iterator[list[list[str]]]:
    """What takes the machine's default routes away; they are put back afterwards."""
    yield [["ip", "route", "del", "default"], ["ip", "-6", "route", "del", "default"]]
    give_routes(world)


def give_routes(world) -> None:
    """Give the machine its default routes, as they were."""
    for family, gateway in (("-4", bench.PAGE), ("-6", bench.PAGE6)):
        argv = ["ip", family, "route", "replace", "default", "via", gateway]
        world.root.run(argv, check=True)


# Which of these addresses answer at a port: those that drop what comes are waited for together.


def test_the_user_namespace_has_died(world):
    """While its uplink lives the netns is not touched from another one; then it is made anew."""
    with world.session() as old:
        runtime = Runtime(old, delegate=bridge(), uplink="pasta")
        with old.container() as container:
            runtime.add("c", container)
            pid = uplink(runtime)
    with world.session() as new, new.container() as other:
        runtime = Runtime(new, delegate=bridge(), uplink="pasta")
        error = runtime.fail("ADD", "other", other.netns)
        assert error["code"] == errors.CANNOT_ENTER, error
        assert f"PID {pid} is there" in error["details"]
        kill(pid)

        done = runtime.call("ADD", "other", other.netns)

        assert done.returncode == 0, done.stdout
        assert "was lost and has been made anew" in done.stderr
        assert page(other, bench.PAGE)
        runtime.succeed("DEL", "c", "/proc/0/ns/net")
        runtime.delete("other", other)
    assert world.leftovers() == []
    world.reset()


@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_without_a_tun_device(world, session, driver):
    """ADD says that the device is missing, STATUS too; without an uplink none is needed."""
    session.run(["mount", "-t", "tmpfs", "tmpfs", "/dev/net"], check=True)
    runtime = Runtime(session, delegate=bridge(), uplink=driver, cniVersion="1.1.0")
    with session.container() as container:
        error = runtime.fail("ADD", "c", container.netns)

        assert error["code"] == errors.UPLINK_FAILED
        assert "/dev/net/tun" in error["msg"] + error["details"], error
        assert runtime.fail("STATUS")["code"] == errors.NOT_AVAILABLE
        assert world.leftovers() == []
        runtime.add("c", container, conf={"uplink": "none"})
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []

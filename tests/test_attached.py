# SPDX-License-Identifier: Apache-2.0
"""Files that another program removes: none by its age, and no container goes along."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge, ips, page, reaches, until

OLD = "/tmp/old"


@pytest.fixture(params=["unshared", "session"])
def place(request: pytest.FixtureRequest, world: bench.World) -> Iterator[bench.Place]:
    """A user namespace of the user, that of the shim or another one."""
    with getattr(world, request.param)() as place:
        yield place


def age(world: bench.World) -> None:
    """Have everything removed from /tmp that was not used in this microsecond."""
    if not shutil.which("systemd-tmpfiles"):
        pytest.skip("this machine has no systemd-tmpfiles")
    world.run(["touch", OLD], check=True)
    rule = "d /tmp 1777 root root 1us"
    world.root.path("/run/aged.conf").write_text(f"{rule}\n")
    world.root.run(["systemd-tmpfiles", "--clean", "/run/aged.conf"], check=True)
    assert not world.path(OLD).exists()


@pytest.mark.parametrize("uplink", ["none", "pasta", "slirp4netns"])
def test_state_in_tmp_is_not_aged(world: bench.World, place: bench.Place, uplink: str) -> None:
    """systemd-tmpfiles(8) spares what is attached: network, references, pin, leases."""
    runtime = Runtime(place, delegate=bridge(), uplink=uplink)
    with place.container() as a, place.container() as b:
        first = runtime.add("a", a)
        assert world.state_dir.startswith("/tmp/")

        age(world)

        runtime.succeed("CHECK", "a", a.netns, conf={"prevResult": first})
        second = runtime.add("b", b)
        assert ips(first) != ips(second)
        runtime.delete("b", b)
        assert reaches(a, "10.89.0.1")
        assert uplink == "none" or page(a, bench.PAGE)
        age(world)
        runtime.delete("a", a)
    place.close()
    assert until(lambda: world.leftovers() == [])


def test_reference_that_is_gone(world: bench.World, session: bench.Session) -> None:
    """Where the reference of a living container was removed, the last DEL keeps its network.

    It goes with the next DEL.
    """
    runtime = Runtime(session, delegate=bridge())
    with session.container() as a, session.container() as b:
        runtime.add("a", a)
        runtime.add("b", b)
        (reference,) = session.path(f"{world.state_dir}/default/refs").glob("*:a:*")
        reference.unlink()

        done = runtime.call("DEL", "b", b.netns)

        assert done.returncode == 0
        assert "leads to a container: it stays" in done.stderr
        assert page(a, bench.PAGE)
        runtime.delete("a", a)
    assert world.leftovers() == []


def test_references_that_are_gone(world: bench.World, session: bench.Session) -> None:
    """Where all references were removed, an ADD joins the containers that are attached."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as a, session.container() as b:
        runtime.add("a", a)
        session.run(["rm", "-r", f"{world.state_dir}/default/refs"], check=True)

        runtime.add("b", b)

        assert page(a, bench.PAGE)
        assert reaches(b, a.run(["hostname", "-I"]).stdout.split()[0])
        runtime.delete("a", a)
        runtime.delete("b", b)
    assert world.leftovers() == []


def test_container_that_is_detached_without_its_netns(
    world: bench.World, session: bench.Session
) -> None:
    """An interface that a DEL has to leave, as it was given no netns, keeps nothing."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as a, session.container() as b:
        runtime.add("a", a)
        runtime.add("b", b)

        runtime.succeed("DEL", "a", "")
        runtime.delete("b", b)

        assert world.leftovers() == []


def test_stop_removes_it(world: bench.World, session: bench.Session) -> None:
    """`stop --force` removes a netns without references as well."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as a, session.container() as b:
        runtime.add("a", a)
        runtime.add("b", b)
        (reference,) = session.path(f"{world.state_dir}/default/refs").glob("*:a:*")
        reference.unlink()
        runtime.delete("b", b)

        done = session.run([PLUGIN, "stop"])

        assert done.returncode == 1
        assert done.stderr.endswith("  a container without a reference\n")
        assert page(a, bench.PAGE)
        session.run([PLUGIN, "stop", "--force"], check=True)

        assert world.leftovers() == []

# SPDX-License-Identifier: Apache-2.0
"""`netns-shim stop`: a shared netns is removed when you ask for it, and not by accident."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bench
import fakes
import pytest
from gate import CONF, Gate
from runtime import PLUGIN, Runtime, bridge, reaches, until

from netns_shim.shared import lifecycle
from netns_shim.state import MARK, State


@pytest.fixture
def runtime(session: bench.Session) -> Runtime:
    """A runtime with a bridge and no uplink."""
    return Runtime(session, delegate=bridge(), uplink="none")


def stop(place: bench.Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `netns-shim stop`."""
    return place.run([PLUGIN, "stop", *arguments])


def refs(world: bench.World) -> str:
    """Give the path of the references of the default netns."""
    return f"{world.state_dir}/default/refs"


def has_eth0(container: bench.Container) -> bool:
    """Tell whether a container has its interface."""
    return container.run(["ip", "link", "show", "eth0"]).returncode == 0


def test_nothing_is_up(world: bench.World, session: bench.Session) -> None:
    """Where nothing is up that is said, nothing is made, and it is no failure."""
    done = stop(session)

    where = world.state_dir
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"no shared network namespace 'default' is up ({where})\n"
    assert not session.path(where).exists()


def test_what_is_in_use_stays(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """While a container or a command is in it, it stays, and who that is is listed."""
    with session.container() as container:
        runtime.add("c1", container)
        command = session.popen(
            [PLUGIN, "run", "--", "sh", "-c", "echo ready; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert command.stdout.readline() == "ready\n"

        done = stop(session)

        assert (done.returncode, done.stdout) == (1, "")
        lines = done.stderr.splitlines()
        assert lines[0] == (
            "netns-shim: the shared netns 'default' is in use, and --force would end that:"
        )
        assert lines[1].startswith("  command sh -c echo ready; exec cat (PID ")
        assert lines[2:] == ["  rootless c1 eth0"]
        assert reaches(container, "10.89.0.1")
        command.stdin.close()
        assert command.wait(20) == 0
        assert stop(session).returncode == 1
        runtime.delete("c1", container)
    assert world.leftovers() == []


def test_ghosts_are_nobody(world: bench.World, session: bench.Session, runtime: Runtime) -> None:
    """What killed calls have left does not keep it."""
    with session.container() as container:
        runtime.add("c1", container)
        names = [":gc:7-x", ":run:8-x", "rootless:dead:eth0:bridge"]
        script = 'cd "$0"; touch "$@"; rm rootless:c1:*'
        session.run(["sh", "-euc", script, refs(world), *names], check=True)
        container.run(["ip", "link", "delete", "eth0"], check=True)

        done = stop(session)

    assert (done.returncode, done.stdout, done.stderr) == (0, "default: removed\n", "")
    assert world.leftovers() == []


def test_by_force(world: bench.World, session: bench.Session) -> None:
    """By force each container gets its DEL, then all is removed, the uplink included."""
    runtime = Runtime(session, delegate=bridge())
    other = Runtime(
        session, delegate=bridge("10.89.9.0/24", name="cni9"), netns="other", uplink="none"
    )
    with session.container() as one, session.container() as two, session.container() as three:
        runtime.add("c1", one)
        runtime.add("c2", two)
        other.add("c3", three)

        done = stop(session, "--force")

        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            "default: detached rootless c1 eth0",
            "default: detached rootless c2 eth0",
            "default: removed",
        ]
        assert not has_eth0(one)
        # The netns of another name is another one.
        assert [netns["name"] for netns in other.status()] == ["other"]
        assert reaches(three, "10.89.9.1")
        # The DEL that the runtime calls later finds nothing, and succeeds.
        runtime.delete("c1", one)
        assert stop(session, "--netns", "other", "--force").returncode == 0
    assert world.leftovers() == []


def test_it_can_be_made_again(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """After it was stopped by force, the next ADD makes it again."""
    with session.container() as container:
        runtime.add("c1", container)
        assert stop(session, "--force").returncode == 0

        runtime.add("c1", container)

        assert reaches(container, "10.89.0.1")
        runtime.delete("c1", container)
    assert world.leftovers() == []


def test_what_fails_does_not_keep_it(
    world: bench.World, session: bench.Session, runtime: Runtime, plugins: Path
) -> None:
    """By force it is removed whatever fails; each failure is told, and the exit status is 1."""
    fakes.strict_plugin(plugins, "failing", failing=["DEL"])
    path = f"{world.plugin_dir}:{world.env['HOME']}/plugins"
    failing = Runtime(session, path=path, delegate={"type": "failing"}, uplink="none", name="f")
    with session.container() as one, session.container() as two:
        failing.add("a", one)
        runtime.add("b", two)
        session.run(["sh", "-euc", 'cd "$0"; echo x >n:bad:eth0:k; mkdir odd', refs(world)])

        done = stop(session, "--force")

        assert done.returncode == 1
        assert done.stdout.splitlines() == [
            "default: detached rootless b eth0",
            "default: removed",
        ]
        assert "default: not detached: f a eth0: failing fails DEL\n" in done.stderr
        assert "default: not detached: n bad eth0: the reference is damaged" in done.stderr
        assert "default: not detached: odd: " in done.stderr
    assert world.leftovers() == []


def test_a_command_runs_on(world: bench.World, session: bench.Session) -> None:
    """By force a command loses the netns around it; it is told of, and ends as it would have."""
    command = session.popen(
        [PLUGIN, "run", "--uplink", "none", "--", "sh", "-c", "echo ready; cat; ip link show lo"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert command.stdout.readline() == "ready\n"

    done = stop(session, "--force")

    assert (done.returncode, done.stdout) == (1, "default: removed\n")
    assert "default: not detached: command " in done.stderr
    assert "it runs on, without a network" in done.stderr
    assert command.poll() is None
    command.stdin.close()
    assert "lo" in command.stdout.read()
    assert command.wait(20) == 0
    assert until(lambda: world.leftovers() == [])


def test_beside_an_add(world: bench.World, session: bench.Session, gate: Gate) -> None:
    """An ADD that does not end is waited for in vain; nothing of it comes back afterwards."""
    runtime = Runtime(session, path=gate.path, plugins=[bridge(), CONF], uplink="none")
    gate.shut("ADD")
    with session.container() as container, ThreadPoolExecutor() as pool:
        adding = pool.submit(runtime.call, "ADD", "c", container.netns)
        try:
            gate.wait()
            assert stop(session).returncode == 1

            done = stop(session, "--force")
        finally:
            gate.open()
        adding.result()

        assert (done.returncode, done.stdout) == (1, "default: removed\n")
        assert "another operation on this attachment is running" in done.stderr
        assert not session.path(f"{world.state_dir}/default").exists()
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_from_elsewhere(
    world: bench.World, session: bench.Session, runtime: Runtime, force: list[str]
) -> None:
    """From another mount namespace it is not touched, and where it is is told."""
    with world.session() as sibling, session.container() as container:
        runtime.add("c", container)

        done = stop(sibling, *force)

        assert (done.returncode, done.stdout) == (1, "")
        assert "is pinned in another mount namespace" in done.stderr
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_without_capabilities(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """Outside of the user namespace nothing can be detached, and what to do is said."""
    with session.container() as container:
        runtime.add("c", container)

        done = stop(world, "--force")

        assert done.returncode == 1
        assert "is pinned in another mount namespace" in done.stderr
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_what_a_removal_has_left(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """A removal that was cut off is finished."""
    with session.container() as container:
        runtime.add("c", container)
        session.run(["rm", "-r", refs(world)], check=True)
        container.run(["ip", "link", "delete", "eth0"], check=True)

        done = stop(session)

        assert (done.returncode, done.stderr) == (0, "")
        assert "no shared network namespace 'default' is up" in done.stdout
    assert world.leftovers() == []


def test_a_netns_that_is_lost(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """One whose pin and uplink are gone is removed as well."""
    with session.container() as container:
        runtime.add("c", container)
        session.run(["umount", f"{world.state_dir}/default/netns"], check=True)

        assert stop(session).returncode == 1
        done = stop(session, "--force")

        assert (done.returncode, done.stderr) == (0, "")
    assert world.leftovers() == []


@pytest.mark.parametrize("name", ["", "..", "a/b", ".in-place"])
def test_bad_names(world: bench.World, session: bench.Session, name: str) -> None:
    """What is no name of a shared netns is refused."""
    done = stop(session, "--force", "--netns", name)

    assert done.returncode == 1
    assert "not a name for a netns" in done.stderr


def test_newcomers_are_not_removed(tmp_path: Path) -> None:
    """A reference that was not there when the others were looked at keeps everything."""
    where = State(str(tmp_path / "base"), "default")
    os.makedirs(where.refs, 0o700)
    os.chmod(where.base, 0o700)
    os.chmod(where.dir, 0o700)
    (tmp_path / "base/default" / MARK).touch()
    for name in ("old", "new"):
        (tmp_path / "base/default/refs" / name).touch()

    assert lifecycle.destroy_despite(where, {"old", "gone"}) is False
    assert sorted(os.listdir(where.refs)) == ["new", "old"]
    assert lifecycle.destroy_despite(where, {"old", "new"}) is True
    assert not os.path.exists(where.dir)

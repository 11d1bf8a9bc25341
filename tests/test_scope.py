# SPDX-License-Identifier: Apache-2.0
"""Where systemd runs, what outlives its caller has a scope of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge, page, until

BUSCTL = """#!/bin/sh
{ printf '%s\\n' "$DBUS_SESSION_BUS_ADDRESS" "$@"; echo; } >>"$HOME/calls"
"""


@pytest.fixture
def fake(world: bench.World) -> str:
    """Put a `busctl` into a directory that comes first in PATH; give its path."""
    path = "/opt/bench/systemd/busctl"
    world.path(path).parent.mkdir(exist_ok=True)
    world.path(path).write_text(BUSCTL)
    world.path(path).chmod(0o755)
    return path


# The bus of a user is in the runtime directory, and both come with a log-in.
pytestmark = pytest.mark.usefixtures("log_in")


@pytest.fixture
def booted(world: bench.World, session: bench.Session) -> Iterator[None]:
    """Have a machine on which systemd runs, and a bus for the user."""
    directory = world.path("/run/systemd/system")
    directory.mkdir(parents=True)
    world.run(["touch", f"{world.runtime_dir}/bus"], check=True)
    yield
    directory.rmdir()


def environment(world: bench.World) -> dict[str, Any]:
    """Say what a runtime passes on in these tests."""
    return {"PATH": f"/opt/bench/systemd:{world.env['PATH']}", "HOME": world.env["HOME"]}


def calls(world: bench.World) -> list[list[str]]:
    """List the arguments of the calls, the address of the bus first."""
    try:
        text = world.path(f"{world.env['HOME']}/calls").read_text()
    except FileNotFoundError:
        return []
    return [call.splitlines() for call in text.split("\n\n") if call]


@pytest.mark.usefixtures("fake", "booted")
def test_an_uplink_is_moved(world: bench.World, session: bench.Session) -> None:
    """A cold ADD asks the user's systemd once to move the uplink; a warm one does not."""
    runtime = Runtime(session, delegate=bridge(), netns="mine")
    with session.container() as container, session.container() as other:
        done = runtime.call("ADD", "c", container.netns, **environment(world))
        assert done.returncode == 0, done.stdout
        assert "systemd accepted the request, but did not move it" in done.stderr
        runtime.add("other", other, **environment(world))

        (netns,) = runtime.status()
        pid = netns["uplink"]["pid"]
        ((bus, *words),) = calls(world)
        assert bus == f"unix:path={world.runtime_dir}/bus"
        unit = f"netns-shim-pasta-mine-{pid}.scope"
        assert words[:2] == ["--user", "--timeout=5"]
        assert words[2:8] == [
            *("call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"),
            *("org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))"),
        ]
        assert words[8:11] == [unit, "fail", "4"]
        guardian = netns["uplink"]["guardian"]["pid"]
        assert words[14:19] == ["PIDs", "au", "2", str(pid), str(guardian)]
        assert words[-1] == "0"
        runtime.delete("c", container)
        runtime.delete("other", other)
    assert world.leftovers() == []


@pytest.mark.usefixtures("fake", "booted")
def test_the_holder_is_moved(world: bench.World) -> None:
    """So does the pause process of a user without capabilities."""
    env = {**world.env, **environment(world)}
    path = f"{world.state_dir}/.holder"
    done = world.run([PLUGIN, "unshare", "--", "cat", path], env=env, check=True)

    pid = json.loads(done.stdout)["pid"]
    assert [call[9] for call in calls(world)] == [f"netns-shim-holder-{pid}.scope"]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'Call failed: Access denied' >&2; exit 1", "Call failed: Access denied"),
        ("exec sleep 60", "did not end within 5 s"),
    ],
)
@pytest.mark.usefixtures("booted")
def test_a_failure_is_a_warning(
    world: bench.World, session: bench.Session, fake: str, script: str, why: str
) -> None:
    """Where systemd does not do it, or does not answer, the ADD succeeds all the same."""
    world.path(fake).write_text(f"#!/bin/sh\n{script}\n")
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container:
        done = runtime.call("ADD", "c", container.netns, **environment(world))

        assert done.returncode == 0, done.stdout
        assert "stays in the cgroup of its caller, and ends with it" in done.stderr
        assert why in done.stderr
        assert page(container, "198.51.100.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("there", ["systemd", "bus", "neither"])
def test_without_it_nothing_is_said(
    world: bench.World, session: bench.Session, there: str
) -> None:
    """Without systemd, or without a bus, nothing is called and nothing is said."""
    directory = world.path("/run/systemd/system")
    if there == "systemd":
        directory.mkdir(parents=True)
    if there == "bus":
        world.run(["touch", f"{world.runtime_dir}/bus"], check=True)
    runtime = Runtime(session, delegate=bridge())
    try:
        with session.container() as container:
            done = runtime.call("ADD", "c", container.netns, **environment(world))
            runtime.delete("c", container)
    finally:
        if there == "systemd":
            directory.rmdir()

    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    assert calls(world) == []
    assert until(lambda: world.leftovers() == [])


UNIFIED = "/sys/fs/cgroup"
# The first systemd that does not work with version 1 of cgroups.
WITHOUT_V1 = 258


class Manager:
    """A real service manager of the user's, with a bus and a part of the machine's cgroups.

    `caller` is the cgroup in which calls are made, `env` the environment of such calls.
    """

    def __init__(self, world: bench.World, stack: ExitStack) -> None:
        self.world = world
        self.env = {**world.env, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={world.runtime_dir}/bus"}
        # Another run on this kernel, in a container, may have a user of the same number.
        name = f"netns-shim-{world.uid}-{os.urandom(4).hex()}"
        self.tops = [Path(top) / name for top in hierarchies()]
        stack.callback(self.remove_cgroups)
        for top in self.tops:
            for name in ("init.scope", "caller"):
                (top / name).mkdir(parents=True)
            for path in [top, *top.rglob("*")]:
                os.chown(path, world.uid, world.uid)
        stack.callback(world._ids.kill)
        address = f"--address=unix:path={world.runtime_dir}/bus"
        argv = ["dbus-daemon", "--session", "--nofork", "--print-address", address]
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        bus = stack.enter_context(world.popen(argv, env=self.env, **quiet))
        stack.callback(world._ids.kill)  # each is waited for, also if the next does not start
        assert bus.stdout.readline().startswith("unix:")
        stack.enter_context(self.start("init.scope", ["/usr/lib/systemd/systemd", "--user"]))
        stack.callback(world._ids.kill)
        private = world.path(f"{world.runtime_dir}/systemd/private")
        assert until(lambda: private.exists() and self.units() is not None)

    def start(self, cgroup: str, argv: list[str], **options: Any) -> bench.Child:
        """Start a program of the user's in a cgroup."""
        moves = [f"echo $$ >{top}/{cgroup}/cgroup.procs;" for top in self.tops]
        become = ["setpriv", f"--reuid={self.world.uid}", f"--regid={self.world.uid}"]
        script = " ".join([*moves, 'exec "$@"'])
        words = ["sh", "-euc", script, "sh", *become, "--init-groups", *argv]
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        return self.world.root.popen(words, env=self.env, **options)

    def units(self) -> list[str] | None:
        """List the scopes of ours; None where the manager does not answer."""
        argv = ["systemctl", "--user", "list-units", "--plain", "--no-legend", "netns-shim-*"]
        done = self.world.run(argv, env=self.env)
        return [line.split()[0] for line in done.stdout.splitlines()] if not done.stderr else None

    def remove_cgroups(self) -> None:
        """Remove the cgroups once nothing is in them any more."""
        for top in self.tops:
            for directory, _, _ in os.walk(top, topdown=False):
                assert until(partial(_is_removed, directory)), directory


def _is_removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True


def hierarchies() -> list[str]:
    """List the places of the hierarchies of cgroups in which systemd puts its units."""
    places = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
    found = [place for place in places if os.path.exists(f"{place}/cgroup.procs")]
    return found or [UNIFIED]


@pytest.fixture
def manager(world: bench.World) -> Iterator[Manager]:
    """Start a service manager of the user's; skip where this machine cannot have one."""
    needed = ("/usr/lib/systemd/systemd", "/usr/bin/busctl", "/usr/bin/dbus-daemon")
    writable = all(os.access(place, os.W_OK) for place in hierarchies())
    if not writable or not all(map(os.path.exists, needed)):
        pytest.skip("systemd is not installed, or cgroups cannot be made here")
    said = world.root.run([needed[0], "--version"], check=True).stdout
    if hierarchies() != [UNIFIED] and int(said.split()[1]) >= WITHOUT_V1:
        pytest.skip("this systemd needs version 2 of cgroups, which this machine does not have")
    directory = world.path("/run/systemd/system")
    directory.mkdir(parents=True)
    with ExitStack() as stack:
        stack.callback(world.reset)
        stack.callback(directory.rmdir)
        yield Manager(world, stack)


def cgroup(pid: int) -> str:
    """Tell the name of the cgroup that a process is in."""
    return Path(f"/proc/{pid}/cgroup").read_text().splitlines()[-1].rpartition("/")[2]


def test_with_systemd(world: bench.World, manager: Manager) -> None:
    """Uplink and holder are in scopes of their own, and outlive the cgroup of the call."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    argv = [PLUGIN, "run", "--", "sh", "-c", "echo ready; exec cat"]
    with manager.start("caller", argv, text=True, **pipes) as child:
        assert child.stdout.readline() == "ready\n"
        (netns,) = Runtime(world).status()
        uplink, guardian = netns["uplink"]["pid"], netns["uplink"]["guardian"]["pid"]
        path = world.path(f"{world.state_dir}/.holder")
        holder = json.loads(path.read_text())["pid"]

        scopes = [f"netns-shim-holder-{holder}.scope", f"netns-shim-pasta-default-{uplink}.scope"]
        assert manager.units() == scopes
        assert [cgroup(holder), cgroup(uplink)] == scopes
        assert cgroup(guardian) == cgroup(uplink)
        assert cgroup(child.pid) == "caller"
        assert child.communicate()[1] == ""
    assert until(lambda: manager.units() == [])
    assert world.leftovers() == []

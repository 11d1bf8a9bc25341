# SPDX-License-Identifier: Apache-2.0
"""`netns-shim unshare`: a command in the user namespace in which plugins run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge, kill, reaches, until

WAIT = ["sh", "-c", "echo ready; exec cat"]
PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


def holder(world: bench.World) -> int:
    """Read which process holds the user namespace."""
    path = world.path(f"{world.state_dir}/.holder")
    return int(json.loads(path.read_text())["pid"])


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["no-such-command"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_exit_status(world: bench.World, command: list[str], status: int) -> None:
    """The exit status is the command's, as a shell gives it."""
    assert world.run([PLUGIN, "unshare", "--", *command]).returncode == status
    assert world.leftovers() == []


def test_the_shell_is_the_default(world: bench.World) -> None:
    """Without a command it is the user's shell, and without that /bin/sh."""
    env = {**world.env, "SHELL": "/usr/bin/id"}
    assert world.run([PLUGIN, "unshare"], env=env).stdout.startswith("uid=0(root)")
    assert world.run([PLUGIN, "unshare"], input="id -u; echo $0\n").stdout == "0\n/bin/sh\n"


def test_programs_of_root_are_found(world: bench.World) -> None:
    """What a user's PATH lacks is found, for the command and for what it runs; `.` stays in it."""
    env = {**world.env, "PATH": "/usr/local/bin:/usr/bin:/bin:."}
    done = world.run([PLUGIN, "unshare", "--", "nft", "--version"], env=env)
    path = world.run([PLUGIN, "unshare", "--", "sh", "-c", "echo $PATH"], env=env).stdout

    assert done.returncode == 0, done.stderr
    assert path == f"{env['PATH']}:/usr/local/sbin:/usr/sbin:/sbin\n"


def test_where_the_command_is(world: bench.World) -> None:
    """It is in the directory and the network namespace of its caller, with mounts of its own."""
    script = "cd /etc; readlink /proc/self/ns/net; exec $0 unshare -- sh -c 'pwd; {}'".format(
        "readlink /proc/self/ns/net; mount -t tmpfs tmpfs /mnt && touch /mnt/here; echo $?"
    )
    lines = world.run(["sh", "-c", script, PLUGIN], check=True).stdout.splitlines()

    assert lines == [lines[0], "/etc", lines[0], "0"]
    assert not world.path("/mnt/here").exists()


def test_signals_are_forwarded(world: bench.World) -> None:
    """A signal sent to netns-shim ends the command, which may have something to say first."""
    script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do read -t 1 line || :; done"
    child = world.popen([PLUGIN, "unshare", "--", "bash", "-c", script], **PIPES)
    assert child.stdout.readline() == "ready\n"

    os.kill(child.pid, signal.SIGTERM)

    assert child.communicate(timeout=20)[0] == "caught\n"
    assert child.returncode == 3
    assert world.leftovers() == []


def test_killed_it_leaves_nothing(world: bench.World) -> None:
    """Killed with SIGKILL, it leaves neither the command nor the holder."""
    child = world.popen([PLUGIN, "unshare", "--", *WAIT], **PIPES)
    child.stdout.readline()

    kill(child.pid)

    assert until(lambda: world.programs() == [])
    assert world.leftovers() == []


def test_all_commands_share_it(world: bench.World) -> None:
    """A second command is in the same namespaces, and the first may end before it."""
    script = ["readlink", "/proc/self/ns/user", "/proc/self/ns/mnt"]
    first = world.popen([PLUGIN, "unshare", "--", *WAIT], **PIPES)
    first.stdout.readline()
    before = world.run([PLUGIN, "unshare", "--", *script], check=True).stdout
    second = world.popen([PLUGIN, "unshare", "--", *WAIT], **PIPES)
    second.stdout.readline()

    first.communicate()

    assert world.run([PLUGIN, "unshare", "--", *script], check=True).stdout == before
    second.communicate()
    assert world.leftovers() == []


def test_what_the_command_leaves_running_keeps_it(world: bench.World) -> None:
    """A daemon that it has started is in the same namespaces as those who come later."""
    daemon = "readlink /proc/self/ns/mnt; exec cat $HOME/stop"
    script = f"mkfifo $HOME/stop; sh -c '{daemon}' >$HOME/ns 2>&1 &"
    world.run([PLUGIN, "unshare", "--", "sh", "-c", script], check=True)
    before = holder(world)
    assert until(lambda: world.path(f"{world.env['HOME']}/ns").read_text() != "")

    seen = world.run([PLUGIN, "unshare", "--", "readlink", "/proc/self/ns/mnt"], check=True)

    assert seen.stdout == world.path(f"{world.env['HOME']}/ns").read_text()
    assert holder(world) == before
    world.run(["sh", "-c", ": >$HOME/stop"], check=True)
    assert until(lambda: world.programs() == ["cat"])  # the holder itself
    world.run([PLUGIN, "status"], check=True)
    assert world.leftovers() == []


def test_inside_of_one_it_is_nothing_new(world: bench.World, session: bench.Session) -> None:
    """Root of a user namespace, or of the machine, stays there."""
    for place in (session, world.root):
        here = place.run(["readlink", "/proc/self/ns/user"]).stdout
        there = place.run([PLUGIN, "unshare", "--", "readlink", "/proc/self/ns/user"])
        assert there.stdout == here
    assert world.leftovers() == []


def test_in_a_shared_netns(world: bench.World) -> None:
    """With --netns it is inside that, with an uplink, as by `run`; the netns goes with it."""
    script = "ip -br address show tap0; cat /etc/resolv.conf; id -u"
    done = world.run([PLUGIN, "unshare", "--netns", "other", "--", "sh", "-c", script], check=True)

    lines = done.stdout.splitlines()
    assert "198.19.110.114/30" in lines[0]
    assert "nameserver 169.254.1.1" in lines
    assert lines[-1] == "0"
    assert world.leftovers() == []


def test_a_runtime_in_it(world: bench.World) -> None:
    """What is started in it calls the plugin with all it needs, and a call from outside agrees."""
    runtime = Runtime(world, delegate=bridge(), uplink="none")
    with world.unshared() as own, own.container() as inner:
        inside = Runtime(own, delegate=bridge(), uplink="none")
        inside.add("c", inner)
        assert reaches(inner, "10.89.0.1")
        assert runtime.status() == inside.status()

        runtime.delete("c", inner)
        assert inside.status() == []
    assert until(lambda: world.leftovers() == [])


def test_not_a_name(world: bench.World) -> None:
    """A name that would lead out of the state directory is refused."""
    done = world.run([PLUGIN, "unshare", "--netns", "../x", "--", "true"])

    assert done.returncode == 1
    assert done.stderr.startswith("netns-shim: not a name for a netns: '../x': take letters")

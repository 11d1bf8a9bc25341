# SPDX-License-Identifier: Apache-2.0
"""The processes of `run` and `unshare`: what stays beside a command, and what cleans up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import bench
import pytest
from runtime import PLUGIN, Runtime, kill, until

WAIT = ["sh", "-c", "echo $$; exec cat"]
PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
WAYS = {"run": ["run", "--uplink", "none"], "unshare": ["unshare"]}
# Killed where it would tell the command to begin.
KILLED = """
import os, signal, sys
from netns_shim import in_place
from netns_shim.cli import supervisor

write = os.write

def killing(fd, data):
    os.kill(os.getpid(), signal.SIGKILL)

os.write = killing
command = ["sh", "-c", "echo begun; exec sleep 600"]
supervisor.run(command, in_place.Unchanged(), lambda: None, ["/none", "", ""])
"""


@pytest.fixture(params=WAYS)
def waiting(request: pytest.FixtureRequest, world: bench.World) -> tuple[Any, int]:
    """Give a caller that has been waiting for its command for some time, and the command."""
    child = world.popen([PLUGIN, *WAYS[request.param], "--", *WAIT], **PIPES)
    inner = int(child.stdout.readline())
    assert until(lambda: "waiting.py" in words(child.pid))
    return child, inner


def words(pid: int) -> str:
    """Read the command line of a process; "" where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def memory(pid: int) -> int:
    """Read how much memory a process has for itself, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon:")))


def keeper_of(child: int) -> int:
    """Find the keeper of a caller: its child that is a shell."""
    children = Path(f"/proc/{child}/task/{child}/children").read_text().split()
    (keeper,) = (int(pid) for pid in children if " netns-shim-keeper " in words(int(pid)))
    return keeper


def test_a_caller_that_is_killed_at_the_start() -> None:
    """The command begins after the keeper knows of it, so it never outlives its caller."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=20, check=False
    )

    # The end of its output is the end of all that has it.
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


def test_what_stays(world: bench.World, waiting: tuple[Any, int]) -> None:
    """A Python that has loaded nothing, and a shell."""
    child, _ = waiting
    keeper = keeper_of(child.pid)

    assert memory(keeper) < 512
    assert memory(child.pid) < 4096
    assert words(keeper).startswith("sh -c ")
    child.communicate()
    assert child.returncode == 0
    assert world.leftovers() == []


def test_the_end_of_a_long_command(world: bench.World, waiting: tuple[Any, int]) -> None:
    """Signals are passed on, and the exit status is the command's."""
    child, _ = waiting

    os.kill(child.pid, signal.SIGTERM)

    assert child.wait(20) == 128 + signal.SIGTERM
    assert world.leftovers() == []


def test_a_caller_that_is_killed(world: bench.World, waiting: tuple[Any, int]) -> None:
    """The keeper ends the command and cleans up."""
    child, inner = waiting

    kill(child.pid)

    assert until(lambda: not words(inner))
    assert until(lambda: world.leftovers() == [])


@pytest.mark.parametrize("inherited", ["", "3</dev/null"])
def test_a_command_that_takes_long_is_no_ghost(world: bench.World, inherited: str) -> None:
    """`gc` and `doctor` leave a command alone, whichever descriptor has the lock of its guard."""
    call = ["sh", "-c", f'exec "$@" {inherited}', "sh", PLUGIN, *WAYS["run"], "--", *WAIT]
    child = world.popen(call, **PIPES)
    child.stdout.readline()
    assert until(lambda: "waiting.py" in words(child.pid))

    found = [world.run([PLUGIN, "gc", *more]).stdout for more in (["--dry-run"], [])]

    assert [text.partition(" (")[0] for text in found] == ["nothing to do"] * 2
    assert "left by a killed call" not in world.run([PLUGIN, "doctor"]).stdout
    assert len(Runtime(world).status()[0]["commands"]) == 1
    child.communicate()
    assert until(lambda: world.leftovers() == []), world.leftovers()


def test_a_keeper_that_is_killed(world: bench.World, waiting: tuple[Any, int]) -> None:
    """Without it, all goes on, and the caller cleans up."""
    child, _ = waiting
    kill(keeper_of(child.pid))

    assert child.communicate("x\n") == ("x\n", None)

    assert child.returncode == 0
    assert world.leftovers() == []


def test_a_daemon_that_is_left(world: bench.World) -> None:
    """The end of the command is the end of the netns, whatever it leaves running."""
    fifo = f"{world.env['HOME']}/stop"
    daemon = f"mkfifo {fifo}; sh -c ': <{fifo}' <&- >&- 2>&- &"
    world.run([PLUGIN, *WAYS["run"], "--", "sh", "-c", daemon], check=True)

    assert Runtime(world).status() == []
    world.run(["sh", "-c", f": >{fifo}"], check=True)

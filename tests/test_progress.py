# SPDX-License-Identifier: Apache-2.0
"""What takes long is said on a terminal, and only there."""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Iterator

import bench
import pytest
from gate import CONF, Gate
from runtime import PLUGIN, Runtime, bridge

ERASE = b"\r\x1b[K"


@pytest.fixture
def runtime(session: bench.Session, gate: Gate) -> Runtime:
    """A runtime whose network has a bridge and the gate, with a container that is gone."""
    runtime = Runtime(session, path=gate.path, plugins=[bridge(), CONF], uplink="none")
    with session.container() as container:
        runtime.add("c1", container)
    return runtime


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: our end and that of the program."""
    ours, theirs = os.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def shown(terminal: int, text: bytes, seconds: float = 30) -> bytes:
    """Read a terminal until a text is there; give all of it."""
    found = b""
    while text not in found:
        assert select.select([terminal], [], [], seconds)[0], found
        found += os.read(terminal, 4096)
    return found


def test_a_garbage_collection_says_whom_it_detaches(
    world: bench.World,
    session: bench.Session,
    runtime: Runtime,
    gate: Gate,
    terminal: tuple[int, int],
) -> None:
    """While a DEL takes its time its container is named; afterwards the line is empty again."""
    gate.shut("DEL")
    ours, theirs = terminal
    with session.popen([PLUGIN, "gc"], stdout=-1, stderr=theirs, text=True) as collecting:
        gate.wait()
        found = shown(ours, b"detaching c1 eth0 from rootless")
        gate.open()
        stdout, _ = collecting.communicate(timeout=30)

    assert ERASE + b"looking for what is gone" in found
    assert shown(ours, ERASE + b"\r").endswith(ERASE + b"\r")
    assert "detached rootless c1 eth0" in stdout
    assert world.leftovers() == []


def test_waiting_is_said(
    world: bench.World, session: bench.Session, runtime: Runtime, terminal: tuple[int, int]
) -> None:
    """Who waits for a lock says for what."""
    ours, theirs = terminal
    path = session.path(f"{world.state_dir}/.lock-default")
    with open(path, "w") as file:
        os.fchown(file.fileno(), world.uid, world.uid)
        fcntl.flock(file, fcntl.LOCK_EX)
        with session.popen([PLUGIN, "refresh"], stdout=-1, stderr=theirs, text=True) as waiting:
            shown(ours, b"the shared netns 'default' is being made or removed")
            os.unlink(path)
            fcntl.flock(file, fcntl.LOCK_UN)
            stdout, _ = waiting.communicate(timeout=30)

    assert stdout.startswith("default: uplink none started again")
    session.run([PLUGIN, "gc"], check=True)
    assert world.leftovers() == []


def test_silence_in_a_pipe(session: bench.Session, runtime: Runtime) -> None:
    """What goes into a pipe is the result alone."""
    done = session.run([PLUGIN, "gc"], check=True)

    assert done.stderr == ""
    assert "\x1b" not in done.stdout

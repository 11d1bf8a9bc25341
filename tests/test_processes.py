# SPDX-License-Identifier: Apache-2.0
"""Processes that others have started: how they are known, and how they are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_shim.proc import start_time
from netns_shim.shared import processes
from netns_shim.shared.processes import stop, stray
from netns_shim.state import State


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A state directory."""
    where = State(str(tmp_path), "default")
    os.mkdir(where.dir)
    return where


@pytest.fixture
def waiting() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends when it is told to."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_uplink_is_ended(waiting: subprocess.Popen[bytes]) -> None:
    """An uplink is asked to end, and has ended afterwards."""
    stop(waiting.pid, start_time(waiting.pid))

    assert start_time(waiting.pid) == 0
    assert waiting.wait() == -signal.SIGTERM


def test_uplink_that_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """An uplink that ignores the request is killed."""
    monkeypatch.setattr("netns_shim.shared.processes.STOP_SECONDS", 0.2)
    script = "trap '' TERM; echo; exec sleep 600"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)

        stop(process.pid, start_time(process.pid))

        assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("other", [-1, 1])
def test_process_of_somebody_else_is_spared(waiting: subprocess.Popen[bytes], other: int) -> None:
    """A process that has the ID of an uplink and another start time gets no signal."""
    stop(waiting.pid, start_time(waiting.pid) + other)

    assert waiting.poll() is None
    assert start_time(waiting.pid) > 0


def test_uplink_that_is_gone(waiting: subprocess.Popen[bytes]) -> None:
    """Ending what has ended is no failure, reaped or not."""
    since = start_time(waiting.pid)
    waiting.kill()
    os.waitid(os.P_PID, waiting.pid, os.WEXITED | os.WNOWAIT)
    stop(waiting.pid, since)
    waiting.wait()

    stop(waiting.pid, since)


def test_id_that_is_a_threads() -> None:
    """Ending what has ended is no failure where a thread of another process has its ID."""
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait)
    thread.start()

    assert thread.native_id
    stop(thread.native_id, 1)

    assert thread.is_alive()
    go_on.set()
    thread.join()


@pytest.mark.parametrize("held", ["uplink.log", "netns"])
def test_stray_uplinks_are_found(state: State, held: str) -> None:
    """An uplink of which there is no record is found by its arguments and what it holds."""
    sleeper = ["sh", "-c", "read x", "sh"]
    with (
        open(state.path(held), "ab") as file,
        open(state.path("other"), "ab") as other,
        open(state.path("netns"), "ab"),
    ):
        commands = [
            ([*sleeper, "--netns", state.pin], file),
            ([*sleeper, "--netns", state.pin], other),
            ([*sleeper, "--netns", f"{state.pin}2"], file),
            ([*sleeper, f"--netns {state.pin}"], file),
        ]
        started = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout)
            for command, stdout in commands
        ]

    found = stray(state)

    expected = {(started[0].pid, start_time(started[0].pid))}
    for process in started:
        process.communicate()
    assert found == expected
    assert stray(state) == set()


def test_an_uplink_that_goes_to_the_background_is_found(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a process has ended during the look, its child may be too young for the list."""
    parent = subprocess.Popen(["true"])
    parent.wait()
    pipe = subprocess.PIPE
    with open(state.path("uplink.log"), "ab") as log:
        argv = ["sh", "-c", "echo ready >&2; read x", "sh", "--netns", state.pin]
        child = subprocess.Popen(argv, stdin=pipe, stdout=log, stderr=pipe, text=True)
    assert child.stderr
    assert child.stderr.readline() == "ready\n"  # before, it may have no arguments to be seen
    lists = iter([[parent.pid], [child.pid]])
    monkeypatch.setattr(processes, "ids", lambda: next(lists))

    found = stray(state)

    child.communicate()
    assert {pid for pid, _ in found} == {child.pid}

# SPDX-License-Identifier: Apache-2.0
"""later: a child does its work after the call, and holds nothing of the call."""

from __future__ import annotations

import fcntl
import os
import select
from pathlib import Path

import pytest

from netns_shim import interrupt, locks
from netns_shim.ports.later import Later


def ended(pid: int) -> bool:
    """Wait until a process has ended; tell whether it did."""
    pidfd = os.pidfd_open(pid)
    try:
        return bool(select.select([pidfd], [], [], 20)[0])
    finally:
        os.close(pidfd)


def test_it_works_when_it_is_told_to(tmp_path: Path) -> None:
    """It does the work in a session and a directory of its own, with no open file of the call."""
    told = tmp_path / "told"

    def work() -> None:
        files = [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)]
        others = [int(fd) for fd in os.listdir("/proc/self/fd") if int(fd) > 2]
        told.write_text(f"{os.getcwd()} {os.getsid(0) == os.getpid()} {files} {len(others)}")

    later = Later(work)
    later.start()

    assert ended(later._pid)
    os.waitpid(later._pid, 0)
    # Two others are open there: the pipe by which it was told, and the listing itself.
    null = ["/dev/null"] * 3
    assert told.read_text() == f"/ True {null} 2"


def test_it_watches_no_pipe_of_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its waits go by what they wait for, and not by a file that has the number of that pipe."""
    pipe = list(os.pipe())
    monkeypatch.setattr(interrupt, "_pipe", pipe)
    told = tmp_path / "told"

    def work() -> None:
        told.write_text(str(interrupt.descriptor()))

    later = Later(work)
    later.start()

    assert ended(later._pid)
    os.waitpid(later._pid, 0)
    assert told.read_text() == "-1"
    assert interrupt.descriptor() == pipe[0]
    for fd in pipe:
        os.close(fd)


def test_it_does_nothing_before(tmp_path: Path) -> None:
    """Cancelled, it ends, and has not done its work."""
    later = Later((tmp_path / "worked").touch)
    later.cancel()

    assert not os.path.exists(f"/proc/{later._pid}")
    assert not (tmp_path / "worked").exists()


def test_it_lets_go_of_pipes_and_locks(tmp_path: Path) -> None:
    """While it waits, a pipe of the runtime is at its end, and a lock of the call is free."""
    reader, writer = os.pipe()
    held = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    later = Later(lambda: None)
    os.close(writer)
    os.close(held)
    try:
        assert select.select([reader], [], [], 20)[0]
        assert os.read(reader, 1) == b""
        other = os.open(tmp_path / "lock", os.O_RDWR)
        # It closes what it has in the order of the numbers, and the pipe has the lower ones.
        while not locks.lock(other):
            os.sched_yield()
        os.close(other)
        os.close(reader)
    finally:
        later.cancel()


def test_it_ends_with_the_call(tmp_path: Path) -> None:
    """Where the call is killed before it is live, the child finds its pipe closed and ends."""
    reader, writer = os.pipe()
    call = os.fork()
    if call == 0:
        try:
            later = Later((tmp_path / "worked").touch)
            os.write(writer, b"%d" % later._pid)
        finally:
            os._exit(0)
    os.close(writer)
    pid = int(os.read(reader, 20))
    os.close(reader)
    os.waitpid(call, 0)
    try:
        assert ended(pid)
    except ProcessLookupError:
        pass  # it has ended already
    assert not (tmp_path / "worked").exists()

# SPDX-License-Identifier: Apache-2.0
"""What proc(5) says of processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_shim.proc import start_time


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits until its stdin is closed."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_start_time_is_an_identity(child: subprocess.Popen[bytes]) -> None:
    """A process keeps its start time, which is that of proc_pid_stat(5)."""
    since = start_time(child.pid)

    text = Path(f"/proc/{child.pid}/stat").read_text()
    assert since == int(text.rpartition(")")[2].split()[19]) > 0
    assert start_time(child.pid) == since


def test_start_time_of_a_process_with_an_odd_name(tmp_path: Path) -> None:
    """The name of a process may hold spaces and parentheses."""
    name = tmp_path / ") S 1 2 ("
    name.symlink_to("/bin/cat")
    with subprocess.Popen([name], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        process.stdout.read(1)  # so that it is this program by now

        since = start_time(process.pid)

        assert start_time(os.getpid()) <= since


def test_zombie_is_dead(child: subprocess.Popen[bytes]) -> None:
    """A process that is not reaped yet does not live; nor does one that never was."""
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert start_time(child.pid) == 0
    child.wait()
    assert start_time(child.pid) == 0

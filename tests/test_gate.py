# SPDX-License-Identifier: Apache-2.0
"""gate: a child becomes a program when it is told to, where it was forked."""

from __future__ import annotations

import os
from pathlib import Path

from netns_shim.ports.gate import Gate


def test_it_becomes_a_program(tmp_path: Path) -> None:
    """It runs the program in a session and a directory of its own, with its output in the log."""
    log = tmp_path / "log"
    script = 'pwd; echo "$1"; ls /proc/self/fd | wc -l; read -r x || echo nothing; ps -o sid= $$'

    with open(tmp_path / "open", "w") as kept:
        os.set_inheritable(kept.fileno(), True)
        gate = Gate()
        pid = gate.start(["/bin/sh", "-c", script, "sh", "a b"], str(log))
        status = os.waitpid(pid, 0)[1]

    assert status == 0
    # `ls` has its own descriptor besides the three.
    assert log.read_text().split("\n")[:4] == ["/", "a b", "4", "nothing"]
    assert int(log.read_text().split()[-1]) == pid


def test_it_ends_when_it_is_not_needed() -> None:
    """Cancelled, it ends without having run anything."""
    gate = Gate()
    gate.cancel()

    assert gate._pid not in map(int, filter(str.isdigit, os.listdir("/proc")))


def test_missing_program_is_in_the_log(tmp_path: Path) -> None:
    """A program that cannot be run ends with status 127, and the log says why."""
    log = tmp_path / "log"

    pid = Gate().start([str(tmp_path / "missing")], str(log))

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 127
    assert "No such file" in log.read_text()


def test_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    """A link in the place of the log is not followed."""
    target, log = tmp_path / "target", tmp_path / "log"
    log.symlink_to(target)

    pid = Gate().start(["/bin/echo", "hello"], str(log))

    assert os.waitpid(pid, 0)[1] != 0
    assert not target.exists()

# SPDX-License-Identifier: Apache-2.0
"""The keeper of a command: what becomes of the command when its caller is killed."""

from __future__ import annotations

import signal
import subprocess
import sys

# Killed where it would tell the keeper of the command, or one step later.
KILLED = """
import os, signal, sys
from netns_shim import enter
from netns_shim.cli import supervisor

left, write = int(sys.argv[1]), os.write

def killing(fd, data):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return write(fd, data)

keeper = supervisor.Keeper(lambda: None)
os.write = killing
keeper.run(["sh", "-c", "echo begun; exec sleep 600"], enter.Unchanged())
"""


def test_a_caller_that_is_killed_at_the_start() -> None:
    """The command begins after the keeper knows of it, so it never outlives its caller."""
    for steps in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, steps], capture_output=True, text=True, timeout=20
        )

        # The end of its output is the end of all that has it.
        assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")

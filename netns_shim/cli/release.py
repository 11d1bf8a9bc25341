# SPDX-License-Identifier: Apache-2.0
"""Cleaning up after a command, in another process than that which has started it."""

from __future__ import annotations

import os

from .. import conf, interrupt, skel, state
from ..errors import say
from ..shared import processes
from ..state import State
from ..target import Shared
from ..userns import pause
from .supervisor import dismiss, exit_status


def main(
    base: str,
    name: str,
    guard: str,
    pid: str,
    started: str,
    tell: str = "",
    keeper: str = "",
    status: str = "0",
) -> int:
    """Drop the guard of a command, and leave its netns; give the exit status of the command.

    `base` is the state directory; without a `name` there is no shared netns. `pid` and `started`
    are the command's: if it is there, because its caller was killed, it is ended first. `tell` is
    the pipe of a keeper, which has the process ID `keeper`.
    """
    skel.settle()
    interrupt.disregard()
    try:
        processes.stop(int(pid), int(started))
        where = State(base, name)
        if name:
            # The keeper still has the lock, so no other call has to guess.
            state.remove(f"{where.refs}/{guard}")
        if not tell:
            os.closerange(3, 1 << 20)
        if name:
            Shared(where, conf.DEFAULT_UPLINK, os.environ).leave()
        pause.end_if_unused(base)
        if tell:
            dismiss(int(keeper), int(tell))
    except Exception as error:
        say(str(skel.as_shim_error(error)))
    return exit_status(int(status))

# SPDX-License-Identifier: Apache-2.0
"""Cleaning up after a command, in another process than that which has started it."""

from __future__ import annotations

import os
import select
import signal

from .. import conf, interrupt, skel, state
from ..errors import say
from ..proc import start_time
from ..state import State
from ..target import Shared
from ..userns import pause
from .supervisor import dismiss, exit_status

END_SECONDS = 5


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
        _end(int(pid), int(started))
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


def _end(pid: int, started: int) -> None:
    """End the command if it is there."""
    if start_time(pid) != started or not started:
        return
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    if start_time(pid) == started:
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(fd, number)
            if select.select([fd], [], [], END_SECONDS)[0]:
                break
    os.close(fd)

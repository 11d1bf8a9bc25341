# SPDX-License-Identifier: Apache-2.0
"""Waiting for a command in little memory: run as a program, it imports nothing of ours.

`supervisor` becomes this if the command takes long. It becomes `release` in its turn.
"""

from __future__ import annotations

import _signal as signal  # see `child`; so is `posix` what `os` is made of
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORWARDED = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
# sigaction(2): the terminal sent the signal, and so it sent it to the command as well.
SI_KERNEL = 0x80


def look(child: int, info: Any) -> int | None:
    """Act on a signal: pass it on to the child, or give the wait status of that if it has ended.

    `info` is what sigwaitinfo(2) gives.
    FORWARDED and SIGCHLD have to be blocked.
    """
    if info.si_signo != signal.SIGCHLD:
        if info.si_code != SI_KERNEL:
            posix.kill(child, info.si_signo)  # not reaped yet, so it is the command's ID
        return None
    pid, status = posix.waitpid(child, posix.WNOHANG)
    return status if pid else None


def main(child: int, call: list[str]) -> None:
    """Wait for a child, then become a program that gets the status as its last argument."""
    while True:
        status = look(child, signal.sigwaitinfo(FORWARDED | {signal.SIGCHLD}))
        if status is not None:
            posix.execve(call[0], [*call, str(status)], posix.environ)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

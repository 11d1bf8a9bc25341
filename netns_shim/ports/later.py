# SPDX-License-Identifier: Apache-2.0
"""A child that stays in the host's netns, and opens ports some time after the ADD.

As root of a user namespace Podman listens itself on each port that it publishes. It does so after
the ADD, and would fail if the port were open: see `reservation`. So a child waits until that is
over. It lives for a moment; if it is killed, `netns-shim refresh` opens the ports.
"""

from __future__ import annotations

import os

from .. import interrupt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Later:
    """The child. One of `start` and `cancel` must be called, once."""

    __slots__ = ("_pid", "_writer")

    def __init__(self, work: Callable[[], None]) -> None:
        """Fork it, here and now; it does the work when it is told to."""
        reader, self._writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                interrupt.leave()
                _leave_alone(reader)
                if os.read(reader, 1):
                    work()
            finally:
                os._exit(0)
        os.close(reader)

    def start(self) -> None:
        """Have it do its work; it outlives this process."""
        os.write(self._writer, b"1")
        os.close(self._writer)

    def cancel(self) -> None:
        """Have it end, and wait for that."""
        os.close(self._writer)
        os.waitpid(self._pid, 0)


def _leave_alone(kept: int) -> None:
    """Leave the session and the open files of the call.

    A runtime waits for its pipes, and the lock of a reference is in its descriptor.
    """
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd != kept:
            try:
                os.close(fd)
            except OSError:
                pass  # the descriptor of the listing itself

# SPDX-License-Identifier: Apache-2.0
"""A child that stays in the host's netns, and becomes a program there when it is told to.

A process that has entered the shared netns cannot go back. But only after the plugins have run
does it know which ports to open on the host. So it forks before it enters. If it is killed, the
child finds its pipe closed, and ends.
"""

from __future__ import annotations

import _signal as signal  # see `child`
import os

from .. import interrupt
from ..child import DEFAULT_SIGNALS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Gate:
    """The child. One of `start` and `cancel` must be called, once."""

    __slots__ = ("_pid", "_writer")

    def __init__(self) -> None:
        """Fork it, here and now."""
        reader, self._writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                interrupt.leave()
                os.close(self._writer)
                _become(_read(reader))
            finally:
                os._exit(127)
        os.close(reader)

    def start(self, command: list[str], log: str) -> int:
        """Have it become a program, with its output in a new log file; give its process ID."""
        with open(self._writer, "wb") as pipe:
            pipe.write("\0".join([log, *command]).encode())
        return self._pid

    def cancel(self) -> None:
        """Have it end, and wait for that."""
        os.close(self._writer)
        os.waitpid(self._pid, 0)


def _read(reader: int) -> bytes:
    with open(reader, "rb") as pipe:
        return pipe.read()


def _become(words: bytes) -> NoReturn:
    if not words:
        os._exit(0)
    log, *command = words.decode().split("\0")
    os.setsid()
    for number in DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    # It would keep a file system busy.
    os.chdir("/")
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    output = os.open(log, flags, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # What this process had open is closed by exec(3); what was inherited without that flag is not.
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2:
            try:
                os.set_inheritable(fd, False)
            except OSError:
                pass  # the descriptor of the listing itself
    try:
        os.execve(command[0], command, os.environ)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(127)

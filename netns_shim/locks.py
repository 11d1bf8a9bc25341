# SPDX-License-Identifier: Apache-2.0
"""Locks: one process at a time, and no process waits for ever."""

from __future__ import annotations

import fcntl
import os
import time

from . import interrupt
from .errors import TRY_AGAIN_LATER, ShimError, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Called each time a wait looks again, with what it waits for; for the commands for people.
on_wait: Callable[[str], None] | None = None
# How long a wait sleeps before it looks again, in seconds: short beside a call of a plugin.
PAUSE = 0.01
# How long to wait for a process that makes, repairs or removes a shared netns, in seconds.
MAKING_SECONDS = 60


def take(path: str, who: str) -> int:
    """Lock a file, made if need be; give its descriptor, -1 where another process has the lock.

    `who` is written into it, for the message of a process that waits in vain.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    # The last holder may have removed the file, and the next process may have made a new one.
    if not lock(fd) or not os.fstat(fd).st_nlink:
        os.close(fd)
        return -1
    try:
        os.ftruncate(fd, 0)
        os.write(fd, f"{who} (PID {os.getpid()})".encode(errors="replace"))
    except OSError:
        pass  # a full disk is no reason to lose the lock
    return fd


def lock(fd: int) -> bool:
    """Lock an open file, flock(2); tell whether that worked: False if another process has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait(deadline: float, what: str, path: str, *, is_taken: bool = False) -> None:
    """Wait a moment; ShimError (code 11) after the deadline, on the monotonic clock.

    `is_taken` tells that `take` locked the file, so that its content says who holds it. Raises
    Stopped when a signal says to stop.
    """
    interrupt.check(what)
    if on_wait is not None:
        on_wait(what)
    if time.monotonic() > deadline:
        holder = _holder(path) if is_taken else ""
        by = f", held by {holder}" if holder else ""
        raise ShimError(TRY_AGAIN_LATER, what, f"waited for {path}{by}")
    time.sleep(PAUSE)


def _holder(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:
            return (file.read(1000) or b"").decode(errors="replace")
    except OSError:
        return ""


class Lock:
    """The lock of a file as a context. The kernel drops it with the process."""

    __slots__ = ("_fd", "_path", "_stays", "_timeout", "_what", "_who")

    def __init__(
        self, path: str, timeout: float, who: str, *, what: str = "", stays: bool = True
    ) -> None:
        """Take how many seconds to wait at most, and who waits.

        `what` is the message while it waits. Unless the file `stays`, it is there only while it
        is locked.
        """
        self._path = path
        self._stays = stays
        self._timeout = timeout
        self._what = what or f"{who} waits for another one to end"
        self._who = who

    def __enter__(self) -> None:
        deadline = time.monotonic() + self._timeout
        while (fd := take(self._path, self._who)) < 0:
            wait(deadline, self._what, self._path, is_taken=True)
        self._fd = fd

    def __exit__(self, *_: object) -> None:
        try:
            if not self._stays:
                os.unlink(self._path)
        except FileNotFoundError:
            pass  # another process has cleaned up
        except OSError as error:
            # The work is done, and a file that stays keeps no process waiting.
            warn(f"cannot remove the lock {self._path}: {error.strerror}")
        finally:
            os.close(self._fd)


def making(path: str, who: str, what: str) -> Lock:
    """Give the lock for making or removing a shared netns. Its file goes when it is unlocked."""
    return Lock(path, MAKING_SECONDS, who, what=what, stays=False)


class NoLock:
    """Going ahead without a lock, as a context.

    It does as little as `in_place.Unchanged`. They are two, so that mypy tells them apart.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        """Do not wait."""

    def __exit__(self, *_: object) -> None:
        """Unlock nothing."""

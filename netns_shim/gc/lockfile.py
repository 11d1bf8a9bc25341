# SPDX-License-Identifier: Apache-2.0
"""The lock of another program's file, taken by that program's rules: flock(2).

Our own locks are in `locks`, which calls that start a container have to import.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from typing import TYPE_CHECKING, Any

import filelock

from .. import locks

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def locked(path: str, timeout: float, what: str) -> Iterator[None]:
    """Hold the lock of this file, which is made if need be and stays.

    `timeout` is how many seconds to wait at most, `what` the message if that is too short. Raises
    ShimError (code 11) after that, Stopped when a signal says to stop.
    """
    lock = _lock(path)
    deadline = time.monotonic() + timeout
    while not lock.is_locked:
        # Not filelock's own waiting, because a signal cannot interrupt that.
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(blocking=False)
            break
        locks.wait(deadline, what, path)
    try:
        yield
    finally:
        lock.release()


def _lock(path: str) -> Any:
    # filelock before 3.10 leaves the mode to the umask, and Debian 12 has 3.9.
    if "mode" in inspect.signature(filelock.FileLock.__init__).parameters:
        return filelock.FileLock(path, mode=0o600)
    return filelock.FileLock(path)

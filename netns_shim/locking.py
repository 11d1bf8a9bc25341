# SPDX-License-Identifier: Apache-2.0
"""The lock under which something is made, mended or removed, and that goes with it.

Its file is there only while it is held: filelock looks again at the file after it got the lock, so
removing it under the lock is safe.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import filelock

from . import turn

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_SECONDS = 60


@contextlib.contextmanager
def locked(path: str, what: str) -> Iterator[None]:
    """Hold the lock of this path, whose directory is there.

    `what` is what somebody else does meanwhile. Raises ShimError (code 11) where he does not end,
    Stopped where a signal says to.
    """
    lock = filelock.FileLock(path, mode=0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    while not lock.is_locked:
        # Not filelock's own waiting, as that is not to be interrupted by a signal.
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(blocking=False)
            break
        turn.wait(deadline, what, path)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        lock.release()

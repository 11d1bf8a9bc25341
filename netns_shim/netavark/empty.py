# SPDX-License-Identifier: Apache-2.0
"""A netns with nothing in it, for a teardown of a container whose own is gone."""

from __future__ import annotations

import errno
import os

from ..libc import CLONE_NEWNET, unshare


class EmptyNetns:
    """A new and empty netns, as a context that gives its path; it goes with the context.

    Raises PermissionError where this process may not make one.
    """

    __slots__ = ("_pid", "_stop")

    def __enter__(self) -> str:
        ready, tell = os.pipe()
        hear, self._stop = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._stop)
                unshare(CLONE_NEWNET)
                os.write(tell, b"1")
                os.read(hear, 1)  # the end of the context, or of the process that it is in
            finally:
                os._exit(0)
        os.close(tell)
        os.close(hear)
        is_ready = os.read(ready, 1) == b"1"
        os.close(ready)
        if not is_ready:
            self.__exit__()
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return f"/proc/{self._pid}/ns/net"

    def __exit__(self, *_: object) -> None:
        os.close(self._stop)
        os.waitpid(self._pid, 0)

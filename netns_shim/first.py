# SPDX-License-Identifier: Apache-2.0
"""The first ADD of its kind in a shared netns runs alone.

Real plugins make what they share between containers when they need it first: the chains
CNI-FORWARD of `firewall` and CNI-HOSTPORT-DNAT of `portmap`, for one. They look, then make, and
fail where another one was faster ("CHAIN_USER_ADD failed (File exists)"). Once it is there they
can run at once; so only those wait that come before the first one has succeeded.

What is made depends on the network, which may have IPv6 or not, and on what the runtime asks for,
such as published ports; but it belongs to all networks of a netns, so the lock is the netns's.
"""

from __future__ import annotations

import binascii
import os
import time

from . import turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from .request import Request
    from .state import State


class First:
    """The turn of one ADD, as a context: alone if it is the first, else beside others.

    To be entered with a reference held, and outside of the mounts that hide the state directory.
    """

    __slots__ = ("_lock", "_marker", "_path", "_timeout")

    def __init__(self, state: State, request: Request, timeout: float) -> None:
        """Take how many seconds to wait for others at most."""
        asked = sorted(k for k, v in (request.conf.get("runtimeConfig") or {}).items() if v)
        kind = binascii.crc32("\0".join(asked).encode(errors="replace"))
        self._marker = state.path(f"started/{request.network}+{kind:08x}")
        self._path = state.path("started/lock")
        self._timeout = timeout
        self._lock = -1

    def __enter__(self) -> None:
        deadline = time.monotonic() + self._timeout
        while not os.path.exists(self._marker):
            self._lock = turn.take(self._path)
            if self._lock >= 0:
                break
            what = "the first attachments to this network are still being made"
            turn.wait(deadline, what, self._path)
        # Whoever had the lock before may have been the first, and have succeeded.
        if self._lock >= 0 and os.path.exists(self._marker):
            os.close(self._lock)
            self._lock = -1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._lock < 0:
            return
        if kind is None:
            try:
                flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(self._marker, flags, 0o600))
            except OSError:
                pass  # the next one is the first again, which is no reason to fail
        os.close(self._lock)

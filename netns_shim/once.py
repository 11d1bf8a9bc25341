# SPDX-License-Identifier: Apache-2.0
"""Which calls wait in a shared netns: by default, the first ADD of its kind runs alone.

Real plugins make the things that containers share when they first need them, such as the chains
CNI-FORWARD of `firewall` and CNI-HOSTPORT-DNAT of `portmap`. They look, then make, and fail if
another call was faster ("CHAIN_USER_ADD failed (File exists)"). Once the chains exist, calls can
run at the same time; so an ADD waits only until the first one has succeeded. No DEL has been seen
to clash, beside other DELs or beside an ADD.

The things they make depend on the network's plugins, with or without IPv6, and on what the runtime
asks for, such as published ports. But they belong to all networks of a netns, so the lock is one
for the netns. The key `parallel` overrides all that.
"""

from __future__ import annotations

import binascii
import os
import time

from . import encoding, locks
from .locks import Lock, NoLock
from .state import FILE_MODE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from .conf import Configuration
    from .request import Request
    from .state import State


def lock_of(state: State, request: Request, conf: Configuration) -> Once | Lock | NoLock:
    """Give the lock for one ADD or DEL in a shared netns, as a context.

    Enter it with a reference held, and outside of the mounts that hide the state directory.
    """
    if conf.parallel is False:
        return alone(state, request, conf)
    if conf.parallel is None and request.verb == "ADD":
        return Once(state, request, conf)
    return NoLock()


def alone(state: State, request: Request, conf: Configuration) -> Lock:
    """Give the lock for a call that runs alone."""
    return Lock(_lock(state), conf.timeout, _who(request))


def _lock(state: State) -> str:
    return state.path("turn.lock")


def _who(request: Request) -> str:
    return f"{request.verb} of container {request.container_id!r} to {request.network!r}"


class Once:
    """The lock of one ADD, as a context: alone if it is the first, else beside others."""

    __slots__ = ("_lock", "_marker", "_path", "_timeout", "_who")

    def __init__(self, state: State, request: Request, conf: Configuration) -> None:
        asked = sorted(k for k, v in (request.conf.get("runtimeConfig") or {}).items() if v)
        kind = binascii.crc32(encoding.compact([conf.plugins, asked], sort_keys=True).encode())
        self._marker = state.path(f"started/{request.network}+{kind:08x}")
        self._path = _lock(state)
        self._timeout = conf.timeout
        self._who = _who(request)
        self._lock = -1

    def __enter__(self) -> None:
        deadline = time.monotonic() + self._timeout
        while not os.path.exists(self._marker):
            self._lock = locks.take(self._path, self._who)
            if self._lock >= 0:
                break
            what = "the first attachments to this network are still being made"
            locks.wait(deadline, what, self._path, is_taken=True)
        # The last process with the lock may have been the first ADD, and have succeeded.
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
                flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                os.close(os.open(self._marker, flags, FILE_MODE))
            except OSError:
                pass  # the next ADD runs alone again, which is no reason to fail
        os.close(self._lock)

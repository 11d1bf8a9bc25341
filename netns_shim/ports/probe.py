# SPDX-License-Identifier: Apache-2.0
"""Whether a port of the host is free, found out by binding it, ip(7).

It has to happen before the process enters the shared netns: afterwards it cannot see the host's.
"""

from __future__ import annotations

import _socket as socket  # see `mappings`
import errno
import os

from ..errors import PORT_UNAVAILABLE, ShimError
from . import holders
from .mappings import ANY4, ANY6, Binding, bindings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .mappings import Port


class Probe:
    """What binding the ports of an attachment has shown, for each family that it may need."""

    __slots__ = ("_problems",)

    def __init__(self, ports: Iterable[Port]) -> None:
        """Bind each port and let it go again."""
        self._problems: dict[tuple[str, str, int], ShimError] = {}
        for binding in (b for has in ({4}, {6}) for b in bindings(ports, has)):
            error = _try(binding)
            if error:
                self._problems[_key(binding)] = _explain(binding, error)

    def check(self, wanted: Iterable[Binding]) -> None:
        """Raise ShimError (code 106) where one of these ports cannot be opened."""
        for binding in wanted:
            addresses = (binding.address,) if binding.address else (ANY4, ANY6)
            for address in addresses:
                problem = self._problems.get((binding.protocol, address, binding.port))
                if problem is not None:
                    raise problem


def _key(binding: Binding) -> tuple[str, str, int]:
    return binding.protocol, binding.address, binding.port


def _try(binding: Binding) -> int:
    """Bind a port as a publisher would; give the error number, 0 where it is free."""
    family = socket.AF_INET6 if ":" in binding.address else socket.AF_INET
    kind = socket.SOCK_STREAM if binding.protocol == "tcp" else socket.SOCK_DGRAM
    try:
        probe = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    except OSError:
        return 0  # a host without IPv6: the publisher does without as well
    try:
        # A port whose last connections are not forgotten yet is free. With UDP it would not tell.
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind((binding.address, binding.port))
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL and binding.address == ANY6:
            return 0  # IPv6 is turned off
        return error.errno or errno.EIO
    finally:
        probe.close()
    return 0


def _explain(binding: Binding, number: int) -> ShimError:
    what = f"port {binding} of the host cannot be published"
    if number == errno.EADDRINUSE:
        holder = holders.find(binding.protocol, binding.address, binding.port)
        who = holders.describe(holder) if holder is not None else "a process that does not use it"
        return ShimError(PORT_UNAVAILABLE, what, f"it is in use by {who}")
    if number == errno.EACCES:
        advice = holders.advice(binding.port, holders.first_unprivileged())
        return ShimError(PORT_UNAVAILABLE, what, advice)
    if number == errno.EADDRNOTAVAIL:
        return ShimError(PORT_UNAVAILABLE, what, "the host does not have this address")
    return ShimError(PORT_UNAVAILABLE, what, os.strerror(number))

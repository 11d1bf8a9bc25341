# SPDX-License-Identifier: Apache-2.0
"""Which attachment has which port of the shared netns, and which number of a publisher.

Two containers may publish the same port on two addresses of the host. Inside there are no such
addresses, so each needs a port of its own. A claim is a link in `ports/` that leads nowhere: its
name says what is claimed, its target by which reference and for which address of the host. A claim
whose reference is gone is free: a call was killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from .. import locks
from ..attachment import ReferenceName
from ..errors import PORT_UNAVAILABLE, ShimError
from ..shared.files import make_private
from ..state import PORTS
from .mappings import overlap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..state import State
    from .mappings import Port

# How long to wait for another call that claims, in seconds; each takes well below one.
WAIT_SECONDS = 10.0
# Ports to give to those whose own one is claimed, from the highest down.
HIGHEST, LOWEST = 65535, 49152
# The address in the claim of such a port: it is open on the host under another number.
INSIDE = "-"
# The interface of a publisher has its number in its name, and a table of routes as well. The last
# one is for the ports of the shared netns itself.
LISTED = 4095
NUMBERS = range(1, LISTED)


class Claims:
    """The claims in a shared netns, locked as a context."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._directory = state.path(PORTS)

    def __enter__(self) -> Claims:
        make_private(self._directory)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._directory, flags)
        deadline = time.monotonic() + WAIT_SECONDS
        try:
            while not locks.lock(self._fd):
                locks.wait(deadline, "another call claims ports", self._directory)
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)

    def take(self, name: ReferenceName, ports: Iterable[Port]) -> list[Port]:
        """Claim a port of the shared netns for each port, `inside` says which; give those.

        A port that the same container publishes by another attachment is left out: a runtime gives
        its ports to each network of a container. Raises ShimError (code 106) where another
        container publishes the same port of the host.
        """
        # Two ports of one attachment share one inside only if they lead to one of the container.
        given: dict[str, int] = {}
        taken = []
        for port in ports:
            owner, address = self._owner(f"{port.protocol}-{port.host_port}", name)
            if owner and address != INSIDE and overlap(address, port.host_ip):
                if owner.container_id == name.container_id:
                    continue
                _, container, ifname = owner.attachment
                raise ShimError(
                    PORT_UNAVAILABLE,
                    f"port {port} is published already",
                    f"container {container!r} has it on network {owner.network!r} as {ifname!r}",
                )
            candidates = [] if owner else [port.host_port]
            self._claim(port, name, [*candidates, *range(HIGHEST, LOWEST, -1)], given)
            taken.append(port)
        return taken

    def _claim(
        self, port: Port, name: ReferenceName, candidates: list[int], given: dict[str, int]
    ) -> None:
        for number in candidates:
            what = f"{port.protocol}-{number}"
            is_free = given.setdefault(what, port.container_port) == port.container_port
            if is_free and not self._owner(what, name)[0]:
                is_of_host = number == port.host_port
                self._link(what, f"{(port.host_ip or '*') if is_of_host else INSIDE} {name}")
                port.inside = number
                return
        raise ShimError(PORT_UNAVAILABLE, f"no port is left for {port} in the shared netns")

    def number(self, name: ReferenceName) -> int:
        """Claim the number of a publisher for a reference."""
        for number in NUMBERS:
            what = f"pub{number}"
            if not self._owner(what, None)[0]:
                self._link(what, f"* {name}")
                return number
        raise ShimError(PORT_UNAVAILABLE, "too many publishers run for the shared netns")

    def _link(self, what: str, target: str) -> None:
        path = f"{self._directory}/{what}"
        try:
            os.unlink(path)  # one whose reference is gone
        except FileNotFoundError:
            pass
        os.symlink(target, path)

    def _owner(self, what: str, name: ReferenceName | None) -> tuple[ReferenceName | None, str]:
        """Give the reference, other than `name`, that has a claim, and its address of the host."""
        address, owner = owner_of(self._state, what)
        if owner is None or (name is not None and owner.file == name.file):
            return None, ""
        return owner, address


def owner_of(state: State, what: str) -> tuple[str, ReferenceName | None]:
    """Read a claim: the address of the host and the reference, None where it is not there."""
    try:
        target = os.readlink(f"{state.path(PORTS)}/{what}")
    except OSError:
        return "", None
    address, _, file = target.partition(" ")
    if not file or "/" in file or not os.path.lexists(f"{state.refs}/{file}"):
        return "", None
    return "" if address == "*" else address, ReferenceName(file)


def is_siblings(state: State, name: ReferenceName, port: Port) -> bool:
    """Tell whether another attachment of the same container publishes a port."""
    address, owner = owner_of(state, f"{port.protocol}-{port.host_port}")
    if owner is None or owner.file == name.file or address == INSIDE:
        return False
    return owner.container_id == name.container_id and overlap(address, port.host_ip)


def is_held(state: State, name: ReferenceName, port: Port) -> bool:
    """Tell whether a reference has the claim of a port."""
    owner = owner_of(state, f"{port.protocol}-{port.inside}")[1]
    return owner is not None and owner.file == name.file


def drop(state: State, name: ReferenceName) -> None:
    """Give up the claims of a reference."""
    for entry in _listed(state):
        path = f"{state.path(PORTS)}/{entry}"
        try:
            if os.readlink(path).partition(" ")[2] == name.file:
                os.unlink(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise


def count(state: State) -> int:
    """Tell how many claims there are, those of killed calls included."""
    return len(_listed(state))


def _listed(state: State) -> list[str]:
    try:
        return os.listdir(state.path(PORTS))
    except FileNotFoundError:
        return []

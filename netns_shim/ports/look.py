# SPDX-License-Identifier: Apache-2.0
"""Which published ports are open: what is recorded, compared with the sockets of the host.

Nothing is opened, closed or written. A state that cannot be seen from here is None, not wrong.
"""

from __future__ import annotations

import os

from ..errors import PORT_UNAVAILABLE, ShimError
from . import choice, holders, listed, mappings
from .mappings import PROTOCOLS
from .restore import LATER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..attachment import AttachmentRecord
    from ..decoding import Json
    from ..records import ProcessRecord, UplinkRecord
    from ..state import State
    from .holders import Holder
    from .mappings import Binding, Port

# The publisher listens; another program has the port of the host; no program listens.
OPEN, REFUSED, CLOSED = "open", "refused", "closed"
# What stands for the addresses of both families.
BOTH = "*"


class Seen:
    """A published port as it is on the host.

    `address` is the one that it is opened on, BOTH for all of both families, "" while that is not
    known. `state` is OPEN, REFUSED, CLOSED, or None where it is not known; `who` has the port
    where it is refused.
    """

    __slots__ = ("address", "port", "state", "who")

    def __init__(self, port: Port, address: str, state: str | None = None, who: str = "") -> None:
        self.port = port
        self.address = address
        self.state = state
        self.who = who


class Host:
    """The sockets of the host that wait for clients, read once, for one shared netns."""

    def __init__(self, link: UplinkRecord) -> None:
        """Take the record of the uplink; nothing is read before there is a port to look at."""
        self._link = link
        self._net = ""
        self._waiting: dict[tuple[str, int], list[tuple[str, Holder]]] = {}
        self._sockets: dict[int, set[int] | None] = {}
        self._are_known = False

    def attachment(self, record: AttachmentRecord) -> list[Seen]:
        """Look at the ports of an attachment."""
        return self._look(choice.ports_of(record), record.families, record.publisher)

    def netns(self) -> list[Seen]:
        """Look at the ports of the shared netns itself."""
        link = self._link
        families = {6 if ":" in address else 4 for address in link.addresses} or {4, 6}
        ports = [port for text in link.listed for port in _parse(text)]
        return self._look(ports, families, link.publisher)

    def process(self, publisher: Json | None) -> ProcessRecord | None:
        """Give the process that has ports open; None where it is still to be chosen."""
        made = choice.PublisherRecord(publisher)
        if made.driver == LATER:
            return None
        return made if made.serial else self._link

    def _look(self, ports: list[Port], families: set[int], publisher: Json | None) -> list[Seen]:
        process = self.process(publisher)
        if ports and process is not None and not self._net:
            self._read(process)
        found = []
        for port in ports:
            wanted = mappings.bindings([port], families)
            if not wanted:
                found.append(Seen(port, port.host_ip))
                continue
            seen = Seen(port, wanted[0].address or BOTH)
            if process is not None and self._net:
                self._judge(seen, wanted[0], process)
            found.append(seen)
        return found

    def _judge(self, seen: Seen, wanted: Binding, process: ProcessRecord) -> None:
        """Tell the state of one port, which a process is to have open."""
        if process.is_running and process.is_stopped:
            seen.state = CLOSED  # the kernel takes clients, and the publisher leads them nowhere
            return
        there = self._waiting.get((wanted.protocol, wanted.port), [])
        same = [holder for address, holder in there if _is_it(address, wanted.address)]
        own = self._sockets_of(process)
        if own is None and same:
            self._identify()
            if not all(holder.pid for holder in same):
                return  # the publisher has it, or another program that shows nothing either
        if own and any(holder.inode in own for holder in same):
            seen.state = OPEN
            return
        others = [h for address, h in there if holders.overlap(address, wanted.address)]
        seen.state = REFUSED if others else CLOSED
        if others:
            self._identify()
            seen.who = holders.describe(others[0])

    def _sockets_of(self, process: ProcessRecord) -> set[int] | None:
        """List the sockets of a publisher: none where it has ended, None where it shows none."""
        pid = process.pid
        if pid not in self._sockets:
            try:
                inodes = set(holders.sockets_of(pid)) if process.is_running else set()
            except FileNotFoundError:
                inodes = set()
            except OSError:
                self._sockets[pid] = None
                return None
            self._sockets[pid] = inodes
        return self._sockets[pid]

    def _read(self, process: ProcessRecord) -> None:
        """Read the tables of the host's netns, here or through a process that is in there."""
        if self._link.host_netns == os.stat("/proc/self/ns/net").st_ino:
            self._net = "/proc/self/net"
        else:
            running = [each.pid for each in (process, self._link) if each.is_running]
            self._net = f"/proc/{running[0]}/net" if running else ""
        for protocol in PROTOCOLS if self._net else ():
            for address, port, holder in holders.waiting(protocol, self._net):
                self._waiting.setdefault((protocol, port), []).append((address, holder))

    def _identify(self) -> None:
        """Find the processes of all sockets, once."""
        if not self._are_known:
            self._are_known = True
            holders.identify(holder for found in self._waiting.values() for _, holder in found)


def check(state: State, record: AttachmentRecord) -> None:
    """Raise ShimError (code 106) where a port of an attachment is certainly not open."""
    problem = complaint(Host(state.uplink()).attachment(record))
    if problem:
        raise ShimError(PORT_UNAVAILABLE, *problem)


def complaint(seen: Iterable[Seen]) -> tuple[str, str] | None:
    """Say which of some ports are not open, and what to do; None where all may be."""
    bad = [each for each in seen if each.state in (CLOSED, REFUSED)]
    if not bad:
        return None
    names = ", ".join(str(each.port) for each in bad[:5]) + (", …" if len(bad) > 5 else "")
    what = "a published port is" if len(bad) == 1 else f"{len(bad)} published ports are"
    taken = next((each for each in bad if each.who), None)
    why = "`netns-shim refresh` opens it again"
    if taken is not None:
        why = f"{taken.port} is in use by {taken.who}: end that, then `netns-shim refresh`"
    return f"{what} not open on the host: {names}", why


def _parse(text: str) -> list[Port]:
    try:
        return listed.parse(text)
    except ValueError:
        return []  # the record is damaged


def _is_it(address: str, wanted: str) -> bool:
    """Tell whether a socket has just the address that a publisher is told to listen on.

    One of IPv6 can be for both families, see `mappings.joined`.
    """
    if wanted in ("", mappings.ANY4):
        return address in mappings.ANY
    return address == wanted

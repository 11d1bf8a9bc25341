# SPDX-License-Identifier: Apache-2.0
"""Liveness of life: whether the network namespace of an attached container still exists.

A namespace cannot be looked up by its number. So it is looked for wherever it would show: at the
path that ADD was given, in /proc, and at the other end of its links, which the shared netns has.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import netns
from ..errors import CANNOT_ENTER, ShimError
from ..shared import processes
from ..target import Shared

if TYPE_CHECKING:
    from ..attachment import AttachmentRecord
    from ..state import State


class Liveness:
    """What is seen of the containers that are attached to one shared netns.

    Raises ShimError (code 103) where that netns is in another mount namespace and so cannot be
    looked into, 102 where it cannot be entered.
    """

    __slots__ = ("_is_other_boot", "_owners", "_processes", "_unclaimed", "_veths")

    def __init__(self, place: Shared, records: list[AttachmentRecord]) -> None:
        from ..shared import netlink  # pyroute2, which the GC of a runtime does without

        where = place.state
        self._is_other_boot = where.uplink().is_of_other_boot
        self._processes = _processes()
        self._owners: dict[tuple[int, int], set[str]] = {}
        paths = [f"/proc/{pid}/ns/net" for pid in self._processes.values()]
        for record in records:
            if (identity := record.netns_id) and leads_there(record):
                self._owners.setdefault(identity, set()).add(_container(record))
                paths.append(record.netns)
        fd = place.open_as_is()
        self._veths: set[str] = set()
        self._unclaimed: set[str] = set()
        if fd is None:
            # No link is left of a netns that is lost, but it may be pinned where we do not see it.
            refuse_if_elsewhere(where)
        else:
            os.close(fd)
            veths, leading_elsewhere = netlink.veths(where.pin, paths)
            self._veths.update(veths)
            claimed = set().union(*map(host_side, records))
            self._unclaimed.update(set(leading_elsewhere) - claimed)

    def of(self, record: AttachmentRecord) -> str:
        """Say by what a container is seen to live; "" where there is no sign of it."""
        identity = record.netns_id
        # A namespace does not outlive the machine, and its number is given to another one.
        if identity is None or self._is_other_boot:
            return ""
        if leads_there(record):
            return f"its network namespace is {record.netns}"
        if identity in self._processes and not self._is_anothers(identity, record):
            return f"the process {self._processes[identity]} is in its network namespace"
        there = host_side(record) & self._veths
        return f"its interface {min(there)} is in the shared netns" if there else ""

    def _is_anothers(self, identity: tuple[int, int], record: AttachmentRecord) -> bool:
        """Tell whether the number of a namespace that is gone has been given to another one.

        The kernel gives it to the next one soon. The path of another container leads there then,
        and the links of this one, if they are known, decide.
        """
        owners = self._owners.get(identity, set())
        return bool(owners and host_side(record)) and _container(record) not in owners

    def doubt(self, record: AttachmentRecord) -> str:
        """Say why nothing can be concluded from the absence of signs; "" where it can.

        The result of an ADD that was cut off, of CNI before 0.3.0 and of some drivers names no
        interface outside of the container. Then any might be its.
        """
        if self._is_other_boot or host_side(record) or not self._unclaimed:
            return ""
        return f"nobody knows where the interface {min(self._unclaimed)} leads, maybe to it"


def host_side(record: AttachmentRecord) -> set[str]:
    """Name the interfaces of a result that are not in the container; whatever is odd is none."""
    interfaces = (record.result or {}).get("interfaces")
    return {
        item["name"]
        for item in (interfaces if isinstance(interfaces, list) else [])
        if isinstance(item, dict) and isinstance(item.get("name"), str) and not item.get("sandbox")
    }


def _container(record: AttachmentRecord) -> str:
    return record.text("containerID")  # a damaged record may have none


def leads_there(record: AttachmentRecord) -> bool:
    """Tell whether the path of a container leads to the network namespace that ADD was given."""
    return record.netns_id is not None and netns.identity(record.netns) == record.netns_id


def _processes() -> dict[tuple[int, int], int]:
    """Find a process in each network namespace of which this process may know."""
    found: dict[tuple[int, int], int] = {}
    for pid in processes.ids():
        try:
            info = os.stat(f"/proc/{pid}/ns/net")
        except OSError:
            continue  # it has ended, or is not ours to look at
        found.setdefault((info.st_dev, info.st_ino), pid)
    return found


def refuse_if_elsewhere(where: State) -> None:
    """Refuse to judge by a pin that is a mount in the namespace of another process."""
    if pid := processes.pinned_in(where.pin):
        raise ShimError(
            CANNOT_ENTER,
            f"the shared netns {where.name!r} is pinned in another mount namespace",
            f"that of the process {pid}",
        )

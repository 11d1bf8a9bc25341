# SPDX-License-Identifier: Apache-2.0
"""Liveness: whether the network namespace of an attached container still exists.

A namespace cannot be looked up by its number. So we look in three places: at the path that ADD was
given, in /proc, and at the other ends of its links, which are in the shared netns.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import netns
from ..errors import CANNOT_ENTER, ShimError
from ..shared import elsewhere, lifecycle, processes
from ..shared.attached import host_side
from ..target import Shared

if TYPE_CHECKING:
    from ..attachment import AttachmentRecord
    from ..state import State


class Liveness:
    """The signs of life of the containers that are attached to one netns, open at `pin`.

    With an empty `pin` that netns cannot be looked into. If it `needs_process`, only a process in
    the netns of a container is a sign. Raises ShimError (code 102) where it cannot be entered.
    """

    __slots__ = (
        "_is_other_boot",
        "_needs_process",
        "_owners",
        "_processes",
        "_strays",
        "_unclaimed",
        "_veths",
    )

    def __init__(
        self,
        pin: str,
        records: list[AttachmentRecord],
        *,
        is_other_boot: bool = False,
        needs_process: bool = False,
    ) -> None:
        from ..shared import links  # not for the GC that a runtime calls

        self._is_other_boot = is_other_boot
        self._needs_process = needs_process
        self._processes = visible()
        self._owners: dict[tuple[int, int], set[str]] = {}
        # A path for each namespace, as many attachments may be in one.
        paths = {it: f"/proc/{pid}/ns/net" for it, pid in self._processes.items()}
        for record in records:
            if (identity := record.netns_id) and leads_there(record):
                self._owners.setdefault(identity, set()).add(_container(record))
                paths[identity] = record.netns
        self._veths: set[str] = set()
        # The links that no record names, and those of them that lead to an unknown place.
        self._strays = self._unclaimed = ""
        if pin:
            veths, leading_elsewhere = links.veths(pin, list(paths.values()))
            self._veths.update(veths)
            claimed = set().union(*map(host_side, records))
            self._strays = min(self._veths - claimed, default="")
            self._unclaimed = min(set(leading_elsewhere) - claimed, default="")

    def of(self, record: AttachmentRecord) -> str:
        """Say which sign shows that a container lives; "" where there is no sign."""
        identity = record.netns_id
        # A namespace does not outlive a boot, and its number goes to another one.
        if identity is None or self._is_other_boot or record.is_of_other_boot:
            return ""
        is_used = identity in self._processes
        if leads_there(record) and (is_used or not self._needs_process):
            idle = "" if is_used else ", without a process in it"
            return f"its network namespace is {record.netns}{idle}"
        if is_used and not self._is_anothers(identity, record):
            return f"the process {self._processes[identity]} is in its network namespace"
        there = set() if self._needs_process else host_side(record) & self._veths
        return f"its interface {min(there)} is in the netns of the plugins" if there else ""

    def _is_anothers(self, identity: tuple[int, int], record: AttachmentRecord) -> bool:
        """Tell whether the number of a namespace that is gone now belongs to another one.

        The kernel soon reuses it. The path of another container then leads to that number, and
        the links of this container, if they are known, decide.
        """
        owners = self._owners.get(identity, set())
        return bool(owners and host_side(record)) and _container(record) not in owners

    def doubt(self, record: AttachmentRecord, *, is_damaged: bool = False) -> str:
        """Say why a container without signs may still live; "" where it is gone.

        Some results name no interface outside of the container: that of an ADD that was cut off,
        of CNI before 0.3.0 and of some drivers. Then any interface might belong to it. What a
        damaged record says may be wrong, so only a netns without such interfaces is proof enough.
        """
        if self._is_other_boot:
            return ""
        is_named = self._needs_process or bool(host_side(record))
        link = self._strays if is_damaged else "" if is_named else self._unclaimed
        if not link:
            return ""
        leads = "may lead" if is_damaged else "leads to an unknown place, perhaps"
        return f"the interface {link} {leads} to this container: if that is gone, call DEL for it"


def of_shared(
    place: Shared, records: list[AttachmentRecord], *, needs_process: bool = False
) -> Liveness:
    """Look for the signs of life of the containers that are attached to a shared netns.

    Raises ShimError (code 103 where that netns is in another mount namespace, so that we cannot
    look into it, 102 where it cannot be entered).
    """
    where = place.state
    fd = place.open_as_is()
    if fd is None:
        # A lost netns has no links, but it may be pinned where we do not see it.
        refuse_if_elsewhere(where)
    else:
        os.close(fd)
    return Liveness(
        "" if fd is None else where.pin,
        records,
        is_other_boot=where.uplink().is_of_other_boot,
        needs_process=needs_process,
    )


def _container(record: AttachmentRecord) -> str:
    return record.text("containerID")  # a damaged record may lack it


def leads_there(record: AttachmentRecord) -> bool:
    """Tell whether the path of a container leads to the network namespace that ADD was given."""
    return record.netns_id is not None and netns.identity(record.netns) == record.netns_id


def visible() -> dict[tuple[int, int], int]:
    """Find a process in each network namespace that this process may see."""
    found: dict[tuple[int, int], int] = {}
    for pid in processes.ids():
        try:
            info = os.stat(f"/proc/{pid}/ns/net")
        except OSError:
            continue  # it has ended, or we may not look at it
        found.setdefault((info.st_dev, info.st_ino), pid)
    return found


def refuse_if_elsewhere(where: State) -> None:
    """Refuse to judge by a pin that is mounted in the namespace of another process.

    A call has a copy of the pin in its private mounts, until the process that removes the netns
    has removed the file as well. So no other process may be doing that at this moment.
    """
    pid = elsewhere.pinned_in(where)
    if pid:
        with lifecycle.locked(where):
            is_here = netns.identity(where.pin, is_ours=True) is not None
            is_there = os.path.lexists(where.pin) and not is_here
            pid = elsewhere.pinned_in(where) if is_there else 0
    if pid:
        raise ShimError(
            CANNOT_ENTER,
            f"the shared netns {where.name!r} is pinned in another mount namespace",
            f"that of the process {pid}: call from there",
        )

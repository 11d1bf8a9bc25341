# SPDX-License-Identifier: Apache-2.0
"""The garbage of plugins that worked in place, in namespaces of callers: see `callers`.

Where such a netns is there, a child goes in and calls the DEL there, as its caller would have.
Where it is gone, all that was in it is gone as well, and what is left are files.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import netns, references, state
from ..attachment import PARTS
from ..errors import ShimError
from ..in_place import HERE, InPlace
from ..netavark import configs
from ..operation import leave_names
from .callers import Callers, visit
from .collect import leases_of
from .liveness import Liveness
from .sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..attachment import AttachmentRecord
    from ..decoding import Json
    from ..request import Request

UNSEEN = (
    "it is not known whether the network namespace is there in which it was attached: call this "
    "where its runtime calls plugins"
)


class InPlaceSweep(Sweep):
    """The garbage collection of what is attached in place, in all namespaces of callers.

    With `only`, it is that of one of them, in which this process is.
    """

    def __init__(
        self,
        where: state.State,
        environ: Mapping[str, str],
        tell: Callable[[Request], None] | None,
        *,
        dry_run: bool,
        idle: bool,
        only: tuple[int, int] | None = None,
    ) -> None:
        """Take what to look at; nothing is done yet."""
        super().__init__(InPlace(where), environ, tell, dry_run=dry_run, idle=idle)
        self._only = only

    def run(self) -> Json:
        """Collect what is garbage; give what was done, by kind."""
        try:
            self._collect()
        except (ShimError, OSError) as error:
            self._add("failed", why=str(error))
        return {"name": self._where.name, **self._found, "isRemoved": False}

    def _collect(self) -> None:
        callers = Callers()
        records = self._records()
        here = [r for r in records if callers.is_here(r) and netns.is_in_place("auto")]
        if here:
            signs = Liveness(HERE, here, needs_process=self._idle)
            for record in here:
                self._judge(record, signs)
        if self._only is not None:
            return
        self._drop_ghosts()
        self._collect_elsewhere([r for r in records if r not in here], callers)
        if os.path.isdir(leases_of(self._where)):
            self._release_leases()
        if not self._dry_run:
            configs.remove_unused(self._where)

    def _collect_elsewhere(self, records: list[AttachmentRecord], callers: Callers) -> None:
        """Judge what is attached in another netns than that of this process."""
        signs = Liveness("", records, needs_process=self._idle)
        places = []
        for record in records:
            if (sign := signs.of(record)) and not self._idle:
                self._found["live"].append({**_names(record), "why": sign})
                continue
            is_there = callers.is_there(record)
            if is_there is None:
                self._add("skipped", **_names(record), why=UNSEEN)
            elif is_there and record.place is not None:
                places.append(record.place)
            else:
                self._forget(record, callers)
        for place in dict.fromkeys(places):
            self._visit(place, callers, [r for r in records if r.place == place])

    def _visit(
        self, place: tuple[int, int], callers: Callers, records: list[AttachmentRecord]
    ) -> None:
        """Have a child collect in a netns that is there."""
        way = callers.way(place)
        try:
            if way is None:
                raise ShimError(0, UNSEEN)
            found: Json = visit(way, place, lambda: self._there(place).run())
        except ShimError as error:
            for record in records:
                self._add("skipped", **_names(record), why=str(error))
            return
        for kind, entries in self._found.items():
            entries += [e for e in found.get(kind, []) if e not in entries]

    def _there(self, place: tuple[int, int]) -> InPlaceSweep:
        return InPlaceSweep(
            self._where, self._environ, None, dry_run=self._dry_run, idle=self._idle, only=place
        )

    def _forget(self, record: AttachmentRecord, callers: Callers) -> None:
        """Remove the files of an attachment whose netns has gone."""
        if not record.is_of_other_boot and callers.has(record.netns_id):
            self._found["live"].append({**_names(record), "why": "its network namespace is there"})
            return
        reference = references.find_idle(self._where, record.name)
        if reference is None:
            return  # a call is at work on it
        try:
            if reference.record.fields != record.fields:
                self._add("skipped", **_names(record), why="it has just been changed")
                return
            if not self._dry_run:
                if record.naming:
                    leave_names(self._target, reference)
                configs.forget(self._where, record.name)
                reference.drop()
            self._add("deleted", **_names(record))
        finally:
            reference.close()


def _names(record: AttachmentRecord) -> Json:
    return dict(zip(PARTS, record.name.attachment, strict=True))

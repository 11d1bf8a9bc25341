# SPDX-License-Identifier: Apache-2.0
"""The garbage of all netns of a state directory, for `netns-shim gc`: found, judged, removed.

The worst mistake here is to detach a living container. So an attachment is judged by all that is
known about it, and detached only under the lock of its reference. One that cannot be judged is
left alone and reported.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from .. import conf, recall, references, state
from ..attachment import COLLECTING, PARTS, AttachmentRecord, ReferenceName
from ..detaching import detach_by, guard
from ..errors import ShimError
from ..names.together import Together
from ..netavark import configs
from ..operation import leave_names
from ..shared import listing
from ..target import Shared
from . import leases, liveness
from .collect import has_command, holders, leases_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..decoding import Json
    from ..request import Request
    from ..target import Target
    from .liveness import Liveness

# Why no request can be made for an attachment of the stand-in.
OF_NETAVARK = "it is netavark's own, and only the program that set it up can tear it down"
# Of a reference that does not say how to undo its ADD.
DAMAGED = "the reference is damaged, so no plugin can undo the attachment"


def everywhere(
    base: str,
    environ: Mapping[str, str],
    *,
    dry_run: bool,
    idle: bool = False,
    tell: Callable[[Request], None] | None = None,
) -> Json:
    """Remove the garbage in every netns of a state directory; give what was done.

    It tries everything; failures are in the lists `failed`. A dry run changes nothing. With
    `idle`, a container without a process counts as gone. Raises ShimError (code 103) where it
    cannot work for lack of a user namespace. `tell` is called before each DEL.
    """
    # First: from the user's own user namespace, those of runtimes cannot be looked at.
    swept = in_place(base, environ, dry_run=dry_run, idle=idle, tell=tell)
    found = [where for where in state.all_in(base) if where.name != state.IN_PLACE]
    targets = [Shared(where, conf.DEFAULT_UPLINK, environ) for where in found]
    for target in targets[:1]:
        target.join()
    swept += [Sweep(t, environ, tell, dry_run=dry_run, idle=idle).run() for t in targets]
    return {"stateDir": base, "dryRun": dry_run, "netns": swept}


def in_place(
    base: str,
    environ: Mapping[str, str],
    *,
    dry_run: bool,
    idle: bool = False,
    tell: Callable[[Request], None] | None = None,
) -> list[Json]:
    """Do so for what is attached in place; give an empty list where nothing ever was."""
    where = state.State(base, state.IN_PLACE)
    if not os.path.isdir(where.refs) or not where.exists():
        return []
    if not os.listdir(where.refs) and not os.path.isdir(leases_of(where)):
        return []
    from .borrowed import InPlaceSweep  # only where plugins have worked in place

    return [InPlaceSweep(where, environ, tell, dry_run=dry_run, idle=idle).run()]


class Sweep:
    """The garbage collection of one shared netns."""

    def __init__(
        self,
        target: Target,
        environ: Mapping[str, str],
        tell: Callable[[Request], None] | None,
        *,
        dry_run: bool,
        idle: bool = False,
    ) -> None:
        """Take what to look at; nothing is done yet. `idle` and `tell` are as for `everywhere`."""
        self._where = target.state
        self._idle = idle
        self._target = target
        self._environ = environ
        self._dry_run = dry_run
        self._tell = tell
        kinds = ("deleted", "released", "dropped", "live", "skipped", "failed")
        self._found: dict[str, list[Json]] = {kind: [] for kind in kinds}

    def run(self) -> Json:
        """Collect what is garbage here; give what was done, by kind."""
        is_removed = False
        try:
            if self._dry_run:
                is_removed = self._look()
            elif held := guard(self._target, ReferenceName.guard(COLLECTING)):
                try:
                    self._collect()
                finally:
                    held.drop()
                    self._target.leave()
                is_removed = not self._where.exists()
        except (ShimError, OSError) as error:
            self._add("failed", why=str(error))
        return {"name": self._where.name, **self._found, "isRemoved": is_removed}

    def _look(self) -> bool:
        """Look at what would be done; tell whether the netns would be removed.

        Nothing keeps a netns for a dry run. What is found about one that goes meanwhile is wrong.
        """
        before, failure = _identity(self._where), ""
        try:
            self._collect()
        except (ShimError, OSError) as error:
            failure = str(error)
        going = len(self._found["deleted"]) + len(self._found["dropped"])
        is_removed = going == len(listing.names(self._where))
        if before is None or _identity(self._where) != before:
            for entries in self._found.values():
                entries.clear()
            return False
        if failure:
            self._add("failed", why=failure)
            return False
        return is_removed

    def _add(self, kind: str, **entry: Any) -> None:
        self._found[kind].append(entry)

    def _collect(self) -> None:
        self._drop_ghosts()
        records = self._records()
        try:
            signs = self._signs(records)
        except ShimError as error:
            self._add("skipped", why=str(error))
            return
        with nullcontext() if self._dry_run else Together(self._target):
            for record in records:
                self._judge(record, signs)
        self._release_leases()

    def _signs(self, records: list[AttachmentRecord]) -> Liveness:
        assert isinstance(self._target, Shared)
        return liveness.of_shared(self._target, records, needs_process=self._idle)

    def _drop_ghosts(self) -> None:
        ghosts = listing.ghosts(self._where)
        if not self._dry_run:
            references.drop_ghosts(self._where)
            ghosts = [name for name in ghosts if not os.path.exists(f"{self._where.refs}/{name}")]
        for name in ghosts:
            self._add("dropped", file=name.file)

    def _records(self) -> list[AttachmentRecord]:
        """Read the references of attachments; report what else is among them."""
        records = listing.in_order(listing.records(self._where))
        for name, problem in listing.odd(self._where, records):
            self._add("skipped", why=f"{self._where.refs}/{name} {problem}")
        return [record for record in records if record.name.is_attachment]

    def _judge(self, record: AttachmentRecord, signs: Liveness) -> None:
        names = dict(zip(PARTS, record.name.attachment, strict=True))
        problem = _problem_of(record, f"{self._where.refs}/{record.name}")
        if not problem and (sign := signs.of(record)):
            self._add("live", **names, why=sign)
            return
        try:
            reference = references.find(self._where, record.name)
        except ShimError as error:
            self._add("skipped", **names, why=f"{error}; call again when it has ended")
            return
        except OSError as error:
            what = f"{error.filename} cannot be opened: {error.strerror}"
            self._add("skipped", **names, why=f"{what}: once its container is gone, remove it")
            return
        if reference is None:
            return  # a DEL was faster
        try:
            if reference.record.fields != record.fields:
                problem = "it has just been changed: call again"
            request = recall.undoing(record, self._environ)
            if problem := problem or signs.doubt(record, is_damaged=request is None):
                self._add("skipped", **names, why=problem)
                return
            if request is None:
                self._drop(reference)
                return
            if not self._dry_run:
                if self._tell is not None:
                    self._tell(request)
                detach_by(request, self._target, reference)
            self._add("deleted", **names)
        except (ShimError, OSError) as error:
            self._add("failed", **names, why=str(error))
        finally:
            reference.close()

    def _drop(self, reference: references.Reference) -> None:
        """Drop a reference that is damaged, of a container that is gone."""
        if not self._dry_run:
            self._target.withdraw(reference.record)
            leave_names(self._target, reference)
            configs.forget(self._where, reference.record.name)
            reference.drop()
        self._add("dropped", file=reference.record.name.file, why=DAMAGED)

    def _release_leases(self) -> None:
        directory = leases_of(self._where)
        # A command that runs in this netns may have leases in it as well.
        is_in_doubt = has_command(self._where)
        # A network all of whose leases are of containers that are there needs no second look. For
        # the others the containers are listed again, under the lock.
        there = leases.Known(holders(self._where))
        for network in leases.networks(directory):
            try:
                if all(map(there.has, leases.read(f"{directory}/{network}"))):
                    continue
                found = leases.release(
                    f"{directory}/{network}",
                    lambda: holders(self._where),
                    dry_run=self._dry_run or is_in_doubt,
                )
            except (ShimError, OSError) as error:
                self._add("failed", network=network, why=str(error))
                continue
            for lease in found:
                names = {"network": network, "address": lease.address}
                names |= {"containerID": lease.container_id, "ifname": lease.ifname}
                if is_in_doubt:
                    names["why"] = "a command is running in the netns, and may use it"
                self._add("skipped" if is_in_doubt else "released", **names)


def _identity(where: state.State) -> tuple[int, int, int] | None:
    """Tell a netns from a later one of its name; None where it is gone."""
    try:
        info = os.stat(where.refs)
    except FileNotFoundError:
        return None
    return info.st_ino, info.st_dev, where.uplink().netns


def _problem_of(record: AttachmentRecord, path: str) -> str:
    """Say why it is unknown whether an attachment is garbage, and what to do, or ""."""
    if record.is_of_netavark:
        return OF_NETAVARK
    if record.netns_id is None:
        is_damaged = recall.request_of(record, {}) is None
        what = "is damaged" if is_damaged else "does not say what was attached"
        return f"{path} {what}: once the container is gone, call DEL for it, or remove this file"
    return ""

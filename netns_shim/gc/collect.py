# SPDX-License-Identifier: Apache-2.0
"""Garbage: attachments of containers that are gone, and leases without a container.

The worst mistake here is to detach a living container. So an attachment is judged by all that is
known about it, and detached only under the lock of its reference. One that cannot be judged is
left alone and reported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from .. import conf, recall, references, state
from ..attachment import COLLECTING, AttachmentRecord, ReferenceName
from ..detaching import detach_by, guard
from ..errors import DECODING_FAILURE, INVALID_NETWORK_CONFIG, ShimError
from ..kept import CNI_STATE
from ..names.together import Together
from ..operation import Operation
from ..request import Request
from ..shared import listing
from ..target import Shared
from . import leases, liveness

if TYPE_CHECKING:
    from ..decoding import Json
    from ..target import Target
    from .liveness import Liveness

# The names of the three parts that identify an attachment in the specification.
PARTS = ("network", "containerID", "ifname")
# A misspelling of the first one in an older specification; libcni sends both.
KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")


def collect(call: Operation, valid: set[tuple[str, str]] | None, began: float) -> list[str]:
    """Do what GC demands for one network of a shared netns; give the failures.

    `valid` comes from `valid_attachments`. `began` is when the runtime called. It decided before
    that what is valid, so attachments that were made later are left alone.
    """
    where, network = call.target.state, call.request.network
    references.drop_ghosts(where)
    problems = []
    with Together(call.target):
        for name in [] if valid is None else _attachments(where):
            if name.network != network or (name.container_id, name.ifname) in (valid or ()):
                continue
            try:
                _delete_stale(call, name, began)
            except (ShimError, OSError) as error:
                problems.append(f"{name}: {error}")
    # A runtime that names valid attachments knows better than we do.
    named = {container_id for container_id, _ in valid or ()}
    try:
        if network in leases.networks(leases_of(where)) and not _has_command(where):
            directory = f"{leases_of(where)}/{network}"
            leases.release(directory, lambda: _holders(where) | named, dry_run=False)
    except (ShimError, OSError) as error:
        problems.append(f"leases: {error}")
    return problems


def valid_attachments(conf: Json) -> set[tuple[str, str]] | None:
    """Read which attachments are still valid; None where the key is missing: then all may be.

    null is how Go writes an empty list. Where both keys are there and disagree, an attachment is
    valid if one of them names it. Raises ShimError (code 7) where a value is malformed.
    """
    given = [key for key in KEYS if key in conf]
    valid = set()
    for key in given:
        entries = [] if conf[key] is None else conf[key]
        if not isinstance(entries, list) or not all(map(_is_attachment, entries)):
            message = f"$['{key}']: must be a list of objects with containerID and ifname"
            raise ShimError(INVALID_NETWORK_CONFIG, message)
        valid |= {(entry["containerID"], entry["ifname"]) for entry in entries}
    return valid if given else None


def _is_attachment(entry: Any) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(entry.get(key), str) for key in ("containerID", "ifname")
    )


def _delete_stale(call: Operation, name: ReferenceName, began: float) -> None:
    reference = _find(call.target.state, name)
    if reference is None:
        return
    try:
        # A reference written since then is from an ADD that the runtime could not know about.
        if os.stat(reference.path).st_mtime < began and not reference.record.is_of_netavark:
            request = request_of(call.request.environ, reference.record)
            detach_by(request, call.target, reference)
    finally:
        reference.close()


def _find(where: state.State, name: ReferenceName) -> references.Reference | None:
    """Open a reference and lock it; None where it is gone, or its ADD or DEL is going on."""
    try:
        return references.find(where, name)
    except ShimError:
        return None


def request_of(environ: Mapping[str, str], record: AttachmentRecord) -> Request:
    """Make the DEL of an attachment; ShimError (code 6) where its reference is damaged."""
    request = recall.request_of(record, environ)
    if request is not None:
        written = (request.network, request.container_id, request.ifname)
        if written == record.name.attachment:
            return request
    raise ShimError(
        DECODING_FAILURE,
        "cannot decode the reference",
        "its content is damaged: `netns-shim stop --force` removes it with its netns",
    )


def _attachments(where: state.State) -> list[ReferenceName]:
    """List the references that are attachments; commands and guards are left out."""
    return [name for name in listing.names(where) if name.is_attachment]


def _has_command(where: state.State) -> bool:
    """Tell whether a command runs in a netns, which may have leases of its own."""
    return any(name.is_command for name in listing.names(where))


def leases_of(where: state.State) -> str:
    """Give the directory of the leases that plugins make in a netns."""
    return f"{where.dir}{CNI_STATE}/networks"


def _holders(where: state.State) -> set[str]:
    """List the containers with an attachment to any network of a shared netns.

    It has to be any: a plugin may make up the name of a lease's network. And plugins that run in
    place may do so in this netns.
    """
    states = (where, state.State(where.base, state.IN_PLACE))
    names = [name for each in states for name in listing.names(each)]
    return {name.container_id for name in names if name.container_id}


def sweep(
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
    swept = sweep_in_place(base, environ, dry_run=dry_run, idle=idle, tell=tell)
    found = [where for where in state.all_in(base) if where.name != state.IN_PLACE]
    targets = [Shared(where, conf.DEFAULT_UPLINK, environ) for where in found]
    for target in targets[:1]:
        target.join()
    swept += [Sweep(t, environ, tell, dry_run=dry_run, idle=idle).run() for t in targets]
    return {"stateDir": base, "dryRun": dry_run, "netns": swept}


def sweep_in_place(
    base: str,
    environ: Mapping[str, str],
    *,
    dry_run: bool,
    idle: bool = False,
    tell: Callable[[Request], None] | None = None,
) -> list[Json]:
    """Do what `sweep` does for what is attached in place; empty where nothing has ever been."""
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
        """Take what to look at; nothing is done yet. `idle` and `tell` are as for `sweep`."""
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
        records = [r for r in listing.records(self._where) if r.name.is_attachment]
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

    def _judge(self, record: AttachmentRecord, signs: Liveness) -> None:
        names = dict(zip(PARTS, record.name.attachment, strict=True))
        problem = _problem_of(record)
        if not problem and (sign := signs.of(record)):
            self._add("live", **names, why=sign)
            return
        try:
            reference = references.find(self._where, record.name)
        except ShimError as error:
            self._add("skipped", **names, why=error.message)
            return
        if reference is None:
            return  # a DEL was faster
        try:
            if reference.record.fields != record.fields:
                problem = "it has just been changed"
            if problem := problem or signs.doubt(record):
                self._add("skipped", **names, why=problem)
                return
            if not self._dry_run:
                request = request_of(self._environ, record)
                if self._tell is not None:
                    self._tell(request)
                detach_by(request, self._target, reference)
            self._add("deleted", **names)
        except (ShimError, OSError) as error:
            self._add("failed", **names, why=str(error))
        finally:
            reference.close()

    def _release_leases(self) -> None:
        directory = leases_of(self._where)
        # A command that runs in this netns may have leases in it as well.
        is_in_doubt = _has_command(self._where)
        # A network all of whose leases are of containers that are there needs no second look. For
        # the others the containers are listed again, under the lock.
        there = leases.Known(_holders(self._where))
        for network in leases.networks(directory):
            try:
                if all(map(there.has, leases.read(f"{directory}/{network}"))):
                    continue
                found = leases.release(
                    f"{directory}/{network}",
                    lambda: _holders(self._where),
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


def _problem_of(record: AttachmentRecord) -> str:
    """Say why it is unknown whether an attachment is garbage, or ""."""
    if record.is_of_netavark:
        return "it is netavark's own, and only the program that set it up can tear it down"
    try:
        request_of({}, record)
    except ShimError as error:
        return str(error)
    if record.netns_id is None:
        return "it is not known which network namespace was attached"
    return ""

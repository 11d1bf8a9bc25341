# SPDX-License-Identifier: Apache-2.0
"""The verb GC in one shared netns, and what `sweep` has in common with it.

A runtime says which attachments of a network are valid. The others are detached, and the leases
that no attachment explains are released.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .. import conf, recall, references, state
from ..detaching import detach_by
from ..errors import INVALID_NETWORK_CONFIG, ShimError
from ..kept import CNI_STATE
from ..names.together import Together
from ..request import Request
from ..shared import listing
from . import leases

if TYPE_CHECKING:
    from ..attachment import AttachmentRecord, ReferenceName
    from ..decoding import Json
    from ..operation import Operation

# The second is a misspelling in an older specification; libcni sends both.
KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")


def collect(call: Operation, valid: set[tuple[str, str]] | None, began: float) -> list[str]:
    """Do what GC demands for one network, in a shared netns or in place; give the failures.

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
        if network in leases.networks(leases_of(where)) and not has_command(where):
            directory = f"{leases_of(where)}/{network}"
            leases.release(directory, lambda: holders(where) | named, dry_run=False)
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
        is_old = os.stat(reference.path).st_mtime < began and call.target.is_of(reference.record)
        if is_old and not reference.record.is_of_netavark:
            request = recall.undoing(reference.record, call.request.environ)
            request = request or _request_by_name(call.request, reference.record)
            detach_by(request, call.target, reference)
    finally:
        reference.close()


def _request_by_name(request: Request, record: AttachmentRecord) -> Request:
    """Make the DEL of an attachment whose record is damaged from the GC of its network."""
    name = record.name
    path = record.netns if "\0" not in record.netns else ""
    variables = {
        "CNI_CONTAINERID": name.container_id,
        "CNI_NETNS": path,
        "CNI_IFNAME": name.ifname,
        "CNI_ARGS": "",
    }
    return Request(
        "DEL",
        network=name.network,
        cni_version=request.cni_version,
        conf=conf.static(request.conf),
        environ={**request.environ, **variables},
        container_id=name.container_id,
        netns=path,
        ifname=name.ifname,
        args="",
        path=request.path,
    )


def _find(where: state.State, name: ReferenceName) -> references.Reference | None:
    """Open a reference and lock it; None where it is gone, or its ADD or DEL is going on."""
    try:
        return references.find(where, name)
    except ShimError:
        return None


def _attachments(where: state.State) -> list[ReferenceName]:
    """List the references that are attachments; commands and guards are left out."""
    return [name for name in listing.names(where) if name.is_attachment]


def has_command(where: state.State) -> bool:
    """Tell whether a command runs in a netns, which may have leases of its own."""
    return any(name.is_command for name in listing.names(where))


def leases_of(where: state.State) -> str:
    """Give the directory of the leases that plugins make in a netns."""
    return f"{where.dir}{CNI_STATE}/networks"


def holders(where: state.State) -> set[str]:
    """List the containers with an attachment to any network of a shared netns.

    It has to be any: a plugin may make up the name of a lease's network. And plugins that run in
    place may do so in this netns.
    """
    states = (where, state.State(where.base, state.IN_PLACE))
    names = [name for each in states for name in listing.names(each)]
    return {name.container_id for name in names if name.container_id}

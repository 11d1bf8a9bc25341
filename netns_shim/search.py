# SPDX-License-Identifier: Apache-2.0
"""Which references a call is about, where their names do not tell.

An attachment is found by its container and its interface, in each shared netns of the state
directory. So a network may be edited, renamed or moved, and its entries may be wrapped one by one.
"""

from __future__ import annotations

from . import conf, netns, recall, references, state, target
from .attachment import LIVE, ReferenceName
from .detaching import detach_by
from .errors import ALREADY_ATTACHED, ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from .attachment import AttachmentRecord
    from .netns import ContainerNetns
    from .operation import Operation
    from .references import Reference
    from .request import Request
    from .state import State
    from .target import Target

    # Where a reference is, and what it says.
    Found: TypeAlias = tuple[State, AttachmentRecord]


def find(where: Target, request: Request) -> list[Found]:
    """Find what a DEL has to undo, what was attached last first; empty if there is nothing.

    It has the entry that the request is for, and those that were attached after it, because a
    runtime detaches the last one first: what was attached later has lost its entry. So has what
    is of an earlier container of the same ID. If the entry is unknown, it has all of them.
    """
    found = _of_request(where, request)
    position = _position(request, found)
    if position is None:
        chosen = found
    else:
        now = found[position][1].netns_id
        older = [each for each in found[position + 1 :] if each[1].netns_id != now]
        chosen = found[: position + 1] + older
    # A process that has entered a shared netns does not come back to the caller's.
    return sorted(chosen, key=lambda each: each[0].name != state.IN_PLACE)


def find_one(where: Target, request: Request) -> Found | None:
    """Find the entry that a request is for; None if that is not known."""
    found = _of_request(where, request)
    position = _position(request, found)
    if position is None:
        return found[0] if len(found) == 1 else None
    return found[position]


def _of_request(where: Target, request: Request) -> list[Found]:
    found = _read(where, request)
    own = [each for each in found if each[1].name.network == request.network]
    return own or _renamed(request, found)


def _read(where: Target, request: Request) -> list[Found]:
    """Read the references of the interface of a request, those attached last first.

    They are in its state directory, or in the user's own, from before the network had a
    `stateDir`. A caller without capabilities joins the user namespace of one of them only.
    """
    found: list[Found] = []
    part = references.index(where.state.name, request.container_id, request.ifname)
    for base in dict.fromkeys((where.state.base, state.base_dir(request.environ, part=part))):
        if not found or netns.is_privileged():
            records = records_in(base, request.container_id, request.ifname)
            found += [each for each in records if _is_in_reach(where, *each)]
    return sorted(found, key=_age, reverse=True)


def records_in(base: str, container_id: str, ifname: str) -> list[Found]:
    """Read the references of one interface of a container in all of a state directory."""
    from .shared import listing  # `search` is for what is not as it was

    found = []
    for there, name in references.anywhere(base, container_id, ifname, thoroughly=True):
        try:
            record = listing.read(there, name) if there.exists() else None
        except ShimError:
            continue  # not a directory of ours
        if record is not None:
            found.append((there, record))
    return found


def _age(found: Found) -> tuple[int, str, bool]:
    record = found[1]
    # Release 0.1.0 wrote down seconds. An entry that follows others has their result.
    return record.began, record.since, "prevResult" in (record.conf or {})


def _is_in_reach(where: Target, there: State, record: AttachmentRecord) -> bool:
    """Tell whether plugins can run where an attachment was made: in place, only there."""
    if there.name != state.IN_PLACE or where.state.name == state.IN_PLACE:
        return True
    mode = (record.conf or {}).get("enter", conf.DEFAULT_ENTER)
    return isinstance(mode, str) and netns.is_in_place(mode)


def _renamed(request: Request, found: list[Found]) -> list[Found]:
    """Give those of a network that was renamed: of the container and interface of a request.

    A namespace has one interface of a name, so that there can be no second attachment of it. But
    it has to be the same namespace, or one that is gone.
    """
    networks = {record.name.network for _, record in found}
    if len(networks) != 1 or not all(_is_of(request, record) for _, record in found):
        return []
    return found


def _is_of(request: Request, record: AttachmentRecord) -> bool:
    if record.netns_id is None or record.is_of_netavark:
        return False
    there = netns.identity(request.netns) if request.netns else None
    if there is None:
        return netns.identity(record.netns) != record.netns_id
    return record.is_of(there)


def _position(request: Request, found: list[Found]) -> int | None:
    """Tell which entry a request is for: the same one, or else one with the same plugins."""
    kinds = _kinds(request)
    same = [
        n for n, (_, record) in enumerate(found) if conf.is_same_network(record.conf, request.conf)
    ]
    alike = [n for n, (_, record) in enumerate(found) if record.name.kinds == kinds]
    return next(iter((*same, *alike)), None)


def _kinds(request: Request) -> str:
    try:
        types = conf.read(request.conf).types
        return ReferenceName.of(request.network, "", "", types).kinds
    except (AttributeError, KeyError, ShimError, TypeError):
        return ""  # the configuration is not valid, but that of the ADD was


def detach(where: Target, request: Request) -> bool:
    """Undo what a request is for, as it was made; tell whether there was anything."""
    found = find(where, request)
    for there, record in found:
        own = target.at(there, where, request.environ)
        own.join()
        reference = own.find(record.name)
        if reference is not None:
            detach_by(recall.call_of(request, reference.record), own, reference)
    return bool(found)


def refuse_if_attached(
    record: AttachmentRecord, request: Request, container: ContainerNetns
) -> None:
    """Refuse a second ADD of a living attachment, code 104; if its container is gone, allow it."""
    if _is_attached(record, request, container):
        raise _refusal(record, request)


def _refusal(record: AttachmentRecord, request: Request) -> ShimError:
    return ShimError(
        ALREADY_ATTACHED,
        f"container {request.container_id!r} is already attached to network "
        f"{record.name.network!r} as {request.ifname!r}",
        f"since {record.since}; call DEL first",
    )


def _is_attached(record: AttachmentRecord, request: Request, container: ContainerNetns) -> bool:
    """Tell whether a recorded attachment belongs to the container of the request."""
    if record.is_of_other_boot or record.netns_id != container.id:
        return False
    # The kernel reuses the number of a namespace that is gone: the new one has no interface.
    made = [entry.get("name") for entry in (record.result or {}).get("interfaces") or []]
    return request.ifname not in made or container.has_interface(request.ifname)


def refuse_elsewhere(call: Operation) -> None:
    """Refuse a second ADD of what is attached in another state directory.

    A caller without capabilities cannot join the user namespaces of both, so ask before `join`.
    """
    container = netns.ContainerNetns(call.request.netns)
    try:
        for there, record in _read(call.target, call.request):
            if there.base != call.target.state.base and _is_live(record, call.request, container):
                raise _refusal(record, call.request)
    finally:
        container.close()


def prepare(call: Operation, container: ContainerNetns) -> list[Reference]:
    """Look what there is before an ADD: refuse a second one, by whatever name the first has.

    An entry that follows others gets a name of its own if one with the same plugins is attached.
    Gives what a container that is gone has left here by other names, locked, for `attach`.
    """
    request, where = call.request, call.target.state
    found = _read(call.target, request)
    if request.conf.get("prevResult") is not None:
        here = [r for there, r in found if (there.dir, str(r.name)) == (where.dir, str(call.name))]
        if any(
            _is_live(r, request, container) and not conf.is_same_network(r.conf, request.conf)
            for r in here
        ):
            call.rename(call.name.numbered(conf.number(request.conf)))
        return []
    held: list[Reference] = []
    for there, record in found:
        if _is_reference(call, there, record):
            continue  # `attach` looks at this one
        if _is_live(record, request, container):
            for reference in held:
                reference.close()
            raise _refusal(record, request)
        if there.dir == where.dir and record.conf is not None:
            held += filter(None, [call.target.find(record.name)])
    return held


def _is_reference(call: Operation, there: State, record: AttachmentRecord) -> bool:
    return (there.dir, record.name.file) == (call.target.state.dir, call.name.file)


def _is_live(record: AttachmentRecord, request: Request, container: ContainerNetns) -> bool:
    if record.phase != LIVE or not _is_attached(record, request, container):
        return False
    # The interface of another network has to be there: nothing else tells that it is in the way.
    return record.name.network == request.network or container.has_interface(request.ifname)

# SPDX-License-Identifier: Apache-2.0
"""DEL: the order of its steps, and what else undoes an ADD.

`delete` finds the reference of a request. GC and `stop`, which have it, use `detach_by`.
"""

from __future__ import annotations

import os

from . import conf, references, target
from .attachment import ADDING, DELETING, AttachmentRecord
from .errors import CANNOT_ENTER, ShimError, warn
from .netns import ContainerNetns
from .operation import Operation, end_orphans, give_back, leave_names, names_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .attachment import ReferenceName
    from .references import Reference
    from .request import Request
    from .state import State
    from .target import Target


def delete(request: Request) -> None:
    """DEL: undo what ADD was given, then drop the reference; the last one removes the netns."""
    where = target.of_attached(request)
    names = names_of(where, request) or names_of(where, request, thoroughly=True)
    if names and (_detach_unchanged(where, names, request) or _detach_changed(where, request)):
        return
    call = Operation(request, where)
    try:
        where.join()
    except ShimError as error:
        if names or error.code != CANNOT_ENTER or _is_held():
            raise
        # Nothing is attached, and from here nothing could be: runtimes undo a failed ADD.
        warn(f"{request.container_id!r} was not attached: {error}")
        return
    detach_known(call)


def _is_held() -> bool:
    """Tell whether there may be state of this user where only a pause process sees it."""
    from .userns import places  # only where no user namespace can be entered

    return any(places.holders())


def _detach_unchanged(
    where: Target, names: list[tuple[State, ReferenceName]], request: Request
) -> bool:
    """Detach what is attached just so; tell whether it was."""
    (there, name), *more = names
    if more or there.dir != where.state.dir or name.network != request.network:
        return False
    where.join()
    reference = where.find(name)
    if reference is None:
        return False
    given = reference.record
    is_same = (given.args, given.path) == (request.args, request.path)
    if not (is_same and conf.is_same_call(given.conf, request.conf)):
        reference.close()
        return False
    detach_by(request, where, reference)
    return True


def _detach_changed(where: Target, request: Request) -> bool:
    from . import search  # only for a network that was edited, or an interface of another one

    return search.detach(where, request)


def detach_known(call: Operation) -> None:
    """Do the DEL of an attachment by the name of its reference, which need not be there."""
    where = call.target
    reference = where.find(call.name)
    if reference is not None:
        detach(call, reference)
        return
    try:
        fd = where.open_as_is()
    except ShimError:
        # It was not attached there, and from here it cannot be: runtimes undo a failed ADD.
        delete_unknown(call, None)
        return
    # A DEL that finds nothing to detach runs in the netns as well, which has to stay so long.
    reference = guard(where, call.name)
    if reference is not None:
        if fd is not None and not reference.is_ours:
            os.close(fd)  # an ADD was faster, and may have made another netns
            fd = None
        detach(call, reference, fd)
        return
    try:
        delete_unknown(call, fd)
    except BaseException:
        give_back(where, [])
        raise
    where.leave()


def guard(where: Target, name: ReferenceName) -> Reference | None:
    """Take a guard, so that the netns stays meanwhile; None where there is no netns.

    Nor is there one in place, where the netns does not go with the references. Where an ADD has
    just begun, it gives the reference of that instead, after the ADD's end.
    """
    if not isinstance(where, target.Shared):
        return None
    for _ in range(target.ATTEMPTS):
        if not where.state.exists():
            return None
        try:
            return references.take(where.state, name)
        except FileNotFoundError:
            return None  # the last one is just leaving
        except FileExistsError:
            reference = references.find(where.state, name)
            if reference is not None:
                return reference
    raise references.busy(name)


def detach_by(request: Request, where: Target, reference: Reference) -> None:
    """Do what `detach` does, by a request for it."""
    try:
        call = Operation(request, where, reference.record.name)
    except BaseException:
        reference.close()
        raise
    detach(call, reference)


def detach(call: Operation, reference: Reference, fd: int | None = None) -> None:
    """Do the DEL of an attachment whose reference is held; drop it if that succeeded.

    The netns is removed with its last attachment. A failure is raised and leaves the reference.
    `fd` is the netns if that is open already.
    """
    try:
        _delete(call, reference, fd)
    except BaseException:
        give_back(call.target, [reference])
        raise
    reference.drop()
    call.target.leave()


def _delete(call: Operation, reference: Reference, fd: int | None) -> None:
    record = reference.record
    result = call.request.conf.get("prevResult")
    if not result or record.phase == ADDING:
        # The runtime has no result of an ADD that was cut off; it may have that of an earlier one.
        result = record.previous or result
    call.chain.mtu = record.mtu
    end_orphans([reference])
    if fd is None:
        fd = call.target.open_as_is()
    with call.lock():
        # Only now, because the container may have gone while this DEL was waiting.
        is_lost = is_gone(call.request.netns, record, fd)
        if is_lost:
            call.chain.lose_netns()
        mark_deleting(reference)
        # First: a connection that comes now would lead to a container that is half detached.
        call.target.withdraw(record)
        leave_names(call.target, reference)
        call.recall_ports(record)
        with call.inside(fd):
            call.chain.delete(result)
        if is_lost or not call.request.netns:
            call.target.leave_behind(record)


def delete_unknown(call: Operation, fd: int | None) -> None:
    """Do the DEL of an unknown attachment, where there is no shared netns; fd is as for `is_gone`.

    A lease may be in a directory that outlives the netns. No shared netns is made for this.
    """
    if is_gone(call.request.netns, AttachmentRecord(call.name), fd):
        call.chain.lose_netns()
    with call.nowhere():
        call.chain.delete(call.request.conf.get("prevResult"))


def delete_leftover(call: Operation, reference: Reference, fd: int) -> None:
    """Do the DEL of an earlier attachment with that call's parameters, from inside."""
    from . import recall  # only where something is left

    record = reference.record
    request = recall.undoing(record, call.request.environ)
    if request is None:
        return
    warn(f"removing what is left of an earlier attachment: {record.name}")
    earlier = Operation(request, call.target, record.name)
    earlier.chain.mtu = record.mtu
    is_lost = is_gone(request.netns, record, fd)
    if is_lost:
        earlier.chain.lose_netns()
    earlier.chain.delete(record.previous)
    if is_lost:
        call.target.leave_behind(record)


def mark_deleting(reference: Reference) -> None:
    """Write down that a DEL is going on. It does not matter if that fails: the rest is enough."""
    # A guard of this DEL says nothing about an attachment. If we are killed, any later call may
    # drop it; see `references.drop_ghosts`.
    if reference.is_ours:
        return
    try:
        reference.write(DELETING)
    except OSError as error:
        warn(f"cannot write down that a DEL is going on: {error}")


def is_gone(path: str, record: AttachmentRecord, fd: int | None) -> bool:
    """Tell whether CNI_NETNS is not, or no longer, a netns attached to the shared one, open as fd.

    Another container may have the path by now, and plugins must not take its interface away. Where
    the shared netns is lost, the kernel is removing its ends of the links as well. A plugin that
    still finds the other end of one would look for its rules, in vain.
    """
    if not path:
        return False
    if fd is None:
        return True
    container = ContainerNetns(path)
    try:
        return container.id is None or not container.is_other(fd) or not record.is_of(container.id)
    finally:
        container.close()

# SPDX-License-Identifier: Apache-2.0
"""The operations of the specification: the order of the steps and nothing else.

Each takes a Request, whichever wire it came by, and gives the result for ADD, None for the others.
"""

from __future__ import annotations

import time

from . import interrupt, netns, state
from .attachment import ADDING, COLLECTING, DELETING, LIVE, AttachmentRecord, ReferenceName
from .call import Call
from .errors import (
    ALREADY_ATTACHED,
    INTERNAL,
    NOT_AVAILABLE,
    UNKNOWN_CONTAINER,
    ShimError,
    warn,
)
from .records import boot_id
from .turn import Beside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .first import First
    from .references import Reference
    from .request import Request
    from .turn import Turn

    Json = dict[str, Any]


def add(request: Request) -> Json:
    """ADD: take the reference, enter, run the plugins, write down and give the result.

    A failure gives the reference back, after the plugins have undone what they did.
    """
    call = Call(request)
    place = call.place
    place.check_container(request.netns)
    reference = place.take(call.name)
    try:
        _refuse_if_attached(reference, request)
        # What an ADD or a DEL that was cut off has left is undone first, as it was asked for.
        leftover = reference.record.request(request.environ)
        fd = place.open_mended()
        if not _overrides(request):
            netns.check_is_other(request.netns, fd)
        if leftover is not None:
            _end_orphans(reference)
        with call.turn(), call.inside(fd):
            if leftover is not None:
                _delete_leftover(Call(leftover, place), reference.record, fd)
            result = _attach(call, reference)
    except BaseException:
        interrupt.disregard()
        reference.give_back()
        place.leave()
        raise
    call.remember()
    reference.close()
    return result


def _delete_leftover(call: Call, record: AttachmentRecord, fd: int) -> None:
    """Do the DEL of an earlier attachment, as that of the call itself would be done."""
    warn(f"removing what is left of an earlier attachment: {call.name}")
    if _is_gone(call.request.netns, record, fd):
        call.chain.lose_netns()
    call.chain.delete(record.result)


def _attach(call: Call, reference: Reference) -> Json:
    request = call.request
    reference.write(
        ADDING,
        network=request.network,
        containerID=request.container_id,
        ifname=request.ifname,
        netns=request.netns,
        netnsID=netns.identity(request.netns),
        bootID=boot_id(),
        args=request.args,
        path=request.path,
        conf=request.conf,
        since=state.now(),
        result=None,
    )
    result = call.chain.add()
    try:
        reference.write(LIVE, result=result)
    except OSError:
        interrupt.disregard()
        call.chain.delete(result)
        raise
    return result


def _end_orphans(reference: Reference) -> None:
    """Wait for what an earlier call on this attachment has started, if it was killed."""
    if reference.phase != LIVE:
        from . import process  # only after something was cut off

        process.end_orphans(reference.path)


def _refuse_if_attached(reference: Reference, request: Request) -> None:
    """Refuse a second ADD of a living attachment; one whose container is gone is no obstacle."""
    if reference.is_ours or reference.phase != LIVE:
        return
    if _is_attached(reference.record, request):
        raise ShimError(
            ALREADY_ATTACHED,
            f"container {request.container_id!r} is already attached to network "
            f"{request.network!r} as {request.ifname!r}",
            f"since {reference.record.since}; call DEL first",
        )


def _is_attached(record: AttachmentRecord, request: Request) -> bool:
    """Tell whether an attachment on record is that of the container that the request is for."""
    if record.is_of_other_boot or record.netns_id != netns.identity(request.netns):
        return False
    # The kernel gives the number of a namespace that is gone to the next one: it has no interface.
    made = [entry.get("name") for entry in (record.result or {}).get("interfaces") or []]
    return request.ifname not in made or netns.has_interface(request.netns, request.ifname)


def _overrides(request: Request) -> bool:
    return request.environ.get("CNI_NETNS_OVERRIDE", "").lower() in ("1", "true")


def delete(request: Request) -> None:
    """DEL: run the plugins' DEL, drop the reference if it succeeded; the last one out destroys."""
    _delete(Call(request))


def detach(call: Call, reference: Reference) -> None:
    """Do the DEL of an attachment whose reference the caller has found, and so has locked."""
    _delete(call, reference)


def _delete(call: Call, held: Reference | None = None) -> None:
    place = call.place
    # A DEL too many runs in the netns as well, which has to stay meanwhile.
    reference = held or place.find(call.name) or place.guard(call.name)
    try:
        record = AttachmentRecord(call.name) if reference is None else reference.record
        if reference is not None and record:
            _end_orphans(reference)
        fd = place.open_as_is()
        turn: First | Turn | Beside
        if reference is None:
            # Addresses may be leased in places that outlive the netns. Nothing is made for it.
            turn, inside = Beside(), call.nowhere()
        else:
            turn, inside = call.turn(), call.inside(fd)
        with turn:
            # Only now, as the container may have gone while this DEL was waiting.
            if _is_gone(call.request.netns, record, fd):
                call.chain.lose_netns()
            if reference is not None:
                _mark_deleting(reference)
            with inside:
                call.chain.delete(call.request.conf.get("prevResult") or record.result)
    except BaseException:
        interrupt.disregard()
        if reference is not None:
            reference.give_back()
        place.leave()
        raise
    if reference is not None:
        reference.drop()
    place.leave()


def _mark_deleting(reference: Reference) -> None:
    # One that was made for this DEL says nothing of an attachment, and is to be dropped by anybody
    # if we are killed; see `references.drop_ghosts`.
    if reference.is_ours:
        return
    try:
        reference.write(DELETING)
    except OSError as error:
        warn(f"cannot write down that a DEL is going on: {error}")


def _is_gone(path: str, record: AttachmentRecord, fd: int | None) -> bool:
    """Tell whether CNI_NETNS is not, or no longer, a netns attached to the shared one, open as fd.

    Its path may be another container's by now: plugins must not take their interface away. Where
    the shared netns is lost, the other ends of its links are going as well, and plugins that still
    find one would look for its rules, in vain.
    """
    if not path:
        return False
    if fd is None:
        return True
    found = netns.identity(path)
    if not netns.is_other(path, fd) or record.is_of_other_boot:
        return True
    return found is None or not record.is_of(found)


def check(request: Request) -> None:
    """CHECK: the reference, the netns and a live uplink are there; then the plugins' CHECK."""
    call = Call(request)
    reference = call.place.find(call.name)
    if reference is None or reference.phase != LIVE:
        raise ShimError(
            UNKNOWN_CONTAINER,
            f"container {request.container_id!r} is not attached to network "
            f"{request.network!r} as {request.ifname!r}",
        )
    with call.inside(call.place.open_alive()):
        call.chain.forward("CHECK", request.conf.get("prevResult") or reference.record.result)
    reference.close()


def gc(request: Request) -> None:
    """GC: a real DEL of every attachment that is not valid, then the plugins' GC.

    All is tried; the failures are raised as one.
    """
    from . import garbage  # cold: runtimes ask for it seldom

    began = time.time()
    valid = garbage.valid_attachments(request.conf)
    call = Call(request)
    place = call.place
    # None where there is nothing, and in place: who is in another netns may have references there
    # as well, and knows of none of ours.
    guard = place.guard(ReferenceName.guard(COLLECTING))
    problems: list[str] = []
    try:
        if guard is not None:
            problems += garbage.collect(call, valid, began, detach)
        if call.chain.knows("GC"):
            try:
                with call.nowhere() if guard is None else call.inside(place.open_as_is()):
                    call.chain.forward("GC")
            except (ShimError, OSError) as error:
                problems.append(str(error))
    finally:
        if guard is not None:
            guard.drop()
            place.leave()
    if problems:
        count = f"{len(problems)} failures" if len(problems) > 1 else "a failure"
        raise ShimError(INTERNAL, f"garbage collection: {count}", "\n".join(problems))


def status(request: Request) -> None:
    """STATUS: everything that an ADD needs is there; then the plugins' STATUS. Makes nothing.

    Raises ShimError with the code 50, or 51 where what is attached is cut off as well.
    """
    try:
        call = Call(request)
    except ShimError as error:
        raise ShimError(NOT_AVAILABLE, error.message, error.details) from None
    call.place.check_ready()
    if call.chain.knows("STATUS"):
        with call.nowhere():
            call.chain.forward("STATUS")

# SPDX-License-Identifier: Apache-2.0
"""The operations of the specification: the order of the steps and nothing else.

Each takes a Request, whichever wire it came by, and gives the result for ADD, None for the others.
"""

from __future__ import annotations

import os

from . import netns, references, shared, state
from .call import Call, cached
from .errors import (
    ALREADY_ATTACHED,
    INTERNAL,
    INVALID_NETWORK_CONFIG,
    LIMITED_CONNECTIVITY,
    NOT_AVAILABLE,
    TRY_AGAIN_LATER,
    UNKNOWN_CONTAINER,
    UPLINK_FAILED,
    ShimError,
    warn,
)
from .first import First
from .references import ADDING, DELETING, LIVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .references import Reference
    from .request import Request

    Json = dict[str, Any]


def add(request: Request) -> Json:
    """ADD: take the reference, enter, run the plugins, write down and give the result.

    A failure gives the reference back, after the plugins have undone what they did.
    """
    call = Call(request)
    if call.in_place:
        result = call.chain.add()
        call.remember()
        return result
    netns.check_container_netns(request.netns)
    reference = call.take()
    try:
        _refuse_if_attached(reference, request)
        # What an ADD or a DEL that was cut off has left is undone first, as it was asked for.
        leftover = cached(request, reference.record)
        fd = shared.open_mended(call.state, call.conf.uplink, request.environ)
        if not _overrides(request):
            netns.check_is_other(request.netns, fd)
        with First(call.state, request, call.conf.timeout), call.inside(fd):
            if leftover is not None:
                warn(f"removing what is left of an earlier attachment: {call.name}")
                leftover.chain.delete(reference.record.get("result"))
            result = _attach(call, reference)
    except BaseException:
        reference.give_back()
        shared.leave(call.state)
        raise
    call.remember()
    reference.close()
    return result


def _attach(call: Call, reference: Reference) -> Json:
    request = call.request
    reference.write(
        ADDING,
        network=request.network,
        containerID=request.container_id,
        ifname=request.ifname,
        netns=request.netns,
        netnsID=netns.identity(request.netns),
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
        call.chain.delete(result)
        raise
    return result


def _refuse_if_attached(reference: Reference, request: Request) -> None:
    """Refuse a second ADD of a living attachment; one whose container is gone is no obstacle."""
    if reference.is_ours or reference.phase != LIVE:
        return
    if reference.record.get("netnsID") == netns.identity(request.netns):
        raise ShimError(
            ALREADY_ATTACHED,
            f"container {request.container_id!r} is already attached to network "
            f"{request.network!r} as {request.ifname!r}",
            f"since {reference.record.get('since')}; call DEL first",
        )


def _overrides(request: Request) -> bool:
    return request.environ.get("CNI_NETNS_OVERRIDE", "").lower() in ("1", "true")


def delete(request: Request) -> None:
    """DEL: run the plugins' DEL, drop the reference if it succeeded; the last one out destroys."""
    _delete(Call(request))


def _delete(call: Call) -> None:
    previous = call.request.conf.get("prevResult")
    if call.in_place:
        call.chain.delete(previous)
        return
    reference = _find_or_guard(call)
    if reference is None:
        # Addresses may be leased in places that outlive the netns. Nothing is made for it.
        if _is_gone(call.request.netns, {}, None):
            call.chain.lose_netns()
        with call.nowhere():
            call.chain.delete(previous)
        return
    try:
        fd = shared.open_as_is(call.state)
        if _is_gone(call.request.netns, reference.record, fd):
            call.chain.lose_netns()
        try:
            reference.write(DELETING)
        except OSError as error:
            warn(f"cannot write down that a DEL is going on: {error}")
        with call.inside(fd):
            call.chain.delete(previous or reference.record.get("result"))
    except BaseException:
        reference.give_back()
        shared.leave(call.state)
        raise
    reference.drop()
    shared.leave(call.state)


def _find_or_guard(call: Call) -> Reference | None:
    """Find the reference, or take one so that the netns stays while a DEL too many runs in it."""
    if not call.state.exists():
        return None
    reference = references.find(call.state, call.name)
    if reference is not None:
        return reference
    try:
        return references.take(call.state, call.name)
    except FileNotFoundError:
        return None
    except FileExistsError:
        raise ShimError(
            TRY_AGAIN_LATER, "another operation on this attachment is running", call.name
        ) from None


def _is_gone(path: str, record: Json, fd: int | None) -> bool:
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
    info = os.fstat(fd)
    if found == [info.st_dev, info.st_ino]:
        return True
    return found is None or found != (record.get("netnsID") or found)


def check(request: Request) -> None:
    """CHECK: the reference, the netns and a live uplink are there; then the plugins' CHECK."""
    call = Call(request)
    previous = request.conf.get("prevResult")
    if call.in_place:
        call.chain.forward("CHECK", previous)
        return
    reference = references.find(call.state, call.name) if call.state.exists() else None
    if reference is None or reference.phase != LIVE:
        raise ShimError(
            UNKNOWN_CONTAINER,
            f"container {request.container_id!r} is not attached to network "
            f"{request.network!r} as {request.ifname!r}",
        )
    fd = shared.open_as_is(call.state)
    uplink = call.state.uplink()
    if fd is None or not state.is_alive(uplink):
        what = "is lost" if fd is None else f"has lost its uplink {uplink.get('driver')}"
        raise ShimError(
            UPLINK_FAILED,
            f"the shared netns {call.state.name!r} {what}",
            "the next ADD repairs it",
        )
    with call.inside(fd):
        call.chain.forward("CHECK", previous or reference.record.get("result"))
    reference.close()


def gc(request: Request) -> None:
    """GC: a real DEL of every attachment that is not valid, then the plugins' GC.

    All is tried; the failures are raised as one.
    """
    call = Call(request)
    problems = [] if call.in_place else _delete_stale(call)
    try:
        _forward_gc(call)
    except (ShimError, OSError) as error:
        problems.append(str(error))
    if problems:
        count = f"{len(problems)} failures" if len(problems) > 1 else "a failure"
        raise ShimError(INTERNAL, f"garbage collection: {count}", "\n".join(problems))


def _delete_stale(call: Call) -> list[str]:
    valid = _valid_attachments(call.request.conf)
    if valid is None:
        return []
    problems = []
    for record in references.references(call.state):
        attachment = (record.get("containerID"), record.get("ifname"))
        if record.get("network") != call.request.network or attachment in valid:
            continue
        try:
            stale = cached(call.request, record)
            if stale is not None:
                stale.name = record["file"]
                _delete(stale)
        except (ShimError, OSError) as error:
            problems.append(f"{record['file']}: {error}")
    return problems


def _valid_attachments(conf: Json) -> set[tuple[str, str]] | None:
    """Read which attachments are still valid; None where that is not said: then all may be.

    The second key is how the specification misspelled it once, and libcni sends both.
    """
    for key in ("cni.dev/valid-attachments", "cni.dev/attachments"):
        if key in conf:
            try:
                return {(e["containerID"], e["ifname"]) for e in conf[key] or []}
            except (TypeError, KeyError):
                raise ShimError(
                    INVALID_NETWORK_CONFIG,
                    f"$['{key}']: must be a list of objects with containerID and ifname",
                ) from None
    return None


def _forward_gc(call: Call) -> None:
    if not call.chain.knows("GC"):
        return
    if call.in_place:
        call.chain.forward("GC")
        return
    guard = None
    if call.state.exists():
        try:
            guard = references.take(call.state, f":gc:{os.getpid()}")
        except FileNotFoundError:
            guard = None  # the last one is just leaving
    try:
        with call.nowhere() if guard is None else call.inside(shared.open_as_is(call.state)):
            call.chain.forward("GC")
    finally:
        if guard is not None:
            guard.drop()
            shared.leave(call.state)


def status(request: Request) -> None:
    """STATUS: everything that an ADD needs is there; then the plugins' STATUS. Makes nothing.

    Raises ShimError with the code 50, or 51 where what is attached is cut off as well.
    """
    try:
        call = Call(request)
    except ShimError as error:
        raise ShimError(NOT_AVAILABLE, error.message, error.details) from None
    if call.in_place:
        call.chain.forward("STATUS")
        return
    from . import uplink  # 20 ms: a runtime asks for it seldom

    try:
        uplink.check(call.conf.uplink, request.environ)
    except ShimError as error:
        raise ShimError(NOT_AVAILABLE, error.message, error.details) from None
    if call.state.exists() and not state.is_alive(call.state.uplink()):
        raise ShimError(
            LIMITED_CONNECTIVITY,
            f"the shared netns {call.state.name!r} has lost its uplink",
            "the next ADD repairs it",
        )
    if call.chain.knows("STATUS"):
        with call.nowhere():
            call.chain.forward("STATUS")

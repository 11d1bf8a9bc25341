# SPDX-License-Identifier: Apache-2.0
"""The operations of the specification: the order of the steps and nothing else.

Each takes a Request, from any wire. ADD gives what it has attached, the others give None.
"""

from __future__ import annotations

import time

from . import conf, references, state, target
from .attachment import COLLECTING, LIVE, ReferenceName
from .errors import (
    CANNOT_ENTER,
    INTERNAL,
    NOT_AVAILABLE,
    UNKNOWN_CONTAINER,
    PinnedElsewhere,
    ShimError,
    warn,
)
from .operation import Operation, attach, delete_unknown, detach, detach_by, give_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .decoding import Json
    from .references import Reference
    from .request import Request
    from .state import State
    from .target import Target


class Attached:
    """What an ADD has made: its `result`, and the way to undo it."""

    __slots__ = ("_call", "result")

    def __init__(self, call: Operation, result: Json) -> None:
        self._call = call
        self.result = result

    def undo(self) -> None:
        """Detach again, from the target to which it was attached."""
        _delete(self._call)


def add(request: Request) -> Attached:
    """ADD: take the reference, attach, leave the stamps; give the result.

    `operation.attach` enters and runs the plugins. A failure gives the reference back, after the
    plugins have undone what they did.
    """
    call = Operation(request)
    try:
        return _add(call)
    except PinnedElsewhere as error:
        own = target.beside(call.target, call.conf, request)
        if own is None:
            raise
        warn(
            f"{error}; this user namespace has the shared netns {own.state.name!r} of its own: "
            "containers of the two do not reach each other"
        )
    return _add(Operation(request, own))


def _add(call: Operation) -> Attached:
    request = call.request
    is_known = bool(_names(call.target, request))
    if is_known:
        from . import search  # only for an interface that is attached, or was

        search.refuse_elsewhere(call)
    call.target.join()
    container = call.target.open_container(request.netns)
    others: list[Reference] = []
    try:
        if is_known:
            others = search.prepare(call, container)
        reference = call.target.take(call.name)
        try:
            result = attach(call, reference, container, others)
        except BaseException:
            give_back(call.target, [reference])
            raise
    finally:
        container.close()
        for other in others:
            other.close()
    call.remember()
    reference.close()
    return Attached(call, result)


def _names(
    where: Target, request: Request, *, thoroughly: bool = False
) -> list[tuple[State, ReferenceName]]:
    """Name the references of the interface of a request; see `references.anywhere`."""
    bases = [where.state.base]
    if request.conf.get("stateDir"):
        # The network may have got the key later.
        bases += filter(state.owns, state.usual(request.environ, state.user_id(request.environ)))
    part = request.container_id, request.ifname
    return [
        found
        for base in dict.fromkeys(bases)
        for found in references.anywhere(base, *part, thoroughly=thoroughly)
    ]


def delete(request: Request) -> None:
    """DEL: undo what ADD was given, then drop the reference; the last one removes the netns."""
    where = target.choose(conf.read(request.conf), request)
    names = _names(where, request) or _names(where, request, thoroughly=True)
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
    _delete(call)


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
    if given.args != request.args or not conf.is_same_call(given.conf, request.conf):
        reference.close()
        return False
    detach_by(request, where, reference)
    return True


def _detach_changed(where: Target, request: Request) -> bool:
    from . import search  # only for a network that was edited, or an interface of another one

    return search.detach(where, request)


def _delete(call: Operation) -> None:
    reference = call.target.find(call.name)
    if reference is None:
        if call.target.is_elsewhere:
            # It was not attached there, and from here it cannot be: runtimes undo a failed ADD.
            delete_unknown(call, None)
            return
        # A DEL that finds nothing to detach runs in the netns as well, which has to stay so long.
        reference = call.target.guard(call.name)
    if reference is not None:
        detach(call, reference)
        return
    try:
        delete_unknown(call, call.target.open_as_is())
    except BaseException:
        give_back(call.target, [])
        raise
    call.target.leave()


def check(request: Request) -> None:
    """CHECK: reference, netns, a live uplink and ports are there; then the plugins' CHECK."""
    from . import recall, search  # runtimes call CHECK seldom

    where = target.choose(conf.read(request.conf), request)
    found = search.find_one(where, request)
    if found is None or found[1].phase != LIVE:
        Operation(request, where)  # a wrong configuration is what to say first
        where.state.exists()  # a directory that is refused hides what is attached
        raise ShimError(
            UNKNOWN_CONTAINER,
            f"container {request.container_id!r} is not attached to network "
            f"{request.network!r} as {request.ifname!r}",
            "call ADD first",
        )
    there, record = found
    request = recall.call_of(request, record)
    call = Operation(request, target.at(there, where, request.environ), record.name)
    call.target.join()
    reference = call.target.find(record.name)
    if reference is None:
        raise references.busy(record.name)
    call.chain.mtu = reference.record.mtu
    call.recall_ports(reference.record)
    fd = call.target.open_alive()
    call.target.check_ports(reference.record)
    call.target.check_names(reference.record)
    with call.inside(fd):
        call.chain.forward("CHECK", request.conf.get("prevResult") or reference.record.result)
    reference.close()


def gc(request: Request) -> None:
    """GC: a real DEL of every attachment that is not valid, then the plugins' GC.

    It tries everything, and raises all failures as one.
    """
    from .gc import collect  # cold: runtimes ask for it seldom

    began = time.time()
    valid = collect.valid_attachments(request.conf)
    call = Operation(request)
    where = call.target
    where.join()
    if where.is_elsewhere or not where.state.exists():
        own = target.beside(where, call.conf, request)
        if own is not None and own.state.exists():
            call, where = Operation(request, own), own
    # None where there is no netns, and in place: there, a caller in another netns may have
    # references as well, and does not know of ours.
    guard = where.guard(ReferenceName.guard(COLLECTING))
    problems: list[str] = []
    try:
        if guard is not None:
            problems += collect.collect(call, valid, began)
        if call.chain.knows("GC"):
            try:
                with call.nowhere() if guard is None else call.inside(where.open_as_is()):
                    call.chain.forward("GC")
            except (ShimError, OSError) as error:
                problems.append(str(error))
    finally:
        if guard is not None:
            guard.drop()
            where.leave()
    if problems:
        count = f"{len(problems)} failures" if len(problems) > 1 else "a failure"
        raise ShimError(INTERNAL, f"garbage collection: {count}", "\n".join(problems))


def status(request: Request) -> None:
    """STATUS: everything that an ADD needs is there; then the plugins' STATUS. Makes nothing.

    Raises ShimError (code 50, or 51 where containers that are attached are cut off as well).
    """
    try:
        call = Operation(request)
        call.target.join()
    except ShimError as error:
        raise ShimError(NOT_AVAILABLE, error.message, error.details) from None
    call.target.check_ready()
    if call.chain.knows("STATUS"):
        with call.nowhere():
            call.chain.forward("STATUS")

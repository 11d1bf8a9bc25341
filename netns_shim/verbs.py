# SPDX-License-Identifier: Apache-2.0
"""CHECK, GC and STATUS, which runtimes call seldom: the order of their steps.

Each takes a Request, from any wire. ADD is in `attaching`, DEL in `detaching`.
"""

from __future__ import annotations

import os
import time

from . import detaching, references, target
from .attachment import COLLECTING, LIVE, ReferenceName
from .errors import INTERNAL, NOT_AVAILABLE, UNKNOWN_CONTAINER, ShimError
from .operation import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .attachment import AttachmentRecord
    from .request import Request
    from .target import Target


def check(request: Request) -> None:
    """CHECK: reference, netns, a live uplink and ports are there; then the plugins' CHECK."""
    from . import recall, search  # runtimes call CHECK seldom

    where = target.of_attached(request)
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
    fd = _open(call.target)
    _check_ways_in(call.target, reference.record)
    with call.inside(fd):
        call.chain.forward("CHECK", request.conf.get("prevResult") or reference.record.result)
    reference.close()


def _is_elsewhere(where: Target) -> bool:
    """Tell whether the netns lives on in another mount namespace, where we cannot get."""
    try:
        fd = where.open_as_is()
    except ShimError:
        return True
    if fd is not None:
        os.close(fd)
    return False


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
    if _is_elsewhere(where) or not where.state.exists():
        own = target.choose_own(where, call.conf, request)
        if own is not None and own.state.exists():
            call, where = Operation(request, own), own
    # None where there is no netns, and in place, where none is made or removed.
    guard = detaching.guard(where, ReferenceName.guard(COLLECTING))
    problems: list[str] = []
    try:
        if guard is not None or (where.is_in_place and where.state.exists()):
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
        call.check_names()
    except ShimError as error:
        raise ShimError(NOT_AVAILABLE, error.message, error.details) from None
    if isinstance(call.target, target.Shared):
        from .shared import readiness  # for STATUS and CHECK

        readiness.check(call.target)
    if call.chain.knows("STATUS"):
        with call.nowhere():
            call.chain.forward("STATUS")


def _open(where: Target) -> int:
    """Open the netns in which plugins run; ShimError where it is broken."""
    if isinstance(where, target.Shared):
        from .shared import readiness  # for STATUS and CHECK

        return readiness.open_alive(where)
    return where.open_repaired()


def _check_ways_in(where: Target, record: AttachmentRecord) -> None:
    """Check ports and names of an attachment; ShimError (code 106 or 107) where they are gone.

    In another PID namespace, nothing can be said of who opens and serves them.
    """
    if not (record.ports or record.naming) or where.state.uplink().is_hidden:
        return
    if record.ports:
        from .ports import look  # only where ports are published

        look.check(where.state, record)
    if record.naming:
        from .names import membership  # only for a network with names

        membership.verify(where.state, where.netns_path, record)

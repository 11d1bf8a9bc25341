# SPDX-License-Identifier: Apache-2.0
"""ADD: the order of its steps, from the request to the result."""

from __future__ import annotations

import os
import time

from . import interrupt, kept, state, target
from .attachment import ADDING, LIVE
from .errors import PinnedElsewhere, ShimError, warn
from .operation import Operation, close_ports, end_orphans, give_back, leave_names, names_of
from .proc import boot_id
from .result import addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .decoding import Json
    from .netns import ContainerNetns
    from .ports.publication import Publication
    from .references import Reference
    from .request import Request


class Attached:
    """What an ADD has made: its `result`, and the way to undo it."""

    __slots__ = ("_call", "result")

    def __init__(self, call: Operation, result: Json) -> None:
        self._call = call
        self.result = result

    def undo(self) -> None:
        """Detach again, from the target to which it was attached."""
        from . import detaching  # only where the caller did not get the result

        detaching.detach_known(self._call)


def add(request: Request) -> Attached:
    """ADD: take the reference, attach, leave the stamps; give the result.

    `attach` enters and runs the plugins. A failure gives the reference back, after the plugins
    have undone what they did.
    """
    call = Operation(request)
    try:
        return _attach_to(call)
    except PinnedElsewhere as error:
        own = target.choose_own(call.target, call.conf, request)
        if own is None:
            raise
        warn(
            f"{error}; this user namespace has the shared netns {own.state.name!r} of its own: "
            "containers of the two do not reach each other"
        )
    return _attach_to(Operation(request, own))


def _attach_to(call: Operation) -> Attached:
    """Take the reference and attach; leave the stamps."""
    request = call.request
    is_known = bool(names_of(call.target, request))
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


def attach(
    call: Operation,
    reference: Reference,
    container: ContainerNetns,
    others: Sequence[Reference] = (),
) -> Json:
    """Do the ADD of an attachment whose reference is held; give the result.

    First it undoes what an ADD or a DEL that was cut off has left, and `others`, which are of the
    same container and are held, too. Ports are prepared outside, claimed inside (`_add`), and
    opened outside again (`_finish`). A failure is raised after the plugins have undone what they
    did; the reference stays.
    """
    if not reference.is_ours and reference.phase == LIVE:
        from . import search  # only for a second ADD

        search.refuse_if_attached(reference.record, call.request, container)
    left = [*others, *([reference] if reference.record.conf is not None else ())]
    fd = call.target.open_repaired()
    if not _overrides(call.request):
        container.check_is_other(fd)
    for each in left:
        end_orphans([each])
        call.target.withdraw(each.record)
        leave_names(call.target, each)
    reference.enter()
    call.look_outside()
    call.check_names()
    ports = call.prepare_ports(reference)
    try:
        result = _attach_inside(call, reference, container, fd, (ports, left))
        for each in others:
            each.drop()
        return _finish(call, reference, result, fd, ports)
    except BaseException:
        close_ports(call.target, reference)
        raise
    finally:
        if ports is not None:
            ports.leave()


def _overrides(request: Request) -> bool:
    return request.environ.get("CNI_NETNS_OVERRIDE", "").lower() in ("1", "true")


def _attach_inside(
    call: Operation,
    reference: Reference,
    container: ContainerNetns,
    fd: int,
    more: tuple[Publication | None, Sequence[Reference]],
) -> Json:
    """Run the plugins' ADD in the netns, which is open as fd, after the DEL of what is left.

    `more` are the ports to publish, and the references of what is left.
    """
    ports, left = more
    result: Json | None = None
    try:
        with call.lock(), call.inside(fd):
            if left:
                from . import detaching  # only where something is left

                for each in left:
                    detaching.delete_leftover(call, each, fd)
            call.prepare_container(container, fd, ports)
            result = _add(call, reference, container, ports)
            call.warn_of_overlaps(result)
    except OSError:
        if result is not None:
            # The kernel has refused the way back.
            interrupt.disregard()
            with call.inside(fd):
                call.chain.delete(result)
        raise
    return result


def _add(
    call: Operation, reference: Reference, container: ContainerNetns, ports: Publication | None
) -> Json:
    """Write the first line of the reference, claim the ports, and run the plugins' ADD."""
    request = call.request
    call.chain.mtu = call.mtu()
    mark_adding(
        reference,
        container,
        args=request.args,
        path=request.path,
        conf=request.conf,
        mtu=call.chain.mtu,
        **(ports.fields if ports is not None else {}),
        **call.target.place(),
    )
    if ports is not None:
        call.chain.offer("portMappings", ports.claim())
    made = call.chain.add(lambda so_far: reference.write(ADDING, result=so_far))
    return call.with_names(made)


def mark_adding(reference: Reference, container: ContainerNetns, **more: Any) -> None:
    """Write down all that a DEL has to know, before anything is done.

    `more` is what only some of them need: `args`, `path`, `conf` and `mtu` of the ADD, and ports.
    The key `netnsID` is the namespace that CNI_NETNS leads to, which may be another one later.
    """
    network, container_id, ifname = reference.record.name.attachment
    reference.write(
        ADDING,
        network=network,
        containerID=container_id,
        ifname=ifname,
        netns=container.path,
        netnsID=container.id,
        bootID=boot_id(),
        **more,
        since=state.now(),
        began=time.time_ns(),
        result=None,
    )


def _finish(
    call: Operation, reference: Reference, result: Json, fd: int, ports: Publication | None
) -> Json:
    """Open the ports of the host, and write down that the attachment is live."""
    try:
        if call.conf.names:
            from .names import membership  # only for a network with names

            where = call.target
            path = where.netns_path
            result = membership.enter(where.state, path, reference, call.request, result)
        _open_ports(call, result, ports)
        _spare_leases(call, addresses(result))
        reference.write(LIVE, result=result)
    except BaseException:
        interrupt.disregard()
        with call.inside(fd):
            call.chain.delete(result)
        raise
    return result


def _spare_leases(call: Operation, addresses: list[str]) -> None:
    """Mark the leases of an attachment as the shim's own files, see `state.FILE_MODE`."""
    where = call.target
    if where.uplink is None or where.state.base.startswith("/run/"):
        return  # they are the caller's; or nothing is removed by its age there
    directory = f"{where.state.dir}{kept.CNI_STATE}/networks/{call.request.network}"
    for address in addresses:
        try:
            os.chmod(f"{directory}/{address.partition('/')[0]}", state.FILE_MODE | 0o044)
        except OSError:
            pass  # another IPAM plugin has it, or the network has another name there


def _open_ports(call: Operation, result: Json, ports: Publication | None) -> None:
    """Open the ports of the host, by the uplink that has replaced one that died meanwhile."""
    try:
        if ports is not None:
            ports.open(result)
        if call.target.is_connected:
            return
    except ShimError:
        if call.target.is_connected or ports is None or not ports.are_of_uplink:
            raise
    from .shared import readiness  # only where the uplink has just ended

    readiness.await_uplink(call.target.state)
    if ports is not None and ports.are_of_uplink:
        ports.open(result)

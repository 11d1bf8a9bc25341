# SPDX-License-Identifier: Apache-2.0
"""One operation on one attachment: what it needs first, and ADD and DEL with the reference held.

The verbs take the reference and give it back. So do GC and `stop`, which detach for others.
"""

from __future__ import annotations

import os

from . import conf, interrupt, kept, log, references, result, state, target
from .attachment import ADDING, DELETING, LIVE, AttachmentRecord, ReferenceName, first_line
from .chain import Chain
from .errors import ShimError, warn
from .locks import NoLock
from .netns import ContainerNetns
from .result import addresses
from .versions import Versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from . import enter
    from .decoding import Json
    from .locks import Lock
    from .once import Once
    from .ports.publication import Publication
    from .references import Reference
    from .request import Request
    from .shared.overlaps import Route
    from .target import Target


class Operation:
    """A request with its configuration, its plugins and its target; variables name it `call`.

    Making one changes nothing and enters nothing. `name` is that of the attachment's reference.
    `conf` has the shim's own keys, and `request.conf` is the whole configuration as it was sent.
    """

    __slots__ = (
        "chain",
        "conf",
        "name",
        "outside",
        "request",
        "target",
        "versions",
        "was_valid",
    )

    def __init__(
        self, request: Request, where: Target | None = None, name: ReferenceName | None = None
    ) -> None:
        """Check the configuration and find the plugins.

        `where` is its target if that is known: once the process has entered a netns, it is too
        late to find out. `name` is that of its reference if it has one. Raises ShimError for
        anything that is wrong.
        """
        self.request = request
        log.about(request)
        self.conf = conf.read(request.conf)
        self.target = where or target.choose(self.conf, request)
        state_of = self.target.state
        if state.is_private(state_of.base, may_be_hidden=True):
            state.is_private(state_of.dir)
        self.was_valid = conf.check(request.conf, state_of.stamps)
        self.versions = Versions(state_of.path("plugins.json"))
        kinds = [entry.get("driver") or entry["type"] for entry in self.conf.plugins]
        self.name = name or ReferenceName.of(
            request.network, request.container_id, request.ifname, kinds
        )
        environ = {**request.environ, **references.mark(state_of, self.name)}
        self.chain = Chain(self.conf, request, environ, self.versions, state_of.path("netavark"))
        self.outside: list[Route] | None = None

    def rename(self, name: ReferenceName) -> None:
        """Give its reference another name, before that is taken."""
        self.name = name
        self.chain.mark(references.mark(self.target.state, name))

    def prepare_ports(self, reference: Reference) -> Publication | None:
        """Prepare to open the ports that the runtime asks for; None where it asks for none.

        Call it in the host's netns, so before `inside`.
        """
        if not self.conf.publish or not self.chain.takes("portMappings"):
            return None
        wanted = self.request.conf["runtimeConfig"]["portMappings"]
        return self.target.publication(reference, wanted)

    def check_names(self) -> None:
        """Check, where the network has names, that there is a program that serves them."""
        if self.conf.names:
            from .names import membership  # only for a network with names

            membership.check(self.request.environ)

    def recall_ports(self, record: AttachmentRecord) -> None:
        """Give the plugins the port mappings that they were given by the ADD."""
        if record.ports and self.chain.takes("portMappings"):
            from .ports import mappings  # only where ports are published

            wanted = self.request.conf["runtimeConfig"]["portMappings"]
            self.chain.offer("portMappings", mappings.recall(wanted, record.ports))

    def inside(self, fd: int | None) -> enter.Inside | enter.Unchanged:
        """Give the context for plugins in the open netns of the target."""
        return self.target.inside(fd, kept.of_request(self.request))

    def nowhere(self) -> enter.Inside | enter.Unchanged:
        """Give the context for plugins where the target has no netns."""
        return self.target.nowhere(kept.of_request(self.request))

    def mtu(self) -> int:
        """Give the MTU for plugins without one of their own, 0 for none; the target is open.

        In place, the netns and its uplink are the caller's affair.
        """
        uplink, wanted = self.target.uplink, self.conf.mtu
        if uplink is None:
            return 0
        return uplink.mtu or 0 if isinstance(wanted, str) else int(wanted)

    def with_names(self, answer: Json) -> Json:
        """Give a result with the name servers of the netns, for a runtime that asks it for some.

        In place, they are the caller's affair.
        """
        uplink = self.target.uplink
        if uplink is None or uplink.driver == "none":
            return answer
        servers = uplink.dns_forwarders
        named = result.name_servers(answer, servers, uplink.search)
        if servers and named is answer and not answer.get("dns") and result.default_routes(answer):
            family = "IPv6" if ":" in servers[0] else "IPv4"
            warn(
                f"names do not resolve in this container: its network does not lead to "
                f"{servers[0]}, as the host's name servers need: give it a subnet of {family}"
            )
        return named

    def prepare_container(
        self, container: ContainerNetns, fd: int, ports: Publication | None
    ) -> None:
        """Prepare a container for the uplink, from inside the netns, which is open as fd."""
        is_first = self.request.conf.get("prevResult") is None  # of the entries of a network
        uplink = self.target.uplink
        if uplink and uplink.driver == "pasta":
            is_behind = is_first
        else:  # answers leave by the pasta that opens the ports
            is_behind = ports is not None and ports.are_by_pasta
        if is_behind:
            container.repeat_sooner(fd)

    def lock(self) -> Once | Lock | NoLock:
        """Give the lock of this call among others, as a context; see `once`."""
        return self.target.lock(self.request, self.conf)

    def look_outside(self) -> None:
        """Note which networks the host has, for a configuration that was not validated before."""
        if not self.was_valid and self.target.uplink:
            from .shared import overlaps  # only for the first ADD of a configuration

            self.outside = overlaps.here()

    def warn_of_overlaps(self) -> None:
        """Warn, from inside the netns, of what is out of reach, as its addresses are in there."""
        uplink = self.target.uplink
        if self.outside is not None and uplink is not None:
            from .shared import overlaps  # see above

            own = uplink.interface if uplink.driver == "pasta" else ""
            outside = self.outside if uplink.interface else []
            for problem in overlaps.problems(overlaps.here(), outside, own):
                warn(problem)

    def remember(self) -> None:
        """Cache the validation and the plugins' versions for the next call.

        Call it while a reference is held: nothing may be written into a directory that is being
        removed.
        """
        if not self.was_valid:
            stamps = self.target.state.stamps
            try:
                # No parents: what `netns-shim stop` removed meanwhile must not come back.
                if not state.is_private(stamps):
                    os.mkdir(stamps, 0o700)
            except FileExistsError:
                pass  # another call was faster
            except (OSError, ShimError):
                return
            conf.remember(self.request.conf, stamps)
        self.versions.remember()


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
        call.target.leave_names(each)
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
            for each in left:
                _delete_leftover(call, each, fd)
            call.prepare_container(container, fd, ports)
            result = _add(call, reference, container, ports)
            call.warn_of_overlaps()
    except OSError:
        if result is not None:
            # The kernel has refused the way back.
            interrupt.disregard()
            with call.inside(fd):
                call.chain.delete(result)
        raise
    return result


def close_ports(where: Target, reference: Reference) -> None:
    """Close the ports of an ADD that has failed, whose error is the one to report.

    Where that fails, the reference stays: a port could be open, and a DEL, or GC, has to close it.
    """
    interrupt.disregard()
    where.leave_names(reference)
    try:
        where.withdraw(reference.record)
    except (ShimError, OSError) as error:
        reference.is_ours = False
        warn(f"undoing a failed ADD: {error}")


def _delete_leftover(call: Operation, reference: Reference, fd: int) -> None:
    """Do the DEL of an earlier attachment with that call's parameters, from inside."""
    from . import recall  # only where something is left

    record = reference.record
    request = recall.request_of(record, call.request.environ)
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


def _finish(
    call: Operation, reference: Reference, result: Json, fd: int, ports: Publication | None
) -> Json:
    """Open the ports of the host, and write down that the attachment is live."""
    try:
        if call.conf.names:
            result = call.target.enter_names(reference, call.request, result)
        _open_ports(call, result, ports)
        call.target.spare_leases(call.request.network, addresses(result))
        reference.write(LIVE, result=result)
    except BaseException:
        interrupt.disregard()
        with call.inside(fd):
            call.chain.delete(result)
        raise
    return result


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
    call.target.await_uplink()
    if ports is not None and ports.are_of_uplink:
        ports.open(result)


def mark_adding(reference: Reference, container: ContainerNetns, **more: Any) -> None:
    """Write down all that a DEL needs, before anything is done; `more` as for `first_line`."""
    network, container_id, ifname = reference.record.name.attachment
    reference.write(
        ADDING,
        **first_line(
            network=network,
            container_id=container_id,
            ifname=ifname,
            netns=container.path,
            netns_id=container.id,
            **more,
        ),
    )


def end_orphans(held: list[Reference]) -> bool:
    """Wait for the processes of an earlier call that was killed; tell whether there was one.

    `held` are the references of one call; with the first it marks the processes it starts.
    """
    was_killed = any(reference.record and reference.phase != LIVE for reference in held)
    if was_killed:
        from .shared import processes  # only after something was cut off

        processes.end_orphans(held[0].path)
    return was_killed


def give_back(where: Target, held: list[Reference]) -> None:
    """End a call that has failed: drop the references it took, keep those from before."""
    interrupt.disregard()
    for reference in held:
        reference.give_back()
    where.leave()


def _overrides(request: Request) -> bool:
    return request.environ.get("CNI_NETNS_OVERRIDE", "").lower() in ("1", "true")


def detach_by(request: Request, where: Target, reference: Reference) -> None:
    """Do what `detach` does, by a request for it."""
    try:
        call = Operation(request, where, reference.record.name)
    except BaseException:
        reference.close()
        raise
    detach(call, reference)


def detach(call: Operation, reference: Reference) -> None:
    """Do the DEL of an attachment whose reference is held; drop it if that succeeded.

    The netns is removed with its last attachment. A failure is raised and leaves the reference.
    """
    try:
        _delete(call, reference)
    except BaseException:
        give_back(call.target, [reference])
        raise
    reference.drop()
    call.target.leave()


def _delete(call: Operation, reference: Reference) -> None:
    record = reference.record
    result = call.request.conf.get("prevResult")
    if not result or record.phase == ADDING:
        # The runtime has no result of an ADD that was cut off; it may have that of an earlier one.
        result = record.previous or result
    call.chain.mtu = record.mtu
    end_orphans([reference])
    fd = call.target.open_as_is()
    with call.lock():
        # Only now, because the container may have gone while this DEL was waiting.
        is_lost = is_gone(call.request.netns, record, fd)
        if is_lost:
            call.chain.lose_netns()
        mark_deleting(reference)
        # First: a connection that comes now would lead to a container that is half detached.
        call.target.withdraw(record)
        call.target.leave_names(reference)
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

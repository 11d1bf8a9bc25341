# SPDX-License-Identifier: Apache-2.0
"""One operation on one attachment: what it needs first, and what ADD and DEL have in common."""

from __future__ import annotations

import os

from . import conf, interrupt, kept, log, references, result, state, target
from .attachment import LIVE, ReferenceName
from .chain import Chain
from .errors import ShimError, warn
from .versions import Versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .attachment import AttachmentRecord
    from .decoding import Json
    from .enter import Inside
    from .in_place import Unchanged
    from .locks import Lock, NoLock
    from .netns import ContainerNetns
    from .once import Once
    from .ports.publication import Publication
    from .references import Reference
    from .request import Request
    from .shared.overlaps import Route
    from .state import State
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
        self.name = name or ReferenceName.of(
            request.network, request.container_id, request.ifname, self.conf.types
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

    def inside(self, fd: int | None) -> Inside | Unchanged:
        """Give the context for plugins in the open netns of the target."""
        return self.target.inside(fd, kept.of_request(self.request))

    def nowhere(self) -> Inside | Unchanged:
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
        if uplink and uplink.driver != "none":
            is_behind = is_first
        else:  # answers leave by the pasta that opens the ports
            is_behind = ports is not None and ports.are_by_pasta
        if is_behind:
            is_slirp = uplink is not None and uplink.driver == "slirp4netns"
            container.tune_tcp(fd, behind_pasta=not is_slirp)

    def lock(self) -> Once | Lock | NoLock:
        """Give the lock of this call among others, as a context; see `once`."""
        return self.target.lock(self.request, self.conf)

    def look_outside(self) -> None:
        """Note which networks the host has, for a configuration that was not validated before."""
        if not self.was_valid and self.target.uplink:
            from .shared import overlaps  # only for the first ADD of a configuration

            self.outside = overlaps.here()

    def warn_of_overlaps(self, answer: Json) -> None:
        """Warn, from inside the netns, of what is out of reach, as its addresses are in there."""
        uplink = self.target.uplink
        if self.outside is not None and uplink is not None:
            from .shared import overlaps  # see above

            own = uplink.interface if uplink.driver == "pasta" else ""
            outside = self.outside if uplink.interface else []
            for problem in overlaps.problems(overlaps.here(), outside, own):
                warn(problem)
            for name, address in overlaps.doubled(
                self.target.state, self.request.network, result.addresses(answer)
            ):
                warn(
                    f"{address} is the address of a container in network {name!r}, too: IPAM "
                    "plugins keep addresses by the name of a network, so detach the containers "
                    "of a network before you rename it, or give one network another subnet"
                )

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


def close_ports(where: Target, reference: Reference) -> None:
    """Close the ports of an ADD that has failed, whose error is the one to report.

    Where that fails, the reference stays: a port could be open, and a DEL, or GC, has to close it.
    """
    interrupt.disregard()
    leave_names(where, reference)
    try:
        where.withdraw(reference.record)
    except (ShimError, OSError) as error:
        reference.is_ours = False
        warn(f"undoing a failed ADD: {error}")


def leave_names(where: Target, reference: Reference) -> None:
    """Take an attachment out of the names, if it is there; see `names.together`."""
    if reference.record.naming:
        from .names import membership  # only for a network with names

        if where.nameless is None:
            membership.leave(where.state, where.netns_path, reference)
        else:
            where.nameless.add(membership.strike(reference))


def names_of(
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

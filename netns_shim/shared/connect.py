# SPDX-License-Identifier: Apache-2.0
"""Joining a netns to the host's network: start the uplink, write its record; end it."""

from __future__ import annotations

import os

from .. import hostnet, interrupt, netns
from ..errors import ShimError, warn
from ..records import UplinkRecord
from ..state import PORTS, outer_uid
from . import (
    fallback,
    guardian,
    health,
    names,
    processes,
    register,
    routes,
    rtnetlink,
    scope,
    uplink,
)
from .nsenter import run_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from ..decoding import Json
    from ..state import State
    from .uplink import Program, Uplink, Wanted

REFRESH = "`netns-shim refresh` gives it one"
# The attempt before which a guardian waits for a second, see `revival`.
SECOND = 2
ACCEPT_DAD = "/proc/sys/net/ipv6/conf/default/accept_dad"


class Begun:
    """What there is of an uplink: its processes, why it waits, its interface. Nothing at first."""

    __slots__ = ("addresses", "guardian", "interface", "mtu", "pending", "pid")

    def __init__(self) -> None:
        self.pid: int | None = None
        self.guardian: int | None = None
        self.pending = ""
        self.interface = ""
        self.addresses: list[str] = []
        self.mtu = 0


def connect(state: State, chosen: Uplink, wanted: Wanted, attempt: int = 0) -> None:
    """Start the uplink, then write its record and the resolv.conf that leads to it.

    `wanted` is the configuration it was chosen by, for `refresh`, and `attempt` is for its
    guardian.
    """
    begun = Begun()
    if not isinstance(chosen, uplink.Nothing):
        chosen, begun = _begin(state, chosen, wanted, attempt)
    pid = begun.pid
    if not pid:
        run_in(state.pin, lambda: _look_for_duplicates(look=False))
    before = _before(state)
    record = register.of(
        driver=chosen.driver,
        wanted=wanted,
        pid=pid,
        guardian=begun.guardian,
        tap_descriptor=processes.descriptor(pid, uplink.TUN) if pid else None,
        pin=state.pin,
        interface=begun.interface,
        addresses=begun.addresses,
        # In a netns of a release that gave no network the MTU of its uplink, it stays as it is: on
        # one bridge, large packets for containers of 1500 bytes would be lost.
        mtu=None if before and before.mtu is None else begun.mtu,
        forwarders=list(chosen.forwarders),
        forwards=chosen.forwards,
        host_addresses=list(chosen.host_addresses),
        host=_look_at_host(chosen, begun),
        copies_addresses=chosen.copies_addresses,
        control=chosen.control if pid else "",
        lacks_ports=os.path.isdir(state.path(PORTS)),
        pending=begun.pending,
    )
    if before.publisher and "pid" in before.publisher:
        # A pasta of its own, which outlives the uplink.
        register.note_publisher(record, before.publisher)
    _tell_lack(state, record)
    if pid and chosen.driver == "pasta" and not chosen.copies_addresses:
        lead_to_host(state, record, ("addresses", "routes"))
    names.follow(state, record, is_new=True)
    register.write(state, record)


def _begin(state: State, chosen: Program, wanted: Wanted, attempt: int) -> tuple[Program, Begun]:
    """Start an uplink, or the other one in its place, and its guardian; give what has begun."""
    processes.check_numbers()
    if chosen.takes_ipv6 and chosen.copies_addresses:
        hostnet.await_ipv6()
    begun = Begun()
    chosen, started, begun.pending = fallback.start(
        chosen, wanted, lambda each: _start(state, each, attempt)
    )
    if started is None:
        begun.mtu = chosen.mtu
        # It tries until the host has a network; not at once, as this ADD has no reference yet.
        begun.guardian = guardian.start(state, -1, max(attempt, SECOND))
    else:
        begun.pid, begun.guardian = started
        begun.interface, begun.addresses, begun.mtu = _set_up(state, chosen)
    return chosen, begun


def _look_at_host(chosen: Uplink, begun: Begun) -> Json:
    depends = chosen.copies_addresses or begun.pending
    return hostnet.look(begun.addresses) if depends else hostnet.look_at_names()


def _start(state: State, chosen: Program, attempt: int) -> tuple[int, int | None]:
    """Start an uplink and its guardian; give their process IDs."""
    if chosen.driver == "slirp4netns":
        run_in(state.pin, lambda: _look_for_duplicates(look=True))
    with guardian.Lifeline(state) as line:
        chosen.start(state, line.writer)
        pid = chosen.wait(state)
        guard = guardian.start(state, line.reader, attempt)
    found = [each for each in (pid, guard) if each]
    scope.move(found, f"{chosen.driver}-{state.name}", outer_uid(), os.environ)
    return pid, guard


def guard(state: State, record: UplinkRecord) -> None:
    """Give the uplink of a record, which lives, another guardian, and write that down."""
    try:
        reader = guardian.open_reader(state)
    except OSError as error:
        warn(f"the uplink of {state.name!r} gets no other guardian: {error}; {REFRESH}")
        record.fields.pop("guardian")
    else:
        pid = guardian.start(state, reader)
        os.close(reader)
        if pid is None:
            return
        scope.move([pid], f"guardian-{state.name}", outer_uid(), os.environ)
        warn(f"the guardian of the uplink of {state.name!r} was gone, and has been replaced")
        register.note_guardian(record, pid)
    register.write(state, record)


def _tell_lack(state: State, record: UplinkRecord) -> None:
    for kind in health.lacks(record):
        warn(
            f"the host has IPv{kind}, and {record.driver} gave none to the shared netns "
            f"{state.name!r}: `netns-shim refresh` tries again"
        )


def follow(state: State, record: UplinkRecord, changes: list[str]) -> None:
    """Follow routes and addresses of the host, where those in the netns are pasta's own.

    Routes that have changed count as seen by a caller that can be told of what is missing.
    """
    if "routes" in changes:
        lead_to_host(state, record, ("addresses", "routes"))
        _tell_lack(state, record)
    else:
        lead_to_host(state, record, ("addresses",))
    register.write(state, record)


def lead_to_host(state: State, record: UplinkRecord, changes: Container[str]) -> None:
    """Lead the addresses that the host has in a netns to its own of now, and note those.

    `changes` are the keys of the host's network that are noted as well.
    """
    from . import hostward  # only with addresses of pasta's own, at first or after a change

    pairs = hostward.pairs(record.host_addresses)
    try:
        run_in(state.pin, lambda: hostward.lead(pairs))
    except ShimError as error:
        names = ", ".join(record.host_addresses)
        warn(f"containers cannot reach the host at {names}: {error.details}")
    seen = {key: found for key, found in hostward.look(pairs).items() if key in changes}
    register.note_host(record, seen)


def _before(state: State) -> UplinkRecord:
    """Give the record of the uplink that this netns had before; empty where it had none."""
    before = state.uplink()
    is_same = before.netns == os.stat(state.pin).st_ino and before.is_of_this_boot
    return before if is_same else UplinkRecord()


def _set_up(state: State, chosen: Program) -> tuple[str, list[str], int]:
    """Set up a netns for an uplink that has just started; give interface, addresses and MTU.

    What cannot be done is a warning.
    """
    if chosen.ipv6:
        from . import netlink  # pyroute2, which pasta does not need

        try:
            netlink.configure_ipv6(state.pin, *chosen.ipv6)
        except ShimError as error:
            warn(f"the shared netns has no IPv6: {error.details}")
    there = hostnet.routes()
    interface, addresses, mtu, refusal, lost = run_in(state.pin, lambda: _settle(chosen, there))
    if lost:
        families = " and ".join(f"IPv{kind}" for kind in lost)
        warn(
            f"the host has a default route of {families}, and {chosen.driver} made none in "
            f"the shared netns {state.name!r}: `netns-shim refresh` tries again"
        )
    if refusal:
        warn(
            f"TCP connections may hang: {chosen.path} is old, and nftables refused "
            f"({refusal}): install a newer passt"
        )
    return interface, addresses, mtu


def _settle(chosen: Uplink, there: list[str]) -> tuple[str, list[str], int, str, list[int]]:
    """Finish the set-up inside; `there` are the default routes of the host.

    Gives interface, addresses, MTU, why a rule was refused, and families without a default route.
    """
    refusal = ""
    interface, addresses, mtu = rtnetlink.uplink_interface()
    if chosen.sends_bare_segments:
        from . import nftables  # which a newer pasta does not need

        try:
            nftables.repair_segments(interface)
        except OSError as error:
            refusal = error.strerror or str(error)
    netns.tune_tcp(behind_pasta=chosen.driver == "pasta")
    _look_for_duplicates(look=False)
    if chosen.driver == "pasta":
        lost = routes.complete(interface, addresses, there)
    else:
        lost = routes.missing(interface, addresses, routes.families(there))
    return interface, addresses, mtu, refusal, lost


def _look_for_duplicates(*, look: bool) -> None:
    """Tell new interfaces of this netns whether to look for duplicates of IPv6 addresses.

    Bridges need not: what is in the netns comes from us, and from one set of leases. One that does
    answers nothing for a second or two. The answers of containers wait for that, and come all at
    once then, which a pasta of 2023 does not survive: see `ports.handshake`. But libslirp knows
    only neighbours that have looked.
    """
    try:
        fd = os.open(ACCEPT_DAD, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return  # a kernel without IPv6, or sysctls that cannot be written
    try:
        os.write(fd, b"1" if look else b"0")
    finally:
        os.close(fd)


def disconnect(state: State) -> None:
    """End the uplink, with or without a record of it."""
    record = state.uplink()
    known = set()
    if record.is_of_this_boot:
        # First: it would take the end of the uplink for a failure.
        if record.guardian.pid not in (0, os.getpid()):
            processes.stop(record.guardian.pid, record.guardian.start_time)
        if record.pid:
            known.add((record.pid, record.start_time))
    # One without a record: the process that started it was killed before it wrote one.
    found = known | processes.stray(state)
    ended = set[tuple[int, int]]()
    while found - ended:
        for pid, since in found - ended:
            processes.stop(pid, since)
        ended |= found
        # It may still have been starting, and have gone to the background meanwhile.
        found = processes.stray(state) if ended != known else set()


def renew(state: State, environ: Mapping[str, str]) -> None:
    """End the uplink and start it again, as it was, in the same netns.

    Raises ShimError (code 102) where it fails; then see `again`.
    """
    wanted = state.uplink().wanted
    again(state, uplink.choose(wanted, environ), wanted)


def again(state: State, chosen: Uplink, wanted: Wanted) -> None:
    """End the uplink and start another one, in the same netns.

    Raises ShimError (code 102) where that fails. Then a guardian goes on trying.
    """
    disconnect(state)
    try:
        connect(state, chosen, wanted)
    except BaseException as error:
        interrupt.disregard()
        disconnect(state)
        record = state.uplink()
        pid = guardian.start(state, -1, 1) if record.pid and record.is_of_this_boot else None
        if pid is not None:
            register.note_guardian(record, pid, str(error))
            register.write(state, record)
        raise

# SPDX-License-Identifier: Apache-2.0
"""Joining a netns to the host's network: start the uplink, write its record; end it."""

from __future__ import annotations

import errno
import os

from .. import hostnet, netns
from ..errors import ShimError, warn
from ..records import UplinkRecord
from ..state import outer_uid, remove_special
from . import fallback, health, processes, resolvconf, routes, rtnetlink, scope, uplink
from .nsenter import run_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..state import State
    from .uplink import Program, Uplink, Wanted

ACCEPT_DAD = "/proc/sys/net/ipv6/conf/default/accept_dad"


def connect(state: State, chosen: Uplink, wanted: Wanted) -> None:
    """Start the uplink, then write its record and the resolv.conf that leads to it.

    `wanted` is the configuration it was chosen by, for `refresh`.
    """
    if not isinstance(chosen, uplink.Nothing):
        processes.check_numbers()
    if chosen.takes_ipv6:
        hostnet.await_ipv6()
    pid, pending, interface, addresses, mtu = None, "", "", list[str](), 0
    if not isinstance(chosen, uplink.Nothing):
        chosen, pid, pending = fallback.start(chosen, wanted, lambda c: _start(state, c))
        mtu = chosen.mtu
        if pid:
            interface, addresses, mtu = _set_up(state, chosen)
    if not pid:
        run_in(state.pin, lambda: _look_for_duplicates(look=False))
    # A forwarder can be reached only if the netns has its address family.
    families = {":" in address for address in addresses}
    record = UplinkRecord.of(
        driver=chosen.driver,
        wanted=wanted,
        pid=pid,
        tap_descriptor=processes.descriptor(pid, uplink.TUN) if pid else None,
        pin=state.pin,
        interface=interface,
        addresses=addresses,
        mtu=None if _is_of_before(state) else mtu,
        dns_forwarders=[f for f in chosen.forwarders if (":" in f) in families],
        host_addresses=list(chosen.host_addresses),
        host=hostnet.look(addresses) if chosen.driver == "pasta" else hostnet.look_at_names(),
        control=chosen.control if pid else "",
        lacks_ports=os.path.isdir(state.path(processes.PUBLISHERS)),
        pending=pending,
    )
    for kind in health.lacks(record):
        warn(
            f"the host has IPv{kind}, and {chosen.driver} gave none to the shared netns "
            f"{state.name!r}: `netns-shim refresh` tries again"
        )
    write_resolv_conf(state, record)
    state.write_uplink(record)


def _start(state: State, chosen: Program) -> int:
    """Start an uplink, and wait until it is ready; give its process ID."""
    if chosen.driver == "slirp4netns":
        run_in(state.pin, lambda: _look_for_duplicates(look=True))
    chosen.start(state)
    pid = chosen.wait(state)
    scope.move(pid, f"{chosen.driver}-{state.name}", outer_uid(), os.environ)
    return pid


def _is_of_before(state: State) -> bool:
    """Tell whether the netns is of a release that gave no network the MTU of its uplink.

    It stays as it is: on one bridge, large packets for containers of 1500 bytes would be lost.
    """
    before = state.uplink()
    is_same = before.netns == os.stat(state.pin).st_ino and before.is_of_this_boot
    return is_same and before.mtu is None


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
    if chosen.sends_bare_segments:
        from . import nftables  # which a newer pasta does not need

        try:
            nftables.drop_bare_segments()
        except OSError as error:
            refusal = error.strerror or str(error)
    if chosen.driver == "pasta":
        netns.repeat_sooner()
    _look_for_duplicates(look=False)
    interface, addresses, mtu = rtnetlink.uplink_interface()
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


def write_resolv_conf(state: State, record: UplinkRecord) -> bool:
    """Write the resolv.conf that goes with a record; tell whether that changed it.

    An existing file is overwritten, not replaced. A process that runs in the netns, such as a name
    server, has it mounted: it sees the new content, but after a rename(2) would see the old file.
    It is never empty, which would tell that it was cut off, and one write(2) makes it whole.
    """
    has_ipv6 = any(":" in address for address in record.addresses)
    text = resolvconf.compose(record.dns_forwarders, has_ipv6=has_ipv6).encode() or b"\n"
    path = state.path("resolv.conf")
    remove_special(path)
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        new = f"{path}.new"
        remove_special(new)
        fd = os.open(new, flags | os.O_CREAT | os.O_TRUNC, 0o600)
    else:
        new = ""
    with open(fd, "r+b", buffering=0) as file:
        before = file.read()
        if before == text:
            return False
        # In a container it is mounted into, root is an unprivileged user of ours.
        os.fchmod(fd, 0o644)
        # Empty lines cover what is longer there, until it is cut.
        _write_whole(fd, text.ljust(len(before), b"\n"), path)
        os.ftruncate(fd, len(text))
    if new:
        os.rename(new, path)
    return True


def _write_whole(fd: int, text: bytes, path: str) -> None:
    if os.pwrite(fd, text, 0) != len(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def disconnect(state: State) -> None:
    """End the uplink, with or without a record of it."""
    record = state.uplink()
    known = set()
    if record.pid and record.is_of_this_boot:
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

    Raises ShimError (code 102) where it fails; then the netns has no uplink.
    """
    wanted = state.uplink().wanted
    chosen = uplink.choose(wanted, environ)
    disconnect(state)
    connect(state, chosen, wanted)

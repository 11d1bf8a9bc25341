# SPDX-License-Identifier: Apache-2.0
"""Joining a netns to the outside: start the uplink, write down what it is; end it."""

from __future__ import annotations

import os

from .. import hostnet
from ..errors import ShimError, warn
from ..records import UplinkRecord
from ..state import outer_uid, remove_special
from . import processes, resolvconf, rtnetlink, scope, uplink
from .nsenter import run_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..state import State
    from .uplink import Uplink, Wanted


def connect(state: State, chosen: Uplink, wanted: Wanted) -> None:
    """Start the uplink, then write down what is known of it and the resolv.conf that leads to it.

    `wanted` is what it was chosen by, for `refresh`.
    """
    if chosen.takes_ipv6:
        hostnet.await_ipv6()
    chosen.start(state)
    pid, interface, addresses = None, "", list[str]()
    if not isinstance(chosen, uplink.Nothing):
        pid = chosen.wait(state)
        scope.move(pid, f"{chosen.driver}-{state.name}", outer_uid(), os.environ)
        if chosen.ipv6:
            from . import netlink  # pyroute2: pasta does without

            try:
                netlink.configure_ipv6(state.pin, *chosen.ipv6)
            except ShimError as error:
                warn(f"the shared netns has no IPv6: {error.details}")
        interface, addresses, refusal = run_in(state.pin, lambda: _settle(chosen))
        if refusal:
            warn(
                f"TCP connections may hang: {chosen.path} is old, and nftables refused: {refusal}"
            )
    if chosen.takes_ipv6 and hostnet.lacks_ipv6(addresses):
        warn(
            f"the host has IPv6, and pasta gave none to the shared netns {state.name!r}: "
            "`netns-shim refresh` tries again"
        )
    # Only the forwarders of a family that the netns has can be reached.
    families = {":" in address for address in addresses}
    record = UplinkRecord.of(
        driver=chosen.driver,
        wanted=wanted,
        pid=pid,
        tap_descriptor=processes.descriptor(pid, uplink.TUN) if pid else None,
        pin=state.pin,
        interface=interface,
        addresses=addresses,
        dns_forwarders=[f for f in chosen.forwarders if (":" in f) in families],
        host_addresses=list(chosen.host_addresses),
        host=hostnet.look(addresses) if chosen.driver == "pasta" else hostnet.look_at_names(),
    )
    write_resolv_conf(state, record)
    state.write_uplink(record)


def _settle(chosen: Uplink) -> tuple[str, list[str], str]:
    """Do inside what an uplink needs; give its interface, its addresses and what was refused."""
    refusal = ""
    if chosen.sends_bare_segments:
        from . import nftables  # which a newer pasta does without

        try:
            nftables.drop_bare_segments()
        except OSError as error:
            refusal = error.strerror or str(error)
    return (*rtnetlink.uplink_interface(), refusal)


def write_resolv_conf(state: State, record: UplinkRecord) -> bool:
    """Write the resolv.conf that goes with a record; tell whether that changed it.

    A file that is there is written into: a mount of it, as a name server has one that was started
    in the netns, shows the new content then, and would go on showing the old file after a rename.
    """
    has_ipv6 = any(":" in address for address in record.addresses)
    text = resolvconf.compose(record.dns_forwarders, has_ipv6=has_ipv6).encode()
    remove_special(state.path("resolv.conf"))
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(state.path("resolv.conf"), flags, 0o600), "r+b", buffering=0) as file:
        if file.read() == text:
            return False
        # Root in a container that this is mounted into is nobody here.
        os.fchmod(file.fileno(), 0o644)
        os.pwrite(file.fileno(), text, 0)
        os.ftruncate(file.fileno(), len(text))
    return True


def disconnect(state: State) -> None:
    """End the uplink, whether it is in the record or was never written down."""
    record = state.uplink()
    known = set()
    if record.pid and record.is_of_this_boot:
        known.add((record.pid, record.start_time))
    # One that was started and not yet written down when its starter was killed.
    found = known | processes.stray(state)
    ended = set[tuple[int, int]]()
    while found - ended:
        for pid, since in found - ended:
            processes.stop(pid, since)
        ended |= found
        # It may have been starting still, and have gone to the background meanwhile.
        found = processes.stray(state) if ended != known else set()


def renew(state: State, environ: Mapping[str, str]) -> None:
    """End the uplink and start it again, as it was, in the same netns.

    Raises ShimError (code 102) where it fails; then the netns has none.
    """
    wanted = state.uplink().wanted
    chosen = uplink.choose(wanted, environ)
    disconnect(state)
    connect(state, chosen, wanted)

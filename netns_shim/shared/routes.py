# SPDX-License-Identifier: Apache-2.0
"""The default routes of a shared netns: does each family have one that the host has one of?

The pasta of Debian 12 makes none where the host's address is a /32 whose gateway is outside of it,
nor where the host's route has no gateway, as with a VPN.
"""

from __future__ import annotations

import _socket as socket  # see `addresses`
import struct
import sys

from .. import hostnet
from . import addresses, rtnetlink
from .attributes import NLM_F_CREATE, NLM_F_EXCL, attribute, u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# include/uapi/linux/rtnetlink.h; struct rtmsg
RTM_NEWROUTE = 24
RTMSG = struct.Struct("=8BI")
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 4, 0, 1
RTA_OIF, RTA_GATEWAY = 4, 5
# The gateway is a neighbour, even if no address of the interface says so.
RTNH_F_ONLINK = 4
# pasta(1) is every neighbour on its interface, so any address leads out.
ANY_GATEWAY = {4: "169.254.1.1", 6: "fe80::1"}


def family(address: str) -> int:
    """Tell whether an address is of IPv4 or IPv6: 4 or 6."""
    return 6 if ":" in address else 4


def families(routes: Iterable[str]) -> set[int]:
    """Tell the families of default routes as `hostnet.routes` lists them."""
    return {_family(route) for route in routes}


def gateways(routes: Iterable[str], interface: str = "") -> dict[int, str]:
    """Give the gateway of each family, "" for a route without one; those of one interface only."""
    found: dict[int, str] = {}
    for route in routes:
        _, text, device = route.split(" ")
        if interface in ("", device):
            kind = _family(route)
            found[kind] = found.get(kind) or _address(kind, text)
    return found


def missing(interface: str, own: Iterable[str], wanted: Iterable[int]) -> list[int]:
    """List the families that lack a default route in this process's netns.

    `own` are the addresses of the uplink's `interface`; a family without one needs no route.
    A route over another interface counts, but not one of a publisher, which is in a table of its
    own.
    """
    here = [route for route in hostnet.routes() if not _is_publishers(route)]
    return sorted(set(map(family, own)) & set(wanted) - families(here))


def complete(interface: str, own: Iterable[str], host: Iterable[str]) -> list[int]:
    """Add the default routes that pasta(1) has not made; list the families for which that failed.

    It works in this process's netns. `host` are the default routes of the host.
    """
    known = gateways(host)
    failed = []
    for kind in missing(interface, own, known):
        try:
            add(interface, known[kind] or ANY_GATEWAY[kind])
        except OSError:
            failed.append(kind)
    return failed


def add(interface: str, gateway: str) -> None:
    """Add a default route to this process's netns. Raises OSError where that is refused."""
    kind = socket.AF_INET6 if ":" in gateway else socket.AF_INET
    place = (RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST)
    fixed = RTMSG.pack(kind, 0, 0, 0, *place, RTNH_F_ONLINK)
    rtnetlink.change(
        RTM_NEWROUTE,
        NLM_F_CREATE | NLM_F_EXCL,
        fixed,
        [
            attribute(RTA_GATEWAY, addresses.packed(gateway)),
            u32(RTA_OIF, socket.if_nametoindex(interface)),
        ],
    )


def _family(route: str) -> int:
    return 6 if route.startswith("::/0 ") else 4


def _is_publishers(route: str) -> bool:
    name = route.rpartition(" ")[2]
    start = rtnetlink.PUBLISHER
    return name.startswith(start) and name[len(start) :].isdecimal()


def _address(kind: int, text: str) -> str:
    """Read an address as proc(5) writes it; "" for none."""
    if not text.strip("0"):
        return ""
    if kind == 6:
        return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(text))
    return socket.inet_ntop(socket.AF_INET, int(text, 16).to_bytes(4, sys.byteorder))

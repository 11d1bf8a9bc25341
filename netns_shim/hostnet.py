# SPDX-License-Identifier: Apache-2.0
"""The host's network as an uplink found it, and what of that has changed since.

An uplink takes addresses, routes and name servers from the host when it starts and never looks
again: after a change of the network, a VPN or a start before the network was up, what is attached
stays with the old ones. So each ADD has a look, which costs a few system calls; it has to be taken
before any netns is entered.
"""

from __future__ import annotations

import os
import time

from . import interrupt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .decoding import Json

RESOLV_CONF = "/etc/resolv.conf"
# Where the real servers are when the host's file names only a resolver on its own loopback, which
# cannot be reached from another netns.
BEHIND_STUBS = (
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
)
# Destination and mask of a default route as proc(5) writes it, and of the halves of one: VPNs set
# two of these, so that the default route itself can stay.
DEFAULT_ROUTES = (
    (b"00000000", b"00000000"),
    (b"00000000", b"00000080"),
    (b"00000080", b"00000080"),
)
NOWHERE6 = b"0" * 32
# How long an interface that has just come up may take for its link-local address, in seconds.
LINK_LOCAL_SECONDS = 1.0
# The scope of such an address in if_inet6, and an interface that is to have none: proc(5), and
# addr_gen_mode in Documentation/networking/ip-sysctl.rst.
LINK_SCOPE, NO_ADDRESS = b"20", b"1"


def look(addresses: list[str]) -> Json:
    """Describe the host's network: `nameServers` by the files that list them, and `routes`.

    `addresses` are those that an uplink has given to its netns: of the IPv4 ones the host's own
    are in `addresses`. Those of IPv6 come and go, and are left out.
    """
    return {
        **look_at_names(),
        "routes": sorted({*_routes(), *_routes6()}),
        "addresses": _own([address for address in addresses if ":" not in address]),
    }


def look_at_names() -> Json:
    """Describe what an uplink with addresses of its own depends on: the files of name servers."""
    return {"nameServers": [_file(path) for path in (RESOLV_CONF, *BEHIND_STUBS)]}


def await_ipv6() -> None:
    """Wait until the interfaces of the default routes of IPv6 have their link-local addresses.

    pasta of 2025 looks for one when it starts, and without it goes on with IPv4 only. An interface
    has it some milliseconds after it has come up. Raises Stopped where a signal says to.
    """
    deadline = time.monotonic() + LINK_LOCAL_SECONDS
    while (wanting := _without_link_local()) and time.monotonic() < deadline:
        interrupt.check(f"waiting for the IPv6 address of {', '.join(wanting)}")
        time.sleep(0.005)


def lacks_ipv6(addresses: list[str]) -> bool:
    """Tell whether the host has a default route of IPv6 and these addresses are of IPv4 only."""
    return bool(_routes6()) and not any(":" in address for address in addresses)


def _without_link_local() -> list[str]:
    interfaces = {route.rpartition(" ")[2] for route in _routes6()}
    if not interfaces:
        return []
    entries = [line.split() for line in _lines("/proc/net/if_inet6")]
    interfaces -= {entry[5].decode() for entry in entries if entry[3] == LINK_SCOPE}
    return sorted(name for name in interfaces if _makes_addresses(name))


def _makes_addresses(interface: str) -> bool:
    mode = _lines(f"/proc/sys/net/ipv6/conf/{interface}/addr_gen_mode")
    return bool(mode) and mode[0].strip() != NO_ADDRESS


def changes(before: Json) -> list[str]:
    """List the keys of an earlier look that have changed since; empty if none has."""
    addresses = before.get("addresses")
    known = addresses if isinstance(addresses, list) else []
    now = look([address for address in known if isinstance(address, str)])
    return [key for key in now if key in before and before[key] != now[key]]


def _file(path: str) -> list[int]:
    try:
        info = os.stat(path)
    except OSError:
        return []
    return [info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns]


def _routes() -> list[str]:
    fields = [line.split() for line in _lines("/proc/net/route")]
    return [
        f"{entry[1].decode()}/{entry[7].decode()} {entry[2].decode()} {entry[0].decode()}"
        for entry in fields
        if len(entry) > 7 and (entry[1], entry[7]) in DEFAULT_ROUTES
    ]


def _routes6() -> list[str]:
    found = []
    for line in _lines("/proc/net/ipv6_route"):
        # Among them is one of the device lo, by which the kernel says that there is none.
        if line.startswith(NOWHERE6 + b" 00 ") and not line.endswith(b" lo\n"):
            entry = line.split()
            found.append(f"::/0 {entry[4].decode()} {entry[-1].decode()}")
    return found


def _own(addresses: list[str]) -> list[str]:
    """Choose those that are the host's own."""
    if not addresses:
        return []
    lines = _lines("/proc/net/fib_trie")
    own = {
        lines[number - 1].rpartition(b" ")[2].strip()
        for number, line in enumerate(lines)
        if line.endswith(b"/32 host LOCAL\n")
    }
    return [address for address in addresses if address.encode() in own]


def _lines(path: str) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            return file.readlines()
    except OSError:
        return []  # a kernel without IPv6, for one

# SPDX-License-Identifier: Apache-2.0
"""The host's network as an uplink found it, and what has changed since.

An uplink takes addresses, routes and name servers from the host when it starts, and never looks
again: after the network changes, a VPN starts, or if the uplink started before the network was up,
containers stay with the old ones. So each ADD looks, which costs a few system calls. It looks
before it enters any netns.
"""

from __future__ import annotations

import os
import time

from . import interrupt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .decoding import Json

RESOLV_CONF = "/etc/resolv.conf"
# The file of the real name servers where resolv.conf names only a resolver on the host's loopback,
# which cannot be reached from another netns.
BEHIND_STUBS = (
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
)
# Destination and mask of a default route as proc(5) writes it, and of the halves of one: VPNs set
# both halves, so that the default route itself can stay.
DEFAULT_ROUTES = (
    (b"00000000", b"00000000"),
    (b"00000000", b"00000080"),
    (b"00000080", b"00000080"),
)
IPV6 = "/proc/sys/net/ipv6/conf"
NOWHERE6 = b"0" * 32
# How long an interface may take to get its link-local address after it is up, in seconds.
LINK_LOCAL_SECONDS = 1.0
# The scope of such an address in if_inet6, and the mode of an interface without one: proc(5), and
# addr_gen_mode in Documentation/networking/ip-sysctl.rst.
LINK_SCOPE, NO_ADDRESS = b"20", b"1"


def look(addresses: list[str]) -> Json:
    """Describe the host's network: `nameServers` by the files that list them, and `routes`.

    `addresses` are those that an uplink has given to its netns. The answer has the IPv4 ones that
    are the host's own, as `addresses`. IPv6 addresses come and go, and are left out.
    """
    return {
        **look_at_names(),
        "routes": routes(),
        "addresses": _own([address for address in addresses if ":" not in address]),
    }


def routes() -> list[str]:
    """List the default routes of this process's netns: destination, gateway, interface.

    They are written as in proc(5), and so are those of an uplink's record.
    """
    return sorted({*_routes(), *_routes6()})


def look_at_names() -> Json:
    """Describe all that an uplink with addresses of its own depends on: the name server files."""
    return {"nameServers": [_file(path) for path in (RESOLV_CONF, *BEHIND_STUBS)]}


def time_of_names() -> int:
    """Tell when the host's resolv.conf was written, in ns; 0 where it is missing."""
    return (_file(RESOLV_CONF) or [0])[-1]


def await_ipv6() -> None:
    """Wait until the interfaces of the default routes of IPv6 have their link-local addresses.

    pasta of 2025 looks for one when it starts, and without it uses IPv4 only. An interface gets
    it some milliseconds after it comes up. Raises Stopped when a signal says to stop.
    """
    deadline = time.monotonic() + LINK_LOCAL_SECONDS
    while (wanting := _without_link_local()) and time.monotonic() < deadline:
        interrupt.check(f"waiting for the IPv6 address of {', '.join(wanting)}")
        time.sleep(0.005)


def is_on_default_link(server: str) -> bool:
    """Tell whether the zone of an address is the interface of a default route of IPv6."""
    zone = server.partition("%")[2]
    return bool(zone) and any(route.endswith(f" {zone}") for route in _routes6())


def has_ipv6() -> bool:
    """Tell whether IPv6 is not turned off on the host, though it may have no network with it."""
    return read_lines(f"{IPV6}/all/disable_ipv6") == [b"0\n"]


def link_local_interface() -> str:
    """Give an interface with a link-local address, if possible of a default route; or ""."""
    entries = [line.split() for line in read_lines("/proc/net/if_inet6")]
    found = [entry[5].decode() for entry in entries if entry[3] == LINK_SCOPE]
    preferred = {route.rpartition(" ")[2] for route in _routes6()}
    return next((name for name in found if name in preferred), (*found, "")[0])


def _without_link_local() -> list[str]:
    interfaces = {route.rpartition(" ")[2] for route in _routes6()}
    if not interfaces:
        return []
    entries = [line.split() for line in read_lines("/proc/net/if_inet6")]
    interfaces -= {entry[5].decode() for entry in entries if entry[3] == LINK_SCOPE}
    return sorted(name for name in interfaces if _makes_addresses(name))


def _makes_addresses(interface: str) -> bool:
    mode = read_lines(f"{IPV6}/{interface}/addr_gen_mode")
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
    fields = [line.split() for line in read_lines("/proc/net/route")]
    return [
        f"{entry[1].decode()}/{entry[7].decode()} {entry[2].decode()} {entry[0].decode()}"
        for entry in fields
        if len(entry) > 7 and (entry[1], entry[7]) in DEFAULT_ROUTES
    ]


def _routes6() -> list[str]:
    found = []
    for line in read_lines("/proc/net/ipv6_route"):
        # One of them is on the device lo: the kernel's way to say that there is no default route.
        if line.startswith(NOWHERE6 + b" 00 ") and not line.endswith(b" lo\n"):
            entry = line.split()
            found.append(f"::/0 {entry[4].decode()} {entry[-1].decode()}")
    return found


def _own(addresses: list[str]) -> list[str]:
    """Choose the addresses that are the host's own."""
    own = own_addresses() if addresses else []
    return [address for address in addresses if address in own]


def own_addresses() -> list[str]:
    """List the IPv4 addresses that are the host's own, those of loopback among them."""
    lines = read_lines("/proc/net/fib_trie")
    return [
        lines[number - 1].rpartition(b" ")[2].strip().decode()
        for number, line in enumerate(lines)
        if line.endswith(b"/32 host LOCAL\n")
    ]


def read_lines(path: str) -> list[bytes]:
    """Read the lines of a file in /proc; none where it is missing."""
    try:
        with open(path, "rb") as file:
            return file.readlines()
    except OSError:
        return []  # such as on a kernel without IPv6

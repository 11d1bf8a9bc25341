# SPDX-License-Identifier: Apache-2.0
"""The addresses that pasta gives its interface: its own, so that none depends on the host's.

If pasta is not told any, it copies those of the host, once. For each connection inside it makes
one of the host, so nothing outside sees the addresses inside. With `-i lo` it needs no interface
of the host that could be missing. Only the questions for a link-local name server need one.

IPv6 is there even where the host has none: pasta refuses such a connection at once, and resolvers
prefer IPv4 to an address of RFC 4193 (RFC 6724, section 2.1). So nothing waits for it, and IPv6
that the host gets later works.
"""

from __future__ import annotations

from .. import hostnet
from .options import is_given

NAME = "tap0"
# Of the networks for benchmarks (RFC 2544) no LAN is made, and of 198.18.0.0/16 proxies take
# addresses for names. pasta passes on all but the address itself, its gateway and the last one.
ADDRESS4, LENGTH4, GATEWAY4 = "198.19.110.114", "30", "198.19.110.113"
# Publishers have addresses of fd6e:6574:6e73::/64.
ADDRESS6, GATEWAY6 = "fd6e:6574:6e73:1::2", "fe80::1"
# Of that gateway; pasta of 2023 would take that of the host's interface, and `lo` has none.
MAC = "9a:55:9a:55:9a:55"
LOOPBACK = "lo"

# Options of pasta that say which addresses it gives its interface.
ADDRESSING = (
    *("-a", "--address", "-n", "--netmask", "-g", "--gateway", "-i", "--interface"),
    *("--no-copy-addrs", "--no-copy-routes"),
)
ONLY_IPV4, ONLY_IPV6 = ("-4", "--ipv4-only"), ("-6", "--ipv6-only")


def without_network() -> list[str]:
    """List what a pasta without such arguments is told if the host has no default route now.

    It gives up then, because it does not know which interface is meant.
    """
    if hostnet.look([])["routes"]:
        return []
    interface = hostnet.link_local_interface() or LOOPBACK
    return ["-i", interface, "-g", GATEWAY4, "-g", GATEWAY6, "-M", MAC]


def arguments(options: list[str], *, is_old: bool, link: str = "") -> list[str]:
    """List what pasta is told of its interface, beside these options of the user, which win.

    `is_old` is for a pasta of before 2024. That one has IPv6 only if it gets a link-local address
    of the host's. `link` is the interface of the host on which it asks a link-local name server.
    """
    told = [] if is_given(options, "-I", "--ns-ifname") else ["-I", NAME]
    if is_given(options, *ADDRESSING):
        return told
    has_ipv6 = hostnet.has_ipv6() and not is_given(options, *ONLY_IPV4)
    interface = hostnet.link_local_interface() if is_old and has_ipv6 else link
    told += ["-i", interface or LOOPBACK]
    if not is_given(options, *ONLY_IPV6):
        told += ["-a", ADDRESS4, "-n", LENGTH4, "-g", GATEWAY4]
    if has_ipv6:
        told += ["-a", ADDRESS6, "-g", GATEWAY6]
    elif not is_given(options, *ONLY_IPV4):
        told.append("-4")
    if not is_given(options, "-M", "--mac-addr"):
        told += ["-M", MAC]
    return told

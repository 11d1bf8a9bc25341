# SPDX-License-Identifier: Apache-2.0
"""Rules of nftables by which the containers of a network reach its server of names, and no other.

A container gets as far as the gateways of the other networks in its netns. The server knows whom
it answers by the address of the sender. But it answers addresses that it does not know, as those
of networks without names; and until release 1.5 it answers all.

    table inet netns-shim-walls {
        chain input { type filter hook input priority -5
            iif lo accept
            ip saddr 10.89.0.0/24 ip daddr 10.89.0.1 accept
            ip daddr 10.89.0.1 udp dport 53 reject; … tcp dport 53 reject with tcp reset }
        chain arriving { type nat hook prerouting priority -110
            ip daddr 10.89.0.1 udp dport 53 dnat to 10.89.0.1; … tcp … }
        chain leaving { type nat hook output priority -110; … }
    }

A sender that lies about its address gets no answer: that goes to the address.

The last two chains lead questions to where they go anyway. Where a container publishes port 53, as
a name server does, a plugin such as `portmap` leads what comes to this port of any address of the
netns to it, unless the kernel has found another destination before.
"""

from __future__ import annotations

import struct

from ..shared import nftables as nft
from ..shared import redirection
from ..shared.addresses import IPV4, packed
from ..shared.attributes import attribute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

TABLE, CHAIN = b"netns-shim-walls\0", b"input\0"
INPUT, BEFORE_FILTERS, ACCEPT = 1, -5, 1
PROTOCOLS = ("udp", "tcp")
SOURCE = {4: 12, 16: 8}
DESTINATION = {4: 16, 16: 24}


def build(allowed: Mapping[str, Iterable[str]]) -> None:
    """Let the netns of this process answer at each address to these subnets and itself only.

    Raises OSError where the kernel has no nftables, or refuses it.
    """
    nft.make(
        TABLE,
        (
            nft.chain(TABLE, CHAIN, INPUT, BEFORE_FILTERS),
            *(nft.rule(TABLE, CHAIN, rule) for rule in _rules(allowed)),
            *_kept(allowed),
        ),
    )


def are_gone() -> bool:
    """Tell whether the netns of this process has lost the rules, as by `nft flush ruleset`."""
    try:
        return nft.lacks(TABLE)
    except OSError:
        return False  # a kernel without nftables has never had them


def remove() -> None:
    """Remove what `build` has made. Raises OSError where it is not there."""
    nft.batch((nft.part(nft.DELTABLE, 0, attribute(nft.NFTA_TABLE_NAME, TABLE)),))


def _rules(allowed: Mapping[str, Iterable[str]]) -> Iterator[Iterable[bytes]]:
    accept = nft.expression(b"immediate", nft.VERDICT, nft.verdict(ACCEPT))
    own = struct.pack("=I", redirection.LOOPBACK)
    yield (
        nft.expression(b"meta", nft.REGISTER, redirection.IIF),
        nft.expression(b"cmp", nft.REGISTER, nft.EQUAL, nft.value(own)),
        accept,
    )
    for address, subnets in allowed.items():
        for subnet in subnets:
            yield *_leads(subnet, packed(address)), accept
        for protocol in PROTOCOLS:
            matches = redirection.matches(packed(address), protocol)
            yield *matches, redirection.reject(protocol)


def _kept(addresses: Iterable[str]) -> Iterator[bytes]:
    """`ip daddr ADDRESS udp dport 53 dnat to ADDRESS`, and over TCP."""
    for name, hook in redirection.HOOKS.items():
        yield nft.chain(TABLE, name, hook, redirection.BEFORE_DESTINATION_NAT, b"nat\0")
        for address in map(packed, addresses):
            for protocol in PROTOCOLS:
                asked = redirection.matches(address, protocol)
                there = redirection.nat(redirection.NFT_NAT_DNAT, address)
                yield nft.rule(TABLE, name, (*asked, *there))


def _leads(subnet: str, address: bytes) -> Iterable[bytes]:
    """`ip saddr SUBNET ip daddr ADDRESS`."""
    load, size = nft.REGISTER, len(address)
    family = redirection.NFPROTO_IPV4 if size == IPV4 else redirection.NFPROTO_IPV6
    first, _, length = subnet.partition("/")
    mask = ((1 << 8 * size) - (1 << 8 * size - int(length))).to_bytes(size, "big")
    header = redirection.NETWORK_HEADER
    return (
        nft.expression(b"meta", load, redirection.NFPROTO),
        nft.expression(b"cmp", load, nft.EQUAL, nft.value(bytes([family]))),
        nft.expression(b"payload", load, header, SOURCE[size], size),
        nft.expression(b"bitwise", load, load, size, nft.value(mask), nft.value(bytes(size))),
        nft.expression(b"cmp", load, nft.EQUAL, nft.value(packed(first))),
        nft.expression(b"payload", load, header, DESTINATION[size], size),
        nft.expression(b"cmp", load, nft.EQUAL, nft.value(address)),
    )

# SPDX-License-Identifier: Apache-2.0
"""The rules of nftables that lead questions to a forwarder on to a name server.

They have a table of their own, which is replaced at once. They hold for what containers send and
for what a program in the netns sends.
"""

from __future__ import annotations

import _socket as socket  # see `addresses`
import struct

from . import addresses
from . import nftables as nft
from .attributes import NLM_F_CREATE, attribute, nest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TABLE = b"netns-shim-names\0"
# Before those of plugins, which have -100.
BEFORE_DESTINATION_NAT = -110
BEFORE_SOURCE_NAT = 90
HOOKS = {b"arriving\0": nft.PREROUTING, b"leaving\0": nft.OUTPUT}
# Here, what has been led to the loopback of the netns gets an address of it as its source.
LOCAL_HOOKS = {b"received\0": 1, b"sent\0": 4}
FOREIGN = b"foreign\0"
ROUTE_LOCALNET = "/proc/sys/net/ipv4/conf/all/route_localnet"

DELTABLE = nft.NFNL_SUBSYS_NFTABLES << 8 | 2
NETWORK_HEADER = 1
NFPROTO, IIF, NOT_EQUAL = 15, 4, 1
NFPROTO_IPV4, NFPROTO_IPV6 = 2, 10
DESTINATION = {NFPROTO_IPV4: 16, NFPROTO_IPV6: 24}
NFT_NAT_SNAT, NFT_NAT_DNAT = 0, 1
NFT_REJECT_TCP_RST, NFT_REJECT_ICMPX_UNREACH, PORT_UNREACHABLE = 1, 2, 1
PORT = struct.pack(">H", 53)
LOOPBACK = 1  # the index of `lo` in every netns


def lead(rules: list[list[str]]) -> None:
    """Lead questions in the netns of this process; see `names.Plan`.

    Raises OSError where the kernel has no nftables, or refuses it.
    """
    named = attribute(nft.NFTA_TABLE_NAME, TABLE)
    parts = [nft.part(kind, NLM_F_CREATE, named) for kind in (nft.NEWTABLE, DELTABLE)]
    parts.append(nft.part(nft.NEWTABLE, NLM_F_CREATE, named))
    if any(addresses.is_own(addresses.packed(server)) for _, _, server in rules if server):
        parts += [*_guard(), *_local_sources()]
        with open(ROUTE_LOCALNET, "w", encoding="ascii") as file:
            file.write("1")
    for name, hook in HOOKS.items():
        parts.append(nft.chain(TABLE, name, hook, BEFORE_DESTINATION_NAT, b"nat\0"))
        parts += [nft.rule(TABLE, name, _expressions(*rule)) for rule in rules]
    nft.batch(parts)


def _guard() -> Iterator[bytes]:
    """`iif != lo ip daddr 127.0.0.0/8 drop`: what the kernel does without `route_localnet`."""
    yield nft.chain(TABLE, FOREIGN, nft.PREROUTING, nft.BEFORE_CONNECTION_TRACKING)
    load, where = nft.REGISTER, DESTINATION[NFPROTO_IPV4]
    yield nft.rule(
        TABLE,
        FOREIGN,
        (
            nft.expression(b"meta", load, IIF),
            nft.expression(b"cmp", load, NOT_EQUAL, nft.value(struct.pack("=I", LOOPBACK))),
            nft.expression(b"meta", load, NFPROTO),
            nft.expression(b"cmp", load, nft.EQUAL, nft.value(bytes([NFPROTO_IPV4]))),
            nft.expression(b"payload", load, NETWORK_HEADER, where, 1),
            nft.expression(b"cmp", load, nft.EQUAL, nft.value(bytes([127]))),
            nft.expression(b"immediate", nft.VERDICT, nft.verdict(nft.DROP)),
        ),
    )


def _local_sources() -> Iterator[bytes]:
    """`ip daddr 127.0.0.1 tcp dport 53 snat to 127.0.0.1`: pasta passes on nothing else."""
    loopback = addresses.packed("127.0.0.1")
    for name, hook in LOCAL_HOOKS.items():
        yield nft.chain(TABLE, name, hook, BEFORE_SOURCE_NAT, b"nat\0")
        yield nft.rule(TABLE, name, (*matches(loopback, "tcp"), *nat(NFT_NAT_SNAT, loopback)))


def _expressions(forwarder: str, protocol: str, server: str) -> Iterable[bytes]:
    """`ip daddr FORWARDER PROTOCOL dport 53 dnat to SERVER`, or `reject` without a server."""
    asked = matches(addresses.packed(forwarder), protocol)
    if server:
        return *asked, *nat(NFT_NAT_DNAT, addresses.packed(server))
    return *asked, reject(protocol)


def matches(address: bytes, protocol: str) -> Iterable[bytes]:
    """Build the expressions `ip daddr ADDRESS PROTOCOL dport 53`."""
    load, family = nft.REGISTER, _family(address)
    number = socket.IPPROTO_UDP if protocol == "udp" else socket.IPPROTO_TCP
    return (
        nft.expression(b"meta", load, NFPROTO),
        nft.expression(b"cmp", load, nft.EQUAL, nft.value(bytes([family]))),
        nft.expression(b"payload", load, NETWORK_HEADER, DESTINATION[family], len(address)),
        nft.expression(b"cmp", load, nft.EQUAL, nft.value(address)),
        nft.expression(b"meta", load, nft.L4PROTO),
        nft.expression(b"cmp", load, nft.EQUAL, nft.value(bytes([number]))),
        nft.expression(b"payload", load, nft.TRANSPORT_HEADER, 2, len(PORT)),
        nft.expression(b"cmp", load, nft.EQUAL, nft.value(PORT)),
    )


def nat(kind: int, address: bytes) -> Iterable[bytes]:
    """Build the expressions `dnat to ADDRESS`, or `snat`."""
    return (
        nft.expression(b"immediate", nft.REGISTER, nft.value(address)),
        nft.expression(b"nat", kind, _family(address), nft.REGISTER),
    )


def _family(address: bytes) -> int:
    return NFPROTO_IPV4 if len(address) == addresses.IPV4 else NFPROTO_IPV6


def reject(protocol: str) -> bytes:
    """Build `reject with tcp reset`, or `reject with icmpx port-unreachable`."""
    if protocol == "tcp":
        return nft.expression(b"reject", NFT_REJECT_TCP_RST)
    # The code is of one byte, and no attribute of `expression` is: so it is built here.
    code = attribute(2, bytes([PORT_UNREACHABLE]))
    data = nft.be32(1, NFT_REJECT_ICMPX_UNREACH) + code
    named = attribute(nft.NFTA_EXPR_NAME, b"reject\0")
    return nest(nft.NFTA_LIST_ELEM, named + nest(nft.NFTA_EXPR_DATA, data))

# SPDX-License-Identifier: Apache-2.0
"""The one rule of nftables that a shared netns needs, sent to the kernel in one message.

pasta of before April 2024 announces a new window in a segment without ACK. A receiver drops that
(RFC 9293, section 3.10.7.4), but behind NAT it never gets there: connection tracking takes it for
no part of a connection, so it goes to the netns itself, which answers with a reset. Every
connection ends with that whose other end is not next door.

nft(8) need not be installed, and pyroute2 takes longer to import than an uplink to start. The
numbers are those of include/uapi/linux: netlink.h, netfilter.h and netfilter/.
"""

from __future__ import annotations

import _socket as socket  # see `addresses`
import os
import struct

from .errors import UPLINK_FAILED, ShimError
from .visit import visit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE, CHAIN = b"netns-shim\0", b"prerouting\0"
COMMENT = b"pasta of before April 2024 sends these\0"

NETLINK_NETFILTER = 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE = 0x1, 0x4, 0x400
NLMSG_ERROR = 2
NLA_F_NESTED = 0x8000
NFPROTO_UNSPEC, NFPROTO_INET = 0, 1
NFNL_SUBSYS_NFTABLES = 10
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEWTABLE, DELTABLE, NEWCHAIN, NEWRULE = (NFNL_SUBSYS_NFTABLES << 8 | n for n in (0, 2, 3, 6))
PREROUTING, BEFORE_CONNECTION_TRACKING = 0, -300
L4PROTO, TRANSPORT_HEADER, EQUAL, DROP = 16, 2, 0, 0
VERDICT, REGISTER = 0, 1
FLAGS_OFFSET = 13  # in the TCP header, RFC 9293, section 3.1
SYN, RST, ACK = 0x02, 0x04, 0x10


def drop_bare_segments(pin: str) -> None:
    """Have a netns drop TCP segments that have none of SYN, RST and ACK.

    It is a table of its own, which replaces the one of an earlier call. Raises ShimError (code
    102) where the netns cannot be entered or the kernel cannot do it.
    """
    visit(pin, _drop_bare_segments)


def _drop_bare_segments() -> None:
    table = _attribute(1, TABLE)
    hook = _number(1, PREROUTING) + _number(2, BEFORE_CONNECTION_TRACKING)
    chain = (table, _attribute(3, CHAIN), _nest(4, hook), _attribute(7, b"filter\0"))
    batch = (
        (BATCH_BEGIN, 0, ()),
        # One that is not there cannot be removed, so it is made before.
        (NEWTABLE, NLM_F_CREATE, (table,)),
        (DELTABLE, 0, (table,)),
        (NEWTABLE, NLM_F_CREATE, (table,)),
        (NEWCHAIN, NLM_F_CREATE, chain),
        (NEWRULE, NLM_F_CREATE | NLM_F_ACK, _rule()),
        (BATCH_END, 0, ()),
    )
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    kernel.send(b"".join(_message(*one) for one in batch))
    # What fails is reported before what was to be acknowledged.
    answer = kernel.recv(1 << 16)
    kernel.close()
    kind, error = struct.unpack_from("=4xH10xi", answer)
    if kind != NLMSG_ERROR or error:
        raise ShimError(UPLINK_FAILED, f"no rule of nftables can be made: {os.strerror(-error)}")


def _rule() -> Iterable[bytes]:
    """`meta l4proto tcp tcp flags & (syn | rst | ack) == 0 counter drop comment "…"`."""
    protocol = _number(1, REGISTER) + _number(2, L4PROTO)
    flags = _number(1, REGISTER) + _number(2, TRANSPORT_HEADER)
    flags += _number(3, FLAGS_OFFSET) + _number(4, 1)
    chosen = _number(1, REGISTER) + _number(2, REGISTER) + _number(3, 1)
    chosen += _nest(4, _attribute(1, bytes([SYN | RST | ACK]))) + _nest(5, _attribute(1, b"\0"))
    drop = _number(1, VERDICT) + _nest(2, _nest(2, _number(1, DROP)))
    expressions = (
        _expression(b"meta\0", protocol),
        _expression(b"cmp\0", _is(socket.IPPROTO_TCP)),
        _expression(b"payload\0", flags),
        _expression(b"bitwise\0", chosen),
        _expression(b"cmp\0", _is(0)),
        _expression(b"counter\0", b""),
        _expression(b"immediate\0", drop),
    )
    # Type and length of the comment, as libnftnl writes them.
    comment = bytes([0, len(COMMENT)]) + COMMENT
    return (
        _attribute(1, TABLE),
        _attribute(2, CHAIN),
        _nest(4, b"".join(expressions)),
        _attribute(7, comment),
    )


def _expression(name: bytes, data: bytes) -> bytes:
    return _nest(1, _attribute(1, name) + _nest(2, data))


def _is(byte: int) -> bytes:
    return _number(1, REGISTER) + _number(2, EQUAL) + _nest(3, _attribute(1, bytes([byte])))


def _message(kind: int, flags: int, attributes: Iterable[bytes]) -> bytes:
    """Build struct nlmsghdr, struct nfgenmsg and what follows."""
    data = b"".join(attributes)
    is_part = kind >= NEWTABLE
    family = NFPROTO_INET if is_part else NFPROTO_UNSPEC
    resource = 0 if is_part else NFNL_SUBSYS_NFTABLES
    head = struct.pack("=IHHII", 20 + len(data), kind, NLM_F_REQUEST | flags, 0, 0)
    return head + struct.pack(">BBH", family, 0, resource) + data


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack(">i", value))


def _nest(kind: int, data: bytes) -> bytes:
    return _attribute(kind | NLA_F_NESTED, data)


def _attribute(kind: int, data: bytes) -> bytes:
    """Build struct nlattr with its value, padded to four bytes."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)

# SPDX-License-Identifier: Apache-2.0
"""Tables of nftables, each sent to the kernel in one message, and the rules against an old pasta.

pasta before April 2024 announces a new window in a segment without ACK. A receiver drops that
(RFC 9293, section 3.10.7.4), but behind NAT it never gets there: connection tracking does not
count it as part of a connection, so it goes to the netns itself, which answers with a reset. That
ends every connection to a host that is more than one hop away.

pasta of 2023 says in a segment without ACK that a connection is refused. A client ignores
that (RFC 9293, section 3.10.7.3) and goes on asking for two minutes. The number that the segment
acknowledges is right, so only the flag is missing.

nft(8) need not be installed, and pyroute2 takes longer to import than an uplink takes to start.
The numbers are those of include/uapi/linux: netfilter.h and netfilter/.
"""

from __future__ import annotations

import _socket as socket  # see `addresses`
import errno
import struct

from .attributes import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLMSG_ERROR,
    attribute,
    message,
    nest,
    send,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE, CHAIN = b"netns-shim\0", b"prerouting\0"
COMMENTS = (
    b"pasta of before April 2024 sends these\0",
    b"pasta of 2023 refuses connections without\0",
)

NETLINK_NETFILTER = 12
NFPROTO_UNSPEC, NFPROTO_INET = 0, 1
NFNL_SUBSYS_NFTABLES = 10
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, NEWRULE = (
    NFNL_SUBSYS_NFTABLES << 8 | n for n in (0, 1, 2, 3, 6)
)

NFTA_TABLE_NAME = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_TYPE = 1, 3, 4, 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA = 1, 2, 4, 7
NFTA_LIST_ELEM, NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 1, 2
NFTA_DATA_VALUE, NFTA_DATA_VERDICT = 1, 2
NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN = 1, 2

PREROUTING, OUTPUT = 0, 3
BEFORE_CONNECTION_TRACKING = -300
VERDICT, REGISTER = 0, 1
IIFNAME, L4PROTO, TRANSPORT_HEADER, EQUAL, DROP = 6, 16, 2, 0, 0
IFNAMSIZ, CSUM_INET, CSUM_OFFSET = 16, 1, 16
# Where the flags of a TCP header are, and how many bytes: RFC 9293, section 3.1.
FLAGS, LENGTH = 13, 1
# A checksum is of words: the one with the flags.
OFFSET_AND_FLAGS, WORD = 12, 2
SYN, RST, ACK = 0x02, 0x04, 0x10


def repair_segments(interface: str) -> None:
    """Repair what an old pasta sends by its interface into the netns of this process.

    TCP segments without any of SYN, RST and ACK are dropped, and resets get their ACK. Raises
    OSError where the kernel has no nftables, or refuses it.
    """
    rules = zip((_bare_segments(), _bare_resets(interface)), COMMENTS, strict=True)
    make(
        TABLE,
        (
            chain(TABLE, CHAIN, PREROUTING, BEFORE_CONNECTION_TRACKING),
            *(rule(TABLE, CHAIN, what, comment) for what, comment in rules),
        ),
    )


def make(table: bytes, parts: Iterable[bytes]) -> None:
    """Make a table with these parts, instead of one of that name. Raises OSError.

    It is tried without removing one first, as the kernel takes some milliseconds to do that.
    """
    content = tuple(parts)
    name = attribute(NFTA_TABLE_NAME, table)
    new = part(NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, name)
    if batch((new, *content), (errno.EEXIST,)):
        batch((part(DELTABLE, 0, name), new, *content))


def lacks(table: bytes) -> bool:
    """Tell whether the kernel says that there is no table of this name. Raises OSError."""
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    try:
        kernel.send(part(GETTABLE, 0, attribute(NFTA_TABLE_NAME, table)))
        kind, error = struct.unpack_from("=4xH10xi", kernel.recv(1 << 16))
    finally:
        kernel.close()
    return (kind, -error) == (NLMSG_ERROR, errno.ENOENT)


def _bare_segments() -> Iterable[bytes]:
    """`tcp flags & (syn | rst | ack) == 0 counter drop`."""
    return (
        *_flags(SYN | RST | ACK, 0),
        expression(b"counter"),
        expression(b"immediate", VERDICT, verdict(DROP)),
    )


def _bare_resets(interface: str) -> Iterable[bytes]:
    """`iifname INTERFACE tcp flags & (rst | ack) == rst counter tcp flags set rst | ack`."""
    name = interface.encode(errors="surrogateescape").ljust(IFNAMSIZ, b"\0")
    place = TRANSPORT_HEADER, OFFSET_AND_FLAGS, WORD
    return (
        expression(b"meta", REGISTER, IIFNAME),
        expression(b"cmp", REGISTER, EQUAL, value(name)),
        *_flags(RST | ACK, RST),
        expression(b"counter"),
        expression(b"payload", REGISTER, *place),
        _masked(b"\xff\0", bytes([0, RST | ACK])),
        expression(b"payload", None, *place, REGISTER, CSUM_INET, CSUM_OFFSET),
    )


def _flags(mask: int, these: int) -> Iterable[bytes]:
    """`tcp flags & MASK == THESE`."""
    return (
        expression(b"meta", REGISTER, L4PROTO),
        expression(b"cmp", REGISTER, EQUAL, value(bytes([socket.IPPROTO_TCP]))),
        expression(b"payload", REGISTER, TRANSPORT_HEADER, FLAGS, LENGTH),
        _masked(bytes([mask]), bytes(LENGTH)),
        expression(b"cmp", REGISTER, EQUAL, value(bytes([these]))),
    )


def _masked(mask: bytes, flipped: bytes) -> bytes:
    return expression(b"bitwise", REGISTER, REGISTER, len(mask), value(mask), value(flipped))


def batch(parts: Iterable[bytes], tolerated: Iterable[int] = ()) -> int:
    """Have the kernel do all parts, or none; give the error, 0 or one of `tolerated`.

    Raises OSError for any other, and where the kernel has no nftables.
    """
    *first, last = parts
    # The flags of a message follow its length and type.
    (flags,) = struct.unpack_from("=6xH", last)
    last = last[:6] + struct.pack("=H", flags | NLM_F_ACK) + last[8:]
    frame = struct.pack(">BBH", NFPROTO_UNSPEC, 0, NFNL_SUBSYS_NFTABLES)
    begin, end = (message(kind, 0, frame) for kind in (BATCH_BEGIN, BATCH_END))
    return send(NETLINK_NETFILTER, (begin, *first, last, end), tolerated)


def part(kind: int, flags: int, attributes: bytes) -> bytes:
    """Build a message about something in a table of the family inet."""
    return message(kind, flags, struct.pack(">BBH", NFPROTO_INET, 0, 0) + attributes)


def chain(table: bytes, name: bytes, hook: int, priority: int, kind: bytes = b"filter\0") -> bytes:
    """Build the message that makes a base chain: `type KIND hook HOOK priority PRIORITY`."""
    place = be32(NFTA_HOOK_HOOKNUM, hook) + be32(NFTA_HOOK_PRIORITY, priority)
    attributes = (
        attribute(NFTA_CHAIN_TABLE, table),
        attribute(NFTA_CHAIN_NAME, name),
        nest(NFTA_CHAIN_HOOK, place),
        attribute(NFTA_CHAIN_TYPE, kind),
    )
    return part(NEWCHAIN, NLM_F_CREATE, b"".join(attributes))


def rule(table: bytes, name: bytes, expressions: Iterable[bytes], comment: bytes = b"") -> bytes:
    """Build the message that adds a rule to a chain, at its end; NUL ends a comment."""
    attributes = (
        attribute(NFTA_RULE_TABLE, table),
        attribute(NFTA_RULE_CHAIN, name),
        nest(NFTA_RULE_EXPRESSIONS, b"".join(expressions)),
        # Type and length of the comment, as libnftnl writes them.
        attribute(NFTA_RULE_USERDATA, bytes([0, len(comment)]) + comment) if comment else b"",
    )
    return part(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, b"".join(attributes))


def expression(name: bytes, *values: int | bytes | str | None) -> bytes:
    """Build an expression. Its attributes are numbered from 1, in the order of the header.

    Each is a number, what `value` or `verdict` has built, a name, or None where it is left out.
    """
    data = b"".join(_valued(kind, one) for kind, one in enumerate(values, 1) if one is not None)
    named = attribute(NFTA_EXPR_NAME, name + b"\0") + nest(NFTA_EXPR_DATA, data)
    return nest(NFTA_LIST_ELEM, named)


def _valued(kind: int, one: int | bytes | str) -> bytes:
    if isinstance(one, str):
        return attribute(kind, one.encode() + b"\0")
    return be32(kind, one) if isinstance(one, int) else nest(kind, one)


def value(data: bytes) -> bytes:
    """Build what a register is compared with, or masked."""
    return attribute(NFTA_DATA_VALUE, data)


def verdict(code: int, target: bytes = b"") -> bytes:
    """Build a verdict; `target` is the chain that it leads to."""
    inner = be32(NFTA_VERDICT_CODE, code)
    return nest(
        NFTA_DATA_VERDICT, inner + (attribute(NFTA_VERDICT_CHAIN, target) if target else b"")
    )


def be32(kind: int, one: int) -> bytes:
    """Build an attribute of 32 bits, in the byte order of networks, as nftables wants it."""
    return attribute(kind, struct.pack(">i", one))

# SPDX-License-Identifier: Apache-2.0
"""The one rule of nftables that a shared netns needs, sent to the kernel in one message.

pasta before April 2024 announces a new window in a segment without ACK. A receiver drops that
(RFC 9293, section 3.10.7.4), but behind NAT it never gets there: connection tracking does not
count it as part of a connection, so it goes to the netns itself, which answers with a reset. That
ends every connection to a host that is more than one hop away.

nft(8) need not be installed, and pyroute2 takes longer to import than an uplink takes to start.
The numbers are those of include/uapi/linux: netlink.h, netfilter.h and netfilter/.
"""

from __future__ import annotations

import _socket as socket  # see `addresses`
import errno
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE, CHAIN = b"netns-shim\0", b"prerouting\0"
COMMENT = b"pasta of before April 2024 sends these\0"

NETLINK_NETFILTER = 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
NLMSG_ERROR = 2
NLA_F_NESTED = 0x8000
NFPROTO_UNSPEC, NFPROTO_INET = 0, 1
NFNL_SUBSYS_NFTABLES = 10
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEWTABLE, NEWCHAIN, NEWRULE = (NFNL_SUBSYS_NFTABLES << 8 | n for n in (0, 3, 6))

NFTA_TABLE_NAME = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_TYPE = 1, 3, 4, 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA = 1, 2, 4, 7
NFTA_LIST_ELEM, NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 1, 2
NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE = 1, 2, 1

PREROUTING, BEFORE_CONNECTION_TRACKING = 0, -300
VERDICT, REGISTER = 0, 1
L4PROTO, TRANSPORT_HEADER, EQUAL, DROP = 16, 2, 0, 0
# Where the flags of a TCP header are, and how many bytes: RFC 9293, section 3.1.
FLAGS, LENGTH = 13, 1
SYN, RST, ACK = 0x02, 0x04, 0x10


def drop_bare_segments() -> None:
    """Make the netns of this process drop TCP segments without any of SYN, RST and ACK.

    The rule has a table of its own, which is made once, whole or not at all. Raises OSError where
    the kernel has no nftables, or refuses it.
    """
    table = (_attribute(NFTA_TABLE_NAME, TABLE),)
    batch = (
        (BATCH_BEGIN, 0, ()),
        (NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, table),
        (NEWCHAIN, NLM_F_CREATE, _chain()),
        (NEWRULE, NLM_F_CREATE | NLM_F_ACK, _rule()),
        (BATCH_END, 0, ()),
    )
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    kernel.send(b"".join(_message(*one) for one in batch))
    # The kernel reports a failure before the acknowledgement.
    answer = kernel.recv(1 << 16)
    kernel.close()
    kind, error = struct.unpack_from("=4xH10xi", answer)
    if kind != NLMSG_ERROR or error not in (0, -errno.EEXIST):
        raise OSError(-error, os.strerror(-error))


def _chain() -> Iterable[bytes]:
    """`type filter hook prerouting priority raw`."""
    place = _number(NFTA_HOOK_HOOKNUM, PREROUTING)
    place += _number(NFTA_HOOK_PRIORITY, BEFORE_CONNECTION_TRACKING)
    return (
        _attribute(NFTA_CHAIN_TABLE, TABLE),
        _attribute(NFTA_CHAIN_NAME, CHAIN),
        _nest(NFTA_CHAIN_HOOK, place),
        _attribute(NFTA_CHAIN_TYPE, b"filter\0"),
    )


def _rule() -> Iterable[bytes]:
    """`tcp flags & (syn | rst | ack) == 0 counter drop comment "…"`."""
    drop = _nest(NFTA_DATA_VERDICT, _number(NFTA_VERDICT_CODE, DROP))
    expressions = (
        _expression(b"meta\0", REGISTER, L4PROTO),
        _expression(b"cmp\0", REGISTER, EQUAL, _value(socket.IPPROTO_TCP)),
        _expression(b"payload\0", REGISTER, TRANSPORT_HEADER, FLAGS, LENGTH),
        _expression(b"bitwise\0", REGISTER, REGISTER, LENGTH, _value(SYN | RST | ACK), _value(0)),
        _expression(b"cmp\0", REGISTER, EQUAL, _value(0)),
        _expression(b"counter\0"),
        _expression(b"immediate\0", VERDICT, drop),
    )
    # Type and length of the comment, as libnftnl writes them.
    comment = bytes([0, len(COMMENT)]) + COMMENT
    return (
        _attribute(NFTA_RULE_TABLE, TABLE),
        _attribute(NFTA_RULE_CHAIN, CHAIN),
        _nest(NFTA_RULE_EXPRESSIONS, b"".join(expressions)),
        _attribute(NFTA_RULE_USERDATA, comment),
    )


def _expression(name: bytes, *values: int | bytes) -> bytes:
    """Build an expression; it numbers the attributes from 1, in the order of the header."""
    data = b"".join(
        _number(kind, value) if isinstance(value, int) else _nest(kind, value)
        for kind, value in enumerate(values, 1)
    )
    named = _attribute(NFTA_EXPR_NAME, name) + _nest(NFTA_EXPR_DATA, data)
    return _nest(NFTA_LIST_ELEM, named)


def _value(byte: int) -> bytes:
    return _attribute(NFTA_DATA_VALUE, bytes([byte]))


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

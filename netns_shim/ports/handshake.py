# SPDX-License-Identifier: Apache-2.0
"""The handshake of a connection by an old pasta, which does not acknowledge that it is accepted.

pasta of 2023 answers the SYN-ACK of a server with the first data of the client. A client that
waits for the server to speak, as with SSH and SMTP, waits for ever: without an ACK the server has
no connection. Nothing in the netns can make that ACK, but pasta can be led to send it: it answers
a segment of data that does not come next with what it expects, and that is the ACK. The server
repeats its SYN-ACK after a second. So each SYN-ACK but the first becomes such a segment: it loses
its SYN, its options (4 or 8 bytes) become data, and its sequence number moves up, by less than the
2^24 that pasta takes for a window.

pasta drops these data. It sends the ACK to all but 1 of 256 connections: it knows only the lowest
byte of where it has last done so. The first SYN-ACK must stay alone: where another segment is read
with it, pasta of 2023 counts wrong and never ends. Several come at once where they have waited for
the address of a neighbour, as those to a bridge whose IPv6 address is new. So what comes within
half a second of the first is dropped, and repeated later.

    set handshake-7 { typeof ct id; flags dynamic, timeout; timeout 500ms }
    chain handshake-7 {
        type filter hook postrouting priority 300
        oifgroup 0x50070000 tcp flags syn,ack / syn,ack ct mark & 0x80000000 == 0
            ct mark set ct mark & 0x7fffffff | 0x80000000 add @handshake-7 { ct id } accept
        oifgroup … tcp flags … ct id @handshake-7 drop
        oifgroup … tcp flags … @th,48,8 != 255 @th,48,8 set 255 @th,96,16 set 0x5010 accept
        oifgroup … tcp flags … @th,40,8 set 255 @th,96,16 set 0x5010
    }
"""

from __future__ import annotations

import _socket as socket  # not `socket`: it imports `enum` and `selectors`
import errno
import struct

from ..shared import nftables as nft
from ..shared.attributes import NLM_F_CREATE, attribute
from . import marks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Outside of marks.MASK: one SYN-ACK of this connection has been seen.
SEEN = 0x80000000
POSTROUTING, AFTER_NAT = 4, 300
NFT_META_OIFGROUP, NOT_EQUAL, CSUM_INET, CSUM_OFFSET = 22, 1, 1, 16
# How soon after the first a SYN-ACK is dropped, in milliseconds; a server repeats after 1000.
SOON_MS = 500
DELSET = nft.NFNL_SUBSYS_NFTABLES << 8 | 11
NFTA_SET_TIMEOUT, DYNAMIC_WITH_TIMEOUT, NFT_CT_ID, ADD, INTEGER = 11, 0x30, 23, 0, 4
# `typeof ct id` for nft(8), as libnftnl writes it: byte order, kind of expression, key, direction.
TYPEOF = struct.pack("=2BI4BI4BIBBi", 0, 4, 2, 3, 20, 0, 4, 12, 1, 12, 0, 4, NFT_CT_ID, 1, 4, -1)
# Words of a TCP header, RFC 9293, section 3.1: of the sequence number, and with the flags.
HIGH, LOW, OFFSET_AND_FLAGS, WORD = 4, 6, 12, 2
# A header without options, and ACK.
BARE_ACK = b"\x50\x10"


def add(number: int) -> None:
    """Have repeated SYN-ACKs to a publisher changed; may be done again. Raises OSError."""
    name = _chain(number)
    rules = (
        _first(number),
        _too_soon(number),
        _changed(number, LOW, 0xFF00),
        _changed(number, HIGH, 0x00FF),
    )
    nft.batch(
        [
            nft.chain(marks.TABLE, name, POSTROUTING, AFTER_NAT),
            _recent(name),
            nft.part(marks.DELRULE, 0, marks.rules_of(name)),
            *(nft.rule(marks.TABLE, name, rule) for rule in rules),
        ]
    )


def drop(number: int) -> None:
    """Leave SYN-ACKs to a publisher as they are, even if they are. Raises OSError."""
    name = _chain(number)
    # What is added first is there to be removed.
    made = nft.chain(marks.TABLE, name, POSTROUTING, AFTER_NAT), _recent(name)
    gone = (
        nft.part(marks.DELCHAIN, 0, marks.named(name)),
        nft.part(DELSET, 0, _set(name)),
    )
    nft.batch((*made, *gone), (errno.ENOENT,))


def _chain(number: int) -> bytes:
    return b"handshake-%d\0" % number


def _set(name: bytes) -> bytes:
    """Name the set of a chain in a message about it: it has the same name."""
    table = attribute(marks.NFTA_SET_TABLE, marks.TABLE)
    return table + attribute(marks.NFTA_SET_NAME, name)


def _recent(name: bytes) -> bytes:
    """Make the set of connections whose first SYN-ACK has just been seen, by their `ct id`."""
    numbers = (
        (marks.NFTA_SET_FLAGS, DYNAMIC_WITH_TIMEOUT),
        (marks.NFTA_SET_KEY_TYPE, INTEGER),
        (marks.NFTA_SET_KEY_LEN, marks.SIZE),
        (marks.NFTA_SET_ID, 1),
    )
    attributes = b"".join(nft.be32(kind, one) for kind, one in numbers)
    attributes += attribute(NFTA_SET_TIMEOUT, struct.pack(">Q", SOON_MS))
    attributes += attribute(marks.NFTA_SET_USERDATA, TYPEOF)
    return nft.part(marks.NEWSET, NLM_F_CREATE, _set(name) + attributes)


def _syn_ack(number: int) -> Iterable[bytes]:
    """`oifgroup MARK tcp flags & (syn | ack) == (syn | ack)`."""
    both = nft.value(bytes([nft.SYN | nft.ACK]))
    return (
        nft.expression(b"meta", nft.REGISTER, NFT_META_OIFGROUP),
        nft.expression(b"cmp", nft.REGISTER, nft.EQUAL, marks.word(marks.of(number))),
        nft.expression(b"meta", nft.REGISTER, nft.L4PROTO),
        nft.expression(b"cmp", nft.REGISTER, nft.EQUAL, nft.value(bytes([socket.IPPROTO_TCP]))),
        _load(nft.FLAGS, nft.LENGTH),
        _masked(both, nft.value(bytes(nft.LENGTH)), nft.LENGTH),
        nft.expression(b"cmp", nft.REGISTER, nft.EQUAL, both),
    )


def _first(number: int) -> Iterable[bytes]:
    """Let the first SYN-ACK of a connection pass, and note that."""
    return (
        *_syn_ack(number),
        nft.expression(b"ct", nft.REGISTER, marks.NFT_CT_MARK),
        marks.masked(SEEN, 0),
        nft.expression(b"cmp", nft.REGISTER, nft.EQUAL, marks.word(0)),
        nft.expression(b"ct", nft.REGISTER, marks.NFT_CT_MARK),
        marks.masked(~SEEN, SEEN),
        nft.expression(b"ct", None, marks.NFT_CT_MARK, None, nft.REGISTER),
        nft.expression(b"ct", nft.REGISTER, NFT_CT_ID),
        nft.expression(b"dynset", _chain(number)[:-1].decode(), None, ADD, nft.REGISTER),
        nft.expression(b"immediate", nft.VERDICT, nft.verdict(marks.ACCEPT)),
    )


def _too_soon(number: int) -> Iterable[bytes]:
    """Drop a SYN-ACK that pasta could read together with the first."""
    return (
        *_syn_ack(number),
        nft.expression(b"ct", nft.REGISTER, NFT_CT_ID),
        nft.expression(b"lookup", _chain(number)[:-1].decode(), nft.REGISTER),
        nft.expression(b"immediate", nft.VERDICT, nft.verdict(nft.DROP)),
    )


def _changed(number: int, place: int, byte: int) -> Iterable[bytes]:
    """Change a SYN-ACK, unless that byte of its sequence number is at its highest already."""
    highest = nft.value(byte.to_bytes(WORD, "big"))
    others = nft.value((byte ^ 0xFFFF).to_bytes(WORD, "big"))
    return (
        *_syn_ack(number),
        _load(place, WORD),
        _masked(highest, nft.value(bytes(WORD)), WORD),
        nft.expression(b"cmp", nft.REGISTER, NOT_EQUAL, highest),
        _load(place, WORD),
        _masked(others, highest, WORD),
        _store(place),
        nft.expression(b"immediate", nft.REGISTER, nft.value(BARE_ACK)),
        _store(OFFSET_AND_FLAGS),
        nft.expression(b"immediate", nft.VERDICT, nft.verdict(marks.ACCEPT)),
    )


def _load(place: int, length: int) -> bytes:
    return nft.expression(b"payload", nft.REGISTER, nft.TRANSPORT_HEADER, place, length)


def _store(place: int) -> bytes:
    """Write a word of the header, and correct its checksum."""
    where = nft.TRANSPORT_HEADER, place, WORD
    return nft.expression(b"payload", None, *where, nft.REGISTER, CSUM_INET, CSUM_OFFSET)


def _masked(mask: bytes, then: bytes, length: int) -> bytes:
    return nft.expression(b"bitwise", nft.REGISTER, nft.REGISTER, length, mask, then)

# SPDX-License-Identifier: Apache-2.0
"""Which publisher a connection came by, as a mark of connection tracking: a table of nftables.

    table inet netns-shim-ports {
        map arrivals { type devgroup : verdict; elements = { 1342636032 : jump publisher-7 } }
        map answers { type mark : verdict; elements = { 0x50070000 : jump publisher-7 } }
        chain prerouting {
            type filter hook prerouting priority mangle
            iifgroup vmap @arrivals
            ct mark & 0x7fff0000 vmap @answers
        }
        chain output {
            type route hook output priority mangle
            ct mark & 0x7fff0000 vmap @answers
        }
        chain publisher-7 {
            iifgroup 0x50070000 ct mark set ct mark & 0x8000ffff | 0x50070000 accept
            meta mark set meta mark & 0x8000ffff | 0x50070000
        }
    }

So a packet costs the same however many publishers there are. The lower half of each mark is left
to others: portmap has 0x2000, Kubernetes 0x4000 and 0x8000, wg-quick 0xca6c. A publisher's
interface is known by its group, which is the mark.
"""

from __future__ import annotations

import errno
import struct

from ..shared import nftables as nft
from ..shared.attributes import NLM_F_CREATE, attribute, nest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE, CHAINS = b"netns-shim-ports\0", (b"prerouting\0", b"output\0")
# nft(8) compares these types; to the kernel they are numbers, and all the same.
MAPS = {"arrivals": 35, "answers": 19}
ARRIVALS, ANSWERS = MAPS
MASK, MARK, SHIFT = 0x7FFF0000, 0x50000000, 16

NEWSET, NEWSETELEM, DELCHAIN, DELRULE, DELSETELEM = (
    nft.NFNL_SUBSYS_NFTABLES << 8 | n for n in (9, 12, 5, 8, 14)
)
NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_FLAGS = 1, 2, 3
NFTA_SET_KEY_TYPE, NFTA_SET_KEY_LEN, NFTA_SET_DATA_TYPE, NFTA_SET_ID = 4, 5, 6, 10
NFTA_SET_USERDATA = 13
NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA = 1, 2
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_RULE_TABLE, NFTA_RULE_CHAIN = 1, 3, 1, 2

NFT_SET_MAP, NFT_DATA_VERDICT, SIZE = 0x8, -0x100, 4
NFT_META_MARK, NFT_META_IIFGROUP, NFT_CT_MARK = 3, 21, 3
MANGLE, ACCEPT, JUMP = -150, 1, -3


def of(number: int) -> int:
    """Give the mark of a publisher."""
    return MARK | number << SHIFT


def add(number: int) -> None:
    """Have connections that come by a publisher marked, and the packets of their answers.

    May be done again: all of it is replaced at once. Raises OSError.
    """
    shared = [
        nft.part(nft.NEWTABLE, NLM_F_CREATE, attribute(nft.NFTA_TABLE_NAME, TABLE)),
        *(nft.part(NEWSET, NLM_F_CREATE, _map(name)) for name in MAPS),
        nft.chain(TABLE, CHAINS[0], nft.PREROUTING, MANGLE),
        nft.chain(TABLE, CHAINS[1], nft.OUTPUT, MANGLE, b"route\0"),
        *(nft.part(DELRULE, 0, rules_of(name)) for name in CHAINS),
        nft.rule(TABLE, CHAINS[0], _arrivals()),
        *(nft.rule(TABLE, name, _answers()) for name in CHAINS),
    ]
    name = _chain(number)
    own = [
        nft.part(nft.NEWCHAIN, NLM_F_CREATE, named(name)),
        nft.part(DELRULE, 0, rules_of(name)),
        nft.rule(TABLE, name, _mark_connection(of(number))),
        nft.rule(TABLE, name, _mark_packet(of(number))),
        *(nft.part(NEWSETELEM, NLM_F_CREATE, _element(one, number)) for one in MAPS),
    ]
    nft.batch([*shared, *own])


def drop(number: int) -> None:
    """Remove what is of one publisher, even if it is gone already. Raises OSError."""
    # What is added first is there to be removed; without a table nothing can be added.
    parts = (
        nft.part(nft.NEWCHAIN, NLM_F_CREATE, named(_chain(number))),
        *(nft.part(NEWSETELEM, NLM_F_CREATE, _element(one, number)) for one in MAPS),
        *(nft.part(DELSETELEM, 0, _element(one, number)) for one in MAPS),
        nft.part(DELCHAIN, 0, named(_chain(number))),
    )
    nft.batch(parts, (errno.ENOENT,))


def _chain(number: int) -> bytes:
    return b"publisher-%d\0" % number


def named(name: bytes) -> bytes:
    """Name a chain in a message about it."""
    return attribute(NFTA_CHAIN_TABLE, TABLE) + attribute(NFTA_CHAIN_NAME, name)


def rules_of(name: bytes) -> bytes:
    """Name a chain in a message about its rules."""
    return attribute(NFTA_RULE_TABLE, TABLE) + attribute(NFTA_RULE_CHAIN, name)


def _map(name: str) -> bytes:
    numbers = (
        (NFTA_SET_FLAGS, NFT_SET_MAP),
        (NFTA_SET_KEY_TYPE, MAPS[name]),
        (NFTA_SET_KEY_LEN, SIZE),
        (NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT),
        (NFTA_SET_ID, 1 + list(MAPS).index(name)),
    )
    names = attribute(NFTA_SET_TABLE, TABLE) + attribute(NFTA_SET_NAME, name.encode() + b"\0")
    # For nft(8), as libnftnl writes it: keys are in the byte order of this machine.
    order = attribute(NFTA_SET_USERDATA, bytes([0, SIZE]) + struct.pack("=I", 1))
    return names + b"".join(nft.be32(kind, one) for kind, one in numbers) + order


def _element(name: str, number: int) -> bytes:
    key = nest(NFTA_SET_ELEM_KEY, word(of(number)))
    data = nest(NFTA_SET_ELEM_DATA, nft.verdict(JUMP, _chain(number)))
    return b"".join(
        (
            attribute(NFTA_SET_ELEM_LIST_TABLE, TABLE),
            attribute(NFTA_SET_ELEM_LIST_SET, name.encode() + b"\0"),
            nest(NFTA_SET_ELEM_LIST_ELEMENTS, nest(nft.NFTA_LIST_ELEM, key + data)),
        )
    )


def _arrivals() -> Iterable[bytes]:
    """`iifgroup vmap @arrivals`."""
    return nft.expression(b"meta", nft.REGISTER, NFT_META_IIFGROUP), _lookup(ARRIVALS)


def _answers() -> Iterable[bytes]:
    """`ct mark & MASK vmap @answers`."""
    load = nft.expression(b"ct", nft.REGISTER, NFT_CT_MARK)
    return load, masked(MASK, 0), _lookup(ANSWERS)


def _mark_connection(mark: int) -> Iterable[bytes]:
    """`iifgroup MARK ct mark set ct mark & ~MASK | MARK accept`."""
    return (
        nft.expression(b"meta", nft.REGISTER, NFT_META_IIFGROUP),
        nft.expression(b"cmp", nft.REGISTER, nft.EQUAL, word(mark)),
        nft.expression(b"ct", nft.REGISTER, NFT_CT_MARK),
        masked(~MASK, mark),
        nft.expression(b"ct", None, NFT_CT_MARK, None, nft.REGISTER),
        nft.expression(b"immediate", nft.VERDICT, nft.verdict(ACCEPT)),
    )


def _mark_packet(mark: int) -> Iterable[bytes]:
    """`meta mark set meta mark & ~MASK | MARK`."""
    return (
        nft.expression(b"meta", nft.REGISTER, NFT_META_MARK),
        masked(~MASK, mark),
        nft.expression(b"meta", None, NFT_META_MARK, nft.REGISTER),
    )


def _lookup(name: str) -> bytes:
    return nft.expression(b"lookup", name, nft.REGISTER, nft.VERDICT)


def masked(mask: int, then: int) -> bytes:
    """`& mask | then`, of a register, if no bit is in both; the kernel has XOR for it."""
    place = nft.REGISTER, nft.REGISTER, SIZE
    return nft.expression(b"bitwise", *place, word(mask & 0xFFFFFFFF), word(then))


def word(one: int) -> bytes:
    """Build a mark, which is in the byte order of this machine."""
    return nft.value(struct.pack("=I", one))

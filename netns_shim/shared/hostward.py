# SPDX-License-Identifier: Apache-2.0
"""The way from a shared netns to the host itself, where pasta has addresses of its own.

pasta reaches the host at the host's own addresses. These change, so the shim gives the host one
that stays, and has the shared netns translate it. pasta has an option for that, which means the
address that it has given its interface: it serves only those that it has copied from the host.

    table inet netns-shim-host {
        chain arriving { type nat hook prerouting priority -101
            meta nfproto ipv4 ip daddr 169.254.1.2 dnat to 198.51.100.2 }
        chain leaving { type nat hook output priority -101; … }
    }
"""

from __future__ import annotations

import _socket as socket  # see `addresses`
import errno

from .. import hostnet
from . import nftables as nft
from .addresses import is_own, packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..decoding import Json

    # What is translated, and to what.
    Pair = tuple[str, str]

TABLE = b"netns-shim-host\0"
BEFORE_PORTMAP = -101
NFPROTO, NETWORK_HEADER, DNAT = 15, 1, 1
# Where the destination is in a header, and how long.
DESTINATION = {socket.AF_INET: (16, 4), socket.AF_INET6: (24, 16)}
# Of RFC 5737 and RFC 3849: to ask for the source of what leaves the host, and send nothing.
ANYWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


def pairs(names: Iterable[str]) -> list[Pair]:
    """Say for each address that the host is to have which one of its own it leads to now.

    Those for which the host has no address are left out.
    """
    found = [(name, _source(_family(name)) or _any(name)) for name in names if packed(name)]
    return [(name, own) for name, own in found if own]


def look(wanted: list[Pair]) -> Json:
    """Describe what of the host's network these depend on, for `hostnet.changes`."""
    return hostnet.look([own for _, own in wanted])


def lead(wanted: list[Pair]) -> None:
    """Have the netns of this process translate these, instead of those of before.

    Raises OSError where the kernel refuses it.
    """
    parts = list[bytes]()
    for name, hook in ((b"arriving\0", nft.PREROUTING), (b"leaving\0", nft.OUTPUT)):
        parts.append(nft.chain(TABLE, name, hook, BEFORE_PORTMAP, b"nat\0"))
        parts += [nft.rule(TABLE, name, _translate(*pair)) for pair in wanted]
    nft.make(TABLE, parts)


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _any(name: str) -> str:
    """Give an IPv4 address of the host that has no way out, "" if it has none but of loopback."""
    own = [] if ":" in name else hostnet.own_addresses()
    return next((address for address in own if not is_own(packed(address))), "")


def _source(family: int) -> str:
    """Give the host's address from which it reaches others, "" where it has no way out."""
    try:
        asker = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    except OSError:
        return ""
    try:
        asker.connect((ANYWHERE[family], 9))
        return str(asker.getsockname()[0])
    except OSError as error:
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL):
            return ""
        raise
    finally:
        asker.close()


def _translate(name: str, own: str) -> Iterable[bytes]:
    """`ip daddr NAME dnat to OWN`."""
    family = _family(name)
    return (
        nft.expression(b"meta", nft.REGISTER, NFPROTO),
        nft.expression(b"cmp", nft.REGISTER, nft.EQUAL, nft.value(bytes([family]))),
        nft.expression(b"payload", nft.REGISTER, NETWORK_HEADER, *DESTINATION[family]),
        nft.expression(b"cmp", nft.REGISTER, nft.EQUAL, nft.value(packed(name))),
        nft.expression(b"immediate", nft.REGISTER, nft.value(packed(own))),
        nft.expression(b"nat", DNAT, family, nft.REGISTER),
    )

# SPDX-License-Identifier: Apache-2.0
"""Networks that overlap: what cannot be reached, because its addresses are somewhere else, too.

A subnet of a bridge hides the LAN of the host that has the same addresses, and so does that of
slirp4netns. Of two bridges with one subnet, the kernel takes one.
"""

from __future__ import annotations

import _socket as socket  # see `addresses`
import sys

from .. import result
from ..hostnet import read_lines
from . import addresses, listing
from .rtnetlink import PUBLISHER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..state import State

# The first address as a number, the length of its prefix, and that of an address, in bits.
Network = tuple[int, int, int]
# A network, and the interface that leads to it.
Route = tuple[Network, str]

# A wider route, such as that of a VPN to 10/8, does not mean that there are machines.
WIDEST = {32: 12, 128: 32}


def read(text: str) -> Network | None:
    """Read an address with a prefix length as the network it is in; None for anything else."""
    address, _, length = text.partition("/")
    packed = addresses.packed(address)
    if not addresses.has_prefix(text) or not packed:
        return None
    return _network(int.from_bytes(packed, "big"), int(length), 8 * len(packed))


def show(network: Network) -> str:
    """Write a network with its prefix length."""
    number, length, bits = network
    family = socket.AF_INET if bits == 32 else socket.AF_INET6
    return f"{socket.inet_ntop(family, number.to_bytes(bits // 8, 'big'))}/{length}"


def do_overlap(one: Network, other: Network) -> bool:
    """Tell whether two networks have addresses in common."""
    shift = one[2] - min(one[1], other[1])
    return one[2] == other[2] and one[0] >> shift == other[0] >> shift


def here() -> list[Route]:
    """List the networks that this process's netns has a route to, without default routes."""
    found = [*_routes4(), *_routes6()]
    return [
        (network, interface)
        for network, interface in dict.fromkeys(found)
        if interface != "lo" and WIDEST[network[2]] <= network[1] < network[2]
    ]


def problems(inside: Iterable[Route], outside: Iterable[Route], uplink: str) -> list[str]:
    """Say what is out of reach for containers of a shared netns, and what to do about it.

    `inside` are the networks of the netns, `outside` those of the host, both as of `here`.
    `uplink` is the interface whose addresses were copied from the host, or "".
    """
    own = [route for route in inside if not route[1].startswith(PUBLISHER)]
    found = []
    for place, (network, interface) in enumerate(own):
        for other, second in own[place + 1 :]:
            if interface != second and do_overlap(network, other):
                found.append(
                    f"{show(network)} of {interface} and {show(other)} of {second} overlap: "
                    "give one of the networks another subnet, or another `netns`"
                )
        if interface == uplink:
            continue
        for other, second in outside:
            if do_overlap(network, other):
                found.append(
                    f"containers do not reach {show(other)}, to which {second} of the host leads: "
                    f"{interface} has {show(network)} inside; {_cure(interface)}"
                )
    return found


def doubled(state: State, network: str, given: Iterable[str]) -> list[tuple[str, str]]:
    """List the addresses that a container of another network in this netns has, with its name."""
    mine = {address.partition("/")[0] for address in given}
    found = {
        (record.name.network, address)
        for record in listing.records(state)
        if record.name.is_attachment and record.name.network != network
        for address in (text.partition("/")[0] for text in result.addresses(record.result))
        if address in mine
    }
    return sorted(found)


def _cure(interface: str) -> str:
    if interface == "tap0":
        return 'give slirp4netns another network, such as "options": ["--cidr=10.0.42.0/24"]'
    return "give the network another subnet"


def _network(number: int, length: int, bits: int) -> Network:
    shift = bits - length
    return number >> shift << shift, length, bits


def _routes4() -> Iterator[Route]:
    for line in read_lines("/proc/net/route")[1:]:
        words = line.split()
        if len(words) > 7:
            number, mask = (
                int.from_bytes(int(words[field], 16).to_bytes(4, sys.byteorder), "big")
                for field in (1, 7)
            )
            yield _network(number, mask.bit_count(), 32), words[0].decode()


def _routes6() -> Iterator[Route]:
    for line in read_lines("/proc/net/ipv6_route"):
        words = line.split()
        # Each interface has a network for link-local addresses, and one for multicast.
        if len(words) > 9 and words[0][:3] not in (b"fe8", b"ff0"):
            yield _network(int(words[0], 16), int(words[1], 16), 128), words[9].decode()

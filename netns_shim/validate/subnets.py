# SPDX-License-Identifier: Apache-2.0
"""Networks of one shared netns that get into each other's way: by a bridge, or by addresses.

On a host with a plugin for each network people meet this seldom. Here all networks share a netns
unless they name another one, and a bridge without a name is `cni0` in each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .. import conf as configuration
from ..shared import overlaps, tap
from ..shared.options import is_given
from . import semantic

if TYPE_CHECKING:
    from ..decoding import Json
    from ..shared.overlaps import Network, Route

# The default name of the bridge of the plugin `bridge`.
DEFAULT_BRIDGE = "cni0"
# Those whose subnet is a network of the shared netns; that of macvlan may be a LAN's.
KINDS = ("bridge", "ptp")
# With one of these keys, two networks can share a subnet.
RANGES = {"rangeStart", "rangeEnd", "lease_range"}
OF_SLIRP4NETNS = "10.0.2.0/24"


class Segment:
    """What one plugin of a network makes in a shared netns: perhaps a bridge, and subnets.

    `netns` says which shared netns. `bridge` is "" for none, or one whose name is not known.
    """

    __slots__ = ("bridge", "has_ranges", "kind", "netns", "network", "subnets")

    def __init__(self, network: str, netns: tuple[str, str], entry: Json) -> None:
        """Read the entry of a plugin or a driver."""
        self.network = network
        self.netns = netns
        self.kind = entry.get("driver") or entry.get("type")
        named = entry.get("network_interface" if "driver" in entry else "bridge")
        default = DEFAULT_BRIDGE if entry.get("type") == "bridge" else ""
        self.bridge = named if isinstance(named, str) and named else default
        items = list(_items(entry))
        given = [item.get(key) for item in items for key in ("subnet", "address")]
        found = [overlaps.read(text) for text in given if isinstance(text, str)]
        self.subnets = [subnet for subnet in found if subnet is not None]
        self.has_ranges = any(item.keys() & RANGES for item in items)


def segments(entry: Json, network: str) -> list[Segment]:
    """List what an entry of the shim makes that can be in the way of another network."""
    netns = entry.get("netns", configuration.DEFAULT_NETNS)
    place = (str(entry.get("stateDir", "")), str(netns))
    found = [Segment(network, place, plugin) for _, plugin in semantic.entries(entry)]
    return [segment for segment in found if segment.kind in KINDS]


def conflict(one: Segment, other: Segment) -> str:
    """Say how two segments of different networks clash; "" where they do not."""
    if one.netns != other.netns or one.network == other.network:
        return ""
    shared = f"in the shared netns {one.netns[1]!r}"
    if one.bridge and one.bridge == other.bridge:
        if not _same_family_differs(one.subnets, other.subnets):
            is_same = one.subnets and one.subnets == other.subnets
            if is_same and not (one.has_ranges or other.has_ranges):
                return (
                    f"{one.network!r} and {other.network!r} give the same addresses of "
                    f"{overlaps.show(one.subnets[0])}: give one of them another subnet, or ranges"
                )
            return ""
        return (
            f"{one.network!r} and {other.network!r} have other subnets and one bridge, "
            f"{one.bridge!r}, {shared}: give one of them another `bridge`, or another `netns`"
        )
    for first in one.subnets:
        for second in other.subnets:
            if overlaps.do_overlap(first, second):
                return (
                    f"{overlaps.show(first)} of {one.network!r} and {overlaps.show(second)} of "
                    f"{other.network!r} overlap {shared}: give one of them another subnet, or "
                    "another `netns`"
                )
    return ""


def uplinks_own(entry: Json) -> list[Route]:
    """List the networks of the interface of an entry's uplink, as far as they are known."""
    uplink = entry.get("uplink", {})
    given = uplink if isinstance(uplink, dict) else {"driver": uplink}
    driver, options = given.get("driver", ""), given.get("options") or []
    if driver == "none":
        return []
    if driver == "slirp4netns":
        words = " ".join(map(str, options)).replace("--cidr=", "--cidr ").split()
        said = [words[place + 1] for place, word in enumerate(words[:-1]) if word == "--cidr"]
        texts = [*said, OF_SLIRP4NETNS][:1]
    elif is_given([str(option) for option in options], *tap.ADDRESSING):
        texts = []
    else:
        texts = [f"{tap.ADDRESS4}/{tap.LENGTH4}", f"{tap.ADDRESS6}/64"]
    found = [overlaps.read(text) for text in texts]
    return [(network, tap.NAME) for network in found if network is not None]


def with_uplink(entry: Json, network: str) -> Iterator[str]:
    """Say how the plugins of an entry clash with its own uplink."""
    own = uplinks_own(entry)
    for segment in segments(entry, network):
        if own and segment.bridge == tap.NAME:
            yield f"the interface of the uplink is called {tap.NAME}: give the bridge another name"
        for subnet in segment.subnets:
            for other, _ in own:
                if overlaps.do_overlap(subnet, other):
                    yield (
                        f"{overlaps.show(subnet)} overlaps with {overlaps.show(other)} of the "
                        "uplink: choose another subnet"
                    )


def _same_family_differs(one: list[Network], other: list[Network]) -> bool:
    return any(
        {subnet for subnet in one if subnet[2] == bits}
        != {subnet for subnet in other if subnet[2] == bits}
        for bits in {subnet[2] for subnet in one} & {subnet[2] for subnet in other}
    )


def _items(entry: Json) -> Iterator[Json]:
    """List the objects of an entry that may have a subnet or an address."""
    ipam: Any = entry.get("ipam")
    ipam = ipam if isinstance(ipam, dict) else {}
    ranges = [each for inner in _list(ipam.get("ranges")) for each in _list(inner)]
    for item in [ipam, *ranges, *_list(entry.get("subnets")), *_list(ipam.get("addresses"))]:
        if isinstance(item, dict):
            yield item


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []

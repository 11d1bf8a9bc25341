# SPDX-License-Identifier: Apache-2.0
"""Do networks get into each other's way, or into that of the host's?"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from ...errors import ShimError
from ...shared import overlaps
from ...validate import subnets
from .check import IN_PLACE, OK, PROBLEM, SKIPPED, WARNING, Context, Result
from .configuration import usable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...decoding import Json
    from ...shared.overlaps import Route
    from ...validate.subnets import Segment


def of_what_is_up(context: Context) -> Result:
    """Compare the networks of each shared netns with each other and with the host's."""
    found, problem = _up(context)
    if problem:
        return Result(SKIPPED, problem)
    if not found:
        return Result(SKIPPED, "no shared network namespace is up")
    outside = overlaps.here()
    problems = []
    for netns in found:
        uplink = netns["uplink"]
        own = uplink["interface"] if uplink["driver"] == "pasta" else ""
        said = overlaps.problems(_routes(netns), outside, own)
        problems += [f"{netns['name']}: {why}" for why in said]
    if problems:
        advice = "change the network, and attach its containers again"
        return Result(WARNING, "networks overlap", advice, tuple(problems))
    return Result(OK, "no network overlaps with another one, or with the host's")


def of_configuration(context: Context) -> Result:
    """Compare a configuration with its uplink, with what is up, and with the host."""
    if context.is_in_place:
        return Result(SKIPPED, IN_PLACE)
    entries = list(usable(context))
    if not entries:
        return Result(SKIPPED, "the configuration cannot be used")
    up, _ = _up(context)
    outside = overlaps.here()
    problems: list[str] = []
    warnings: list[str] = []
    for entry, read in entries:
        name = str(entry.get("name", ""))
        problems += subnets.with_uplink(entry, name)
        own = subnets.segments(entry, name)
        for netns in up:
            if netns["name"] == read.netns:
                problems += [why for segment in own for why in _with_links(segment, netns)]
        if read.uplink["driver"] == "none":
            continue
        routes = [(subnet, s.bridge or "the network") for s in own for subnet in s.subnets]
        if read.uplink["driver"] == "slirp4netns":
            routes += subnets.uplinks_own(entry)
        warnings += overlaps.problems(routes, outside, "")
        warnings += [why for segment in own for why in _of_the_host(segment)]
    if problems:
        return Result(PROBLEM, "networks clash", "correct the file", tuple(problems))
    if warnings:
        advice = "correct the file, if containers need that"
        return Result(WARNING, "part of the host's network is out of reach", advice, (*warnings,))
    return Result(OK, "no other network has addresses of its subnets")


def _up(context: Context) -> tuple[list[Json], str]:
    from .. import inspection  # pyroute2: only where something is up

    try:
        return inspection.collect(context.base)["netns"], ""
    except (ShimError, OSError) as error:
        return [], f"the state cannot be read: {error}"


def _routes(netns: Json) -> list[Route]:
    found = []
    for link in netns["links"] or []:
        for text in link["addresses"]:
            network = overlaps.read(text)
            if network is not None and link["name"] != "lo" and _is_wide(network):
                found.append((network, link["name"]))
    return found


def _is_wide(network: overlaps.Network) -> bool:
    _, length, bits = network
    return length < bits and overlaps.show(network) != "fe80::/64"


def _with_links(segment: Segment, netns: Json) -> Iterator[str]:
    """Say how a network clashes with links that other ones have made in its shared netns."""
    place = f"the shared netns {netns['name']!r}"
    for network, link in _routes(netns):
        text = overlaps.show(network)
        same = [subnet for subnet in segment.subnets if subnet[2] == network[2]]
        if link == segment.bridge:
            if same and network not in same:
                yield (
                    f"the bridge {link} of {place} has {text} from another network: "
                    "give this one another `bridge`, or another `netns`"
                )
        elif segment.bridge:  # the links of other plugins may be its own
            for subnet in same:
                if overlaps.do_overlap(subnet, network):
                    yield (
                        f"{overlaps.show(subnet)} overlaps with {text} of {link} in {place}: "
                        "choose another subnet"
                    )


def _of_the_host(segment: Segment) -> Iterator[str]:
    if segment.bridge in (name for _, name in socket.if_nameindex()):
        yield (
            f"{segment.bridge} is an interface of the host, too; that of the network is another "
            "one, in the shared netns, and does not lead to the host's LAN"
        )

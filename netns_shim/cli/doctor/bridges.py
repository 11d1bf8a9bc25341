# SPDX-License-Identifier: Apache-2.0
"""The bridges of each shared netns: can they carry what the uplink can?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import ShimError
from .check import OK, SKIPPED, WARNING, Context, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...decoding import Json


def mtu(context: Context) -> Result:
    """Compare the MTU of bridges with that of their uplink: small packets are slow."""
    from .. import inspection  # pyroute2: only where something is up

    try:
        found = inspection.collect(context.base)["netns"]
    except (ShimError, OSError) as error:
        return Result(SKIPPED, f"the state cannot be read: {error}")
    bridges = [(netns["name"], *pair) for netns in found for pair in _bridges(netns)]
    small = [
        f"{name}: the bridge {bridge['name']} has an MTU of {bridge['mtu']} bytes, "
        f"its uplink of {of_uplink}"
        for name, bridge, of_uplink in bridges
        if bridge["mtu"] < of_uplink
    ]
    if small:
        return Result(
            WARNING,
            "transfers are slow where a bridge has a smaller MTU than its uplink",
            "leave the key mtu out of the network and attach all of its containers again",
            tuple(small),
        )
    if not bridges:
        return Result(SKIPPED, "there is no bridge to compare with an uplink")
    return Result(OK, "no bridge has a smaller MTU than its uplink")


def _bridges(netns: Json) -> Iterator[tuple[Json, int]]:
    """List the bridges of a netns that have a port, each with the MTU of the uplink."""
    links = netns["links"] or []
    of_uplink = [link["mtu"] for link in links if link["name"] == netns["uplink"]["interface"]]
    for link in links:
        is_used = any(port["master"] == link["name"] for port in links)
        if link["kind"] == "bridge" and is_used and of_uplink:
            yield link, of_uplink[0]

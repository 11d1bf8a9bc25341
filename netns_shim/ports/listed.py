# SPDX-License-Identifier: Apache-2.0
"""Ports of the shared netns itself, which the key `publish` of a network lists. No I/O.

`[ADDRESS:]PORT[-PORT][:PORT[-PORT]][/PROTOCOL]`: what people know from other programs.
"""

from __future__ import annotations

import re

from .mappings import Port, canonical

FORM = re.compile(
    r"(?:(?P<address>\[[^]]+\]|\d+\.[\d.]+):)?(?P<first>\d+)(?:-(?P<last>\d+))?"
    r"(?::(?P<to>\d+)(?:-(?P<until>\d+))?)?(?:/(?P<protocol>tcp|udp))?"
)


def parse(text: str) -> list[Port]:
    """Read one entry of the list. Raises ValueError with what is wrong with it."""
    match = FORM.fullmatch(text)
    if match is None:
        raise ValueError("is no [ADDRESS:]PORT[:PORT][/PROTOCOL]")
    address = canonical((match["address"] or "").strip("[]"))
    if address is None:
        raise ValueError(f"{match['address']} is not an IP address")
    first, to = int(match["first"]), int(match["to"] or match["first"])
    last, until = int(match["last"] or first), int(match["until"] or 0)
    count = last - first + 1
    if count < 1:
        raise ValueError(f"the range {first}-{last} is empty")
    if until and until - to + 1 != count:
        raise ValueError("the two ranges are not of one length")
    if not 0 < first <= last < 1 << 16 or not 0 < to <= to + count - 1 < 1 << 16:
        raise ValueError("a port is a number from 1 to 65535")
    found = []
    for offset in range(count):
        port = Port(match["protocol"] or "tcp", address, first + offset, to + offset)
        port.inside = to + offset
        found.append(port)
    return found

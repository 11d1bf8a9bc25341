# SPDX-License-Identifier: Apache-2.0
"""A subnet for a network that names none, as Podman chooses one for its own networks."""

from __future__ import annotations

import ipaddress
import json
import os
import zlib
from typing import TYPE_CHECKING

from .. import hostnet
from ..shared import overlaps
from ..shared.files import read_text
from ..validate import conflist

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

# Where a network gets a subnet of IPv4, with room for 32768 of this size. Podman chooses for its
# own networks from below that.
POOL, SIZE = ipaddress.IPv4Network("10.128.0.0/9"), 24
# Where Podman keeps its networks: for root, and below the home of a user.
OF_ROOT, OF_USER = "/etc/containers/networks", "containers/storage/networks"


def choose(network_id: str, environ: Mapping[str, str], *, has_ipv6: bool) -> list[str]:
    """Choose subnets that no other network is known to have; the same ones for the same ID.

    Known are the networks of the host, those of Podman, and CNI's in files.
    """
    seed = zlib.crc32(network_id.encode())
    taken = list(_taken(environ))
    count = 1 << (SIZE - POOL.prefixlen)
    first = int(POOL.network_address)
    numbers = ((seed + tried) % count for tried in range(count))
    fours = (f"{ipaddress.IPv4Address(first + (n << (32 - SIZE)))}/{SIZE}" for n in numbers)
    # 4096 more for IPv6 are enough: nothing else has this prefix.
    sixes = (f"fd6e:{seed >> 16:x}:{(seed + n) & 0xFFFF:x}::/64" for n in range(1 << 12))
    chosen = [_first_free(fours, taken)]
    return [*chosen, _first_free(sixes, taken)] if has_ipv6 else chosen


def _first_free(subnets: Iterator[str], taken: list[overlaps.Network]) -> str:
    """Give the first that overlaps with nothing; if all do, the first of all."""
    start = ""
    for subnet in subnets:
        start = start or subnet
        network = overlaps.read(subnet)
        if network and not any(overlaps.do_overlap(network, other) for other in taken):
            return subnet
    return start


def _taken(environ: Mapping[str, str]) -> Iterator[overlaps.Network]:
    yield from (network for network, _ in overlaps.here())
    texts = [f"{address}/32" for address in hostnet.own_addresses()]
    for path in _files(environ):
        try:
            texts += _subnets(json.loads(read_text(path)))
        except (OSError, ValueError, RecursionError):
            continue  # it is no network
    yield from filter(None, map(overlaps.read, texts))


def _files(environ: Mapping[str, str]) -> Iterator[str]:
    home = environ.get("HOME") or "/"
    data = environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
    for directory in (OF_ROOT, f"{data}/{OF_USER}"):
        try:
            yield from (f"{directory}/{name}" for name in sorted(os.listdir(directory)))
        except OSError:
            continue
    yield from conflist.files(environ)


def _subnets(value: Any) -> list[str]:
    """List the values of all keys `subnet` in a document."""
    if isinstance(value, list):
        return [text for each in value for text in _subnets(each)]
    if not isinstance(value, dict):
        return []
    own = [value["subnet"]] if isinstance(value.get("subnet"), str) else []
    return own + [text for each in value.values() for text in _subnets(each)]

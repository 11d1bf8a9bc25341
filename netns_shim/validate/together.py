# SPDX-License-Identifier: Apache-2.0
"""What is wrong with keys of plugins that belong together: one is missing, or one is too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..decoding import Json
    from .semantic import Problem

# What host-device finds its interface by; a runtime can give a `deviceID` instead.
DEVICE_KEYS = ("device", "hwaddr", "kernelpath", "pciBusID")
# In bits: the plugin keeps bytes in 32 bits.
LARGEST_BURST = 8 * ((1 << 32) - 1)


def problems(entry: Json, kind: str) -> Iterator[Problem]:
    """List what the plugin of this type refuses, or ignores, in an entry as a whole."""
    if kind in _CHECKS:
        # The plugins read a key in upper or lower case; an empty value counts as none.
        given = {key.lower(): value for key, value in entry.items() if value}
        yield from _CHECKS[kind](given)


def _bandwidth(given: Json) -> Iterator[Problem]:
    for way in ("ingress", "egress"):
        rate, burst = given.get(f"{way}rate"), given.get(f"{way}burst")
        if bool(rate) != bool(burst):
            missing = f"{way}Burst" if rate else f"{way}Rate"
            yield (missing,), f"is missing: bandwidth takes {way}Rate and {way}Burst together"
        elif isinstance(burst, int) and burst >= LARGEST_BURST:
            yield (f"{way}Burst",), f"must be less than {LARGEST_BURST} (4 GiB), is {burst}"
    if given.get("shapedsubnets") and given.get("unshapedsubnets"):
        yield ("unshapedSubnets",), "must not stand beside shapedSubnets"


def _host_device(given: Json) -> Iterator[Problem]:
    offered = given.get("capabilities")
    is_offered = isinstance(offered, dict) and offered.get("deviceID")
    if not is_offered and not any(key.lower() in given for key in DEVICE_KEYS):
        yield (), f"host-device needs one of {', '.join(DEVICE_KEYS)}"


def _portmap(given: Json) -> Iterator[Problem]:
    if given.get("externalsetmarkchain") and given.get("markmasqbit"):
        yield ("markMasqBit",), "must not stand beside externalSetMarkChain"


def _needs(key: str, kind: str) -> Callable[[Json], Iterator[Problem]]:
    def check(given: dict[str, Any]) -> Iterator[Problem]:
        if key.lower() not in given:
            yield (key,), f"is missing: {kind} needs it"

    return check


_CHECKS: dict[str, Callable[[Json], Iterator[Problem]]] = {
    "bandwidth": _bandwidth,
    "host-device": _host_device,
    "portmap": _portmap,
    "vlan": _needs("master", "vlan"),
    "vrf": _needs("vrfname", "vrf"),
}

# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the options of netavark's own drivers, netavark-network.7 of Podman.

A driver ignores an option that it does not know, as plugins do: see `plugins`.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from . import plugins
from .semantic import show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..decoding import Json
    from .plugins import Keys, Rule
    from .semantic import Problem


def _number(least: int, most: int) -> Rule:
    def check(value: Any) -> str:
        text = str(value)
        is_right = text.isascii() and text.isdigit() and least <= int(text) <= most
        return "" if is_right else f"must be {least} to {most}, is {show(value)}"

    return check


def _word(*words: str) -> Rule:
    return plugins.one_of(*words, or_empty=False)


_OF_ALL: Keys = {
    "mtu": _number(0, 65535),
    "metric": _number(0, (1 << 32) - 1),
    "no_default_route": _word("true", "false"),
}
DRIVERS: dict[str, Keys] = {
    "bridge": {
        **_OF_ALL,
        "vlan": _number(0, 4094),
        "isolate": _word("true", "false", "strict"),
        "mode": _word("managed", "unmanaged"),
        "vrf": plugins.interface,
    },
    "macvlan": {
        **_OF_ALL,
        "mode": _word(*plugins.MACVLAN_MODES),
        "bclim": lambda value: "" if value == "-1" else _number(0, (1 << 31) - 1)(value),
    },
    "ipvlan": {**_OF_ALL, "mode": _word(*plugins.IPVLAN_MODES)},
}


def problems(entry: Json) -> Iterator[Problem]:
    """List what is wrong with a delegated entry that names a driver."""
    driver = entry.get("driver")
    if not isinstance(driver, str):
        return
    keys = DRIVERS.get(driver)
    if keys is None:
        for near in difflib.get_close_matches(driver, DRIVERS, n=1, cutoff=0.8):
            # A plugin of netavark may be called bridge2 on purpose.
            if near not in driver:
                yield ("driver",), f"netavark has no such driver; did you mean '{near}'?"
        return
    name, options = entry.get("network_interface"), entry.get("options")
    if isinstance(name, str) and name and (problem := plugins.interface(name)):
        yield ("network_interface",), problem
    for key, given in options.items() if isinstance(options, dict) else ():
        if key not in keys:
            for near in difflib.get_close_matches(key, keys, n=1, cutoff=0.8):
                yield ("options", key), f"{driver} knows no such option; did you mean '{near}'?"
        elif isinstance(given, str) and (problem := keys[key](given)):
            yield ("options", key), problem

# SPDX-License-Identifier: Apache-2.0
"""The options of a network that are keys of the shim or of a CNI plugin, and the type of each.

Options are always texts; a configuration of CNI is not.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..decoding import Json

    Table = dict[str, Callable[[str], Any]]


def convert(given: dict[str, str], table: Table) -> tuple[Json, list[str]]:
    """Convert options by a table of the keys that are known; give the rest as problems."""
    converted, problems = {}, []
    for key, text in given.items():
        if key not in table:
            known = ", ".join(table) or "none"
            problems.append(f"options.{key}: unknown option; known are {known}")
            continue
        try:
            converted[key] = table[key](text)
        except ValueError as error:
            problems.append(f"options.{key}: {error}, is {text[:60]!r}")
    return converted, problems


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _integer(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError("must be a number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):  # this refuses nan as well
        raise ValueError("must be a number of seconds")
    return seconds


def _list(text: str) -> list[str]:
    return text.split(":")


def _publish(text: str) -> bool | list[str]:
    return text == "true" if text in ("true", "false") else text.split(",")


# Keys of the shim itself, for all ways.
OWN: Table = {
    "enter": str,
    "keep": _list,
    "logFile": str,
    "logLevel": str,
    "names": _boolean,
    "netns": str,
    "parallel": _boolean,
    "pluginDirs": _list,
    "publish": _publish,
    "stateDir": str,
    "timeout": _seconds,
    "uplink": str,
}
# With `type`: the keys of these plugins, as of their release 1.9, and the type of each, as options
# are always texts. An older plugin ignores what it does not know.
KEYS: dict[str, Table] = {
    "bridge": {
        "disableContainerInterface": _boolean,
        "enabledad": _boolean,
        "forceAddress": _boolean,
        "hairpinMode": _boolean,
        "ipMasq": _boolean,
        "ipMasqBackend": str,
        "isDefaultGateway": _boolean,
        "isGateway": _boolean,
        "macspoofchk": _boolean,
        "mtu": _integer,
        "portIsolation": _boolean,
        "preserveDefaultVlan": _boolean,
        "promiscMode": _boolean,
        "vlan": _integer,
    },
    "dummy": {},
    "host-device": {"hwaddr": str, "kernelpath": str, "pciBusID": str},
    "ipvlan": {"linkInContainer": _boolean, "mode": str, "mtu": _integer},
    "macvlan": {
        "bcqueuelen": _integer,
        "linkInContainer": _boolean,
        "mode": str,
        "mtu": _integer,
    },
    "ptp": {"ipMasq": _boolean, "ipMasqBackend": str, "mtu": _integer},
    "tap": {
        "bridge": str,
        "group": _integer,
        "mtu": _integer,
        "multiQueue": _boolean,
        "owner": _integer,
        "selinuxContext": str,
    },
    "vlan": {"linkInContainer": _boolean, "mtu": _integer, "vlanId": _integer},
}
# The key of each plugin that takes `network_interface`.
INTERFACE_KEYS = {
    "bridge": "bridge",
    "host-device": "device",
    "ipvlan": "master",
    "macvlan": "master",
    "vlan": "master",
}

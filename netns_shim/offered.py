# SPDX-License-Identifier: Apache-2.0
"""What a runtime offers to plugins for one call: `runtimeConfig`. No I/O.

Only a call with something in there imports this.
"""

from __future__ import annotations

from .errors import UNSUPPORTED_FIELD, ShimError, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from .decoding import Json

# The names of the conventions of CNI. An object has the names that it may hold; a list is of
# values of one kind; None is a value that is not looked into, such as the map of `aliases`, whose
# keys are names of networks.
_RANGE = {"subnet": None, "rangeStart": None, "rangeEnd": None, "gateway": None}
_NAMES: dict[str, Any] = {
    "aliases": None,
    "bandwidth": {
        "ingressRate": None,
        "ingressBurst": None,
        "egressRate": None,
        "egressBurst": None,
        "unshapedSubnets": None,
        "shapedSubnets": None,
    },
    "cgroupPath": None,
    "deviceID": None,
    "dns": {"servers": None, "searches": None, "options": None},
    "infinibandGUID": None,
    "ipRanges": [[_RANGE]],
    "ips": None,
    "mac": None,
    "portMappings": [
        {"hostPort": None, "containerPort": None, "protocol": None, "hostIP": None},
    ],
}
# What is about addresses, and so for the plugin that has them allocated.
_OF_IPAM = ("ipRanges", "ips")
# What netavark's callers send for every network. Whether addresses and MAC were given is checked
# in the answer, as plugins may have them from CNI_ARGS.
_ALWAYS_SENT = ("aliases", "ips", "mac")


def canonical(offered: Any) -> Any:
    """Write runtimeConfig with the names of the conventions.

    Go reads the names of keys in any case. So Go's plugins take what go-cni (containerd, nerdctl)
    writes, `HostPort` for `hostPort`, and we do. As in Go, the last one counts of two that differ
    in case only. Other names stay as they are, and so does a value of an unexpected kind.
    """
    return _renamed(offered, _NAMES)


def _renamed(value: Any, names: Any) -> Any:
    if isinstance(names, list) and isinstance(value, list):
        return [_renamed(item, names[0]) for item in value]
    if not isinstance(names, dict) or not isinstance(value, dict):
        return value
    folded = {name.lower(): name for name in names}
    renamed = {}
    for key, item in value.items():
        name = folded.get(key.lower(), key)
        renamed[name] = _renamed(item, names.get(name))
    return renamed


def adopt(entries: Iterable[Json], left: Json) -> tuple[Json, Json]:
    """Find a plugin for what no plugin has the capability for.

    Give its entry, and what it takes: addresses, if it has them allocated. Podman 4 counts on that
    with `--ip`: it gives the capability `ips` to the first entry that it sees, which is ours.
    """
    for entry in entries:
        if entry.get("ipam") or entry.get("subnets"):
            refused = [k for k, v in (entry.get("capabilities") or {}).items() if v is not True]
            return entry, {k: v for k, v in left.items() if k in _OF_IPAM and k not in refused}
    return {}, {}


def check(left: Json, declared: Mapping[str, Any] | None) -> None:
    """Refuse, or warn about, the values of an ADD that no plugin takes.

    `declared` are the capabilities of the shim's entry. A runtime sends what the entry declares,
    and its user counts on that: ShimError (code 2). What comes undeclared, as from netavark, is a
    warning.
    """
    for key, value in left.items():
        if (declared or {}).get(key) is True:
            raise ShimError(
                UNSUPPORTED_FIELD,
                f"unsupported field runtimeConfig.{key}: no plugin in the entry of netns-shim has "
                "the capability",
                f"its value is {value!r}"[:500] + "; name the capability in the plugin that takes "
                "it as well, or take it out of those of netns-shim",
            )
        if key not in _ALWAYS_SENT:
            warn(f"no plugin takes runtimeConfig.{key}: it has no effect")

# SPDX-License-Identifier: Apache-2.0
"""What a runtime offers to plugins for one call: `runtimeConfig`. No I/O.

Only a call with something in there imports this.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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

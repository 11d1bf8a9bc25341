# SPDX-License-Identifier: Apache-2.0
"""Plugins that ask a daemon, after they could not reach it.

The daemon of `dhcp` has its leases in memory. If it is gone, so are they, and nothing is left for
a DEL to release: each DEL would fail, for ever. `static` allocates nothing, so it stands in.
"""

from __future__ import annotations

from .conf import DEFAULT_NETNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .decoding import Json
    from .errors import PluginFailed

DHCP = "dhcp"
# What the plugin says, and its socket.
SIGNS = ("DHCP daemon", "dhcp.sock")


def is_missing(entry: Json, error: PluginFailed) -> bool:
    """Tell whether a plugin has failed because the daemon of its IPAM plugin `dhcp` is gone."""
    ipam = entry.get("ipam")
    is_dhcp = isinstance(ipam, dict) and ipam.get("type") == DHCP
    return is_dhcp and any(sign in str(error) for sign in SIGNS)


def without(entry: Json) -> Json:
    """Give the configuration of a plugin that has nothing to release."""
    return {**entry, "ipam": {"type": "static"}}


def how(conf: Json) -> str:
    """Say how to start the daemon where the plugins of a configuration find it."""
    netns = conf.get("netns", DEFAULT_NETNS)
    return f"start it with `netns-shim run --netns {netns} -- /usr/lib/cni/dhcp daemon`"

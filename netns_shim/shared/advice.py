# SPDX-License-Identifier: Apache-2.0
"""What to do about errors of plugins that have their reason in the netns being shared."""

from __future__ import annotations

from .. import decoding, encoding
from . import tap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..decoding import Json
    from ..errors import PluginFailed

# What `bridge` says.
OTHER_ADDRESS = "already has an IP address different"
NO_BRIDGE = "already exists but is not a bridge"
# What `macvlan`, `ipvlan` and `vlan` say of a `master`.
NO_LINK = "Link not found"


def add(error: PluginFailed, entry: Json) -> None:
    """Add what to do to an error of the plugin of an entry; its text stays, but for that."""
    said = _on(error, entry)
    answer = decoding.one(error.answer) if said else None
    if isinstance(answer, dict):
        error.details = "; ".join(filter(None, [error.details, said]))
        error.answer = encoding.pretty({**answer, "details": error.details})


def _on(error: PluginFailed, entry: Json) -> str:
    said = f"{error.message} {error.details}"
    if OTHER_ADDRESS in said:
        return (
            "a bridge without a name is cni0 in every network, and networks share a network "
            "namespace: give this one another `bridge`, or another `netns`"
        )
    if NO_LINK in said and entry.get("master"):
        return (
            "interfaces of the host are not in the shared network namespace: name one that is "
            f"there as `master`, such as the uplink's {tap.NAME}"
        )
    if NO_BRIDGE in said and f"{tap.NAME} " in said.replace('"', " "):
        return f"the interface of the uplink is called {tap.NAME}: give the bridge another name"
    return ""

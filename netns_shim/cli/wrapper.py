# SPDX-License-Identifier: Apache-2.0
"""A network of CNI as one that runs through the shim: the same plugins, in one entry. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..chain import WITH_MTU
from ..errors import INVALID_NETWORK_CONFIG, ShimError, in_few_words
from ..validate import conflist, explain

if TYPE_CHECKING:
    from ..decoding import Json


# Plugins that work on an existing interface, and the key that names it.
ON_INTERFACE = {
    "host-device": "device",
    "ipvlan": "master",
    "macvlan": "master",
    "vlan": "master",
}
# Plugins that take a MAC from the runtime.
WITH_MAC = ("bridge", "macvlan", "tap")


class Wrapping:
    """A network that was wrapped: `conf` is the new configuration, `notes` are comments on it."""

    def __init__(self, conf: Json, own_type: str, keys: Json) -> None:
        """Wrap it; `keys` are the shim's own keys for its entry.

        Raises ShimError (code 7) where the outcome is not valid.
        """
        self.notes: list[str] = []
        self._own_type = own_type
        self._keys = keys
        self.conf = self._single(conf) if "type" in conf else self._list(conf)
        # A runtime judges the network's own keys, and adds them to each entry.
        wrong = [
            f"plugins[{index}]{why[1:]}"
            for index, entry in enumerate(self.conf.get("plugins") or [self.conf])
            if entry.get("type") == own_type
            for why in explain.problems({**entry, "cniVersion": "1.0.0", "name": "network"})
        ]
        if wrong:
            message, details = in_few_words("the network cannot be wrapped", wrong)
            raise ShimError(INVALID_NETWORK_CONFIG, message, details)

    def _single(self, conf: Json) -> Json:
        if self._is_ours(conf):
            self.notes.append(f"it runs through {self._own_type} already")
            return {**conf, **self._keys}
        outside = {key: value for key, value in conf.items() if key in explain.OF_NETWORK}
        inside = {key: value for key, value in conf.items() if key not in explain.OF_NETWORK}
        self.notes.append(f"{inside['type']} is the delegate of {self._own_type} now")
        self._comment([inside])
        inside = _with_addresses([inside])[0]
        return {**outside, **self._entry([inside]), **self._keys, "delegate": inside}

    def _list(self, conf: Json) -> Json:
        plugins = conf.get("plugins")
        if not conflist.are_entries(plugins):
            raise ShimError(
                INVALID_NETWORK_CONFIG,
                "neither a plugin ('type') nor a list of them ('plugins')",
            )
        assert isinstance(plugins, list)
        ours = [entry for entry in plugins if self._is_ours(entry)]
        if len(ours) == len(plugins):
            self.notes.append(f"it runs through {self._own_type} already")
            return {**conf, "plugins": [{**entry, **self._keys} for entry in plugins]}
        own, inside = self._unwrap(plugins, ours)
        names = ", ".join(str(entry.get("type") or entry.get("driver")) for entry in inside)
        self.notes.append(f"{names}: in one entry of {self._own_type} now")
        self._comment(inside)
        inside = _with_addresses(inside)
        entry = {**self._entry(inside), **own, **self._keys, "plugins": inside}
        return {**conf, "plugins": [entry]}

    def _unwrap(self, plugins: list[Json], ours: list[Json]) -> tuple[Json, list[Json]]:
        """Take out plugins that are already wrapped, with the shim's own keys beside them."""
        own: Json = {}
        inside: list[Json] = []
        if ours:
            unwrapped = conflist.unwrap(ours, "the network")
            own = {key: value for key, value in unwrapped.items() if key != "plugins"}
            self.notes.append(f"what ran through {self._own_type} already is in the same entry")
        for entry in plugins:
            if any(entry is known for known in ours):
                inside += conflist.unwrap([entry], "the network")["plugins"]
            else:
                inside.append(entry)
        return own, inside

    def _entry(self, inside: list[Json]) -> Json:
        """Begin the entry of the shim: a runtime looks for capabilities only in there."""
        hoisted: Json = {}
        for entry in inside:
            capabilities = entry.get("capabilities")
            if isinstance(capabilities, dict):
                hoisted |= {key: True for key, value in capabilities.items() if value is True}
        if not hoisted:
            return {"type": self._own_type}
        self.notes.append(f"capabilities for the runtime to see: {', '.join(hoisted)}")
        return {"type": self._own_type, "capabilities": hoisted}

    def _comment(self, inside: list[Json]) -> None:
        for entry in inside:
            self.notes += [f"{entry.get('type')}: {why}" for why in _cautions(entry)]

    def _is_ours(self, entry: Json) -> bool:
        return entry.get("type") == self._own_type


def _with_addresses(entries: list[Json]) -> list[Json]:
    """Give the plugin that has addresses allocated the capabilities for those of the runtime.

    Podman 4 with `--ip` sees to `ips` itself if they are missing outside, but loses the other
    capabilities there, and with them published ports.
    """
    for index, entry in enumerate(entries):
        capabilities = entry.get("capabilities") or {}
        if not isinstance(entry.get("ipam"), dict) or not isinstance(capabilities, dict):
            continue
        more = ["ips", "mac"] if entry.get("type") in WITH_MAC else ["ips"]
        known = {**dict.fromkeys(more, True), **capabilities}
        return [*entries[:index], {**entry, "capabilities": known}, *entries[index + 1 :]]
    return entries


def _cautions(entry: Json) -> Iterator[str]:
    """Say what a plugin does differently in a shared netns, as far as that is known."""
    kind, ipam = entry.get("type"), entry.get("ipam")
    if kind in ON_INTERFACE:
        name = entry.get(ON_INTERFACE[kind])
        which = f"the interface {name!r}" if name else "its interface"
        yield f"{which} has to be in the shared network namespace, and is not the host's"
    if kind in ("bridge", "ptp") and entry.get("ipMasq") is not True:
        yield "without ipMasq, containers reach no further than the shared network namespace"
    if kind in WITH_MTU and "mtu" in entry:
        yield f"mtu stays {entry['mtu']}; without the key it gets that of the uplink"
    if isinstance(ipam, dict) and ipam.get("type") == "dhcp":
        yield "the daemon of dhcp has to run inside as well, by `netns-shim run`"

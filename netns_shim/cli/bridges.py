# SPDX-License-Identifier: Apache-2.0
"""Which bridge of a shared netns an attachment is on."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from ..result import addresses
from ..shared.attached import host_side
from ..validate.subnets import DEFAULT_BRIDGE

if TYPE_CHECKING:
    from ..attachment import AttachmentRecord
    from ..decoding import Json


class Bridges:
    """The links of a shared netns, sorted once for all of its attachments.

    `links` are those of `links.links`, None where they are not known.
    """

    def __init__(self, links: list[Json] | None) -> None:
        self._is_known = links is not None
        self._masters = {link["name"]: link["master"] for link in links or []}
        # By address range: where in the list the first bridge with it is, and its name.
        self._ranges: dict[ipaddress.IPv4Network | ipaddress.IPv6Network, tuple[int, str]] = {}
        for place, link in enumerate(links or []):
            if link["kind"] == "bridge":
                for own in link["addresses"]:
                    network = ipaddress.ip_interface(own).network
                    self._ranges.setdefault(network, (place, link["name"]))
        self._lengths = {(network.version, network.prefixlen) for network in self._ranges}

    def of(self, record: AttachmentRecord) -> str | None:
        """Tell the bridge of an attachment: by its link, its configuration or its address."""
        for name in sorted(host_side(record)):
            if master := self._masters.get(name):
                return str(master)
        configured = _configured(record.conf or {})
        if configured and (not self._is_known or configured in self._masters):
            return configured
        return self._by_address(addresses(record.result))

    def _by_address(self, ips: list[str]) -> str | None:
        found = []
        for text in ips:
            try:
                ip = ipaddress.ip_interface(text).ip
            except ValueError:
                continue
            for version, length in self._lengths:
                if version == ip.version:
                    network = ipaddress.ip_network((ip, length), strict=False)
                    found += [self._ranges[network]] if network in self._ranges else []
        return min(found)[1] if found else None


def _configured(conf: Json) -> str:
    plugins = conf.get("plugins")
    entries = [conf.get("delegate"), *(plugins if isinstance(plugins, list) else [])]
    for entry in entries:
        if isinstance(entry, dict) and entry.get("type") == "bridge":
            name = entry.get("bridge")
            return name if isinstance(name, str) and name else DEFAULT_BRIDGE
    return ""

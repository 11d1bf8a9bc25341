# SPDX-License-Identifier: Apache-2.0
"""The text that the binary `netavark` reads: what the shim changes in it, and writes down."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..attachment import AttachmentRecord
    from ..decoding import Json

# What takes an MTU: netavark's driver, and what our own plugin of netavark may wrap in a network.
WITH_MTU = ("bridge", "ptp")


def with_mtu(text: bytes, mtu: int) -> bytes:
    """Give bridges without the option `mtu` that of the uplink, as netavark does since 1.16.

    Those of our own plugin need it, too: it works in place there, and knows of no uplink. What is
    not as netavark wants it stays as it is: netavark says so.
    """
    asked = json.loads(text)
    known = asked.get("network_info")
    for network in known.values() if isinstance(known, dict) else ():
        options = (network.get("options") or {}) if isinstance(network, dict) else None
        if not isinstance(options, dict) or "mtu" in options:
            continue
        kinds = network.get("driver"), options.get("driver"), options.get("type")
        if any(kind in WITH_MTU for kind in kinds):
            network["options"] = {**options, "mtu": str(mtu)}
    return json.dumps(asked).encode()


def has_names(text: bytes) -> bool:
    """Tell whether netavark has to start its name server for one of the networks."""
    known = json.loads(text).get("network_info")
    infos = known.values() if isinstance(known, dict) else ()
    return any(isinstance(info, dict) and info.get("dns_enabled") for info in infos)


def asked_for(text: bytes, network: str) -> Json:
    """Give what a setup asks for in one of its networks, as a teardown has to ask again."""
    asked = json.loads(text)
    networks, known = asked["networks"], asked.get("network_info")
    if isinstance(networks, list):
        networks = {each["name"]: each for each in networks}
    return {
        "options": networks[network],
        "info": known.get(network) if isinstance(known, dict) else None,
        "ports": asked.get("port_mappings"),
    }


def as_set_up(text: bytes, records: Iterable[AttachmentRecord]) -> bytes:
    """Have a teardown ask for what the setups have asked for, whatever the networks are now.

    A setup of an earlier release did not write it down.
    """
    asked = json.loads(text)
    for record in records:
        given = record.asked or {}
        name, options, info = record.name.network, given.get("options"), given.get("info")
        if not isinstance(options, dict) or not isinstance(info, dict):
            continue
        if isinstance(asked["networks"], list):
            others = [each for each in asked["networks"] if each["name"] != name]
            asked["networks"] = [*others, options]
        else:
            asked["networks"][name] = options
        asked["network_info"] = {**(asked.get("network_info") or {}), name: info}
        if isinstance(given.get("ports"), list):
            asked["port_mappings"] = given["ports"]
    return json.dumps(asked).encode()

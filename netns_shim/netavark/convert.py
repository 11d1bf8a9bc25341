# SPDX-License-Identifier: Apache-2.0
"""Conversion between CNI's and netavark's form of ports and routes. No I/O."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..decoding import Json
    from .shapes import PortMapping, Route


def expand_ports(ports: list[PortMapping]) -> list[Json]:
    """Write port mappings as the CNI capability has them: one port and one protocol each."""
    expanded = []
    for mapping in ports:
        for protocol in mapping["protocol"].split(","):
            for offset in range(max(1, mapping["range"])):
                port = {
                    "hostPort": mapping["host_port"] + offset,
                    "containerPort": mapping["container_port"] + offset,
                    "protocol": protocol.strip().lower(),
                }
                if mapping["host_ip"]:
                    port["hostIP"] = mapping["host_ip"]
                expanded.append(port)
    return expanded


def gather_ports(mappings: list[Json]) -> list[PortMapping]:
    """Write port mappings of CNI as netavark has them, in which every key is required."""
    return [
        {
            "host_ip": mapping.get("hostIP") or "",
            "host_port": mapping.get("hostPort", 0),
            "container_port": mapping["containerPort"],
            "protocol": (mapping.get("protocol") or "tcp").lower(),
            "range": 1,
        }
        for mapping in mappings
    ]


def default_routes(gateways: list[str]) -> list[Json]:
    """Write a default route of CNI for the first gateway of each family."""
    routes: dict[str, Json] = {}
    for gateway in gateways:
        destination = "::/0" if ":" in gateway else "0.0.0.0/0"
        routes.setdefault(destination, {"dst": destination, "gw": gateway})
    return list(routes.values())


def to_cni_route(route: Route) -> Json:
    """Write a route of a network as CNI has it."""
    given = {
        "dst": route["destination"],
        "gw": route.get("gateway"),
        "priority": route.get("metric"),
    }
    return {key: value for key, value in given.items() if value is not None}

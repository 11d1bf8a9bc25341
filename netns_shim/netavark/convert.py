# SPDX-License-Identifier: Apache-2.0
"""What is the same on both wires in other words: ports, routes, requests. No I/O."""

from __future__ import annotations

from ..errors import PLUGIN_MISBEHAVED, ShimError
from ..validate import addressing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..decoding import Json
    from .shapes import NetworkOptions, PortMapping, Route


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


def check_requests(
    who: str, options: NetworkOptions, addresses: list[str], macs: list[str]
) -> None:
    """Refuse an answer without the requested address or MAC: the caller relies on it.

    `who`, the plugin or the driver, has answered with these addresses and MACs. Raises ShimError
    (code 100).
    """
    for ip in options.get("static_ips", []):
        if not any(addressing.same_address(ip, address) for address in addresses):
            raise ignored(who, f"the address {ip}", addresses)
    mac = options.get("static_mac", "")
    if mac and mac.lower() not in [given.lower() for given in macs]:
        raise ignored(who, f"the MAC {mac}", macs)


def ignored(who: str, what: str, given: list[str]) -> ShimError:
    """Make the error about a request; `given` is what the answer has instead."""
    message = f"the {who} ignored the request for {what}"
    return ShimError(PLUGIN_MISBEHAVED, message, f"it gave {', '.join(given) or 'none'}")

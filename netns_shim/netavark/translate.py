# SPDX-License-Identifier: Apache-2.0
"""A request of CNI as one to a driver of netavark, and its answer as a result of CNI.

A field that netavark cannot express is an error if the caller asks for it: it is never dropped.
"""

from __future__ import annotations

from .. import result
from ..cni import CURRENT_VERSION
from ..errors import (
    DECODING_FAILURE,
    INVALID_NETWORK_CONFIG,
    UNSUPPORTED_FIELD,
    ShimError,
)
from ..validate import addressing
from . import convert, document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..decoding import Json
    from .shapes import Asked, Network, NetworkOptions, StatusBlock, Subnet

# Drivers that are in the netavark binary; all others are plugins of it.
BUILT_IN = ("bridge", "macvlan", "ipvlan")
SUPPORTED = ("aliases", "ips", "mac", "portMappings")


def is_built_in(entry: Json) -> bool:
    """Tell whether an entry is for the netavark binary, not for a plugin of it."""
    return entry["driver"] in BUILT_IN


def ipam_of(entry: Json) -> Json:
    """Give the configuration of the IPAM plugin: `ipam`, else host-local over the subnets.

    Empty where no plugin is to allocate addresses.
    """
    if "ipam" in entry:
        return dict(entry["ipam"])
    if not entry.get("subnets"):
        return {}
    ranges = []
    for subnet in entry["subnets"]:
        lease = subnet.get("lease_range") or {}
        given = {
            "subnet": subnet["subnet"],
            "gateway": subnet.get("gateway"),
            "rangeStart": lease.get("start_ip"),
            "rangeEnd": lease.get("end_ip"),
        }
        ranges.append([{key: value for key, value in given.items() if value}])
    return {"type": "host-local", "ranges": ranges}


def check_supported(entry: Json, offered: Json) -> None:
    """Refuse fields that cannot be passed on: ShimError (code 2)."""
    for key, value in offered.items():
        if not value or key in SUPPORTED:
            continue
        is_plain = isinstance(value, dict) and not value.keys() - {"servers"}
        if key == "dns" and is_built_in(entry) and is_plain:
            continue
        raise ShimError(
            UNSUPPORTED_FIELD,
            f"unsupported field runtimeConfig.{key}: the driver {entry['driver']!r} of netavark "
            "has no field for it",
            f"its value is {value!r}"[:500],
        )


def request(entry: Json, environ: Mapping[str, str], conf: Json, ips: list[Json]) -> Asked:
    """Make the input of a driver (NetworkPluginExec) with the allocated addresses.

    Raises ShimError (code 7) where the addresses do not fit the subnets.
    """
    conf = document.check(conf, "call", "invalid request")
    offered = conf.get("runtimeConfig", {})
    args = dict(
        pair.split("=", 1) for pair in environ.get("CNI_ARGS", "").split(";") if "=" in pair
    )
    of_runtime = conf.get("args", {})
    aliases = offered.get("aliases", [])
    if isinstance(aliases, dict):  # as Podman wrote them for its plugin dnsname
        aliases = aliases.get(conf["name"], [])
    subnets, static_ips = _match(entry, ips)
    options: NetworkOptions = {"interface_name": environ["CNI_IFNAME"]}
    if static_ips:
        options["static_ips"] = static_ips
    if mac := offered.get("mac") or of_runtime.get("cni", {}).get("mac") or args.get("MAC"):
        options["static_mac"] = mac
    if aliases:
        options["aliases"] = aliases
    if of_network := of_runtime.get("netavark", {}).get("options"):
        options["options"] = of_network
    asked: Asked = {
        "container_id": environ["CNI_CONTAINERID"],
        "container_name": args.get("K8S_POD_NAME") or environ["CNI_CONTAINERID"],
        "port_mappings": convert.gather_ports(offered.get("portMappings", [])),
        "network": _network(entry, conf["name"], subnets, is_allocated=bool(static_ips)),
        "network_options": options,
    }
    if servers := offered.get("dns", {}).get("servers"):
        asked["dns_servers"] = servers
    return asked


def _network(entry: Json, name: str, subnets: list[Subnet], *, is_allocated: bool) -> Network:
    network: Network = {
        "name": name,
        "id": _identifier(name),
        "driver": entry["driver"],
        "dns_enabled": entry.get("dns_enabled", False),
        "internal": entry.get("internal", False),
        "ipv6_enabled": any(":" in subnet["subnet"] for subnet in subnets),
        "ipam_options": {"driver": "host-local" if is_allocated else "none"},
        "subnets": subnets,
    }
    if entry.get("network_dns_servers"):
        network["network_dns_servers"] = entry["network_dns_servers"]
    if entry.get("options"):
        network["options"] = entry["options"]
    if entry.get("routes"):
        network["routes"] = entry["routes"]
    if entry.get("network_interface"):
        network["network_interface"] = entry["network_interface"]
    elif entry["driver"] == "bridge":
        network["network_interface"] = f"nv-{network['id'][:10]}"
    return network


def _identifier(name: str) -> str:
    from hashlib import sha256  # for drivers only

    return sha256(name.encode()).hexdigest()


def _match(entry: Json, ips: list[Json]) -> tuple[list[Subnet], list[str]]:
    """Give the subnets, and an address for each in the same order, as netavark pairs them."""
    given: list[Subnet] = entry.get("subnets") or []
    subnets = [subnet.copy() for subnet in given]
    if not ips:
        return subnets, []
    found = {ip["address"].partition("/")[0]: ip for ip in ips}
    if not subnets:
        import ipaddress  # nearly every network has subnets

        for ip in ips:
            subnets.append({"subnet": str(ipaddress.ip_interface(ip["address"]).network)})
    matched, lost = addressing.match_subnets(list(found), subnets)
    addresses = []
    for subnet in subnets:
        within = [ip for ip, its in matched.items() if its is subnet]
        if len(within) != 1:
            lost += within[1:] or [f"none for {subnet['subnet']}"]
            continue
        addresses += within
        gateway = found[within[0]].get("gateway")
        if gateway and not subnet.get("gateway"):
            subnet["gateway"] = gateway
    if lost:
        raise ShimError(
            INVALID_NETWORK_CONFIG,
            f"the driver {entry['driver']!r} needs exactly one address of each subnet",
            f"the IPAM plugin gave {', '.join(found)}; what does not fit: {', '.join(lost)}",
        )
    return subnets, addresses


def network_options(asked: Asked) -> Json:
    """Make the input of the netavark binary (NetworkOptions), in the form that all releases read.

    Networks are a map: a list is possible only since 2.0.
    """
    name = asked["network"]["name"]
    options = {
        "container_id": asked["container_id"],
        "container_name": asked["container_name"],
        "port_mappings": asked["port_mappings"],
        "networks": {name: asked["network_options"]},
        "network_info": {name: asked["network"]},
    }
    servers = asked.get("dns_servers")
    return {**options, "dns_servers": servers} if servers else options


def ips_of(answer: Json, version: str) -> list[Json]:
    """List the addresses that an IPAM plugin has allocated, in the shape of CNI 1.0.0."""
    converted = result.convert(answer, CURRENT_VERSION, assume=version)
    return _checked_ips(converted.get("ips") or [], "malformed result", "ips", DECODING_FAILURE)


def ips_of_caller(ipam: object) -> list[Json]:
    """List the addresses that the caller has allocated, as `ips_of` does; ShimError (code 7)."""
    if not isinstance(ipam, dict):
        message = "invalid request: runtimeConfig.ipam: must be an object"
        raise ShimError(INVALID_NETWORK_CONFIG, message)
    ips = ipam.get("addresses") or []
    within = "runtimeConfig.ipam.addresses"
    return _checked_ips(ips, "invalid request", within, INVALID_NETWORK_CONFIG)


def _checked_ips(ips: Any, what: str, within: str, code: int) -> list[Json]:
    return list(document.check(ips, "ips", what, within=within, code=code))


def checked_result(previous: Json) -> Json:
    """Give a result, if it has all that CHECK looks at; ShimError (code 6) if not."""
    found: Json = document.check(previous, "result", "malformed result", code=DECODING_FAILURE)
    return found


def result_of(asked: Asked, status: StatusBlock, netns: str) -> Json:
    """Make a result of CNI from a StatusBlock.

    Raises ShimError (code 100) where it ignored a requested address or MAC.
    """
    network, options = asked["network"], asked["network_options"]
    ifname = options["interface_name"]
    made = status.get("interfaces", {})
    if list(made) != [ifname]:
        raise convert.ignored("driver", f"the interface {ifname!r}", list(made))
    mac, subnets = made[ifname]["mac_address"], made[ifname].get("subnets", [])
    given = [subnet["ipnet"] for subnet in subnets]
    convert.check_requests("driver", options, given, [mac])
    interfaces = [{"name": network["network_interface"]}] if network["driver"] == "bridge" else []
    interfaces.append({"name": ifname, "mac": mac, "sandbox": netns})
    ips: list[Json] = []
    for subnet in subnets:
        ips.append({"interface": len(interfaces) - 1, "address": subnet["ipnet"]})
        if subnet.get("gateway"):
            ips[-1]["gateway"] = subnet["gateway"]
    answer: Json = {"cniVersion": CURRENT_VERSION, "interfaces": interfaces, "ips": ips}
    gateways = [address["gateway"] for address in ips if "gateway" in address]
    answer["routes"] = _routes(network, gateways)
    dns = {
        "nameservers": status.get("dns_server_ips") or network.get("network_dns_servers"),
        "search": status.get("dns_search_domains"),
    }
    answer["dns"] = {key: value for key, value in dns.items() if value}
    return {key: value for key, value in answer.items() if value}


def _routes(network: Network, gateways: list[str]) -> list[Json]:
    """List the routes that netavark makes by itself; a StatusBlock cannot hold them."""
    routes = []
    if not network["internal"] and network.get("options", {}).get("no_default_route") != "true":
        routes += convert.default_routes(gateways)
    for route in network.get("routes", []):
        routes.append(convert.to_cni_route(route))
    return routes

# SPDX-License-Identifier: Apache-2.0
"""A request of CNI as one to a driver of netavark, and its answer as a result of CNI. No I/O.

A field that netavark cannot express is an error if the caller asks for it: it is never dropped.
"""

from __future__ import annotations

import ipaddress

from .. import result
from ..cni import CURRENT_VERSION
from ..errors import (
    DECODING_FAILURE,
    INVALID_NETWORK_CONFIG,
    PLUGIN_MISBEHAVED,
    UNSUPPORTED_FIELD,
    ShimError,
)
from ..validate import addressing
from . import convert
from .fields import address, interface_address, list_of, map_of, parsed, port, record, text
from .fields import subnet as subnet_with_prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from ..decoding import Json

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
            "cannot be told of it",
            f"its value is {value!r}"[:500],
        )


def request(entry: Json, environ: Mapping[str, str], conf: Json, ips: list[Json]) -> Json:
    """Make the input of a driver (NetworkPluginExec) with the allocated addresses.

    Raises ShimError (code 7) where the addresses do not fit the subnets.
    """
    problems = list(_OFFERED(conf, ""))
    if problems:
        raise ShimError(INVALID_NETWORK_CONFIG, "invalid request: " + "; ".join(problems))
    offered = conf.get("runtimeConfig") or {}
    args = dict(
        pair.split("=", 1) for pair in environ.get("CNI_ARGS", "").split(";") if "=" in pair
    )
    of_cni = (conf.get("args") or {}).get("cni") or {}
    aliases = offered.get("aliases") or []
    if isinstance(aliases, dict):  # as Podman wrote them for its plugin dnsname
        aliases = aliases.get(conf["name"]) or []
    subnets, static_ips = _match(entry, ips)
    options = {
        "interface_name": environ["CNI_IFNAME"],
        "static_ips": static_ips or None,
        "static_mac": offered.get("mac") or of_cni.get("mac") or args.get("MAC"),
        "aliases": aliases or None,
        "options": ((conf.get("args") or {}).get("netavark") or {}).get("options"),
    }
    asked = {
        "container_id": environ["CNI_CONTAINERID"],
        "container_name": args.get("K8S_POD_NAME") or environ["CNI_CONTAINERID"],
        "port_mappings": convert.gather_ports(offered.get("portMappings") or []),
        "network": _network(entry, conf["name"], subnets, is_allocated=bool(static_ips)),
        "network_options": {key: value for key, value in options.items() if value},
    }
    servers = (offered.get("dns") or {}).get("servers")
    return {**asked, "dns_servers": servers} if servers else asked


def _network(entry: Json, name: str, subnets: list[Json], *, is_allocated: bool) -> Json:
    network = {
        "name": name,
        "id": _identifier(name),
        "driver": entry["driver"],
        "dns_enabled": entry.get("dns_enabled", False),
        "internal": entry.get("internal", False),
        "ipv6_enabled": any(":" in subnet["subnet"] for subnet in subnets),
        "ipam_options": {"driver": "host-local" if is_allocated else "none"},
        "subnets": subnets,
    }
    for key in ("network_dns_servers", "network_interface", "options", "routes"):
        if entry.get(key):
            network[key] = entry[key]
    if entry["driver"] == "bridge":
        network.setdefault("network_interface", f"nv-{network['id'][:10]}")
    return network


def _identifier(name: str) -> str:
    from hashlib import sha256  # for drivers only

    return sha256(name.encode()).hexdigest()


def _match(entry: Json, ips: list[Json]) -> tuple[list[Json], list[str]]:
    """Give the subnets, and an address for each in the same order, as netavark pairs them."""
    subnets = [dict(subnet) for subnet in entry.get("subnets") or []]
    if not ips:
        return subnets, []
    found = {ip["address"].partition("/")[0]: ip for ip in ips}
    if not subnets:
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
            f"allocated were {', '.join(found)}; wrong: {', '.join(lost)}",
        )
    return subnets, addresses


def network_options(asked: Json) -> Json:
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
    problems = list(_IPS(converted.get("ips") or [], "ips"))
    if problems:
        raise ShimError(DECODING_FAILURE, "malformed result: " + "; ".join(problems))
    return list(converted.get("ips") or [])


def ips_of_caller(ipam: Json) -> list[Json]:
    """List the addresses that the caller has allocated, as `ips_of` does; ShimError (code 7)."""
    problems = list(_OF_CALLER(ipam, "runtimeConfig.ipam"))
    if problems:
        raise ShimError(INVALID_NETWORK_CONFIG, "invalid request: " + "; ".join(problems))
    return list(ipam.get("addresses") or [])


def checked_result(previous: Json) -> Json:
    """Give a result as it is, if it has all that CHECK looks at; ShimError (code 6) if not."""
    problems = list(_RESULT(previous, ""))
    if problems:
        raise ShimError(DECODING_FAILURE, "malformed result: " + "; ".join(problems))
    return previous


def result_of(asked: Json, status: Json, netns: str) -> Json:
    """Make a result of CNI from a StatusBlock.

    Raises ShimError (code 100) where it ignored a requested address or MAC.
    """
    network, options = asked["network"], asked["network_options"]
    ifname = options["interface_name"]
    made = status.get("interfaces") or {}
    if list(made) != [ifname]:
        raise _ignored(f"the interface {ifname!r}", f"it has made {', '.join(made) or 'none'}")
    mac, subnets = made[ifname]["mac_address"], made[ifname].get("subnets") or []
    given = [subnet["ipnet"] for subnet in subnets]
    for ip in options.get("static_ips") or []:
        if not any(addressing.same_address(ip, address) for address in given):
            raise _ignored(f"the address {ip}", f"it has given {', '.join(given) or 'none'}")
    wanted = options.get("static_mac")
    if wanted and wanted.lower() != mac.lower():
        raise _ignored(f"the MAC {wanted}", f"it has given {mac or 'none'}")
    interfaces = [{"name": network["network_interface"]}] if network["driver"] == "bridge" else []
    interfaces.append({"name": ifname, "mac": mac, "sandbox": netns})
    ips = []
    for subnet in subnets:
        ip = {"interface": len(interfaces) - 1, "address": subnet["ipnet"]}
        ips.append({**ip, "gateway": subnet["gateway"]} if subnet.get("gateway") else ip)
    answer: Json = {"cniVersion": CURRENT_VERSION, "interfaces": interfaces, "ips": ips}
    answer["routes"] = _routes(network, [ip["gateway"] for ip in ips if "gateway" in ip])
    dns = {
        "nameservers": status.get("dns_server_ips"),
        "search": status.get("dns_search_domains"),
    }
    answer["dns"] = {key: value for key, value in dns.items() if value}
    return {key: value for key, value in answer.items() if value}


def _routes(network: Json, gateways: list[str]) -> list[Json]:
    """List the routes that netavark makes by itself; a StatusBlock cannot hold them."""
    routes = []
    if (
        not network["internal"]
        and (network.get("options") or {}).get("no_default_route") != "true"
    ):
        routes += convert.default_routes(gateways)
    for route in network.get("routes") or []:
        routes.append(convert.to_cni_route(route))
    return routes


def _ignored(what: str, details: str) -> ShimError:
    return ShimError(PLUGIN_MISBEHAVED, f"the driver ignored the request for {what}", details)


def _gateway(value: str) -> None:
    if value:
        ipaddress.ip_address(value)


def _aliases(value: Any, place: str) -> Iterator[str]:
    names = list_of(text)
    yield from (map_of(names) if isinstance(value, dict) else names)(value, place)


_PORT = record(
    {"containerPort": port},
    {"hostPort": port, "hostIP": text, "protocol": text},
)
_IPS = list_of(record({"address": interface_address}, {"gateway": address}))
_RESULT = record(
    {},
    {
        "interfaces": list_of(record({}, {"name": text, "mac": text, "sandbox": text})),
        "ips": _IPS,
        "routes": list_of(
            record({"dst": subnet_with_prefix}, {"gw": parsed(_gateway, "an IP address")})
        ),
    },
)
_OF_CALLER = record({}, {"addresses": _IPS})
# The parts of a runtime's input that we read, and that are not checked elsewhere.
_OFFERED = record(
    {},
    {
        "runtimeConfig": record(
            {},
            {
                "aliases": _aliases,
                "dns": record({}, {"servers": list_of(address)}),
                "mac": text,
                "portMappings": list_of(_PORT),
            },
        ),
        "args": record(
            {},
            {
                "cni": record({}, {"mac": text}),
                "netavark": record({}, {"options": map_of(text)}),
            },
        ),
    },
)

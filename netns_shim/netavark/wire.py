# SPDX-License-Identifier: Apache-2.0
"""netavark's JSON without I/O: the input of its plugins and its binary, and their answers.

Both directions are here: the shim is called like a plugin of netavark, and calls such plugins
itself. The types are those of netavark's `plugin-API.md` and `network/types.rs`; a key that is
absent and one that is null are the same, as older releases write every absent key as null.
"""

from __future__ import annotations

import ipaddress
import json

from .. import __version__, cni, decoding
from ..errors import DECODING_FAILURE, INVALID_NETWORK_CONFIG, ShimError, in_few_words
from .fields import (
    MAXIMUM_PORT,
    address,
    flag,
    interface_address,
    list_of,
    map_of,
    number,
    parsed,
    port,
    present,
    record,
    subnet,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..decoding import Json
    from .fields import Kind

# What a plugin says about itself; neither netavark nor Podman looks at it.
API_VERSION = "1.0.0"
PROTOCOLS = ("tcp", "udp", "sctp")


class Exec:
    """The input of a plugin for `setup` and `teardown` (NetworkPluginExec).

    Absent keys are filled in: lists and objects are empty, texts are "". `container_id`, `ifname`
    and the network's name are safe as parts of file names.
    """

    __slots__ = ("container_id", "container_name", "ifname", "network", "options", "ports")

    def __init__(self, value: Json) -> None:
        self.container_id: str = value["container_id"]
        self.container_name: str = value["container_name"]
        self.network: Json = present(value["network"])
        self.options: Json = present(value["network_options"])
        self.ifname: str = self.options["interface_name"]
        self.ports: list[Json] = value.get("port_mappings") or []


def decode_exec(data: bytes) -> Exec:
    """Read the input of `setup` and `teardown`.

    Raises ShimError: code 6 for text that is not JSON, 7 with all problems of a document, 4 for
    names that are too long.
    """
    value = _decode(data, "request", _EXEC)
    found = Exec(value)
    problems = [
        *_name_problems("container_id", found.container_id),
        *_name_problems("network.name", found.network["name"]),
        *_ifname_problems("network_options.interface_name", found.ifname),
    ]
    _raise_all("request", problems)
    cni.check_length(found.network["name"], found.container_id, found.ifname)
    return found


def decode_asked(data: bytes) -> Json:
    """Read a request to a driver, as we have written it. Raises ShimError (code 6 or 7)."""
    return _decode(data, "request", _ASKED)


def decode_options(data: bytes) -> Json:
    """Read the input of the binary (NetworkOptions): `container_id`, and `networks`.

    Gives the interface of each network by the network's name. Newer releases accept a list of
    networks as well. Raises ShimError as `decode_exec` does.
    """
    value = cni.decode(data, what="request")
    networks = value.get("networks")
    if isinstance(networks, list):
        _raise_all("request", list(_LISTED(networks, "networks")))
        listed = {network["name"]: network for network in networks}
        for network in networks:
            if listed[network["name"]] is not network:
                _raise_all("request", [f"networks: {network['name'][:60]!r} is there twice"])
        networks = listed
    _raise_all("request", list(_OPTIONS({**value, "networks": networks}, "")))
    asked = {name: network["interface_name"] for name, network in (networks or {}).items()}
    problems = _name_problems("container_id", value["container_id"])
    for name, ifname in asked.items():
        problems += _name_problems("networks", name) + _ifname_problems(f"networks.{name}", ifname)
    _raise_all("request", problems)
    for name, ifname in asked.items():
        cni.check_length(name, value["container_id"], ifname)
    return {"container_id": value["container_id"], "networks": asked}


def addresses(data: bytes) -> dict[str, Json]:
    """Read the addresses in an answer of the binary, as results of CNI; never raise."""
    try:
        statuses = decode_statuses(data, "netavark")
    except ShimError:
        return {}
    found = {}
    for network, status in statuses.items():
        subnets = [
            s for i in (status.get("interfaces") or {}).values() for s in i.get("subnets") or []
        ]
        ips = [{"address": subnet["ipnet"]} for subnet in subnets]
        found[network] = {"cniVersion": "1.0.0", "ips": ips}
    return found


def decode_network(data: bytes) -> Json:
    """Read the input of `create`: a network, kept as it is.

    Raises ShimError: code 6 for text that is not JSON, 7 with all problems of a document.
    """
    return _decode(data, "network", _NETWORK)


def format_status(result: Json, netns: str, ifname: str) -> str:
    """Write a CNI result of version 1.0.0 or later as a StatusBlock with one interface.

    That is the requested interface. Addresses without an interface count as its own, because some
    plugins name no interfaces. A StatusBlock cannot hold routes and the like.
    """
    interfaces = result.get("interfaces") or []
    ours = [
        index
        for index, interface in enumerate(interfaces)
        if interface.get("name") == ifname and interface.get("sandbox") in (netns, None)
    ]
    mac = (interfaces[ours[0]].get("mac") or "") if ours else ""
    subnets = []
    for ip in result.get("ips") or []:
        index = ip.get("interface")
        if index is None or index < 0 or index in ours or not ours:
            given = {"ipnet": ip["address"], "gateway": ip.get("gateway")}
            subnets.append({key: value for key, value in given.items() if value})
    dns = result.get("dns") or {}
    _raise_all("result", list(_DNS(dns, "dns")), DECODING_FAILURE)
    domains = [dns.get("domain"), *(dns.get("search") or [])]
    status = {
        "dns_search_domains": list(dict.fromkeys(domain for domain in domains if domain)),
        "dns_server_ips": dns.get("nameservers") or [],
        "interfaces": {ifname: {"mac_address": mac, "subnets": subnets}},
    }
    _raise_all("result", list(_STATUS(status, "")), DECODING_FAILURE)
    return json.dumps(status)


def format_info() -> str:
    """Write the answer of `info`."""
    about = "runs any CNI or netavark plugin in a shared rootless network namespace"
    info = {"version": __version__, "api_version": API_VERSION, "description": about}
    return json.dumps(info) + "\n"


def format_error(error: ShimError) -> str:
    """Write an error with all details under one key, because Podman 5 refuses others."""
    return json.dumps({"error": f"{error} (code {error.code})"})


def parse_error(data: bytes) -> str:
    """Read an error of a plugin or of the binary; "" where it is something else."""
    try:
        answer = decoding.one(data)
    except ValueError:
        return ""
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, str) else ""


def decode_status(data: bytes, what: str) -> Json:
    """Read a StatusBlock; `what` names the program that wrote it. Raises ShimError (code 6)."""
    return _decode(data, f"answer of {what}", _STATUS, code=DECODING_FAILURE)


def decode_statuses(data: bytes, what: str) -> Json:
    """Read the answer of the binary: a StatusBlock for each network. ShimError (code 6)."""
    return _decode(data, f"answer of {what}", map_of(_STATUS), code=DECODING_FAILURE)


def _decode(data: bytes, what: str, kind: Kind, code: int = INVALID_NETWORK_CONFIG) -> Json:
    value = cni.decode(data, what=what)
    _raise_all(what, list(kind(value, "")), code)
    return value


def _raise_all(what: str, problems: list[str], code: int = INVALID_NETWORK_CONFIG) -> None:
    if problems:
        raise ShimError(code, *in_few_words(f"invalid {what}", problems))


def _name_problems(place: str, value: str) -> list[str]:
    # It becomes a part of a file name.
    return [] if cni.is_name(value) else [f"{place}: invalid characters in {value[:60]!r}"]


def _ifname_problems(place: str, value: str) -> list[str]:
    problem = cni.ifname_problem(value) if value else "it is empty"
    return [f"{place}: {problem.replace('CNI_IFNAME', repr(value[:60]))}"] if problem else []


def _protocols(value: str) -> None:
    if not all(part.strip().lower() in PROTOCOLS for part in value.split(",")):
        raise ValueError(value)


def _host_ip(value: str) -> None:
    if value:
        ipaddress.ip_address(value)


def _port(value: Any, place: str) -> Iterator[str]:
    problems = list(_MAPPING(value, place))
    yield from problems
    if not problems:
        last = max(value["host_port"], value["container_port"]) + max(1, value["range"]) - 1
        if last > MAXIMUM_PORT:
            yield f"{place}: the last port would be {last}"


_SUBNET = record(
    {"subnet": subnet},
    {"gateway": address, "lease_range": record({}, {"start_ip": address, "end_ip": address})},
)
_ROUTE = record(
    {"destination": subnet},
    {"gateway": address, "metric": number(0xFFFFFFFF), "route_type": text},
)
_MAPPING = record(
    {
        "container_port": port,
        "host_port": port,
        "host_ip": parsed(_host_ip, "an IP address or empty"),
        "protocol": parsed(_protocols, "tcp, udp or sctp, or several with commas"),
        "range": port,
    },
    {},
)
_NETWORK = record(
    {
        "name": text,
        "id": text,
        "driver": text,
        "dns_enabled": flag,
        "internal": flag,
        "ipv6_enabled": flag,
    },
    {
        "network_interface": text,
        "subnets": list_of(_SUBNET),
        "routes": list_of(_ROUTE),
        "options": map_of(text),
        "ipam_options": map_of(text),
        "network_dns_servers": list_of(address),
    },
)
_EXEC = record(
    {
        "container_id": text,
        "container_name": text,
        "network": _NETWORK,
        "network_options": record(
            {"interface_name": text},
            {
                "static_ips": list_of(address),
                "static_mac": text,
                "aliases": list_of(text),
                "options": map_of(text),
            },
        ),
    },
    {"port_mappings": list_of(_port)},
)
# Not as strict as `_EXEC`: a request that was accepted has to be undone.
_ASKED = record(
    {
        "container_id": text,
        "container_name": text,
        "network": record({"name": text}, {}),
        "network_options": record({}, {}),
        "port_mappings": list_of(record({}, {})),
    },
    {},
)
_DNS = record({}, {"domain": text, "search": list_of(text), "nameservers": list_of(address)})
# Only as much as the stand-in for the binary has to understand.
_LISTED = list_of(record({"name": text}, {}))
_OPTIONS = record(
    {"container_id": text, "networks": map_of(record({"interface_name": text}, {}))}, {}
)
_STATUS = record(
    {},
    {
        "interfaces": map_of(
            record(
                {"mac_address": text},
                {
                    "subnets": list_of(
                        record(
                            {"ipnet": interface_address},
                            {"gateway": address},
                        )
                    )
                },
            )
        ),
        "dns_server_ips": list_of(address),
        "dns_search_domains": list_of(text),
    },
)

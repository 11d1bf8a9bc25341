# SPDX-License-Identifier: Apache-2.0
"""netavark's JSON: the input of its plugins and its binary, and their answers.

Both directions are here: the shim is called like a plugin of netavark, and calls such plugins
itself. The types are those of netavark's `plugin-API.md` and `network/types.rs`. What is read has
no key that is null, because `document` leaves these out.
"""

from __future__ import annotations

from .. import __version__, cni, decoding, encoding
from ..errors import DECODING_FAILURE, INVALID_NETWORK_CONFIG, ShimError
from . import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..decoding import Json
    from .shapes import Asked, Network, PortMapping, StatusBlock

# What a plugin says about itself; neither netavark nor Podman looks at it.
API_VERSION = "1.0.0"
MAXIMUM_PORT = 0xFFFF


class Exec:
    """The input of a plugin for `setup` and `teardown` (NetworkPluginExec).

    `container_id`, `ifname` and the network's name are safe as parts of file names.
    """

    __slots__ = ("container_id", "container_name", "ifname", "network", "options", "ports")

    def __init__(self, value: Asked) -> None:
        self.container_id = value["container_id"]
        self.container_name = value["container_name"]
        self.network = value["network"]
        self.options = value["network_options"]
        self.ifname = self.options["interface_name"]
        self.ports = value.get("port_mappings", [])


def decode_exec(data: bytes) -> Exec:
    """Read the input of `setup` and `teardown`.

    Raises ShimError: code 6 for text that is not JSON, 7 with all problems of a document, 4 for
    names that are too long.
    """
    found = Exec(_decode(data, "exec", "request"))
    problems = [
        *_port_problems(found.ports),
        *_name_problems("container_id", found.container_id),
        *_name_problems("network.name", found.network["name"]),
        *_ifname_problems("network_options.interface_name", found.ifname),
    ]
    document.refuse("invalid request", problems)
    cni.check_length(found.network["name"], found.container_id, found.ifname)
    return found


def decode_asked(data: bytes) -> Asked:
    """Read a request to a driver, as we have written it. Raises ShimError (code 6 or 7)."""
    asked: Asked = _decode(data, "asked", "request")
    return asked


def decode_options(data: bytes) -> Json:
    """Read the input of the binary (NetworkOptions): container_id, networks and port_mappings.

    Gives the interface of each network by the network's name, and the ports. Newer releases accept
    a list of networks as well. Raises ShimError as `decode_exec` does.
    """
    value = _decode(data, "networkOptions", "request")
    networks = value["networks"]
    if isinstance(networks, list):
        listed = {network["name"]: network for network in networks}
        if len(listed) < len(networks):
            names = [network["name"] for network in networks]
            twice = next(name for name in names if names.count(name) > 1)
            document.refuse("invalid request", [f"networks: {twice[:60]!r} is there twice"])
        networks = listed
    asked = {name: network["interface_name"] for name, network in networks.items()}
    ports = value.get("port_mappings", [])
    problems = [*_port_problems(ports), *_name_problems("container_id", value["container_id"])]
    for name, ifname in asked.items():
        problems += _name_problems("networks", name) + _ifname_problems(f"networks.{name}", ifname)
    document.refuse("invalid request", problems)
    for name, ifname in asked.items():
        cni.check_length(name, value["container_id"], ifname)
    found = {"container_id": value["container_id"], "networks": asked}
    return {**found, "port_mappings": ports}


def addresses(data: bytes) -> dict[str, Json]:
    """Read the addresses in an answer of the binary, as results of CNI; never raise."""
    try:
        statuses = decode_statuses(data, "netavark")
    except ShimError:
        return {}
    found = {}
    for network, status in statuses.items():
        interfaces = status.get("interfaces", {}).values()
        subnets = [subnet for made in interfaces for subnet in made.get("subnets", [])]
        ips = [{"address": subnet["ipnet"]} for subnet in subnets]
        found[network] = {"cniVersion": "1.0.0", "ips": ips}
    return found


def decode_network(data: bytes) -> Network:
    """Read the input of `create`: a network, with the keys that we do not know as well.

    Raises ShimError: code 6 for text that is not JSON, 7 with all problems of a document.
    """
    network: Network = _decode(data, "network", "network")
    return network


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
    dns = document.check(
        result.get("dns") or {}, "dns", "invalid result", within="dns", code=DECODING_FAILURE
    )
    domains = [dns.get("domain"), *dns.get("search", [])]
    status = {
        "dns_search_domains": list(dict.fromkeys(domain for domain in domains if domain)),
        "dns_server_ips": dns.get("nameservers", []),
        "interfaces": {ifname: {"mac_address": mac, "subnets": subnets}},
    }
    document.check(status, "status", "invalid result", code=DECODING_FAILURE)
    return encoding.compact(status)


def format_info() -> str:
    """Write the answer of `info`."""
    about = "runs any CNI or netavark plugin in a shared rootless network namespace"
    info = {"version": __version__, "api_version": API_VERSION, "description": about}
    return encoding.compact(info) + "\n"


def format_error(error: ShimError) -> str:
    """Write an error with all details under one key, because Podman 5 refuses others."""
    return encoding.compact({"error": f"{error} (code {error.code})"})


def parse_error(data: bytes) -> str:
    """Read an error of a plugin or of the binary; "" where it is something else."""
    try:
        answer = decoding.one(data)
    except ValueError:
        return ""
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, str) else ""


def decode_status(data: bytes, what: str) -> StatusBlock:
    """Read a StatusBlock; `what` names the program that wrote it. Raises ShimError (code 6)."""
    status: StatusBlock = _decode(data, "status", f"answer of {what}", DECODING_FAILURE)
    return status


def decode_statuses(data: bytes, what: str) -> dict[str, StatusBlock]:
    """Read the answer of the binary: a StatusBlock for each network. ShimError (code 6)."""
    found: dict[str, StatusBlock]
    found = _decode(data, "statuses", f"answer of {what}", DECODING_FAILURE)
    return found


def _decode(data: bytes, kind: str, what: str, code: int = INVALID_NETWORK_CONFIG) -> Any:
    return document.check(cni.decode(data, what=what), kind, f"invalid {what}", code=code)


def _name_problems(place: str, value: str) -> list[str]:
    # It becomes a part of a file name.
    return [] if cni.is_name(value) else [f"{place}: invalid characters in {value[:60]!r}"]


def _ifname_problems(place: str, value: str) -> list[str]:
    problem = cni.ifname_problem(value) if value else "it is empty"
    return [f"{place}: {problem.replace('CNI_IFNAME', repr(value[:60]))}"] if problem else []


def _port_problems(ports: list[PortMapping]) -> Iterator[str]:
    for index, port in enumerate(ports):
        last = max(port["host_port"], port["container_port"]) + max(1, port["range"]) - 1
        if last > MAXIMUM_PORT:
            yield f"port_mappings[{index}]: the last port would be {last}"

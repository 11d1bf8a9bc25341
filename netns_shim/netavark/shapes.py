# SPDX-License-Identifier: Apache-2.0
"""The types of netavark's documents, once they are checked. Only type checkers import this module.

`schemas/netavark.schema.json` says the same to the program, and what the texts must be. Keys that
netavark has and we do not look at are left out.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict


class LeaseRange(TypedDict, total=False):
    """The first and the last address that a container may get."""

    start_ip: str
    end_ip: str


class Subnet(TypedDict):
    """A subnet of a network."""

    subnet: str
    gateway: NotRequired[str]
    lease_range: NotRequired[LeaseRange]


class Route(TypedDict):
    """A route of a network."""

    destination: str
    gateway: NotRequired[str]
    metric: NotRequired[int]
    route_type: NotRequired[str]


class Network(TypedDict):
    """A network, as `create` is given it, and each setup and teardown."""

    name: str
    id: str
    driver: str
    dns_enabled: bool
    internal: bool
    ipv6_enabled: bool
    network_interface: NotRequired[str]
    subnets: NotRequired[list[Subnet]]
    routes: NotRequired[list[Route]]
    options: NotRequired[dict[str, str]]
    ipam_options: NotRequired[dict[str, str]]
    network_dns_servers: NotRequired[list[str]]


class NetworkOptions(TypedDict):
    """What a container wants of a network."""

    interface_name: str
    static_ips: NotRequired[list[str]]
    static_mac: NotRequired[str]
    aliases: NotRequired[list[str]]
    options: NotRequired[dict[str, str]]


class PortMapping(TypedDict):
    """Published ports: one, or `range` of them."""

    container_port: int
    host_port: int
    host_ip: str
    protocol: str
    range: int


class Asked(TypedDict):
    """What a plugin is given for a container (NetworkPluginExec)."""

    container_id: str
    container_name: str
    network: Network
    network_options: NetworkOptions
    port_mappings: NotRequired[list[PortMapping]]
    dns_servers: NotRequired[list[str]]


class NetAddress(TypedDict):
    """An address of an interface, with its prefix length."""

    ipnet: str
    gateway: NotRequired[str]


class NetInterface(TypedDict):
    """An interface of a container."""

    mac_address: str
    subnets: NotRequired[list[NetAddress]]


class StatusBlock(TypedDict, total=False):
    """What a setup answers."""

    interfaces: dict[str, NetInterface]
    dns_server_ips: list[str]
    dns_search_domains: list[str]

# SPDX-License-Identifier: Apache-2.0
"""Links and addresses of a network namespace, over netlink (pyroute2).

We ask for attributes by the kernel's names. Newer releases of pyroute2 know short names too, but
in 0.7.2, which Debian 12 has, an attribute of such a name is just missing.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyroute2 import IPRoute

from ..errors import PLUGIN_MISBEHAVED, ShimError
from .addresses import is_reachable
from .nsenter import run_in

if TYPE_CHECKING:
    from ..decoding import Json

# include/uapi/linux/if_addr.h: no duplicate address detection, which takes a second.
IFA_F_NODAD = 0x02
# include/uapi/linux/if.h
IFF_UP = 1
IFF_LOOPBACK = 8


def veths(pin: str, paths: list[str]) -> tuple[list[str], list[str]]:
    """List the veth devices of a netns; then those whose other end is in no netns of `paths`.

    A veth goes with the netns of its other end: while it is there, that netns lives.
    Raises ShimError (code 102) where the netns cannot be entered.
    """
    found: tuple[list[str], list[str]] = run_in(pin, lambda: _veths(paths))
    return found


def _veths(paths: list[str]) -> tuple[list[str], list[str]]:
    with IPRoute() as netlink:
        # To list them is what makes the kernel number the namespaces of their other ends.
        found = {
            link.get_attr("IFLA_IFNAME"): link.get_attr("IFLA_LINK_NETNSID")
            for link in netlink.get_links()
            if _kind(link) == "veth"
        }
        known = {None}  # both ends are in this netns
        for path in paths:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # it has ended
            known.add(netlink.get_netnsid(fd=fd)["nsid"])
            os.close(fd)
    return sorted(found), sorted(name for name, number in found.items() if number not in known)


def _kind(link: Any) -> Any:
    return link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")


def links(pin: str, paths: list[str]) -> list[Json]:
    """List the links of a netns except its loopback: name, kind, MTU, addresses, belongings.

    `master` is the bridge or other link that it is a port of; `parent` is the link that it was
    made on, as for a macvlan; `leadsTo` is the one of `paths` that is the netns of its other end.
    Raises ShimError (code 102) where the netns cannot be entered.
    """
    found: list[Json] = run_in(pin, lambda: _links(paths))
    return found


def _links(paths: list[str]) -> list[Json]:
    with IPRoute() as netlink:
        # To list them is what makes the kernel number the namespaces of their other ends.
        found = [link for link in netlink.get_links() if not link["flags"] & IFF_LOOPBACK]
        numbers = {}
        for path in paths:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # it has ended
            numbers[netlink.get_netnsid(fd=fd)["nsid"]] = path
            os.close(fd)
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in found}
        addresses: dict[int, list[str]] = {}
        for entry in netlink.get_addr():
            address = entry.get_attr("IFA_ADDRESS")
            if is_reachable(address):
                address = f"{address}/{entry['prefixlen']}"
                addresses.setdefault(entry["index"], []).append(address)
        return [
            {
                "name": link.get_attr("IFLA_IFNAME"),
                "kind": _kind(link),
                "mtu": link.get_attr("IFLA_MTU"),
                "up": bool(link["flags"] & IFF_UP),
                "addresses": addresses.get(link["index"], []),
                "master": names.get(link.get_attr("IFLA_MASTER")),
                # With a number of a netns, the other link is not in this netns.
                "parent": None
                if link.get_attr("IFLA_LINK_NETNSID") is not None
                else names.get(link.get_attr("IFLA_LINK")),
                "leadsTo": numbers.get(link.get_attr("IFLA_LINK_NETNSID")),
            }
            for link in found
        ]


def verify(path: str, ifname: str, result: Mapping[str, Any]) -> None:
    """Check an interface in a netns against a result of CNI 0.3.0 or later (CHECK).

    Raises ShimError (code 100) with all differences.
    """
    found = run_in(path, lambda: _interface(ifname))
    if not found:
        raise ShimError(PLUGIN_MISBEHAVED, f"the interface {ifname!r} is not there", path)
    macs = [i.get("mac") for i in result.get("interfaces") or [] if i.get("name") == ifname]
    problems = [
        f"its MAC is {found['mac']}, not {mac}"
        for mac in macs
        if mac and mac.lower() != found["mac"].lower()
    ]
    if not found["isUp"]:
        problems.append("it is down")
    for ip in result.get("ips") or []:
        if str(ipaddress.ip_interface(ip["address"])) not in found["addresses"]:
            problems.append(f"it has no address {ip['address']}")
    for route in result.get("routes") or []:
        if _route(route["dst"], route.get("gw")) not in found["routes"]:
            problems.append(f"there is no route to {route['dst']}")
    if problems:
        raise ShimError(
            PLUGIN_MISBEHAVED, f"the interface {ifname!r} has been changed", "; ".join(problems)
        )


def _interface(ifname: str) -> Json:
    with IPRoute() as netlink:
        links = [link for link in netlink.get_links() if link.get_attr("IFLA_IFNAME") == ifname]
        if not links:
            return {}
        addresses = [
            str(ipaddress.ip_interface(f"{entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}"))
            for entry in netlink.get_addr(index=links[0]["index"])
        ]
        routes = [
            _route(f"{_destination(entry)}/{entry['dst_len']}", entry.get_attr("RTA_GATEWAY"))
            for entry in netlink.get_routes()
        ]
        return {
            "mac": links[0].get_attr("IFLA_ADDRESS") or "",
            "isUp": bool(links[0]["flags"] & IFF_UP),
            "addresses": addresses,
            "routes": routes,
        }


def _destination(entry: Any) -> str:
    # A default route has no destination.
    return entry.get_attr("RTA_DST") or ("::" if entry["family"] == socket.AF_INET6 else "0.0.0.0")


def _route(destination: str, gateway: str | None) -> list[str]:
    """Write a route in one form, from a result or from the kernel."""
    network = str(ipaddress.ip_network(destination, strict=False))
    return [network, str(ipaddress.ip_address(gateway)) if gateway else ""]


def configure_ipv6(pin: str, interface: str, address: str, gateway: str) -> None:
    """Give an interface of a netns an address, usable at once, and a default route.

    Raises ShimError (code 102) where the netns has no IPv6.
    """

    def configure() -> None:
        with open(f"/proc/sys/net/ipv6/conf/{interface}/accept_ra", "w", encoding="ascii") as file:
            file.write("0")
        with IPRoute() as netlink:
            index = netlink.link_lookup(ifname=interface)[0]
            netlink.addr("add", index=index, address=address, flags=IFA_F_NODAD)
            netlink.route("add", family=socket.AF_INET6, gateway=gateway, oif=index)

    run_in(pin, configure)

# SPDX-License-Identifier: Apache-2.0
"""An interface of a network namespace, looked at and set up over netlink (pyroute2).

We ask for attributes by the kernel's names. Newer releases of pyroute2 know short names too, but
in 0.7.2, which Debian 12 has, an attribute of such a name is just missing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyroute2 import IPRoute

from ..errors import PLUGIN_MISBEHAVED, ShimError
from .nsenter import run_in

if TYPE_CHECKING:
    from ..decoding import Json

# include/uapi/linux/if_addr.h: no duplicate address detection, which takes a second.
IFA_F_NODAD = 0x02
# include/uapi/linux/rtnetlink.h: the scope of all addresses but link-local ones.
RT_SCOPE_UNIVERSE = 0
# include/uapi/linux/if.h
IFF_UP = 1


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
            # An announcement may have come before: its address is another one each time.
            for found in netlink.get_addr(index=index, family=socket.AF_INET6):
                if found["scope"] == RT_SCOPE_UNIVERSE:
                    has = f"{found.get_attr('IFA_ADDRESS')}/{found['prefixlen']}"
                    netlink.addr("delete", index=index, address=has)
            netlink.addr("add", index=index, address=address, flags=IFA_F_NODAD)
            netlink.route("add", family=socket.AF_INET6, gateway=gateway, oif=index)

    run_in(pin, configure)

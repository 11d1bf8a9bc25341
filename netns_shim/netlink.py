# SPDX-License-Identifier: Apache-2.0
"""Links and addresses of a network namespace, over netlink (pyroute2)."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from pyroute2 import IPRoute

from .errors import UPLINK_FAILED, ShimError
from .libc import CLONE_NEWNET, setns

# include/uapi/linux/if_addr.h: no duplicate address detection, which takes a second.
IFA_F_NODAD = 0x02


def uplink_interface(pin: str) -> tuple[str, list[str]]:
    """Give the name and the addresses of the tap device by which a netns reaches the outside.

    Loopback, multicast and IPv6 link-local addresses are left out. After a restart of the uplink
    bridges are there as well, so the device is told by its kind. Without one: "" and no address.

    Raises ShimError (code 102) where the netns cannot be entered.
    """
    found = _in_netns(pin, _tap_addresses)
    return found["interface"], found["addresses"]


def _tap_addresses() -> dict[str, Any]:
    with IPRoute() as netlink:
        for link in netlink.get_links():
            if link.get(("linkinfo", "kind")) != "tun":
                continue
            index = link["index"]
            addresses = [a.get("address") for a in netlink.get_addr(index=index)]
            return {
                "interface": link.get("ifname"),
                "addresses": [a for a in addresses if _is_reachable(a)],
            }
    return {"interface": "", "addresses": []}


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

    _in_netns(pin, configure)


def _is_reachable(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return not (ip.is_loopback or ip.is_multicast or (ip.version == 6 and ip.is_link_local))


def _in_netns(pin: str, function: Callable[[], Any]) -> Any:
    """Give what a function gives in a netns: called in a child, because entering is one-way."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
            setns(fd, CLONE_NEWNET, pin)
            answer = {"result": function()}
        except Exception as error:
            answer = {"error": str(error)}
        theirs.sendall(json.dumps(answer).encode())
        os._exit(0)
    theirs.close()
    with ours, ours.makefile("rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    answer = json.loads(text or '{"error": "the process was killed"}')
    if "error" in answer:
        raise ShimError(UPLINK_FAILED, f"cannot look into the netns {pin}", answer["error"])
    return answer["result"]

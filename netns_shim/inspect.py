# SPDX-License-Identifier: Apache-2.0
"""Looking into a network namespace over netlink (pyroute2)."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
from typing import Any

from pyroute2 import IPRoute

from .libc import CLONE_NEWNET, setns


def uplink_interface(pin: str) -> tuple[str, list[str]]:
    """Give the name and the addresses of the tap device by which a netns reaches the outside.

    Loopback, multicast and IPv6 link-local addresses are left out. After a restart of the uplink
    bridges are there as well, so the device is told by its kind. Without one: "" and no address.

    Raises OSError where the netns cannot be entered.
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


def _is_reachable(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return not (ip.is_loopback or ip.is_multicast or (ip.version == 6 and ip.is_link_local))


def _in_netns(pin: str, function: Any) -> Any:
    """Give what a function gives in a netns: called in a child, because entering is one-way."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
            setns(fd, CLONE_NEWNET, pin)
            theirs.sendall(json.dumps(function()).encode())
            os._exit(0)
        except OSError as error:
            os._exit(min(error.errno or 1, 255))
        finally:
            os._exit(1)
    theirs.close()
    with ours, ours.makefile("rb") as file:
        answer = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(abs(code), os.strerror(abs(code)), pin)
    return json.loads(answer)

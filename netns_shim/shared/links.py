# SPDX-License-Identifier: Apache-2.0
"""The links of a network namespace, and the namespaces that their other ends are in.

With messages of our own: there is a link for each container, and pyroute2 takes a millisecond or
more for each of them. See rtnetlink(7); the numbers are those of include/uapi/linux.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from .addresses import is_reachable
from .attributes import ATTRIBUTE, HEADER, HEADER_SIZE, NLMSG_ERROR, message, split
from .nsenter import run_in
from .rtnetlink import (
    ADDRESS,
    IFA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MTU,
    LINK,
    RTM_GETADDR,
    RTM_GETLINK,
    dump,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    Attributes = dict[int, bytes]

RTM_GETNSID = 90
IFLA_LINK, IFLA_MASTER, IFLA_LINK_NETNSID = 5, 10, 37
NETNSA_NSID, NETNSA_FD = 1, 3
IFF_UP = 1
IFF_LOOPBACK = 8
# struct rtgenmsg with its padding
RTGEN_SIZE = 4


def veths(pin: str, paths: list[str]) -> tuple[list[str], list[str]]:
    """List the veth devices of a netns; then those whose other end is in no netns of `paths`.

    A veth goes with the netns of its other end: while it is there, that netns lives.
    Raises ShimError (code 102) where the netns cannot be entered.
    """
    found: tuple[list[str], list[str]] = run_in(pin, lambda: _veths(paths))
    return found


def _veths(paths: list[str]) -> tuple[list[str], list[str]]:
    # To list them is what makes the kernel number the namespaces of their other ends.
    found = {
        _name(link): _number(link, IFLA_LINK_NETNSID)
        for _, link in dump(RTM_GETLINK, LINK)
        if _kind(link) == "veth"
    }
    # Without a number, both ends are in this netns.
    known = {None, *_namespaces(paths)}
    return sorted(found), sorted(name for name, number in found.items() if number not in known)


def links(pin: str, paths: list[str]) -> list[dict[str, Any]]:
    """List the links of a netns except its loopback: name, kind, MTU, addresses, belongings.

    `master` is the bridge or other link that it is a port of; `parent` is the link that it was
    made on, as for a macvlan; `leadsTo` is the one of `paths` that is the netns of its other end.
    Raises ShimError (code 102) where the netns cannot be entered.
    """
    found: list[dict[str, Any]] = run_in(pin, lambda: _links(paths))
    return found


def _links(paths: list[str]) -> list[dict[str, Any]]:
    # To list them is what makes the kernel number the namespaces of their other ends.
    listed = dump(RTM_GETLINK, LINK)
    found = {
        index: (flags, link)
        for (_, _, index, flags, _), link in listed
        if not flags & IFF_LOOPBACK
    }
    numbers = _namespaces(paths)
    names: dict[int | None, str] = {index: _name(link) for index, (_, link) in found.items()}
    addresses = _addresses()
    return [
        {
            "name": names[index],
            "kind": _kind(link) or None,
            "mtu": _number(link, IFLA_MTU),
            "up": bool(flags & IFF_UP),
            "addresses": addresses.get(index, []),
            "master": names.get(_number(link, IFLA_MASTER)),
            # With a number of a netns, the other link is not in this netns.
            "parent": None if IFLA_LINK_NETNSID in link else names.get(_number(link, IFLA_LINK)),
            "leadsTo": numbers.get(_number(link, IFLA_LINK_NETNSID)),
        }
        for index, (flags, link) in found.items()
    ]


def _addresses() -> dict[int | None, list[str]]:
    """List the addresses of each link, by its index."""
    found: dict[int | None, list[str]] = {}
    for (family, length, _, _, index), entry in dump(RTM_GETADDR, ADDRESS):
        address = socket.inet_ntop(family, entry[IFA_ADDRESS]) if IFA_ADDRESS in entry else ""
        if is_reachable(address):
            found.setdefault(index, []).append(f"{address}/{length}")
    return found


def _namespaces(paths: Iterable[str]) -> dict[int | None, str]:
    """Ask for the numbers by which this netns knows others; a path that leads to none is left out.

    A netns to which no link leads has no number, and the kernel then says -1.
    """
    found: dict[int | None, str] = {}
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue  # it has ended
        asked = struct.pack(f"{ATTRIBUTE}I", 8, NETNSA_FD, fd)
        kernel.send(message(RTM_GETNSID, 0, bytes(RTGEN_SIZE) + asked))
        answer = kernel.recv(1 << 12)
        os.close(fd)
        length, kind, *_ = struct.unpack_from(HEADER, answer)
        if kind != NLMSG_ERROR:  # else it is another file by now
            entry = dict(split(answer[HEADER_SIZE + RTGEN_SIZE : length]))
            found[_number(entry, NETNSA_NSID)] = path
    kernel.close()
    return found


def _name(link: Attributes) -> str:
    return link[IFLA_IFNAME].rstrip(b"\0").decode(errors="surrogateescape")


def _kind(link: Attributes) -> str:
    """Tell what a link is, "" for one that is not made by software."""
    kind = dict(split(link.get(IFLA_LINKINFO, b""))).get(IFLA_INFO_KIND, b"")
    return kind.rstrip(b"\0").decode(errors="surrogateescape")


def _number(entry: Attributes, attribute: int) -> int | None:
    """Read an attribute that is a number, with its sign; None where it is missing."""
    value = entry.get(attribute)
    return None if value is None else int(struct.unpack_from("=i", value)[0])

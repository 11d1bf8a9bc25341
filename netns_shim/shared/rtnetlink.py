# SPDX-License-Identifier: Apache-2.0
"""The tap device of an uplink, its addresses and its MTU, from the kernel, with two messages.

An ADD that starts an uplink needs to know no more about links, and pyroute2 takes longer to import
than an uplink takes to start. See rtnetlink(7); the numbers are those of include/uapi/linux.
"""

from __future__ import annotations

import _socket as socket  # see `addresses`
import struct
import sys

from ..errors import UPLINK_FAILED, ShimError
from .addresses import is_reachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

RTM_GETLINK, RTM_GETADDR = 18, 22
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_INFO_KIND = 3, 4, 18, 1
IFA_ADDRESS = 1
NLA_TYPE_MASK = 0x3FFF

# struct nlmsghdr; struct ifinfomsg; struct ifaddrmsg; struct nlattr
HEADER, LINK, ADDRESS, ATTRIBUTE = "=IHHII", "=BxHiII", "=BBBBI", "=HH"


def uplink_interface() -> tuple[str, list[str], int]:
    """Give name, addresses and MTU of the uplink's tap device in this process's netns.

    Multicast and IPv6 link-local addresses are left out. After a restart of the uplink there are
    bridges as well, so we find the device by its kind. Without one: "", no address and 0.
    """
    for (_, _, index, _, _), attributes in _dump(RTM_GETLINK, LINK):
        kind = dict(_attributes(attributes.get(IFLA_LINKINFO, b""))).get(IFLA_INFO_KIND, b"")
        if kind.rstrip(b"\0") == b"tun":
            name = attributes[IFLA_IFNAME].rstrip(b"\0").decode(errors="surrogateescape")
            mtu = int.from_bytes(attributes[IFLA_MTU], sys.byteorder)
            return name, [text for text in _addresses(index) if is_reachable(text)], mtu
    return "", [], 0


def _addresses(index: int) -> Iterator[str]:
    for (family, _, _, _, of), attributes in _dump(RTM_GETADDR, ADDRESS):
        if of == index and IFA_ADDRESS in attributes:
            yield socket.inet_ntop(family, attributes[IFA_ADDRESS])


def _dump(kind: int, form: str) -> Iterator[tuple[tuple[int, ...], dict[int, bytes]]]:
    """Ask for all objects of a kind; give the fixed part, in this form, and the attributes."""
    size, flags = struct.calcsize(form), NLM_F_REQUEST | NLM_F_DUMP
    request = struct.pack(HEADER, 16 + size, kind, flags, 1, 0) + bytes(size)
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    kernel.send(request)
    while True:
        answer = kernel.recv(1 << 16)
        while answer:
            length, what, *_ = struct.unpack_from(HEADER, answer)
            if what == NLMSG_DONE:
                kernel.close()
                return
            if what == NLMSG_ERROR:
                raise ShimError(UPLINK_FAILED, "the kernel does not list links and addresses")
            fixed = struct.unpack_from(form, answer, 16)
            yield fixed, dict(_attributes(answer[16 + size : length]))
            answer = answer[_aligned(length) :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from(ATTRIBUTE, data)
        yield kind & NLA_TYPE_MASK, data[4:length]
        data = data[max(_aligned(length), 4) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3

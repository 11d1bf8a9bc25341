# SPDX-License-Identifier: Apache-2.0
"""Lists of the kernel, and in them the tap device of an uplink with its addresses and its MTU.

An ADD that starts an uplink needs to know no more about links, and pyroute2 takes longer to import
than an uplink takes to start. See rtnetlink(7); the numbers are those of include/uapi/linux.
"""

from __future__ import annotations

import _socket as socket  # see `addresses`
import struct
import sys

from ..errors import UPLINK_FAILED, ShimError
from .addresses import is_reachable
from .attributes import (
    HEADER,
    HEADER_SIZE,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLMSG_DONE,
    NLMSG_ERROR,
    aligned,
    message,
    send,
    split,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Entry = tuple[tuple[int, ...], dict[int, bytes]]

RTM_GETLINK, RTM_GETADDR = 18, 22
# Publishers have taps as well: `pub1` and so on.
PUBLISHER = "pub"
NLM_F_DUMP_INTR = 0x10
IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_INFO_KIND = 3, 4, 18, 1
IFA_ADDRESS = 1

# struct ifinfomsg; struct ifaddrmsg
LINK, ADDRESS = "=BxHiII", "=BBBBI"

# How often to ask for a list that has changed while the kernel wrote it.
ATTEMPTS = 20


def uplink_interface() -> tuple[str, list[str], int]:
    """Give name, addresses and MTU of the uplink's tap device in this process's netns.

    Multicast and IPv6 link-local addresses are left out. After a restart of the uplink there are
    bridges as well, so we find the device by its kind, and publishers have taps of other names.
    Without an uplink: "", no address and 0.
    """
    for (_, _, index, _, _), link in dump(RTM_GETLINK, LINK):
        kind = dict(split(link.get(IFLA_LINKINFO, b""))).get(IFLA_INFO_KIND, b"")
        if kind.rstrip(b"\0") == b"tun":
            name = link[IFLA_IFNAME].rstrip(b"\0").decode(errors="surrogateescape")
            if name.startswith(PUBLISHER) and name[len(PUBLISHER) :].isdecimal():
                continue
            mtu = int.from_bytes(link[IFLA_MTU], sys.byteorder)
            return name, [text for text in _addresses(index) if is_reachable(text)], mtu
    return "", [], 0


def change(
    kind: int, flags: int, fixed: bytes, attributes: Iterable[bytes], tolerated: Iterable[int] = ()
) -> int:
    """Make a change; give the error, 0 or one of `tolerated`, as in `errno`.

    Raises OSError for any other.
    """
    request = message(kind, flags | NLM_F_ACK, fixed + b"".join(attributes))
    return send(socket.NETLINK_ROUTE, (request,), tolerated)


def _addresses(index: int) -> Iterator[str]:
    for (family, _, _, _, of), entry in dump(RTM_GETADDR, ADDRESS):
        if of == index and IFA_ADDRESS in entry:
            yield socket.inet_ntop(family, entry[IFA_ADDRESS])


def dump(kind: int, form: str) -> list[Entry]:
    """Ask for all objects of a kind; give of each the fixed part, in this form, and attributes.

    The list is whole: one that changed meanwhile may lack an object that was there all the time.
    Raises ShimError (code 102) where the kernel refuses it, or it does not stop changing.
    """
    for _ in range(ATTEMPTS):
        found = _dump(kind, form)
        if found is not None:
            return found
    raise ShimError(
        UPLINK_FAILED, "the links and addresses of the netns keep changing", "call again"
    )


def _dump(kind: int, form: str) -> list[Entry] | None:
    """Ask for the list once; give None where it changed meanwhile."""
    size = struct.calcsize(form)
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    kernel.send(message(kind, NLM_F_DUMP, bytes(size)))
    found: list[Entry] = []
    is_whole = True
    while True:
        answer = kernel.recv(1 << 16)
        while answer:
            length, what, flags, *_ = struct.unpack_from(HEADER, answer)
            is_whole = is_whole and not flags & NLM_F_DUMP_INTR
            if what == NLMSG_DONE:
                kernel.close()
                return found if is_whole else None
            if what == NLMSG_ERROR:
                raise ShimError(UPLINK_FAILED, "the kernel does not list links and addresses")
            fixed = struct.unpack_from(form, answer, HEADER_SIZE)
            found.append((fixed, dict(split(answer[HEADER_SIZE + size : length]))))
            answer = answer[aligned(length) :]

# SPDX-License-Identifier: Apache-2.0
"""The way of a connection that a publisher has opened, in the shared netns: in, and out again.

A publisher is a pasta of its own, with a tap of its own beside that of the uplink. Clients keep
their addresses, so an answer must leave by the tap that the question came by, not by the default
route. So each connection is marked (`marks`), and a rule for its mark leads to a table of routes
in which the tap is the only way. That comes before the local addresses, because a client may have
one of them: the host's own, of which pasta gives the shared netns a copy.
"""

from __future__ import annotations

import _socket as socket  # not `socket`: it imports `enum` and `selectors`
import errno
import os
import struct

from ..shared.addresses import packed
from ..shared.attributes import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    attribute,
    nest,
    u32,
)
from ..shared.rtnetlink import ADDRESS, LINK, change
from . import handshake, marks, tun

# The table of routes of publisher 7 is 780007.
TABLES = 780_000
# The kernel has its rule for local addresses at 0. It moves behind ours.
KERNELS, OURS, LOCALS = 0, 1, 2
# That of an uplink: pasta puts no fragments together.
MTU = 65520
FAMILIES = (socket.AF_INET, socket.AF_INET6)
ALL_RP_FILTER = "/proc/sys/net/ipv4/conf/all/rp_filter"

# include/uapi/linux: rtnetlink.h, if.h, if_addr.h, if_link.h, ip.h, fib_rules.h
RTM_SETLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWRULE, RTM_DELRULE = (
    *(19, 20, 24, 25),
    *(32, 33),
)
IFF_UP, IFF_NOARP = 0x1, 0x80
IFLA_MTU, IFLA_AF_SPEC, IFLA_GROUP = 4, 26, 27
IFLA_INET_CONF, IPV4_DEVCONF_RP_FILTER, IPV4_DEVCONF_ACCEPT_LOCAL = 1, 8, 23
IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD = 1, 2, 0x02
RTA_DST, RTA_OIF, RTA_PREFSRC, RTA_TABLE = 1, 4, 7, 15
FRA_DST, FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK = 1, 6, 10, 15, 16
FR_ACT_TO_TBL, RTN_UNICAST, RTN_LOCAL, RTPROT_STATIC = 1, 1, 2, 4
RT_TABLE_UNSPEC, RT_TABLE_LOCAL, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 255, 0, 253
# struct rtmsg, and struct fib_rule_hdr
ROUTE = "=BBBBBBBBI"

LOOPBACK6 = bytes(15) + b"\1"
NO_IPV6 = (errno.EACCES, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)


def prepare(
    interface: str, number: int, address4: str, address6: str, *, is_old: bool = False
) -> None:
    """Make the tap of a publisher, usable, in the netns of this process; may be done again.

    It is there before pasta, which takes it over. pasta listens before it has a tap, and one of
    2023 dies, or runs in circles, where a client comes while the tap is down.

    pasta sends what it accepts to `address4` and `address6`. Without IPv6 in the netns there is
    IPv4 only. `is_old` is for a pasta that needs `handshake`. Raises OSError that says what could
    not be done.
    """
    what = f"set up {interface}"
    try:
        tun.make(interface)
        index = socket.if_nametoindex(interface)
        _set_up(index, number)
        what = f"give {interface} its addresses"
        _add_address(index, address4)
        has_ipv6 = _add_address(index, address6, NO_IPV6) == 0
        what = f"route answers by {interface}"
        for family in FAMILIES if has_ipv6 else FAMILIES[:1]:
            _add_routes(family, index, number)
        what = "mark connections"
        marks.add(number)
        if is_old:
            handshake.add(number)
            if has_ipv6:
                _lead_loopback(number, address6)
    except OSError as error:
        raise _told(what, error) from None


def remove(interface: str, number: int) -> None:
    """Remove what `prepare` has made in the netns of this process, except what all share.

    What is gone already, or was never made, is no error. Addresses go with the tap. Raises OSError
    that says what could not be done.
    """
    gone = (errno.ENOENT, errno.ESRCH, *NO_IPV6)
    what = f"remove the way of answers by publisher {number}"
    try:
        for family in FAMILIES:
            change(RTM_DELRULE, 0, _rule(family), _of_mark(number), gone)
            change(RTM_DELROUTE, 0, _route(family), (u32(RTA_TABLE, TABLES + number),), gone)
        change(RTM_DELRULE, 0, *_loopback_rule(number), gone)
        change(RTM_DELROUTE, 0, *_loopback_route(number), gone)
        what = "stop marking connections"
        handshake.drop(number)
        marks.drop(number)
        what = f"remove {interface}"
        tun.remove(interface)
    except OSError as error:
        raise _told(what, error) from None


def _told(what: str, error: OSError) -> OSError:
    # if_nametoindex(3) of Python tells no errno.
    why = error.strerror or str(error)
    return OSError(error.errno or errno.ENODEV, f"cannot {what}: {why}")


def _set_up(index: int, number: int) -> None:
    """Set a tap up, known by its group.

    It needs no neighbours, because pasta takes every packet. So it has no ARP, and its IPv6
    addresses are usable at once: pasta would take `::`, the source of a message from an interface
    that is waiting for its address, for the address to send to. What comes from a local address,
    or over another interface than answers would, is right here.
    """
    options = u32(IPV4_DEVCONF_RP_FILTER, 0) + u32(IPV4_DEVCONF_ACCEPT_LOCAL, 1)
    spec = nest(IFLA_AF_SPEC, nest(socket.AF_INET, nest(IFLA_INET_CONF, options)))
    known = u32(IFLA_MTU, MTU), u32(IFLA_GROUP, marks.of(number))
    for flags in (IFF_NOARP, IFF_NOARP | IFF_UP):
        head = struct.pack(LINK, socket.AF_UNSPEC, 0, index, flags, flags)
        change(RTM_SETLINK, 0, head, (spec, *known))
    _let_interfaces_choose()


def _let_interfaces_choose() -> None:
    """Leave the reverse path filter to each interface: of the two, the stricter one counts."""
    fd = os.open(ALL_RP_FILTER, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.read(fd, 16).strip() != b"0":
            os.pwrite(fd, b"0", 0)  # elsewhere than at its beginning it is ignored
    finally:
        os.close(fd)


def _add_address(index: int, text: str, tolerated: tuple[int, ...] = ()) -> int:
    """Give a tap an address for itself alone; give the error, 0 or one of `tolerated`."""
    address = packed(text)
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    head = struct.pack(ADDRESS, family, 8 * len(address), IFA_F_NODAD, 0, index)
    both = attribute(IFA_LOCAL, address), attribute(IFA_ADDRESS, address)
    return change(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, head, both, tolerated)


def _add_routes(family: int, index: int, number: int) -> None:
    """Lead what is marked to a table with the tap as the only way, before local addresses."""
    table = u32(RTA_TABLE, TABLES + number), u32(RTA_OIF, index)
    change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _route(family), table)
    new, there = NLM_F_CREATE | NLM_F_EXCL, (errno.EEXIST,)
    change(RTM_NEWRULE, new, _rule(family), _of_mark(number), there)
    local = RT_TABLE_LOCAL
    change(RTM_NEWRULE, new, _rule(family, local), (u32(FRA_PRIORITY, LOCALS),), there)
    kernels = (u32(FRA_PRIORITY, KERNELS),)
    change(RTM_DELRULE, 0, _rule(family, local), kernels, (errno.ENOENT,))


def _lead_loopback(number: int, address6: str) -> None:
    """Let connections to ::1 come from an address that can leave the loopback.

    An old pasta connects to ::1 for a client on the host's ::1, and portmap leads that on to a
    container. But what has ::1 as its source is not routed, and portmap translates it for IPv4
    only. That does not help UDP.
    """
    head, attributes = _loopback_route(number)
    more = u32(RTA_OIF, socket.if_nametoindex("lo")), attribute(RTA_PREFSRC, packed(address6))
    change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, head, (*attributes, *more))
    new, there = NLM_F_CREATE | NLM_F_EXCL, (errno.EEXIST,)
    change(RTM_NEWRULE, new, *_loopback_rule(number), there)


def _loopback_route(number: int) -> tuple[bytes, tuple[bytes, ...]]:
    """Build struct rtmsg and attributes of the route to ::1."""
    fixed = (*(socket.AF_INET6, 128, 0, 0), RT_TABLE_UNSPEC, RTPROT_STATIC, 0, RTN_LOCAL, 0)
    attributes = attribute(RTA_DST, LOOPBACK6), u32(RTA_TABLE, TABLES + number)
    return struct.pack(ROUTE, *fixed), attributes


def _loopback_rule(number: int) -> tuple[bytes, tuple[bytes, ...]]:
    """Build struct fib_rule_hdr and attributes of the rule for what goes to ::1."""
    fixed = (*(socket.AF_INET6, 128, 0, 0), RT_TABLE_UNSPEC, 0, 0, FR_ACT_TO_TBL, 0)
    attributes = (
        attribute(FRA_DST, LOOPBACK6),
        u32(FRA_PRIORITY, OURS),
        u32(FRA_TABLE, TABLES + number),
    )
    return struct.pack(ROUTE, *fixed), attributes


def _route(family: int) -> bytes:
    """Build struct rtmsg of a default route by an interface."""
    scope = RT_SCOPE_LINK if family == socket.AF_INET else RT_SCOPE_UNIVERSE
    return struct.pack(
        ROUTE, family, 0, 0, 0, RT_TABLE_UNSPEC, RTPROT_STATIC, scope, RTN_UNICAST, 0
    )


def _rule(family: int, table: int = RT_TABLE_UNSPEC) -> bytes:
    """Build struct fib_rule_hdr of a rule that leads to a table."""
    return struct.pack(ROUTE, family, 0, 0, 0, table, 0, 0, FR_ACT_TO_TBL, 0)


def _of_mark(number: int) -> tuple[bytes, ...]:
    """Build the attributes of the rule for what is marked."""
    return (
        u32(FRA_PRIORITY, OURS),
        u32(FRA_FWMARK, marks.of(number)),
        u32(FRA_FWMASK, marks.MASK),
        u32(FRA_TABLE, TABLES + number),
    )

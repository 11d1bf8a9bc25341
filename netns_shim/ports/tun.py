# SPDX-License-Identifier: Apache-2.0
"""A tap in the netns of this process that is there before a program takes it over, and after."""

from __future__ import annotations

import _socket as socket  # see `mappings`
import errno
import fcntl
import os
import struct

from ..shared.attributes import attribute
from ..shared.rtnetlink import LINK, change
from ..shared.uplink import TUN

# include/uapi/linux: if_tun.h, if_link.h, rtnetlink.h
TUNSETIFF, TUNSETPERSIST = 0x400454CA, 0x400454CB
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
IFLA_IFNAME, RTM_DELLINK = 3, 17


def make(name: str) -> None:
    """Make a tap that stays without a program, unless it is there. Raises OSError."""
    fd = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        # struct ifreq
        request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI)
        fcntl.ioctl(fd, TUNSETIFF, request)
        fcntl.ioctl(fd, TUNSETPERSIST, 1)
    except OSError as error:
        if error.errno != errno.EBUSY:  # a program has it
            raise
    finally:
        os.close(fd)


def remove(name: str) -> None:
    """Remove it; do nothing where it is gone. Raises OSError."""
    head = struct.pack(LINK, socket.AF_UNSPEC, 0, 0, 0, 0)
    change(RTM_DELLINK, 0, head, (attribute(IFLA_IFNAME, name.encode() + b"\0"),), (errno.ENODEV,))

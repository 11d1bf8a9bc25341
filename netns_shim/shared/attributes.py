# SPDX-License-Identifier: Apache-2.0
"""Messages to the kernel over netlink(7), and what it answers: headers and attributes.

pyroute2 knows all of it too, but takes longer to import than an uplink takes to start.
"""

from __future__ import annotations

import _socket as socket  # see `addresses`
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# include/uapi/linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

# struct nlmsghdr: length, type, flags, sequence number, port; struct nlattr: length, type
HEADER, ATTRIBUTE = "=IHHII", "=HH"
HEADER_SIZE = 16


def message(kind: int, flags: int, data: bytes) -> bytes:
    """Build a request: struct nlmsghdr and what follows it."""
    return struct.pack(HEADER, HEADER_SIZE + len(data), kind, NLM_F_REQUEST | flags, 0, 0) + data


def attribute(kind: int, data: bytes) -> bytes:
    """Build struct nlattr with its value, padded to four bytes."""
    return struct.pack(ATTRIBUTE, 4 + len(data), kind) + data + bytes(-len(data) % 4)


def nest(kind: int, data: bytes) -> bytes:
    """Build an attribute of attributes."""
    return attribute(kind | NLA_F_NESTED, data)


def u32(kind: int, value: int) -> bytes:
    """Build an attribute of 32 bits, in the byte order of this machine, as rtnetlink wants it."""
    return attribute(kind, struct.pack("=I", value))


def split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give type and value of each attribute."""
    while len(data) >= 4:
        length, kind = struct.unpack_from(ATTRIBUTE, data)
        yield kind & NLA_TYPE_MASK, data[4:length]
        data = data[max(aligned(length), 4) :]


def aligned(length: int) -> int:
    """Round a length up to where the next attribute or message begins."""
    return (length + 3) & ~3


def send(protocol: int, messages: Iterable[bytes], tolerated: Iterable[int] = ()) -> int:
    """Send messages, of which the last one asks for an acknowledgement; give the first error.

    That is 0, or one of `tolerated`, as in `errno`. Raises OSError for any other.
    """
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    try:
        kernel.send(b"".join(messages))
        # The kernel reports a failure before the acknowledgement.
        answer = kernel.recv(1 << 16)
    finally:
        kernel.close()
    kind, error = struct.unpack_from("=4xH10xi", answer)
    if kind != NLMSG_ERROR or (error and -error not in tolerated):
        raise OSError(-error, os.strerror(-error))
    return -int(error)

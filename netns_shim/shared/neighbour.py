# SPDX-License-Identifier: Apache-2.0
"""Asking an uplink something that it answers by itself: the hardware address of a neighbour.

pasta(1) and slirp4netns(1) are all of the neighbours on their interface, so they answer ARP and
neighbour solicitations (RFC 826, RFC 4861) without the host's network, and with most options. The
question is a frame of our own: the kernel asks only if it does not know the answer.
"""

from __future__ import annotations

import _socket as socket  # see `addresses`
import errno
import select
import struct
import time

from . import addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# What has become of a question.
ANSWERED, SILENT, DOWN, UNKNOWN = "answered", "silent", "down", "unknown"

# How long to wait before the question is repeated, in seconds: a frame is lost where the queue of
# the interface is full.
REPEAT_SECONDS = 0.1
# include/uapi/linux/if_ether.h
ALL, IPV4, ARP, IPV6 = 0x0003, 0x0800, 0x0806, 0x86DD
ETHERNET = struct.Struct("!6s6sH")
# RFC 826, for IPv4 on Ethernet
ARP_HEADER = struct.Struct("!HHBBH")
ARP_REQUEST, ARP_REPLY = 1, 2
# RFC 8200, RFC 4861
IPV6_HEADER = struct.Struct("!IHBB16s16s")
SOLICITATION, ADVERTISEMENT, ICMPV6 = 135, 136, 58
# Where the address that an answer is about begins: in an ARP reply, in an advertisement.
SENDER_OFFSET, TARGET_OFFSET = 28, 62


def ask(interface: str, own: Iterable[str], targets: Iterable[str], seconds: float) -> str:
    """Ask for neighbours on an interface of this process's netns, until one answers.

    `own` are the addresses of the interface, `targets` the neighbours; those of a family that it
    has no address of are left out. Gives ANSWERED, SILENT if nothing came within `seconds`, DOWN
    if the interface is missing or down, and UNKNOWN if nothing can be asked from here.
    """
    try:
        link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    except OSError:
        return UNKNOWN  # a kernel without packet sockets, or a security module
    try:
        link.bind((interface, ALL))
        questions = _questions(link.getsockname()[4], list(own), targets)
        if not questions:
            return UNKNOWN
        return _ask(link, questions, seconds)
    except OSError as error:
        if error.errno in (errno.ENETDOWN, errno.ENODEV, errno.ENXIO):
            return DOWN
        raise
    finally:
        link.close()


def _questions(mac: bytes, own: list[str], targets: Iterable[str]) -> dict[bytes, bytes]:
    """Make a frame for each target; the keys are what an answer to it has."""
    source = next((address for address in own if ":" in address), "")
    has_ipv4 = any(":" not in address for address in own)
    questions = {}
    for target in map(addresses.packed, targets):
        if len(target) == addresses.IPV4 and has_ipv4:
            questions[target] = _arp(mac, target)
        elif len(target) == addresses.IPV6 and source:
            questions[target] = _solicitation(mac, addresses.packed(source), target)
    return questions


def _ask(link: socket.socket, questions: dict[bytes, bytes], seconds: float) -> str:
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(link.fileno(), select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        for frame in questions.values():
            try:
                link.send(frame, socket.MSG_DONTWAIT)
            except OSError as error:
                if error.errno not in (errno.ENOBUFS, errno.EAGAIN):
                    raise
        again = time.monotonic() + min(left, REPEAT_SECONDS)
        while (wait := again - time.monotonic()) > 0 and poll.poll(wait * 1000):
            if _answer(link.recv(2048)) in questions:
                return ANSWERED
    return SILENT


def _answer(frame: bytes) -> bytes:
    """Give the address that a frame is an answer for, b"" for any other frame."""
    kind = frame[12:14]
    if kind == ARP.to_bytes(2, "big") and frame[20:22] == ARP_REPLY.to_bytes(2, "big"):
        return frame[SENDER_OFFSET : SENDER_OFFSET + addresses.IPV4]
    if kind == IPV6.to_bytes(2, "big") and frame[20:21] + frame[54:55] == bytes(
        (ICMPV6, ADVERTISEMENT)
    ):
        return frame[TARGET_OFFSET : TARGET_OFFSET + addresses.IPV6]
    return b""


def _arp(mac: bytes, target: bytes) -> bytes:
    """Make an ARP probe (RFC 5227): without a sender's address it teaches the uplink nothing."""
    head = ETHERNET.pack(b"\xff" * 6, mac, ARP) + ARP_HEADER.pack(1, IPV4, 6, 4, ARP_REQUEST)
    return head + mac + bytes(4) + bytes(6) + target


def _solicitation(mac: bytes, source: bytes, target: bytes) -> bytes:
    """Make a neighbour solicitation. It needs a source: without one it looks for duplicates."""
    multicast = b"\xff\x02" + bytes(9) + b"\x01\xff" + target[13:]
    option = b"\x01\x01" + mac  # the link-layer address of the source
    message = struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + target + option
    pseudo = source + multicast + struct.pack("!II", len(message), ICMPV6)
    message = message[:2] + _checksum(pseudo + message) + message[4:]
    head = ETHERNET.pack(b"\x33\x33\xff" + target[13:], mac, IPV6)
    return head + IPV6_HEADER.pack(6 << 28, len(message), ICMPV6, 255, source, multicast) + message


def _checksum(data: bytes) -> bytes:
    """Compute the checksum of the internet protocols, RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")

# SPDX-License-Identifier: Apache-2.0
"""What kind of address a text is. `ipaddress` knows it too, but takes 3 ms of a first ADD."""

from __future__ import annotations

import _socket as socket  # not `socket`, which imports `enum` and `selectors`

IPV4, IPV6 = 4, 16
MAPPED = bytes(10) + b"\xff\xff"


def packed(text: str) -> bytes:
    """Give the bytes of an address, 4 or 16; b"" where it is not an address, or has a zone."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        return b""


def is_address(text: str) -> bool:
    """Tell whether a text is an address, without a zone."""
    return packed(text) != b""


def has_prefix(text: str) -> bool:
    """Tell whether a text is an address with a prefix length, which is a number, not a mask."""
    address, _, length = text.partition("/")
    is_number = length.isascii() and length.isdigit() and len(length) <= 3
    return is_number and int(length) <= 8 * len(packed(address)) and is_address(address)


def subnet(text: str) -> str:
    """Give the subnet of an address with its prefix length; "" where it is no such text."""
    if not has_prefix(text):
        return ""
    address, _, length = text.partition("/")
    size = len(packed(address))
    host = (1 << 8 * size - int(length)) - 1
    first = (int.from_bytes(packed(address), "big") & ~host).to_bytes(size, "big")
    family = socket.AF_INET if size == IPV4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, first)}/{int(length)}"


def is_own(address: bytes) -> bool:
    """Tell whether only this machine can use it: loopback or unspecified addresses, ip(7)."""
    address = _unmapped(address)
    if not any(address):
        return len(address) > 0
    if len(address) == IPV4:
        return address[0] == 127
    return address == bytes(15) + b"\1"


def is_reachable(text: str) -> bool:
    """Tell whether others can reach an address: not multicast, not link-local."""
    address = _unmapped(packed(text))
    if len(address) == IPV4:
        return not is_own(address) and not 224 <= address[0] < 240
    is_link_local = address[:1] == b"\xfe" and address[1] & 0xC0 == 0x80
    return len(address) == IPV6 and not (is_own(address) or address[0] == 0xFF or is_link_local)


def _unmapped(address: bytes) -> bytes:
    """Give the IPv4 address that an IPv6 address stands for, RFC 4291 section 2.5.5.2."""
    return address[len(MAPPED) :] if address.startswith(MAPPED) else address

# SPDX-License-Identifier: Apache-2.0
"""What kind of address a text is: the same as `ipaddress` says."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from netns_shim.shared import addresses

ADDRESSES = st.one_of(
    st.ip_addresses(),
    *(st.ip_addresses(network=n) for n in ("127.0.0.0/8", "224.0.0.0/4", "fe80::/10", "ff00::/8")),
    st.ip_addresses(network="::ffff:0:0/96"),
)


@given(ADDRESSES)
@example(ipaddress.ip_address("::1"))
@example(ipaddress.ip_address("::"))
@example(ipaddress.ip_address("0.0.0.0"))
@example(ipaddress.ip_address("::ffff:0.0.0.0"))
@example(ipaddress.ip_address("::ffff:127.0.0.1"))
@example(ipaddress.ip_address("::ffff:224.0.0.1"))
def test_kinds(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Loopback, unspecified, multicast and link-local addresses are told as `ipaddress` does."""
    text = str(ip)

    assert addresses.packed(text) == ip.packed
    packed = ip.packed
    # Before 3.13, `ipaddress` did not look at the IPv4 address in a mapped one.
    ip = getattr(ip, "ipv4_mapped", None) or ip
    assert addresses.is_own(packed) == (ip.is_loopback or ip.is_unspecified)
    is_of_link = ip.version == 6 and ip.is_link_local
    is_ours = ip.is_loopback or ip.is_unspecified
    assert addresses.is_reachable(text) != (is_ours or ip.is_multicast or is_of_link)


@pytest.mark.parametrize(
    "text",
    ["", "x", "1.2.3", "1.2.3.256", "01.2.3.4", "::1%lo", "1::2::3", "1.2.3.4\0", "\ud800:"],
)
def test_what_is_no_address(text: str) -> None:
    """Anything else is not an address, and cannot be reached."""
    assert addresses.packed(text) == b""
    assert not addresses.is_own(b"")
    assert not addresses.is_reachable(text)


@pytest.mark.parametrize(
    ("text", "subnet"),
    [
        ("10.89.1.7/24", "10.89.1.0/24"),
        ("10.89.1.7/32", "10.89.1.7/32"),
        ("10.89.1.7/0", "0.0.0.0/0"),
        ("fd00:89::7/64", "fd00:89::/64"),
        ("10.89.1.7", ""),
        ("10.89.1.7/33", ""),
        ("web/24", ""),
    ],
)
def test_subnet(text: str, subnet: str) -> None:
    """The subnet of an address has its first address and the same length."""
    assert addresses.subnet(text) == subnet

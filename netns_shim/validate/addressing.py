# SPDX-License-Identifier: Apache-2.0
"""The subnets of a netavark network: what is wrong with one, and which one an address is in."""

from __future__ import annotations

from ..shared.addresses import packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..netavark.shapes import Subnet


def match_subnets(ips: list[str], subnets: list[Subnet]) -> tuple[dict[str, Subnet], list[str]]:
    """Find the subnet of each address; give those found, and the addresses without one."""
    import ipaddress  # few networks have subnets

    found: dict[str, Subnet] = {}
    lost = []
    for ip in ips:
        for candidate in subnets:
            if ipaddress.ip_address(ip) in ipaddress.ip_network(candidate["subnet"], strict=False):
                found[ip] = candidate
                break
        else:
            lost.append(ip)
    return found, lost


def subnet_problems(subnet: Subnet) -> Iterator[str]:
    """Find addresses of a subnet that are outside of it; all must be well formed."""
    lease = subnet.get("lease_range", {})
    given = {
        "gateway": subnet.get("gateway"),
        "lease_range.start_ip": lease.get("start_ip"),
        "lease_range.end_ip": lease.get("end_ip"),
    }
    for key, ip in given.items():
        if ip and match_subnets([ip], [subnet])[1]:
            yield f"{key}: {ip} is not in {subnet['subnet']}"


def same_address(one: str, other: str) -> bool:
    """Tell whether two texts are the same address, with or without a prefix length."""
    address = packed(one.partition("/")[0])
    return address != b"" and address == packed(other.partition("/")[0])

# SPDX-License-Identifier: Apache-2.0
"""The same things in the words of CNI and of netavark."""

from __future__ import annotations

import pytest

from netns_shim.errors import ShimError
from netns_shim.netavark import convert
from netns_shim.netavark.shapes import LeaseRange, NetworkOptions, PortMapping, Subnet
from netns_shim.validate import addressing


def test_ports_are_expanded() -> None:
    """A range, and several protocols, become one mapping each; the order is theirs."""
    port: PortMapping = {
        "host_ip": "",
        "host_port": 80,
        "container_port": 90,
        "protocol": "tcp, UDP",
        "range": 2,
    }

    found = convert.expand_ports([port, {**port, "range": 0, "host_ip": "::1"}])

    assert [(p["hostPort"], p["containerPort"], p["protocol"]) for p in found] == [
        *((80, 90, "tcp"), (81, 91, "tcp"), (80, 90, "udp"), (81, 91, "udp")),
        *((80, 90, "tcp"), (80, 90, "udp")),
    ]
    assert [p.get("hostIP") for p in found] == [None] * 4 + ["::1"] * 2


def test_addresses_are_compared_as_such() -> None:
    """Two ways to write an address are one address."""
    assert addressing.same_address("fd00::1", "fd00:0:0::1/64")
    assert not addressing.same_address("10.0.0.1", "10.0.0.11/24")


def test_subnets_that_contradict_themselves() -> None:
    """A gateway or a range that is not in its subnet is named with its place."""
    lease: LeaseRange = {"start_ip": "10.0.0.9", "end_ip": "10.1.0.9"}
    plain: Subnet = {"subnet": "10.0.0.0/24"}

    assert list(addressing.subnet_problems(plain)) == []
    assert list(
        addressing.subnet_problems({**plain, "gateway": "fd00::1", "lease_range": lease})
    ) == [
        "gateway: fd00::1 is not in 10.0.0.0/24",
        "lease_range.end_ip: 10.1.0.9 is not in 10.0.0.0/24",
    ]


OPTIONS: NetworkOptions = {
    "interface_name": "eth0",
    "static_ips": ["fd00::1", "10.0.0.1"],
    "static_mac": "02:00:00:00:00:AA",
}


@pytest.mark.parametrize(
    ("addresses", "macs", "problem"),
    [
        (["10.0.0.1/24", "fd00:0::1/64"], ["", "02:00:00:00:00:aa"], None),
        (["10.0.0.1/24"], [], "the address fd00::1: it gave 10.0.0.1/24"),
        ([], [], "the address fd00::1: it gave none"),
        (["10.0.0.1/24", "fd00::1/64"], [""], "the MAC 02:00:00:00:00:AA: it gave none"),
    ],
)
def test_requests(addresses: list[str], macs: list[str], problem: str | None) -> None:
    """An answer has each requested address and MAC, or is refused with what it has instead."""
    found = None
    try:
        convert.check_requests("plugin", OPTIONS, addresses, macs)
    except ShimError as error:
        found = str(error)

    assert found == (problem and f"the plugin ignored the request for {problem}")

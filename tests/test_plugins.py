# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the keys of plugins that everybody uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from netns_shim.validate import drivers, explain, plugins

ROOT = Path(__file__).resolve().parent.parent


def told(entry: dict[str, Any]) -> list[str]:
    """List the problems of an entry, one line each."""
    return [f"{explain.show_place(place)}: {why}" for place, why in plugins.problems(entry)]


def ipam(**keys: Any) -> dict[str, Any]:
    """Make an entry of a bridge with host-local."""
    return {"type": "bridge", "ipam": {"type": "host-local", **keys}}


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (
            {"type": "bridge", "ipMask": True},
            "$.ipMask: bridge knows no such key; did you mean 'ipMasq'?",
        ),
        (
            {"type": "bridge", "isGatway": True},
            "$.isGatway: bridge knows no such key; did you mean 'isGateway'?",
        ),
        ({"type": "bridge", "ipMasq": "yes"}, '$.ipMasq: must be true or false, is "yes"'),
        ({"type": "ptp", "mtu": True}, "$.mtu: must be an integer, is true"),
        (
            {"type": "bridge", "bridge": "a-name-of-23-characters"},
            '$.bridge: "a-name-of-23-characters" is longer than the 15 bytes of an '
            "interface's name",
        ),
        ({"type": "macvlan", "master": "a/b"}, '$.master: "a/b" is not a name for an interface'),
        ({"type": "ipvlan", "master": ".."}, '$.master: ".." is not a name for an interface'),
        (
            ipam(subnet="10.0.0.0/33"),
            '$.ipam.subnet: must be a subnet such as 10.88.0.0/16, is "10.0.0.0/33"',
        ),
        (
            ipam(ranges=[[{"subnet": "10.0.0.1/24"}]]),
            "$.ipam.ranges[0][0].subnet: must be a subnet such as 10.88.0.0/16, is "
            '"10.0.0.1/24": 10.0.0.1/24 has host bits set',
        ),
        (
            ipam(subnet="10.0.0.0/31"),
            '$.ipam.subnet: "10.0.0.0/31" is too small to give addresses from',
        ),
        ({"type": "bridge", "vlan": 5000}, "$.vlan: must be 0 to 4094, is 5000"),
        ({"type": "bridge", "mtu": -1}, "$.mtu: must not be negative, is -1"),
        (
            {"type": "macvlan", "mode": "brigde"},
            '$.mode: must be one of bridge, private, vepa, passthru, is "brigde"',
        ),
        ({"type": "ipvlan", "mode": "l4"}, '$.mode: must be one of l2, l3, l3s, is "l4"'),
        ({"type": "tuning", "mac": "zz"}, '$.mac: must be a MAC address, is "zz"'),
        (
            {"type": "portmap", "capabilities": {"portMapings": True}},
            "$.capabilities: no runtime knows \"portMapings\"; did you mean 'portMappings'?",
        ),
        (
            ipam(ranges=[[{"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}]]),
            '$.ipam.ranges[0][0].rangeStart: "10.2.0.1" is not in 10.1.0.0/24',
        ),
        (
            ipam(subnet="10.1.0.0/24", rangeEnd="fd00::1"),
            '$.ipam.rangeEnd: "fd00::1" is not in 10.1.0.0/24',
        ),
        (ipam(rangeStart="10.0.0.300"), '$.ipam.rangeStart: must be an address, is "10.0.0.300"'),
        (ipam(subnet=7), "$.ipam.subnet: must be a subnet such as 10.88.0.0/16, is 7"),
        (
            ipam(routes=[{"dst": "0.0.0.0"}]),
            "$.ipam.routes[0].dst: must be an address with a prefix length, such as 10.88.0.2/16, "
            'is "0.0.0.0"',
        ),
        (ipam(routes=["0.0.0.0/0"]), '$.ipam.routes[0]: must be an object, is "0.0.0.0/0"'),
        (
            {"type": "other", "ipam": {"type": "static", "adresses": []}},
            "$.ipam.adresses: static knows no such key; did you mean 'addresses'?",
        ),
        (
            {"type": "firewall", "backend": "ipset"},
            '$.backend: must be one of iptables, firewalld, nftables, is "ipset"',
        ),
        (
            {"type": "firewall", "ingressPolicy": "same-brdge"},
            '$.ingressPolicy: must be one of open, same-bridge, isolated, is "same-brdge"',
        ),
        (
            {"type": "portmap", "backend": "nft"},
            '$.backend: must be one of iptables, nftables, is "nft"',
        ),
        (
            {"type": "ptp", "ipMasqBackend": "nft"},
            '$.ipMasqBackend: must be one of iptables, nftables, is "nft"',
        ),
        ({"type": "portmap", "markMasqBit": 32}, "$.markMasqBit: must be 0 to 31, is 32"),
        (
            {"type": "portmap", "markMasqBit": 3, "externalSetMarkChain": "X"},
            "$.markMasqBit: must not stand beside externalSetMarkChain",
        ),
        (
            {"type": "bandwidth", "ingressRate": 1000},
            "$.ingressBurst: is missing: bandwidth takes ingressRate and ingressBurst together",
        ),
        (
            {"type": "bandwidth", "EgressBurst": 1000, "egressRate": 0},
            "$.egressRate: is missing: bandwidth takes egressRate and egressBurst together",
        ),
        (
            {"type": "bandwidth", "ingressRate": 1, "ingressBurst": 1 << 35},
            "$.ingressBurst: must be less than 34359738360 (4 GiB), is 34359738368",
        ),
        (
            {"type": "bandwidth", "shapedSubnets": ["a"], "unshapedSubnets": ["b"]},
            "$.unshapedSubnets: must not stand beside shapedSubnets",
        ),
        (
            {"type": "tuning", "sysctl": {"net.core.somaxconn": 500}},
            '$.sysctl: the value of "net.core.somaxconn" must be a string',
        ),
        (
            {"type": "vlan", "master": "eth0", "vlanId": 5000},
            "$.vlanId: must be 0 to 4094, is 5000",
        ),
        ({"type": "vlan", "vlanId": 5}, "$.master: is missing: vlan needs it"),
        (
            {"type": "vlan", "master": "eth0", "vlanID": 5, "vlanIdd": 5},
            "$.vlanIdd: vlan knows no such key; did you mean 'vlanId'?",
        ),
        (
            {"type": "host-device"},
            "$: host-device needs one of device, hwaddr, kernelpath, pciBusID",
        ),
        (
            {"type": "host-device", "kernelpath": "/dev/eth0"},
            '$.kernelpath: must begin with /sys/devices/, is "/dev/eth0"',
        ),
        ({"type": "host-device", "hwaddr": "12"}, '$.hwaddr: must be a MAC address, is "12"'),
        ({"type": "tap", "multiQueue": 1}, "$.multiQueue: must be true or false, is 1"),
        ({"type": "tap", "owner": "root"}, '$.owner: must be an integer, is "root"'),
        ({"type": "vrf", "table": 10}, "$.vrfname: is missing: vrf needs it"),
        (
            {"type": "vrf", "vrfname": "a-name-of-23-characters"},
            '$.vrfname: "a-name-of-23-characters" is longer than the 15 bytes of an '
            "interface's name",
        ),
        ({"type": "sbr", "table": "main"}, '$.table: must be an integer, is "main"'),
        ({"type": "dummy", "ipm": {}}, "$.ipm: dummy knows no such key; did you mean 'ipam'?"),
        (
            {"type": "tuning", "sysctls": {}},
            "$.sysctls: tuning knows no such key; did you mean 'sysctl'?",
        ),
    ],
)
def test_problem(entry: dict[str, Any], line: str) -> None:
    """A value that the plugin refuses is told, and a key that it would ignore."""
    assert told(entry) == [line]


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"type": 7},
        {"type": "other", "ipMask": 1, "bridge": 7},
        {"type": "bridge", "ISGATEWAY": True, "ipmasq": False},
        {"type": "bridge", "bridge": None, "somethingOfALaterRelease": 1},
        {"type": "bridge", "ipam": {"type": "other", "subnet": 7}},
        {"type": "bridge", "ipam": {}},
        {"type": "bridge", "ipam": []} | {"ipam": None},
        ipam(subnet="2001:db8::/64", gateway="2001:db8::1", routes=[{"dst": "::/0"}]),
        ipam(ranges=[[{"subnet": "10.0.0.0/30"}], "odd"]),
        {"type": "firewall", "backend": "firewalld", "ingressPolicy": ""},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        {"type": "bandwidth", "ingressRate": 0, "ingressBurst": 0},
        {"type": "bandwidth", "INGRESSRATE": 8, "ingressBurst": 8, "egressRate": 0},
        {"type": "host-device", "PCIBusID": "0000:3d:00.1"},
        {"type": "host-device", "capabilities": {"deviceID": True}},
        {"type": "vlan", "Master": "eth0", "vlanId": 0, "linkInContainer": True},
        {"type": "tap", "owner": 0, "group": 0, "bridge": "br0", "mac": "00:00:00:00:00:01"},
        {"type": "vrf", "vrfname": "blue", "table": 4294967295},
        {"type": "loopback"},
    ],
)
def test_nothing_to_say(entry: dict[str, Any]) -> None:
    """What a plugin takes, and what only a plugin that is not known here can judge, passes."""
    assert told(entry) == []


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (
            {"driver": "bridge", "options": {"isolat": "true"}},
            "$.options.isolat: bridge knows no such option; did you mean 'isolate'?",
        ),
        (
            {"driver": "bridge", "options": {"isolate": "yes"}},
            '$.options.isolate: must be one of true, false, strict, is "yes"',
        ),
        (
            {"driver": "bridge", "options": {"mtu": "x"}},
            '$.options.mtu: must be 0 to 65535, is "x"',
        ),
        (
            {"driver": "bridge", "options": {"vlan": "5000"}},
            '$.options.vlan: must be 0 to 4094, is "5000"',
        ),
        (
            {"driver": "macvlan", "options": {"mode": "brdge"}},
            '$.options.mode: must be one of bridge, private, vepa, passthru, is "brdge"',
        ),
        (
            {"driver": "ipvlan", "options": {"metric": "-1"}},
            '$.options.metric: must be 0 to 4294967295, is "-1"',
        ),
        (
            {"driver": "bridge", "network_interface": "a-name-of-23-characters"},
            '$.network_interface: "a-name-of-23-characters" is longer than the 15 bytes of an '
            "interface's name",
        ),
        ({"driver": "brdge"}, "$.driver: netavark has no such driver; did you mean 'bridge'?"),
    ],
)
def test_problem_of_a_driver(entry: dict[str, Any], line: str) -> None:
    """A mistyped option of netavark's drivers is told, which the driver would ignore."""
    found = [f"{explain.show_place(place)}: {why}" for place, why in drivers.problems(entry)]

    assert found == [line]


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"driver": 7},
        {"driver": "bridge2", "options": {"mtu": "x"}},
        {"driver": "mine", "network_interface": "a-name-of-23-characters"},
        {"driver": "bridge", "options": None, "network_interface": ""},
        {"driver": "bridge", "options": {"com.example": "x", "isolate": "strict", "mtu": "1400"}},
        {"driver": "macvlan", "options": {"bclim": "-1", "mode": "vepa"}},
        {"driver": "bridge", "options": {"mtu": 1400}},
    ],
)
def test_nothing_to_say_of_a_driver(entry: dict[str, Any]) -> None:
    """What a driver takes passes, and so do other drivers; the schema judges types."""
    assert list(drivers.problems(entry)) == []


def test_samples() -> None:
    """The samples have no problem, so the list has each key in them."""
    files = sorted((ROOT / "conf").glob("*.conf*"))
    entries = [
        entry for file in files for entry in json.loads(file.read_text()).get("plugins", [])
    ]
    inner = [
        plugin for entry in entries for plugin in entry.get("plugins", [entry.get("delegate")])
    ]

    assert len(files) > 5
    assert [line for entry in [*entries, *filter(None, inner)] for line in told(entry)] == []
    assert [found for entry in filter(None, inner) for found in drivers.problems(entry)] == []

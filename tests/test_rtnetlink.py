# SPDX-License-Identifier: Apache-2.0
"""The tap device of a netns is found among others, with the addresses that can be reached."""

from __future__ import annotations

import bench

from netns_shim.shared import rtnetlink
from netns_shim.shared.nsenter import run_in

DEVICES = """
ip link add br0 type bridge
ip address add 10.1.0.1/24 dev br0
ip link set br0 up
ip tuntap add name {name} mode tap
ip address add 192.0.2.7/24 dev {name}
ip address add 198.18.0.1/15 dev {name} label {name}:x
ip address add 203.0.113.1 peer 203.0.113.2 dev {name}
ip address add fd00::7/64 dev {name} nodad
ip address add fe80::7/64 dev {name} nodad
ip link set {name} mtu 40000
ip link add br1 type bridge
"""


def test_tap_among_others(session: bench.Session) -> None:
    """Name, addresses and MTU are what `ip` has given it, addresses of its link alone left out."""
    with session.container() as container:
        container.run(["sh", "-euc", DEVICES.format(name="eth-x")], check=True)

        found = run_in(container.netns, rtnetlink.uplink_interface)

    # Of a point-to-point address, the kernel's IFA_ADDRESS is the other end.
    addresses = ["192.0.2.7", "198.18.0.1", "203.0.113.2", "fd00::7"]
    assert (found[0], sorted(found[1]), found[2]) == ("eth-x", addresses, 40000)


def test_publishers_are_not_the_uplink(session: bench.Session) -> None:
    """The taps of publishers can be there before the uplink's, after a restart of it."""
    with session.container() as container:
        container.run(["ip", "tuntap", "add", "name", "pub12", "mode", "tap"], check=True)
        container.run(["sh", "-euc", DEVICES.format(name="pub")], check=True)

        found = run_in(container.netns, rtnetlink.uplink_interface)

    assert found[0] == "pub"


def test_many_links(session: bench.Session) -> None:
    """A list that takes the kernel more than one answer is read to its end."""
    script = 'for i in $(seq 80); do ip link add "b$i" type bridge; done\n'
    with session.container() as container:
        container.run(["sh", "-euc", script + DEVICES.format(name="z")], check=True)
        more = "for i in $(seq 200); do ip address add 10.9.0.$i/16 dev z; done"
        container.run(["sh", "-euc", more], check=True)

        interface, addresses, _ = run_in(container.netns, rtnetlink.uplink_interface)

    assert interface == "z"
    assert len(addresses) == 204


def test_no_tap(session: bench.Session) -> None:
    """Without an uplink there is none."""
    with session.container() as container:
        assert run_in(container.netns, rtnetlink.uplink_interface) == ["", [], 0]

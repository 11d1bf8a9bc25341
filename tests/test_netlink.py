# SPDX-License-Identifier: Apache-2.0
"""The IPv6 of slirp4netns's interface, which the shim sets."""

from __future__ import annotations

import bench

from netns_shim.shared import netlink, rtnetlink
from netns_shim.shared.nsenter import run_in

# An address that the kernel has made of an announcement, and one of the link.
TAP = """
ip tuntap add name tap0 mode tap
ip address add fd00::648c:2ff:feeb:79f8/64 dev tap0 nodad
ip address add fe80::7/64 dev tap0 nodad
ip link set tap0 up
"""


def test_address_of_an_announcement(session: bench.Session) -> None:
    """It goes, as the next slirp4netns would have another one; those of the link stay."""
    with session.container() as container:
        container.run(["sh", "-euc", TAP], check=True)

        netlink.configure_ipv6(container.netns, "tap0", "fd00::100/64", "fd00::2")

        assert run_in(container.netns, rtnetlink.uplink_interface)[1] == ["fd00::100"]
        shown = container.run(["ip", "-6", "address", "show", "dev", "tap0"], check=True).stdout
        assert "fe80::7/64" in shown
        assert "default via fd00::2" in container.run(["ip", "-6", "route"], check=True).stdout

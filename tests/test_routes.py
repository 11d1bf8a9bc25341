# SPDX-License-Identifier: Apache-2.0
"""The default routes of a shared netns: each family of the host's has one."""

from __future__ import annotations

from collections.abc import Iterator

import bench
import pytest
from runtime import DUAL, Runtime, bridge, page

from netns_shim.shared import routes

ADDRESS = "192.0.2.5"
# Networks of a host, each as some provider or program sets it up.
HOSTS = {
    "on-link gateway": (
        f"""
        ip -4 address flush dev eth0
        ip address add {ADDRESS}/32 dev eth0
        ip route add 198.51.100.1 dev eth0 scope link
        ip route add default via 198.51.100.1 dev eth0 src {ADDRESS}
        """
    ),
    "onlink flag": (
        f"""
        ip -4 address flush dev eth0
        ip address add {ADDRESS}/32 dev eth0
        ip route add default via 198.51.100.1 dev eth0 onlink
        """
    ),
    "IPv6 on-link gateway": (
        """
        ip -6 address flush dev eth0 scope global
        ip -6 route del default || true
        ip address add 2001:db8:200::5/128 dev eth0 nodad
        ip route add 2001:db8:100::1 dev eth0
        ip route add default via 2001:db8:100::1 dev eth0
        """
    ),
}


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest, world: bench.World) -> Iterator[str]:
    """A machine with such a network, to which the internet finds the way back."""
    world.root.run(["sh", "-euc", HOSTS[request.param]], check=True)
    back = f"ip route add {ADDRESS} dev eth0; ip route add 2001:db8:200::5 dev eth0"
    forth = f"ip route del {ADDRESS} dev eth0; ip route del 2001:db8:200::5 dev eth0"
    world.internet.run(["sh", "-euc", back], check=True)
    yield request.param
    world.internet.run(["sh", "-euc", forth], check=True)
    restore = "ip -4 address flush dev eth0; ip -6 address flush dev eth0"
    world.root.run(["sh", "-euc", restore], check=True)
    world.replug()
    world.settle()


def test_a_host_of_another_kind(world: bench.World, session: bench.Session, host: str) -> None:
    """Containers reach the outside over each family that the host has, without a warning."""
    runtime = Runtime(session, delegate=bridge(*DUAL), uplink="pasta")
    with session.container() as container:
        done = runtime.call("ADD", "c", container.netns)

        assert done.returncode == 0, done.stdout
        assert done.stderr == "", host
        assert page(container, bench.PAGE_BEYOND)
        assert page(container, bench.PAGE6)
        runtime.succeed("CHECK", "c", container.netns)
        runtime.delete("c", container)
    assert world.leftovers() == []


# A slirp4netns that makes an interface with an address, and no route.
ROUTELESS = """#!/usr/bin/python3
import ctypes, fcntl, os, signal, struct, subprocess, sys
if "--help" in sys.argv:
    sys.exit()
pin, name = sys.argv[-2:]
assert ctypes.CDLL(None).setns(os.open(pin, os.O_RDONLY), 0x40000000) == 0
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))
for command in ("address add 10.0.2.100/24 dev tap0", "link set tap0 up"):
    subprocess.run(["ip", *command.split()], check=True)
os.write(int(sys.argv[sys.argv.index("-r") + 1]), b"1")
signal.pause()
"""


def test_a_route_that_is_not_made(world: bench.World, session: bench.Session) -> None:
    """An uplink that makes no default route, though the host has one, is a warning."""
    program = f"{world.env['HOME']}/slirp4netns"
    session.run(["sh", "-c", 'cat >"$0"; chmod +x "$0"', program], input=ROUTELESS, check=True)
    uplink = {"driver": "slirp4netns", "path": program}
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    with session.container() as container:
        done = runtime.call("ADD", "c", container.netns)

        assert done.returncode == 0, done.stdout
        assert "the host has a default route of IPv4, and slirp4netns made none" in done.stderr
        runtime.delete("c", container)
    assert world.leftovers() == []


LISTED = [
    "00000000/00000000 016433C6 eth0",
    "00000000/00000080 00000000 wg0",
    "::/0 20010db8010000000000000000000001 eth0",
    "::/0 00000000000000000000000000000000 wg0",
]


def test_reading_routes() -> None:
    """Routes as proc(5) has them have a family, an interface, and often a gateway."""
    assert routes.families(LISTED) == {4, 6}
    assert routes.families(LISTED[2:]) == {6}
    assert routes.gateways(LISTED, "eth0") == {4: "198.51.100.1", 6: "2001:db8:100::1"}
    assert routes.gateways(LISTED, "wg0") == {4: "", 6: ""}
    assert routes.gateways([*LISTED[3:], *LISTED]) == routes.gateways(LISTED, "eth0")
    assert routes.gateways(LISTED, "none") == {}

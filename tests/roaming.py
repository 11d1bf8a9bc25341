# SPDX-License-Identifier: Apache-2.0
"""Changes of the host's network: what a laptop, a server or a VPN goes through, one by one.

Each begins where `settle` ends. The machine has a second interface, `wlan0`, and one that stands
for a VPN, `tun0`; both lead to the internet of the bench.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import bench

# On the internet's loopback: always there, and reached over a default route only.
SERVER, SERVER6 = "203.0.113.50", "2001:db8:200::50"
NAME_SERVERS = ("203.0.113.53", "203.0.113.54")
RESOLV_CONF = "/etc/resolv.conf"

INTERNET = f"""
address add {SERVER}/32 dev lo
address add {NAME_SERVERS[0]}/32 dev lo
address add {NAME_SERVERS[1]}/32 dev lo
address add {SERVER6}/128 dev lo nodad
link add wlan0 type veth peer name wlan0 netns %(pid)d
address add 192.0.2.1/25 dev wlan0
address add 2001:db8:300::1/64 dev wlan0 nodad
link set wlan0 up
link add tun0 type veth peer name tun0 netns %(pid)d
address add 10.99.0.1/24 dev tun0
link set tun0 up
address add 192.0.2.129/25 dev eth0
address add 2001:db8:400::1/64 dev eth0 nodad
"""
SETTLE = """
ip link set wlan0 down
ip link set tun0 down
ip address flush dev eth0 scope global
ip address replace 198.51.100.2/24 dev eth0
ip address replace 2001:db8:100::2/64 dev eth0 nodad
ip link set eth0 up
ip route replace default via 198.51.100.1
ip -6 route replace default via 2001:db8:100::1
"""


class Change(NamedTuple):
    """One change.

    `name` says what happens. `before` and `script` are what root does on the machine: before
    anything is attached, and then. `there` is what happens on the internet. `keeps` tells whether
    the host's own connections go on, `ipv6` that it is about IPv6. During `script` the uplink is
    stopped if it `suspends`.
    """

    name: str
    script: str
    before: str = ""
    there: str = ""
    keeps: bool = True
    ipv6: bool = False
    suspends: bool = False


REPLACE = """
ip address del 198.51.100.2/24 dev eth0
ip address add 198.51.100.9/24 dev eth0
ip route replace default via 198.51.100.1
"""
CARRIED = """
ip address flush dev eth0 scope global
ip address add 192.0.2.130/25 dev eth0
ip route add default via 192.0.2.129
"""
GONE = """
ip route del default
ip -6 route del default
sleep 1
ip route add default via 198.51.100.1
ip -6 route add default via 2001:db8:100::1
"""
WIRELESS = """
ip address replace 192.0.2.2/25 dev wlan0
ip address replace 2001:db8:300::2/64 dev wlan0 nodad
ip link set wlan0 up
ip link set eth0 down
ip route replace default via 192.0.2.1
ip -6 route replace default via 2001:db8:300::1
"""
VPN = """
ip address replace 10.99.0.2/24 dev tun0
ip link set tun0 up
ip route replace 0.0.0.0/1 via 10.99.0.1
ip route replace 128.0.0.0/1 via 10.99.0.1
"""
SAME_LEASE = """
ip address del 198.51.100.2/24 dev eth0
ip address add 198.51.100.2/24 dev eth0
ip route replace default via 198.51.100.1
"""
OTHER_LEASE = """
ip address add 198.51.100.9/24 dev eth0
ip route replace default via 198.51.100.1 src 198.51.100.9
ip address change 198.51.100.2/24 dev eth0 preferred_lft 0
"""
LINK = """
ip link set eth0 down
sleep 1
ip link set eth0 up
ip address replace 2001:db8:100::2/64 dev eth0 nodad
ip route replace default via 198.51.100.1
ip -6 route replace default via 2001:db8:100::1
"""
NO_IPV6 = """
ip -6 route del default
ip -6 address del 2001:db8:100::2/64 dev eth0
"""
IPV6 = """
ip address add 2001:db8:100::2/64 dev eth0 nodad
ip -6 route add default via 2001:db8:100::1
"""
RENUMBERED = """
ip -6 address del 2001:db8:100::2/64 dev eth0
ip address add 2001:db8:400::2/64 dev eth0 nodad
ip -6 route replace default via 2001:db8:400::1
"""
ON_LINK = """
ip address flush dev eth0 scope global
ip address add 198.51.100.9/32 dev eth0
ip route add 198.51.100.1 dev eth0
ip route add default via 198.51.100.1
"""
NO_NETWORK = """
ip address flush dev eth0 scope global
ip link set eth0 down
"""
OTHER_NAMES = f"""
printf 'nameserver {NAME_SERVERS[1]}\\n' >{RESOLV_CONF}.new
mv {RESOLV_CONF}.new {RESOLV_CONF}
"""

CHANGES = (
    Change("the address is replaced", REPLACE, keeps=False),
    Change("carried to another network", CARRIED, keeps=False),
    Change("no default route for 1 s", GONE),
    Change("another interface takes over", WIRELESS, keeps=False),
    Change("a VPN takes the default route", VPN),
    Change("a VPN leaves it", "ip link set tun0 down", before=VPN, keeps=False),
    Change("DHCP: the same address", SAME_LEASE),
    Change("DHCP: another address", OTHER_LEASE),
    Change("the link is down for 1 s", LINK),
    Change("IPv6 comes later", IPV6, before=NO_IPV6, keeps=False, ipv6=True),
    Change("IPv6 is renumbered", RENUMBERED, keeps=False, ipv6=True),
    Change("a /32 address, gateway on link", ON_LINK, keeps=False),
    # The second half is what the host does when the new gateway announces itself.
    Change(
        "the gateway's MAC changes",
        "ip neigh flush dev eth0",
        there="ip link set eth0 address 02:00:00:00:00:99",
    ),
    Change("no network at first", SETTLE, before=NO_NETWORK, keeps=False),
    Change("a suspend for 1 s", "sleep 1", suspends=True),
    Change(
        "resolv.conf is replaced", OTHER_NAMES, there=f"ip address del {NAME_SERVERS[0]}/32 dev lo"
    ),
)


def root(world: bench.World, script: str) -> None:
    """Do something as root of the machine."""
    world.root.run(["sh", "-euc", script], check=True)


def settle(world: bench.World) -> None:
    """Bring the machine to where each change begins."""
    root(world, SETTLE)
    root(world, f"printf 'nameserver {NAME_SERVERS[0]}\\n' >{RESOLV_CONF}")
    there = f"ip address replace {NAME_SERVERS[0]}/32 dev lo"
    world.internet.run(["sh", "-euc", there], check=True)
    world.settle()


def happen(world: bench.World, change: Change) -> None:
    """Let a change happen, all but the suspension of an uplink."""
    if change.there:
        world.internet.run(["sh", "-euc", change.there], check=True)
    root(world, change.script)


def leftovers(world: bench.World) -> list[str]:
    """List what is left of a shared netns, beside the further interfaces of the machine."""
    return [text for text in world.leftovers() if text.split()[-1] not in ("wlan0", "tun0")]


@contextmanager
def networks(world: bench.World) -> Iterator[None]:
    """Give the machine its further interfaces, and take them away again."""
    names = world.path(RESOLV_CONF).read_text()
    commands = INTERNET % {"pid": world.root.pid}
    world.internet.run(["ip", "-batch", "-"], input=commands, check=True)
    settle(world)
    try:
        yield
    finally:
        settle(world)
        root(world, "ip link del wlan0; ip link del tun0")
        undo = INTERNET.replace(" add ", " del ").splitlines()
        undo = [line.removesuffix(" nodad") for line in undo if "dev lo" in line or "eth0" in line]
        world.internet.run(["ip", "-batch", "-"], input="\n".join(undo), check=True)
        world.path(RESOLV_CONF).write_text(names)

# SPDX-License-Identifier: Apache-2.0
"""The question to an uplink, asked of a kernel: it answers ARP and neighbour solicitations too."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import bench
import pytest

from netns_shim.shared import neighbour
from netns_shim.shared.nsenter import run_in

IPV4, IPV6 = "192.0.2.1", "2001:db8::1"
OWN = ["192.0.2.2", "2001:db8::2"]


@pytest.fixture
def pair(world: bench.World) -> Iterator[bench.Place]:
    """A netns with an interface `near`, whose neighbour is a machine with both addresses."""
    make = f"""
        ip link add near type veth peer name far netns {world.root.pid}
        ip link set near up
    """
    with world.root.container() as container:
        container.run(["sh", "-euc", make], check=True)
        far = f"ip address add {IPV4}/24 dev far; ip address add {IPV6}/64 dev far nodad"
        world.root.run(["sh", "-euc", f"{far}; ip link set far up"], check=True)
        yield container
        # A netns goes in the background, and would keep the name for a while.
        world.root.run(["ip", "link", "del", "far"])


def ask(place: bench.Place, own: list[str], targets: list[str], seconds: float = 5) -> Any:
    """Ask for neighbours of `near`."""
    pin = f"/proc/{place.pid}/ns/net"
    return run_in(pin, lambda: neighbour.ask("near", own, targets, seconds))


@pytest.mark.parametrize(
    ("own", "targets"),
    [(OWN[:1], [IPV4]), (OWN[1:], [IPV6]), (OWN, ["192.0.2.9", IPV6]), (OWN, [IPV4, "fe80::9"])],
    ids=["IPv4", "IPv6", "IPv6 of both", "IPv4 of both"],
)
def test_an_answer(pair: bench.Place, own: list[str], targets: list[str]) -> None:
    """One neighbour that answers, of either family, is enough."""
    assert ask(pair, own, targets) == neighbour.ANSWERED


def test_no_answer(pair: bench.Place) -> None:
    """Where no neighbour has the address there is an end to the wait, and not before."""
    began = time.monotonic()

    assert ask(pair, OWN, ["192.0.2.9", "2001:db8::9"], seconds=0.3) == neighbour.SILENT
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize(("own", "target"), [(OWN[:1], IPV6), (OWN[1:], IPV4), (OWN, "")])
def test_nothing_to_ask(pair: bench.Place, own: list[str], target: str) -> None:
    """A neighbour of a family without an address is not asked for: no answer would say nothing."""
    assert ask(pair, own, [target]) == neighbour.UNKNOWN


def test_an_interface_that_is_down(pair: bench.Place) -> None:
    """An interface that is down or missing is told from one that is silent."""
    pair.run(["ip", "link", "set", "near", "down"], check=True)
    assert ask(pair, OWN, [IPV4]) == neighbour.DOWN
    pair.run(["ip", "link", "del", "near"], check=True)
    assert ask(pair, OWN, [IPV4]) == neighbour.DOWN


# A machine that gets its address with the first frame.
LATE = """
import socket, subprocess, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as link:
    link.bind(("far", 0))
    print("ready", flush=True)
    link.recv(2048)
subprocess.run(["ip", "address", "add", sys.argv[1], "dev", "far"], check=True)
"""


def test_a_late_answer(pair: bench.Place, world: bench.World) -> None:
    """The question is repeated: a neighbour that comes after the first one is found."""
    address = f"{IPV4}/24"
    world.root.run(["ip", "address", "del", address, "dev", "far"], check=True)
    argv = ["/usr/bin/python3", "-Ic", LATE, address]
    late = world.root.popen(argv, stdout=subprocess.PIPE)
    assert late.stdout.readline() == "ready\n"

    assert ask(pair, OWN[:1], [IPV4]) == neighbour.ANSWERED
    assert late.wait() == 0

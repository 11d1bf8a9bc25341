# SPDX-License-Identifier: Apache-2.0
"""Podman 4, which has CNI: what it asks of a network that has all its plugins in one entry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import bench
import engines
import pytest
from conftest import give_up

CONF = Path(__file__).resolve().parent.parent / "conf"
SAMPLE = json.loads((CONF / "20-chain.conflist").read_text())
CONTAINERS = """[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
default_rootless_network_cmd = "slirp4netns"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
IP, IP6 = "10.89.2.55", "fd00:89:2::55"
RULES = ["10.89.2.55:80", f"[{IP6}]:80"]
BUSYBOX = "docker.io/library/busybox"


def without(*capabilities: str) -> str:
    """Write the sample as it would be without some capabilities."""
    network = json.loads(json.dumps(SAMPLE))
    (entry,) = network["plugins"]
    for holder in (entry, *entry["plugins"]):
        if "capabilities" in holder:
            left = {k: v for k, v in holder["capabilities"].items() if k not in capabilities}
            holder["capabilities"] = left
    return json.dumps(network)


class Podman:
    """Podman of a user without capabilities, with one network."""

    def __init__(self, world: bench.World) -> None:
        self.world = world

    def sh(self, text: str) -> str:
        """Have a shell do something that succeeds; give what it prints."""
        return engines.sh(self.world, text)

    def know(self, network: str) -> None:
        """Give Podman a network."""
        directory = ".config/cni/net.d"
        self.sh(f"mkdir -p {directory}; cat >{directory}/n.conflist <<'END'\n{network}\nEND")

    def start(self, options: str) -> list[str]:
        """Start a container in the network; give its addresses."""
        self.sh(f"podman run -d --name c {options} {BUSYBOX} ip monitor")
        return self.addresses()

    def addresses(self) -> list[str]:
        """Give the addresses that the container has."""
        shown = self.sh("podman exec c ip -json address show eth0 scope global")
        return [info["local"] for info in json.loads(shown)[0]["addr_info"] if info]

    def ports(self) -> list[str]:
        """Give the destinations of the rules for published ports."""
        tables = "iptables -t nat -S; ip6tables -t nat -S"
        rules = self.sh(f"podman unshare --rootless-netns sh -c 'PATH=$PATH:/usr/sbin; {tables}'")
        return sorted(line.split()[-1] for line in rules.splitlines() if "-j DNAT" in line)


@pytest.fixture
def podman(world: bench.World) -> Iterator[Podman]:
    """Podman with an image, in a home of its own."""
    missing = [name for name in ("buildah", "podman", "crun") if not shutil.which(name)]
    if missing:
        give_up(f"programs not found: {', '.join(missing)}")
    if engines.backend() != "cni":
        pytest.skip("this Podman has no CNI")
    with engines.mounts(world):
        world.reset()
        podman = Podman(world)
        podman.sh(engines.IMAGE)
        podman.sh(f"cat >.config/containers/containers.conf <<'END'\n{CONTAINERS}END")
        yield podman
        podman.sh("podman rm --all --force --time 0")
        world.reset()


def test_addresses_and_ports_at_once(podman: Podman) -> None:
    """A container of the sample gets the addresses that it asks for, and its port as well."""
    podman.know(json.dumps(SAMPLE))

    assert podman.start(f"--network chain:ip={IP},ip6={IP6} -p 18080:80") == [IP, IP6]
    assert podman.ports() == RULES


def test_reload(podman: Podman) -> None:
    """A reload of the network leaves a container of the sample its addresses and its port."""
    podman.know(json.dumps(SAMPLE))
    podman.sh(f"podman run -d --name first --network chain {BUSYBOX} ip monitor")
    before = podman.start("--network chain -p 18080:80")
    rules = podman.ports()

    podman.sh("podman network reload --all")

    assert len(before) == len(rules) == 2
    assert podman.addresses() == before
    assert podman.ports() == rules


@pytest.mark.parametrize("addresses", [f"ip={IP}", f"ip={IP},ip6={IP6}"])
def test_what_wrap_prints(podman: Podman, addresses: str) -> None:
    """So does one of a network that names no capability but `portMappings`, wrapped."""
    (entry,) = json.loads(without("ips", "mac"))["plugins"]
    plain = {**SAMPLE, "plugins": entry["plugins"]}
    wrapped = podman.sh(
        f"/opt/cni/bin/netns-shim wrap - 2>/dev/null <<'END'\n{json.dumps(plain)}\nEND"
    )
    podman.know(wrapped)

    found = podman.start(f"--network chain:{addresses} -p 18080:80")

    assert found[0] == IP
    assert IP6 in found or "ip6" not in addresses
    assert len(podman.ports()) == 2


def test_addresses_of_a_network_that_declares_none(podman: Podman) -> None:
    """Where neither the entry nor a plugin has `ips`, the addresses are right all the same.

    Podman replaces the capabilities of an entry that lacks `ips`, so it does not send the ports.
    """
    podman.know(without("ips", "mac"))

    assert podman.start(f"--network chain:ip={IP},ip6={IP6} -p 18080:80") == [IP, IP6]
    assert podman.ports() == []


def test_ports_that_no_plugin_takes(podman: Podman) -> None:
    """A network that declares ports for a runtime, and for no plugin, refuses the container."""
    network = json.loads(json.dumps(SAMPLE))
    (entry,) = network["plugins"]
    entry["plugins"] = [p for p in entry["plugins"] if p["type"] != "portmap"]
    podman.know(json.dumps(network))

    said = podman.sh(f"! podman run --rm -p 18080:80 --network chain {BUSYBOX} ip link 2>&1")

    assert "unsupported field runtimeConfig.portMappings: no plugin in the entry" in said
    assert podman.sh(f"podman run --rm --network chain {BUSYBOX} ip link show eth0")

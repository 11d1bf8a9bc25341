# SPDX-License-Identifier: Apache-2.0
"""Every sample in conf/ does what conf/README.md says of it, called through libcni."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import bench
import podman
import pytest
from podman import Netavark
from runtime import PLUGIN, ips, page, reaches

from netns_shim.validate import explain

CONF = Path(__file__).resolve().parent.parent / "conf"
SAMPLES: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted(CONF.glob("*.conflist"))
}
NETWORKS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted(CONF.glob("podman/*"))
}
MAPPINGS = '{"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}'
# As go-cni writes them, for containerd, nerdctl and CRI.
IN_CAPITALS = (
    '{"portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}]}'
)
SERVER = (
    "import socket; s = socket.create_server(('', 80)); print(flush=True); "
    "c, _ = s.accept(); c.recv(99); c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\nhere')"
)

each = pytest.mark.parametrize("sample", SAMPLES)


class Libcni:
    """A runtime of the session that reads the samples from its configuration directory."""

    def __init__(self, session: bench.Session, cnidrive: str) -> None:
        self.session = session
        self.cnidrive = cnidrive
        directory = f"{session.env['HOME']}/net.d"
        shutil.copytree(CONF, session.path(directory))
        self.env = {
            **session.env,
            "NETCONFPATH": directory,
            "CNI_PATH": bench.World.plugin_dir,
        }

    def run(
        self, verb: str, sample: str, container: bench.Container, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Call a verb with further variables in the environment."""
        argv = [self.cnidrive, verb, SAMPLES[sample]["name"], container.netns]
        return self.session.run(argv, env={**self.env, **env})

    def call(self, verb: str, sample: str, container: bench.Container, **env: str) -> str:
        """Call a verb, which must succeed; give what the runtime prints."""
        done = self.run(verb, sample, container, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def add(self, sample: str, container: bench.Container, **env: str) -> list[str]:
        """Attach a container; give its addresses, without their prefix length."""
        return ips(json.loads(self.call("add", sample, container, **env)))

    def status(self) -> list[dict[str, Any]]:
        """List the shared netns's as `netns-shim status --json` shows them."""
        done = self.session.run([PLUGIN, "status", "--json"], check=True)
        found: list[dict[str, Any]] = json.loads(done.stdout)["netns"]
        return found


@pytest.fixture
def libcni(session: bench.Session, libcni_cache: None, cnidrive: str) -> Libcni:
    """A runtime with the samples."""
    return Libcni(session, cnidrive)


def entries(sample: str) -> list[dict[str, Any]]:
    """List the entries of the shim in a sample."""
    plugins: list[dict[str, Any]] = SAMPLES[sample]["plugins"]
    return plugins


def publishes(sample: str) -> bool:
    """Tell whether a sample takes port mappings."""
    return any("portMappings" in entry.get("capabilities", {}) for entry in entries(sample))


def uplink(sample: str) -> str:
    """Tell the uplink of a sample; pasta where it does not say."""
    named = entries(sample)[0].get("uplink", "pasta")
    return named if isinstance(named, str) else named["driver"]


def serve(container: bench.Container) -> None:
    """Start a server of one page in a container; give when it listens."""
    server = container.popen(["python3", "-c", SERVER], stdout=subprocess.PIPE, text=True)
    server.stdout.readline()


@each
def test_sample_is_valid(sample: str) -> None:
    """A sample is free of everything that the schema or the shim complains about."""
    for entry in entries(sample):
        explain.validate({**entry, "cniVersion": "1.0.0", "name": SAMPLES[sample]["name"]})


def test_samples_share_nothing() -> None:
    """No two samples have a network name, a bridge or a subnet in common."""
    bridges, subnets = [], []
    for sample in SAMPLES:
        for entry in entries(sample):
            for plugin in entry.get("plugins", [entry.get("delegate")]):
                if plugin.get("type") == "bridge":
                    bridges.append(plugin["bridge"])
                    subnets += [r["subnet"] for (r,) in plugin["ipam"]["ranges"]]
                elif "driver" in plugin:
                    bridges.append(plugin["network_interface"])
                    subnets += [s["subnet"] for s in plugin["subnets"]]
    for network in NETWORKS.values():
        bridges += filter(None, [network.get("network_interface")])
        subnets += [s["subnet"] for s in network.get("subnets", [])]

    for names in (bridges, subnets, [conf["name"] for conf in SAMPLES.values()]):
        assert len(set(names)) == len(names) >= len(SAMPLES)


@each
def test_sample_attaches(world: bench.World, libcni: Libcni, sample: str) -> None:
    """ADD, CHECK and DEL through libcni; two containers meet; the way out is the uplink's."""
    with libcni.session.container() as first, libcni.session.container() as second:
        addresses = libcni.add(sample, first)
        libcni.add(sample, second)
        libcni.call("check", sample, first)
        libcni.call("check", sample, second)
        (netns,) = libcni.status()

        assert all(reaches(second, address) for address in addresses)
        assert netns["name"] == entries(sample)[0].get("netns", "default")
        assert netns["uplink"]["driver"] == uplink(sample)
        out, out6 = page(first, bench.PAGE_BEYOND), page(first, bench.PAGE6)
        assert out.endswith(f"{bench.HOST}\n") == (uplink(sample) != "none")
        assert out6.endswith(f"{bench.HOST6}\n") == (len(addresses) == 2)

        libcni.call("del", sample, first)
        libcni.call("del", sample, second)
        assert first.run(["ip", "link", "show", "eth0"]).returncode == 1
    assert world.leftovers() == []


@pytest.mark.parametrize(
    ("sample", "mappings"),
    [
        *((sample, MAPPINGS) for sample in filter(publishes, SAMPLES)),
        ("20-chain", IN_CAPITALS),
        ("80-netavark", IN_CAPITALS),
    ],
)
def test_sample_publishes_a_port(
    world: bench.World, libcni: Libcni, sample: str, mappings: str
) -> None:
    """What listens in the container is reached at the published port of the shared netns."""
    with libcni.session.container() as container:
        libcni.add(sample, container, CAP_ARGS=mappings)
        serve(container)

        netns = entries(sample)[0].get("netns", "default")
        fetch = [PLUGIN, "run", "--netns", netns, "--", "fetch", bench.HOST, "8080"]
        assert libcni.session.run(fetch).stdout == "here"

        (attachment,) = (a for shown in libcni.status() for a in shown["references"])
        assert [(p["hostPort"], p["containerPort"]) for p in attachment["ports"]] == [(8080, 80)]

        # portmap 1.1.1 looks for the rules of IPv4 in the tables of IPv6, for every caller.
        check = libcni.run("check", sample, container, CAP_ARGS=mappings)
        assert check.returncode == 0 or "could not check ipv6 dnat" in check.stderr

        libcni.call("del", sample, container, CAP_ARGS=mappings)
    assert world.leftovers() == []


@pytest.mark.parametrize("sample", [sample for sample in SAMPLES if publishes(sample)])
def test_published_port_is_reached_from_outside(
    world: bench.World, libcni: Libcni, sample: str
) -> None:
    """A published port is open on the host: the machine's neighbours reach it."""
    with libcni.session.container() as container:
        libcni.add(sample, container, CAP_ARGS=MAPPINGS)
        serve(container)

        fetch = [bench.INSIDE / "fetch", bench.HOST, "8080"]
        assert world.internet.run(fetch).stdout == "here"

        libcni.call("del", sample, container, CAP_ARGS=MAPPINGS)
    assert world.leftovers() == []


def test_slirp4netns_takes_its_options(world: bench.World, libcni: Libcni) -> None:
    """The shared netns of 30-slirp4netns has an address of the network in its options."""
    with libcni.session.container() as container:
        libcni.add("30-slirp4netns", container)
        (netns,) = libcni.status()

        assert "10.0.30.100" in netns["addresses"]

        libcni.call("del", "30-slirp4netns", container)
    assert world.leftovers() == []


def test_samples_live_side_by_side(world: bench.World, libcni: Libcni) -> None:
    """A container on each network at once: addresses differ, CHECK and DEL find their own."""
    containers = {sample: libcni.session.container() for sample in SAMPLES}
    addresses = [a for sample in SAMPLES for a in libcni.add(sample, containers[sample])]

    assert len(set(addresses)) == len(addresses) > len(SAMPLES)
    assert [n["name"] for n in libcni.status()] == [
        "default",
        "isolated",
        "slirp4netns",
    ]

    for sample, container in containers.items():
        libcni.call("check", sample, container)
        libcni.call("del", sample, container)
        container.close()
    assert world.leftovers() == []


@pytest.mark.parametrize("name", NETWORKS)
def test_network_of_podman(world: bench.World, session: bench.Session, name: str) -> None:
    """`create` has nothing to add to a sample, and a container is attached by it and detached."""
    directory = world.path("/etc/cni/net.d")
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(CONF / "10-bridge.conflist", directory)
    caller, sample = Netavark(session), NETWORKS[name]
    ips = ["10.89.10.7"] if name == "mine" else ["10.89.11.7"] if name == "wrapped" else []
    given = podman.request(sample, "c", *ips)
    with session.container() as container:
        assert caller.succeed("create", **sample) == sample
        (address,) = caller.setup(container, **given)

        assert address == (ips or ["10.89.1.2"])[0]
        assert page(container, bench.PAGE_BEYOND)
        caller.teardown(container, **given)
    assert world.leftovers() == []


@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_made_as_described(name: str) -> None:
    """The command in conf/README.md has the options and addresses of the sample."""
    text = (CONF / "README.md").read_text()
    (command,) = re.findall(rf"`(podman network create [^`]* {name})`", text)
    words = command.split()

    options = dict(words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "-o")
    subnets = [words[i + 1] for i, word in enumerate(words) if word == "--subnet"]
    assert options == NETWORKS[name]["options"]
    assert subnets == [subnet["subnet"] for subnet in NETWORKS[name].get("subnets", [])]

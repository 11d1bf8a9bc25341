# SPDX-License-Identifier: Apache-2.0
"""The real Podman as root of a user namespace, which reserves ports on the host."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

import bench
import pytest
from bench import HOST, PAGE
from conftest import give_up
from naming import LOOK, looks, wrong
from ports import FIRST, OTHER, PORTMAP, ask, listening
from runtime import bridge, until

PORT = 18080
# What a user types who has Podman as root of a user namespace, with the shim as its netavark, or
# as a plugin of CNI.
SET_UP = """
for directory in /run /var/lib /dev/shm; do mount -t tmpfs tmpfs "$directory"; done
cat >/run/containers.conf <<END
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[network]
network_backend = "$0"
network_config_dir = "/run/networks"
cni_plugin_dirs = ["/opt/cni/bin"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
helper_binaries_dir = ["/run/helpers", "/usr/lib/podman"]
END
printf '[storage]\ndriver = "vfs"\nrunroot = "/run/containers"\ngraphroot = "/var/lib/c"\n' \
    >/run/storage.conf
mkdir -p /run/helpers /run/root /run/networks
cd /run/root
mkdir usr proc sys dev etc tmp run
for directory in bin lib lib64 sbin; do ln -s "usr/$directory" .; done
if [ "$0" = cni ]; then
    cat >/run/networks/net.conflist
else
    /opt/netns-shim/bin/netns-shim install --name netavark /run/helpers
    podman network create --subnet 10.89.2.0/24 net
fi
"""
CONFLIST = {
    "cniVersion": "0.4.0",
    "name": "net",
    "plugins": [
        {
            "type": "netns-shim",
            "plugins": [bridge("10.89.2.0/24"), PORTMAP],
            "capabilities": {"portMappings": True, "ips": True},
        }
    ],
}


class Podman:
    """Podman as root of a user namespace; `env` is the environment to call it with."""

    def __init__(self, session: bench.Session, backend: str) -> None:
        self.session = session
        files = {name: f"/run/{name}.conf" for name in ("containers", "storage")}
        self.env = {
            **session.env,
            "PATH": bench.ROOT_PATH,
            "CONTAINERS_CONF": files["containers"],
            "CONTAINERS_STORAGE_CONF": files["storage"],
        }
        text = json.dumps(CONFLIST)
        session.run(["sh", "-euc", SET_UP, backend], env=self.env, input=text, check=True)

    def call(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Call it."""
        return self.session.run(["podman", *words], env=self.env, check=check)

    def start(self, *options: str, check: bool = True) -> str:
        """Start a container that answers on port 80; give its ID, or what podman says."""
        image = ["-v", "/usr:/usr:ro", "--rootfs", "/run/root"]
        run = ["run", "--detach", "--interactive", "--network=net", *options, *image]
        done = self.call(*run, f"{bench.TYPED}/answerer", str(FIRST), str(OTHER), check=check)
        assert check or done.returncode
        return done.stdout.strip() if check else done.stderr


@pytest.fixture
def cgroups(world: bench.World) -> Iterator[None]:
    """With the new cgroups, which crun wants."""
    world.root.run(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"], check=True)
    yield
    world.root.run(["umount", "/sys/fs/cgroup"], check=True)


@pytest.fixture(params=["netavark", "cni"])
def backend(request: pytest.FixtureRequest) -> str:
    """Give each way in which Podman 4 makes networks."""
    return str(request.param)


@pytest.fixture
def podman(
    world: bench.World, cgroups: None, session: bench.Session, backend: str
) -> Iterator[Podman]:
    """Set up the session for Podman."""
    missing = [name for name in ("podman", "conmon", "crun") if not shutil.which(name)]
    if missing:
        give_up(f"programs not found: {', '.join(missing)}")
    world.provide(bench.INSIDE / "answerer")
    made = Podman(session, backend)
    version = made.call("--version").stdout.split()[-1]
    if backend == "cni" and not version.startswith("4."):
        pytest.skip(f"Podman {version} knows no CNI")
    yield made
    made.call("rm", "--force", "--all", "--time=0")
    # The process that cleans up after a container has the port of the container until it ends.
    until(lambda: not [port for port in listening(world) if str(PORT) in port])


def test_published_port(world: bench.World, podman: Podman) -> None:
    """A published port is served until the container goes; a client keeps its address."""
    podman.start("--name=web", "-p", f"{PORT}:80", "-p", f"{PORT}:80/udp")
    seen = [ask(world.internet, HOST, PORT, kind) for kind in ("tcp", "udp")]
    near = [ask(world, address, PORT) for address in (HOST, "127.0.0.1")]
    podman.call("restart", "--time=0", "web")
    states = podman.call("ps", "--all", "--format={{.Status}}").stdout
    again = [ask(world.internet, HOST, PORT, kind) for kind in ("tcp", "udp")]
    podman.call("rm", "--force", "--time=0", "web")
    gone = [ask(world.internet, HOST, PORT, kind, patience=0) for kind in ("tcp", "udp")]

    assert seen == [PAGE, PAGE]
    assert [answer[:1].isdigit() for answer in near] == [True, True], near
    assert again == [PAGE, PAGE]
    assert states.startswith("Up")
    assert gone[0] == "refused"
    assert gone[1] in ("refused", "silent")  # the kernel limits how often it refuses by ICMP
    assert until(lambda: not [e for e in listening(world) if str(PORT) in e])


def test_container_that_does_not_start(world: bench.World, podman: Podman) -> None:
    """A container whose command is missing leaves no port open, and nothing else."""
    image = ["-v", "/usr:/usr:ro", "--rootfs", "/run/root"]
    run = ["run", "--rm", "--network=net", "-p", f"{PORT}:80", *image, "/missing"]
    assert podman.call(*run, check=False).returncode == 127

    assert until(lambda: not [e for e in listening(world) if str(PORT) in e])
    assert until(lambda: world.leftovers() == []), world.leftovers()


def test_port_of_another_program(world: bench.World, podman: Podman) -> None:
    """A port that another program has, or another container, fails the start with its name."""
    script = f"import socket; s = socket.create_server(('', {PORT})); print(flush=True); input()"
    with podman.session.popen(["python3", "-c", script], stdin=-1, stdout=-1) as taker:
        taker.stdout.readline()
        said = podman.start("--name=web", "-p", f"{PORT}:80", check=False)
        taker.communicate("\n")
    podman.call("rm", "--force", "--all")
    left = world.leftovers()
    podman.start("--name=one", "-p", f"{PORT}:80")
    assert ask(world.internet, HOST, PORT) == PAGE
    other = podman.start("--name=other", "-p", f"{PORT}:80", check=False)

    # Podman 5 tries before it calls the shim, and knows less.
    assert (f"0.0.0.0:{PORT}/tcp" in said and "python3" in said) or "already in use" in said
    assert left == []
    assert f"{PORT}/tcp is published already" in other or "already in use" in other
    assert ask(world.internet, HOST, PORT) == PAGE


PAIR = ("web", "data")
NAMED = {
    **CONFLIST,
    "name": "named",
    "plugins": [
        {
            "type": "netns-shim",
            "names": True,
            "delegate": bridge("10.89.3.0/24", "fd00:89:3::/64", name="cni3"),
            "capabilities": {"aliases": True, "ips": True},
        }
    ],
}


def test_names(world: bench.World, podman: Podman, backend: str) -> None:
    """Containers of a plugin network find each other by name, both ways, by their resolv.conf."""
    if backend == "cni":
        write = ["tee", "/run/networks/named.conflist"]
        podman.session.run(write, input=json.dumps(NAMED), check=True)
    elif podman.call("--version").stdout.split()[-1].startswith("4."):
        pytest.skip("Podman 4 knows no plugins of netavark")
    else:
        install = ["/opt/netns-shim/bin/netns-shim", "install", "--name", "cni", "/run/plugins"]
        add = r'/^network_config_dir/a netavark_plugin_dirs = ["/run/plugins"]'
        for command in (
            ["mkdir", "/run/plugins"],
            install,
            ["sed", "-i", add, "/run/containers.conf"],
        ):
            podman.session.run(command, check=True)
        subnets = ["--ipv6", "--subnet", "10.89.3.0/24", "--subnet", "fd00:89:3::/64"]
        made = [*subnets, "-d", "cni", "-o", "type=bridge", "named"]
        podman.call("network", "create", *made)
    ids = {}
    for name in PAIR:
        image = ["-v", "/usr:/usr:ro", "--rootfs", "/run/root", "/usr/bin/sleep", "100"]
        run = ["run", "-d", "--name", name, "--network=named", f"--network-alias=the-{name}"]
        ids[name] = podman.call(*run, *image).stdout.strip()
    addresses = {name: (f"10.89.3.{n}", f"fd00:89:3::{n}") for n, name in enumerate(PAIR, 2)}
    found = {}
    for place, name in (PAIR, PAIR[::-1]):
        wanted = looks((name, f"the-{name}", ids[name][:12]), *addresses[name])
        said = podman.call("exec", place, "sh", "-c", LOOK, "sh", *wanted).stdout
        found[place] = wrong(said, wanted)
    podman.call("rm", "--force", "--all", "--time=0")

    def left() -> list[str]:
        # netavark calls a plugin in the shared netns, and so in place.
        return [line for line in world.leftovers() if "/.in-place/" not in line]

    assert found == {name: {} for name in PAIR}
    assert until(lambda: left() == []), left()

# SPDX-License-Identifier: Apache-2.0
"""Containers of real engines of a user without capabilities find each other by name.

Podman as root of a user namespace is in test_podman_root.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import bench
import engines
import pytest
from conftest import give_up
from naming import LOOK, looks, wrong
from runtime import bridge, until

PAIR = ("web", "data")
ADDRESSES = {name: (f"10.89.3.{n}", f"fd00:89:3::{n}") for n, name in enumerate(PAIR, 2)}
NETWORK = {
    "cniVersion": "0.4.0",
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
CONTAINERS = """[network]
cni_plugin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]
%s
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
# What Buildah of Debian 12 has to be told, which writes resolv.conf before it calls plugins.
TOLD = "--dns 10.89.3.1 --dns-search dns.podman"
# Each Buildah makes a user namespace of its own, and two of them share no network, unless they are
# called in the same one. There, libcni gets a place for its cache.
TOGETHER = "buildah unshare sh -c 'mount -t tmpfs tmpfs /var/lib; exec bash -eu steps'"
# Two steps, each of which looks while the other one is there.
STEPS = """
run() { buildah run --isolation oci --network named --volume "$PWD:/mnt" "$@"; }
run web -- sh -c "echo >/mnt/up; read _ </mnt/turn; $LOOK" sh $FROM_WEB >of-web &
read _ <up
run data -- sh -c "$LOOK
echo >/mnt/turn; read _ </mnt/done" sh $FROM_DATA >of-data &
wait %1
echo >done
wait
"""


@pytest.fixture
def user(world: bench.World) -> Iterator[bench.World]:
    """A user with an image, and with a network that has names."""
    missing = [name for name in ("buildah", "podman", "crun") if not shutil.which(name)]
    if missing:
        give_up(f"programs not found: {', '.join(missing)}")
    with engines.mounts(world):
        world.reset()
        sh(world, engines.IMAGE)
        if engines.backend() == "cni":
            make = "mkdir -p ~/.config/cni/net.d; cat >~/.config/cni/net.d/named.conflist"
            sh(world, make, stdin=json.dumps(NETWORK))
            configure(world, 'network_backend = "cni"')
        else:
            directory = f"{world.env['HOME']}/.local/lib/netavark"
            sh(world, "/opt/netns-shim/bin/netns-shim install --for netavark")
            configure(world, f'netavark_plugin_dirs = ["{directory}"]')
            subnets = "--ipv6 --subnet 10.89.3.0/24 --subnet fd00:89:3::/64"
            sh(world, f"podman network create {subnets} -d cni -o type=bridge named")
        yield world
        sh(world, "podman rm --all --force --time 0")
        world.reset()


def configure(world: bench.World, line: str) -> None:
    """Write containers.conf, with this line about networks."""
    sh(world, "cat >~/.config/containers/containers.conf", stdin=CONTAINERS % line)


def sh(world: bench.World, text: str, *, stdin: str = "", **env: str) -> str:
    """Have a shell of the user do something that succeeds; give what it prints."""
    command = ["timeout", "50", "bash", "-euc", f"cd ~; {text}"]
    done = world.run(command, input=stdin, env={**world.env, **env}, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def left(world: bench.World) -> list[str]:
    """List what is left; Podman and Buildah have netavark call plugins in place."""
    return [line for line in world.leftovers() if "/.in-place/" not in line]


def test_buildah(user: bench.World) -> None:
    """Steps that run at once find each other by the names and the IDs of their containers."""
    is_cni = engines.backend() == "cni"
    make = f"buildah from --name %s {TOLD if is_cni else ''} docker.io/library/busybox"
    ids = {}
    for name in PAIR:
        sh(user, make % name)
        inspect = "buildah inspect --format '{{.ContainerID}}' "
        ids[name] = sh(user, inspect + name).strip()[:12]
    wanted = {name: looks((name, ids[name]), *ADDRESSES[name]) for name in PAIR}
    script = f"cat >steps; mkfifo up turn done; {TOGETHER}"

    sh(
        user,
        script,
        stdin=STEPS,
        LOOK=LOOK,
        FROM_WEB=" ".join(wanted["data"]),
        FROM_DATA=" ".join(wanted["web"]),
    )
    found = {name: sh(user, f"cat of-{name}") for name in PAIR}

    assert wrong(found["web"], wanted["data"]) == {}
    assert wrong(found["data"], wanted["web"]) == {}
    assert until(lambda: left(user) == []), left(user)


def test_podman(user: bench.World) -> None:
    """Containers of rootless Podman find each other by name, alias and ID."""
    ids = {}
    for name in PAIR:
        run = f"podman run -d --name {name} --network named:alias=the-{name}"
        ids[name] = sh(user, f"{run} docker.io/library/busybox sleep 100").strip()[:12]
    found = {}
    for place, name in (PAIR, PAIR[::-1]):
        wanted = looks((name, f"the-{name}", ids[name]), *ADDRESSES[name])
        said = sh(user, f'podman exec {place} sh -c "$LOOK" sh {" ".join(wanted)}', LOOK=LOOK)
        found[place] = wrong(said, wanted)
    sh(user, "podman rm --all --force --time 0")

    assert found == {name: {} for name in PAIR}
    assert until(lambda: [e for e in left(user) if "slirp4netns" not in e] == []), left(user)

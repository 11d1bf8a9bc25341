# SPDX-License-Identifier: Apache-2.0
"""Containers of real engines of a user without capabilities find each other by name.

Podman as root of a user namespace is in test_podman_root.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import bench
import engines
import pytest
from engines import sh
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
SUBNETS = "--ipv6 --subnet 10.89.3.0/24 --subnet fd00:89:3::/64"
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
    with engines.user(world, NETWORK, SUBNETS):
        yield world
        sh(world, "podman rm --all --force --time 0")


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

# SPDX-License-Identifier: Apache-2.0
"""What real engines of a user have attached in place is what the commands of that user see."""

from __future__ import annotations

import json
from collections.abc import Iterator

import bench
import engines
import kinder
import pytest
from engines import sh
from runtime import PLUGIN, bridge, until

NETWORK = {
    "cniVersion": "0.4.0",
    "name": "seen",
    "plugins": [{"type": "netns-shim", "delegate": bridge("10.89.3.0/24", name="cni3")}],
}


@pytest.fixture
def user(world: bench.World) -> Iterator[bench.World]:
    """A user with an image, and with a network of the shim."""
    with engines.user(world, NETWORK, "--subnet 10.89.3.0/24"):
        yield world
        # Podman waits in vain for the end of what was killed, where no one takes its exit status.
        sh(world, "podman rm --all --force --time 0 || true")


def attached(world: bench.World) -> list[str]:
    """Name the containers that `status` lists."""
    places = json.loads(sh(world, f"{PLUGIN} status --json"))["inPlace"]
    return [one["containerID"] for place in places for one in place["references"]]


def test_podman_without_a_log_in(user: bench.World) -> None:
    """Podman makes up a runtime directory: commands of the user see the container all the same."""
    container = sh(user, "podman run -d --name web --network seen busybox sleep 600").strip()

    assert attached(user) == [container]
    assert sh(user, f"{PLUGIN} show {container[:12]}").startswith(container)
    assert sh(user, f"{PLUGIN} gc --dry-run").startswith("nothing to do")
    with kinder.log_in(user):
        assert attached(user) == [container]
    sh(user, "podman rm --force --time 0 web")
    assert attached(user) == []


def test_podman_that_was_killed(user: bench.World) -> None:
    """What is left of a container whose engine was killed is detached by `gc --idle`.

    Its network namespace is mounted still, as Podman keeps that of a container that lives.
    """
    container = sh(user, "podman run -d --name web --network seen busybox sleep 600").strip()
    sh(user, "kill -9 $(podman inspect web --format '{{.State.ConmonPid}} {{.State.Pid}}')")

    assert until(lambda: f"detached seen {container}" in sh(user, f"{PLUGIN} gc --idle"))
    assert attached(user) == []

# SPDX-License-Identifier: Apache-2.0
"""What real engines of a user have attached in place is what the commands of that user see."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import bench
import engines
import kinder
import pytest
from conftest import give_up
from runtime import PLUGIN, bridge, until

NETWORK = {
    "cniVersion": "0.4.0",
    "name": "seen",
    "plugins": [{"type": "netns-shim", "delegate": bridge("10.89.3.0/24", name="cni3")}],
}
CONTAINERS = """[network]
cni_plugin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]
%s
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


@pytest.fixture
def user(world: bench.World) -> Iterator[bench.World]:
    """A user with an image, and with a network of the shim."""
    missing = [name for name in ("buildah", "podman", "crun") if not shutil.which(name)]
    if missing:
        give_up(f"programs not found: {', '.join(missing)}")
    with engines.mounts(world):
        world.reset()
        sh(world, engines.IMAGE)
        configuration = ".config/containers/containers.conf"
        if engines.backend() == "cni":
            make = "mkdir -p .config/cni/net.d; cat >.config/cni/net.d/seen.conflist"
            sh(world, make, stdin=json.dumps(NETWORK))
            sh(world, f"cat >{configuration}", stdin=CONTAINERS % 'network_backend = "cni"')
        else:
            directory = f"{world.env['HOME']}/.local/lib/netavark"
            key = f'netavark_plugin_dirs = ["{directory}"]'
            sh(world, f"{PLUGIN} install --for netavark", stdin="")
            sh(world, f"cat >{configuration}", stdin=CONTAINERS % key)
            sh(world, "podman network create -d cni -o type=bridge --subnet 10.89.3.0/24 seen")
        yield world
        # Podman waits in vain for the end of what was killed, where no one takes its exit status.
        sh(world, "podman rm --all --force --time 0 || true")
        world.reset()


def sh(world: bench.World, text: str, stdin: str = "") -> str:
    """Have a shell of the user do something that succeeds; give what it prints."""
    words = ["timeout", "50", "bash", "-euc", f"cd ~\n{text}"]
    done = world.run(words, input=stdin)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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

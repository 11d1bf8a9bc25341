# SPDX-License-Identifier: Apache-2.0
"""Rootless Podman as it is, with its own way to publish a port, beside which ours are measured."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import bench
import engines
from places import HOLD, Place

# A bridge of Podman's own, in its rootless netns. The container needs no image: it is a directory.
SET_UP = """
mkdir -p ~/.config/containers ~/root
cd ~/root
mkdir usr proc sys dev etc tmp run
for directory in bin lib lib64 sbin; do ln -s "usr/$directory" .; done
printf '[storage]\\ndriver = "vfs"\\n' >~/.config/containers/storage.conf
cat >~/.config/containers/containers.conf <<END
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[network]
network_backend = "netavark"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
END
podman network create --disable-dns --subnet 10.78.0.0/24 beside
"""


def is_installed() -> bool:
    """Tell whether this machine has what rootless Podman needs."""
    return all(shutil.which(name) for name in ("podman", "conmon", "crun"))


@contextmanager
def published(world: bench.World, host_port: int, port: int) -> Iterator[Place]:
    """Run a container that publishes a port of TCP; give its network namespace."""
    env = {**world.env, "PATH": bench.ROOT_PATH}
    with engines.mounts(world):
        world.run(["sh", "-euc", SET_UP], env=env, check=True)
        options = ["--detach", "--network=beside", "-p", f"{host_port}:{port}"]
        image = ["-v", "/usr:/usr:ro", "--rootfs", f"{env['HOME']}/root", "sleep", "100000"]
        # It holds what it got for its output, so that is not a pipe.
        run = ["sh", "-euc", 'podman run "$@" >~/id 2>~/said || { cat ~/said; exit 1; }', "sh"]
        world.run([*run, *options, *image], env=env, check=True)
        try:
            asked = ["podman", "inspect", "--latest", "--format={{.State.Pid}}"]
            pid = world.run(asked, env=env, check=True).stdout.strip()
            enter = [*world.root._enter, "nsenter", f"--target={pid}", "--net"]
            flags = ("--mount", "--net")
            with Place([*enter, "sh", "-euc", HOLD], flags=flags, env=world.root.env) as place:
                yield place
        finally:
            world.run(["podman", "rm", "--all", "--force", "--time=0"], env=env, check=True)

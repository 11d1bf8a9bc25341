# SPDX-License-Identifier: Apache-2.0
"""Podman and Buildah on the machine of the tests: what they need there, and an image."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import bench
from conftest import give_up
from runtime import PLUGIN

# An image without the internet: programs of this machine, and the libraries that they name.
IMAGE = r"""
mkdir -p ~/.config/containers image
printf '[storage]\ndriver = "vfs"\n' >~/.config/containers/storage.conf
programs="/bin/sh /bin/ip /bin/cat /bin/sleep /usr/bin/getent"
for file in $programs $(ldd $programs | grep -o '[[:space:]]/[^ ]*'); do
    mkdir -p "image${file%/*}"
    cp -L "$file" "image$file"
done
mkdir -p image/proc image/sys image/dev image/etc image/tmp image/run
made=$(buildah from scratch)
buildah copy "$made" image /
buildah commit "$made" docker.io/library/busybox
buildah rm "$made"
rm -r image
"""

CONTAINERS = """[network]
cni_plugin_dirs = ["/opt/cni/bin", "/usr/lib/cni"]
%s
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


# How long a shell may take, in seconds. A Buildah that is ended by this says something of its own,
# such as `while running runtime: exit status 1`. A machine that is only busy must not get there.
LIMIT = 150
TOO_LONG = 124


@cache
def backend() -> str:
    """Give the back end of networks that is Podman's own here: cni or netavark."""
    done = subprocess.run(["podman", "--version"], capture_output=True, text=True, check=False)
    return "cni" if re.search(r"version [1-4]\.", done.stdout) else "netavark"


@contextmanager
def mounts(world: bench.World) -> Iterator[None]:
    """Make the machine fit for container engines."""
    # crun wants the new cgroups, and engines keep locks in /dev/shm, which is not the World's. The
    # administrator has used Podman, too, so one of these files is there.
    mount = """
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        mount -t tmpfs -o mode=1777 tmpfs /dev/shm
        (umask 077; : >/dev/shm/libpod_lock)
    """
    world.root.run(["sh", "-euc", mount], check=True)
    try:
        yield
    finally:
        # A process of an engine may be just ending.
        world.root.run(["umount", "--lazy", "/dev/shm", "/sys/fs/cgroup"], check=True)


def sh(world: bench.World, text: str, *, stdin: str = "", **env: str) -> str:
    """Have a shell of the user do something that succeeds; give what it prints."""
    command = ["timeout", str(LIMIT), "bash", "-euc", f"cd ~; {text}"]
    done = world.run(command, input=stdin, env={**world.env, **env}, timeout=LIMIT + 50)
    assert done.returncode != TOO_LONG, f"not done in {LIMIT} s: {done.stdout}{done.stderr}"
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def user(world: bench.World, network: dict[str, Any], options: str) -> Iterator[None]:
    """Give the user an image and a network: `network` for CNI, `options` for netavark's `create`.

    Both have the name that `network` says.
    """
    missing = [name for name in ("buildah", "podman", "crun") if not shutil.which(name)]
    if missing:
        give_up(f"programs not found: {', '.join(missing)}")
    name = network["name"]
    with mounts(world):
        world.reset()
        sh(world, IMAGE)
        write = "cat >~/.config/containers/containers.conf"
        if backend() == "cni":
            make = f"mkdir -p ~/.config/cni/net.d; cat >~/.config/cni/net.d/{name}.conflist"
            sh(world, make, stdin=json.dumps(network))
            sh(world, write, stdin=CONTAINERS % 'network_backend = "cni"')
        else:
            directory = f"{world.env['HOME']}/.local/lib/netavark"
            sh(world, f"{PLUGIN} install --for netavark")
            sh(world, write, stdin=CONTAINERS % f'netavark_plugin_dirs = ["{directory}"]')
            sh(world, f"podman network create {options} -d cni -o type=bridge {name}")
        yield
        world.reset()

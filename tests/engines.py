# SPDX-License-Identifier: Apache-2.0
"""Podman and Buildah on the machine of the tests: what they need there, and an image."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import bench

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

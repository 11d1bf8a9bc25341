# SPDX-License-Identifier: Apache-2.0
"""What a test may ask of the machine that a stock Debian does not have, and why it may.

Each is a context, and a fixture of the same name (see conftest.py). What is not named here, a user
does not have: a page or a program that fails without it is to be mended, and no test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench import World

NAMES = ("log_in", "libcni_cache", "answered_pings", "just_up")
PING_GROUPS = "/proc/sys/net/ipv4/ping_group_range"


@contextmanager
def log_in(world: World) -> Iterator[None]:
    """Let the user log in: systemd makes a runtime directory, and pam_systemd says where it is.

    A session of before does not see it.
    """
    directory, uid = world.runtime_dir, world.uid
    options = f"nosuid,nodev,mode=0700,uid={uid},gid={uid}"
    make = 'mkdir "$0"; mount -t tmpfs -o "$1" tmpfs "$0"'
    world.root.run(["sh", "-euc", make, directory, options], check=True)
    world.env["XDG_RUNTIME_DIR"] = directory
    try:
        yield
    finally:
        del world.env["XDG_RUNTIME_DIR"]
        remove = 'umount --lazy "$0"; rmdir "$0"'
        world.root.run(["sh", "-euc", remove, directory], check=True)


@contextmanager
def libcni_cache(world: World) -> Iterator[None]:
    """Let root have given /var/lib/cni to the user: libcni keeps a cache there, or fails."""
    world.root.run(["install", "-d", f"--owner={world.uid}", "/var/lib/cni"], check=True)
    try:
        yield
    finally:
        world.root.run(["rm", "-rf", "/var/lib/cni"], check=True)


@contextmanager
def answered_pings(world: World) -> Iterator[None]:
    """Let root have opened ping sockets to everybody: an uplink pings by them for containers."""
    before = world.root.run(["cat", PING_GROUPS], check=True).stdout
    _write(world, PING_GROUPS, "0 2147483647")
    try:
        yield
    finally:
        _write(world, PING_GROUPS, before)


@contextmanager
def just_up(world: World) -> Iterator[None]:
    """Let the cable have been plugged in a moment ago: its IPv6 addresses are tentative still.

    That is no kindness but the reverse, so it is asked for as well.
    """
    world.replug()
    try:
        yield
    finally:
        world.settle()


def _write(world: World, path: str, text: str) -> None:
    world.root.run(["sh", "-euc", 'echo "$1" >"$0"', path, text], check=True)

# SPDX-License-Identifier: Apache-2.0
"""Writable copies of directories for commands in the user's own user namespace.

A container runtime writes into /run and /var/lib, which are root's on the machine. So it gets a
tmpfs there, with a link to each entry of the directory of before, which it may remove. What calls
of the shim need by its path is bound instead, so that no link is on the way.

The mounts are in the mount namespace of the pause process, not in one of the command: all
commands and calls have to see the pins. They last as long as that process.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..enter import WHOLE
from ..errors import INVALID_ENVIRONMENT, ShimError
from ..libc import MS_BIND, MS_NODEV, MS_NOSUID, MS_REC, attach_tree, clone_tree, mount

if TYPE_CHECKING:
    from collections.abc import Iterable

MODE = 0o755
# What the kernel shows. A link to a process or a device in it would not be what later calls need.
KERNELS = ("/proc", "/sys", "/dev")


def check(directory: str) -> str:
    """Give the path of a directory without links; ShimError (code 4) if it cannot be copied."""
    path = os.path.realpath(directory)
    if not directory.startswith("/") or path == "/" or not os.path.isdir(path):
        why = "name a directory by its path, such as /run"
        raise ShimError(INVALID_ENVIRONMENT, f"--copy-up: not to be copied: {directory!r}", why)
    # /dev/shm is a place for files as any other.
    root = f"/{path.split('/')[1]}"
    if root in KERNELS and (path == root or root != "/dev"):
        why = f"{root} is the kernel's, and each call needs it as it is"
        raise ShimError(INVALID_ENVIRONMENT, f"--copy-up: not to be copied: {directory!r}", why)
    return path


def is_done(directory: str) -> bool:
    """Tell whether a directory is a writable copy already."""
    return os.path.lexists(f"{directory}/{WHOLE}")


def copy_up(directory: str, needed: Iterable[str]) -> None:
    """Make a directory writable for all commands in this mount namespace, unless it is already.

    `needed` are paths that must not lead through a link of ours.
    """
    if is_done(directory):
        return
    names = os.listdir(directory)
    before = clone_tree(directory)
    try:
        mount("tmpfs", directory, "tmpfs", MS_NOSUID | MS_NODEV)
        os.chmod(directory, MODE)
        os.mkdir(f"{directory}/{WHOLE}")
        attach_tree(before, f"{directory}/{WHOLE}")
    finally:
        os.close(before)
    bound = {_first_part(directory, path) for path in needed}
    for name in names:
        _make(directory, name, is_bound=name in bound)


def _first_part(directory: str, path: str) -> str:
    """Give the entry of a directory in which a path lies; "" where it lies elsewhere."""
    below = f"{os.path.realpath(path)}/".removeprefix(f"{directory}/")
    return "" if below.startswith("/") else below.split("/")[0]


def _make(directory: str, name: str, *, is_bound: bool) -> None:
    source, target = f"{directory}/{WHOLE}/{name}", f"{directory}/{name}"
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
    elif is_bound and os.path.isdir(source):
        os.mkdir(target)
        mount(source, target, None, MS_BIND | MS_REC)
    else:
        os.symlink(f"{WHOLE}/{name}", target)

# SPDX-License-Identifier: Apache-2.0
"""Network namespaces as seen before anything is done: what one is, whose, and who may use it."""

from __future__ import annotations

import errno
import os

from .errors import CANNOT_ENTER, INVALID_NETNS, ShimError
from .libc import CAP_NET_ADMIN, CAP_SYS_ADMIN, CLONE_NEWNET, ns_type, ns_userns


def is_in_place(mode: str) -> bool:
    """Tell whether plugins can work in the caller's own netns: no shared one is entered then.

    They can where the user namespace that owns that netns is the caller's own or below it: real
    root, `rootlesskit`, the inside of Podman's rootless netns. `mode` is the key `enter`.

    Raises ShimError where nothing can be entered for lack of capabilities.
    """
    if mode == "never":
        return True
    if not _is_privileged():
        raise ShimError(
            CANNOT_ENTER,
            "no capabilities over any network namespace",
            "run the container runtime inside a user namespace of yours: "
            "unshare --user --map-root-user --map-auto --mount RUNTIME",
        )
    return mode == "auto" and _is_ours("/proc/self/ns/net")


def _is_privileged() -> bool:
    needed = 1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN
    with open("/proc/self/status", "rb") as file:
        _, _, tail = file.read().partition(b"\nCapEff:")
    return int(tail.split(None, 1)[0], 16) & needed == needed


def _is_ours(path: str) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(ns_userns(fd))
    except PermissionError:
        return False
    finally:
        os.close(fd)
    return True


def open_netns(path: str) -> int:
    """Open a network namespace by path.

    Raises ShimError (code 8) where it is none, FileNotFoundError where there is nothing.
    """
    # O_NONBLOCK: the path may name a pipe, which would block until somebody writes into it.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if ns_type(fd) == CLONE_NEWNET:
            return fd
        problem = "it is a namespace of another kind"
    except OSError as error:
        if error.errno != errno.ENOTTY:
            os.close(fd)
            raise
        problem = "it is not a namespace"
    os.close(fd)
    raise ShimError(INVALID_NETNS, f"not a network namespace: {path!r}", problem)


def identity(path: str) -> list[int] | None:
    """Tell a network namespace from every other while it lives: device and inode.

    None where the path leads to none that can be opened.
    """
    try:
        fd = open_netns(path)
    except (OSError, ShimError):
        return None
    info = os.fstat(fd)
    os.close(fd)
    return [info.st_dev, info.st_ino]


def check_container_netns(path: str) -> None:
    """Refuse a CNI_NETNS that no plugin could attach, before anything is made for it."""
    try:
        fd = open_netns(path)
        try:
            os.close(ns_userns(fd))
        finally:
            os.close(fd)
    except PermissionError:
        raise ShimError(
            INVALID_NETNS,
            f"no power over the network namespace {path!r}",
            "the user namespace that owns it is not the caller's and not below it; "
            "run the container runtime in the user namespace in which it makes its containers",
        ) from None
    except OSError as error:
        raise ShimError(
            INVALID_NETNS, f"no network namespace: {path!r}", error.strerror or ""
        ) from None


def check_is_other(path: str, shared: int) -> None:
    """Refuse a CNI_NETNS that is the netns in which plugins run.

    The Go library does so as well, but only after the plugin has acted.
    """
    info = os.fstat(shared)
    if identity(path) == [info.st_dev, info.st_ino]:
        raise ShimError(
            INVALID_NETNS,
            "plugin's netns and netns from CNI_NETNS should not be the same",
            f"{path} is the network namespace that plugins run in",
        )

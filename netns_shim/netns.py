# SPDX-License-Identifier: Apache-2.0
"""Network namespaces as seen before anything is done: what one is, whose, and who may use it."""

from __future__ import annotations

import errno
import os

from .errors import INVALID_NETNS, ShimError
from .libc import (
    CAP_NET_ADMIN,
    CAP_SYS_ADMIN,
    CLONE_NEWNET,
    ns_type,
    ns_userns,
    setns,
    unshare,
)


def is_in_place(mode: str) -> bool:
    """Tell whether plugins can work in this process's netns: no shared one is entered then.

    They can where the user namespace that owns that netns is this process's or below it: real
    root, `rootlesskit`, the inside of Podman's rootless netns. `mode` is the key `enter`.
    """
    return mode == "never" or (mode == "auto" and _is_ours("/proc/self/ns/net"))


def is_privileged() -> bool:
    """Tell whether this process may enter, make and mount what belongs to its user namespace."""
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


def is_initial_userns() -> bool:
    """Tell whether this process is in the user namespace that the machine began with."""
    with open("/proc/self/uid_map", encoding="utf-8") as file:
        return file.read().split() == ["0", "0", "4294967295"]


def open_netns(path: str, *, is_ours: bool = False) -> int:
    """Open a network namespace by path; one that is ours is a mount, and never behind a link.

    Raises ShimError (code 8) where it is none, FileNotFoundError where there is nothing.
    """
    # O_NONBLOCK: the path may name a pipe, which would block until somebody writes into it.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(path, flags | os.O_NOFOLLOW if is_ours else flags)
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


def identity(path: str, *, is_ours: bool = False) -> tuple[int, int] | None:
    """Tell a network namespace from every other while it lives: device and inode.

    None where the path leads to none that can be opened.
    """
    try:
        fd = open_netns(path, is_ours=is_ours)
    except (OSError, ShimError):
        return None
    info = os.fstat(fd)
    os.close(fd)
    return info.st_dev, info.st_ino


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
            "it belongs to another user namespace, and no power reaches from one into another: "
            "make the container in that of netns-shim, with `netns-shim unshare -- RUNTIME`",
        ) from None
    except OSError as error:
        raise ShimError(
            INVALID_NETNS, f"no network namespace: {path!r}", error.strerror or ""
        ) from None


def check_is_other(path: str, shared: int) -> None:
    """Refuse a CNI_NETNS that is the netns in which plugins run, or the caller's own.

    The Go library does the first as well, but only after the plugin has acted. The second would
    have plugins take the host for a container.
    """
    if not is_other(path, shared):
        raise ShimError(
            INVALID_NETNS,
            "plugin's netns and netns from CNI_NETNS should not be the same",
            f"{path} is the network namespace that plugins run in, or that of the caller",
        )


def is_other(path: str, shared: int) -> bool:
    """Tell whether a path leads neither to an open netns nor to the one of this process."""
    info = os.fstat(shared)
    return identity(path) not in ((info.st_dev, info.st_ino), identity("/proc/self/ns/net"))


def has_interface(path: str, ifname: str) -> bool:
    """Tell whether a netns has an interface of this name; False where it is no netns.

    Where nobody may look into it, it might have one: True.
    """
    try:
        fd = open_netns(path)
    except (OSError, ShimError):
        return False
    pid = os.fork()
    if pid == 0:
        try:
            setns(fd, CLONE_NEWNET, path)
            with open("/proc/self/net/dev", encoding="utf-8", errors="surrogateescape") as file:
                names = [line.partition(":")[0].strip() for line in file]
            os._exit(0 if ifname in names else 1)
        finally:
            os._exit(2)
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 1


class StandIn:
    """A new and empty netns, as a context that gives its path; it goes with the context.

    PermissionError where this process may make none.
    """

    __slots__ = ("_pid", "_stop")

    def __enter__(self) -> str:
        ready, tell = os.pipe()
        hear, self._stop = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._stop)
                unshare(CLONE_NEWNET)
                os.write(tell, b"1")
                os.read(hear, 1)  # the end of the context, or of the process that it is in
            finally:
                os._exit(0)
        os.close(tell)
        os.close(hear)
        is_ready = os.read(ready, 1) == b"1"
        os.close(ready)
        if not is_ready:
            self.__exit__()
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return f"/proc/{self._pid}/ns/net"

    def __exit__(self, *_: object) -> None:
        os.close(self._stop)
        os.waitpid(self._pid, 0)

# SPDX-License-Identifier: Apache-2.0
"""Network namespaces, before anything is done: what one is, whose it is, who may use it."""

from __future__ import annotations

import errno
import os

from .errors import CANNOT_ENTER, INVALID_NETNS, ShimError
from .libc import (
    CAP_NET_ADMIN,
    CAP_SYS_ADMIN,
    CAP_SYS_CHROOT,
    CLONE_NEWNET,
    ns_type,
    ns_userns,
    setns,
)

# See ip-sysctl of the kernel's documentation. Each has the kernel's own value, and ours.
SYSCTLS = "/proc/sys/net/ipv4/"
REPEATING = ("tcp_rto_min_us", b"200000\n", b"50000\n")
RECOVERING = (("tcp_frto", b"2\n", b"0\n"), ("tcp_congestion_control", b"bbr\n", b"reno\n"))


def is_in_place(mode: str) -> bool:
    """Tell whether plugins can work in this process's netns: no shared one is entered then.

    They can where this process has power over it: as real root, in `rootlesskit`, inside Podman's
    rootless netns. Then its user namespace owns that netns, or is above the one that does, and it
    has capabilities there. `mode` is the key `enter`. Nothing is made or changed to find out.
    """
    return mode == "never" or (
        mode == "auto" and is_privileged() and _is_ours("/proc/self/ns/net")
    )


def is_privileged() -> bool:
    """Tell whether this process may enter, make and mount things in its user namespace."""
    return _holds(_capabilities(), CAP_SYS_ADMIN, CAP_NET_ADMIN)


def can_return() -> bool:
    """Tell whether this process `is_privileged`, and may come back from where it enters."""
    return _holds(_capabilities(), CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_SYS_CHROOT)


def check_return() -> bool:
    """Tell what `is_privileged` tells; ShimError (code 103) where only the way back is closed.

    setns(2) into a mount namespace and chroot(2) need CAP_SYS_CHROOT. It would be missed when the
    plugins have run.
    """
    held = _capabilities()
    if not _holds(held, CAP_SYS_ADMIN, CAP_NET_ADMIN):
        return False
    if not _holds(held, CAP_SYS_CHROOT):
        raise ShimError(
            CANNOT_ENTER,
            "this process has CAP_SYS_ADMIN, but not CAP_SYS_CHROOT",
            "it could enter the shared netns, but not come back: give the container runtime that "
            "capability as well",
        )
    return True


def _capabilities() -> int:
    """Read the effective capabilities of this process, capabilities(7), as a mask."""
    fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    _, _, tail = os.read(fd, 1 << 16).partition(b"\nCapEff:")
    os.close(fd)
    return int(tail.split(None, 1)[0], 16)


def _holds(held: int, *numbers: int) -> bool:
    return all(held >> number & 1 for number in numbers)


def _is_ours(path: str) -> bool:
    """Tell whether this user namespace, or one below it, owns the namespace at a path."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(ns_userns(fd))
    except PermissionError:
        return False
    finally:
        os.close(fd)
    return True


def can_mount() -> bool:
    """Tell whether this process may mount in its mount namespace, and come back to it."""
    return _is_ours("/proc/self/ns/mnt")


def refuse_if_nested(pin: str) -> None:
    """Refuse to go on without power over a shared netns, or to make one: ShimError (code 103).

    A process has no power over what belongs to a user namespace above its own, whatever its
    capabilities are. Nothing has been done yet, which could not be undone then.
    """
    try:
        fd = open_netns(pin, is_ours=True)
    except (OSError, ShimError):
        if can_mount():
            return
        what, why = "this user namespace cannot mount", "it needs a mount namespace of its own"
    else:
        try:
            os.close(ns_userns(fd))
            return
        except PermissionError:
            what, why = (
                "no power over the shared netns",
                f"{pin} belongs to another user namespace",
            )
        finally:
            os.close(fd)
    hint = "start what calls it with `netns-shim unshare -- RUNTIME`"
    raise ShimError(CANNOT_ENTER, what, f"{why}: {hint}")


def is_initial_userns() -> bool:
    """Tell whether this process is in the user namespace that the machine began with."""
    with open("/proc/self/uid_map", encoding="utf-8") as file:
        return file.read().split() == ["0", "0", "4294967295"]


def open_netns(path: str, *, is_ours: bool = False) -> int:
    """Open a network namespace by path; one that is ours is a mount, and never behind a link.

    Raises ShimError (code 8) where it is something else, FileNotFoundError where it is missing.
    """
    # O_NONBLOCK: the path may name a pipe, which would block until it has a writer.
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
    """Give what tells a network namespace from all others that exist: device and inode.

    None where the path leads to no netns that can be opened.
    """
    try:
        fd = open_netns(path, is_ours=is_ours)
    except (OSError, ShimError):
        return None
    info = os.fstat(fd)
    os.close(fd)
    return info.st_dev, info.st_ino


class ContainerNetns:
    """What CNI_NETNS leads to at this moment, held open until `close`.

    So all later questions are about one and the same namespace, even if the path leads to another
    one by then. `id` is its identity, None where the path leads to no netns.
    """

    __slots__ = ("_fd", "id", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self.id: tuple[int, int] | None = None
        try:
            self._open()
        except (OSError, ShimError):
            pass  # the caller decides what that means

    def _open(self) -> None:
        self._fd = open_netns(self.path)
        info = os.fstat(self._fd)
        self.id = info.st_dev, info.st_ino

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def check(self) -> None:
        """Refuse a netns that no plugin could attach, and close it: ShimError (code 8)."""
        try:
            if self._fd < 0:
                self._open()  # it fails again, and says why
            os.close(ns_userns(self._fd))
        except PermissionError:
            self.close()
            raise ShimError(
                INVALID_NETNS,
                f"no power over the network namespace {self.path!r}",
                "it belongs to another user namespace, over which this one has no power: make the "
                "container in that of netns-shim, with `netns-shim unshare -- RUNTIME`",
            ) from None
        except OSError as error:
            self.close()
            raise ShimError(
                INVALID_NETNS, f"no network namespace: {self.path!r}", error.strerror or ""
            ) from None

    def check_is_other(self, shared: int) -> None:
        """Refuse the netns in which plugins run, or the caller's own: ShimError (code 8).

        The Go library refuses the first as well, but only after the plugin has acted. With the
        second, plugins would take the host for a container.
        """
        if not self.is_other(shared):
            raise ShimError(
                INVALID_NETNS,
                "plugin's netns and netns from CNI_NETNS should not be the same",
                f"{self.path} is the network namespace that plugins run in, or that of the caller",
            )

    def is_other(self, shared: int) -> bool:
        """Tell whether it is neither an open netns nor the one of this process."""
        ours = (os.fstat(shared), os.stat("/proc/self/ns/net"))
        return self.id not in [(info.st_dev, info.st_ino) for info in ours]

    def tune_tcp(self, here: int, *, behind_pasta: bool) -> None:
        """Call the function `tune_tcp` inside; come back to `here`, where this process is."""
        setns(self._fd, CLONE_NEWNET, self.path)
        try:
            tune_tcp(behind_pasta=behind_pasta)
        finally:
            setns(here, CLONE_NEWNET)

    def has_interface(self, ifname: str) -> bool:
        """Tell whether it has an interface of this name; False where it is no netns.

        True where this process may not look into it, as it might have one.
        """
        if self._fd < 0:
            return False
        pid = os.fork()
        if pid == 0:
            try:
                setns(self._fd, CLONE_NEWNET, self.path)
                with open(
                    "/proc/self/net/dev", encoding="utf-8", errors="surrogateescape"
                ) as file:
                    names = [line.partition(":")[0].strip() for line in file]
                os._exit(0 if ifname in names else 1)
            finally:
                os._exit(2)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 1


def has_interface(path: str, ifname: str) -> bool:
    """Tell about a path what `ContainerNetns.has_interface` tells."""
    container = ContainerNetns(path)
    try:
        return container.has_interface(ifname)
    finally:
        container.close()


def tune_tcp(*, behind_pasta: bool) -> None:
    """Have TCP in this process's netns recover soon from what its uplink drops.

    pasta and slirp4netns end each connection. What follows something that they have dropped is
    dropped as well, and they have no selective acknowledgements. After a timeout, F-RTO (RFC 5682)
    would go on with new data, and BBR with only a little of the old. Neither has any use on a way
    that ends in this machine: beyond it, the host's TCP has that task. Behind pasta, a lost packet
    is repeated after 50 ms, not 200: Linux may delay an acknowledgement for 40.

    A value that is not the kernel's own, or that of BBR, is left alone. Some kernels do not have
    all of them (`tcp_rto_min_us` is of 6.11), and in some containers they cannot be written.
    """
    for name, kernels, ours in (*([REPEATING] if behind_pasta else []), *RECOVERING):
        _replace(SYSCTLS + name, kernels, ours)


def _replace(path: str, old: bytes, new: bytes) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if os.read(fd, 32) == old:
            os.pwrite(fd, new, 0)
    except OSError:
        return
    finally:
        os.close(fd)

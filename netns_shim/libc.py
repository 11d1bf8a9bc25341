# SPDX-License-Identifier: Apache-2.0
"""The system calls that Python lacks, each under its own name; all of them raise OSError.

It is loaded at every call. So the foreign functions are made from `_ctypes`, of which the
module `ctypes` is a wrapper that takes three times as long to import (1.3 ms).
"""

from __future__ import annotations

import _ctypes
import fcntl
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# include/uapi/linux/nsfs.h: _IO(0xb7, 1) and _IO(0xb7, 3)
NS_GET_USERNS = 0xB701
NS_GET_NSTYPE = 0xB703

# include/uapi/linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36

# Their numbers on all architectures of Linux but Alpha.
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_PIDFD_GETFD = 438
AT_FDCWD = -100
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 4

CAP_NET_ADMIN = 12
CAP_SYS_CHROOT = 18
CAP_SYS_ADMIN = 21


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class _UnsignedLong(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "L"


class _Text(_ctypes._SimpleCData):  # type: ignore[type-arg]
    """A text that ends with NUL: bytes, or None for a null pointer."""

    _type_ = "z"


class _Function(_ctypes.CFuncPtr):
    """A function of C that gives an int, and an error in errno."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Int


class _Libc:
    """The libraries that this process has loaded; ctypes looks functions up in `_handle`."""

    _handle = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]


def _function(name: str, *argtypes: type) -> _Function:
    function = _Function((name, _Libc))  # type: ignore[arg-type]
    function.argtypes = argtypes
    return function


_setns = _function("setns", _Int, _Int)
_unshare = _function("unshare", _Int)
_mount = _function("mount", _Text, _Text, _Text, _UnsignedLong, _Text)
_umount2 = _function("umount2", _Text, _Int)


def _oserror(filename: str | None = None) -> OSError:
    errno = _ctypes.get_errno()
    return OSError(errno, os.strerror(errno), filename)


def setns(fd: int, nstype: int, name: str | None = None) -> None:
    """Move this process into a namespace, setns(2); `name` is what the error shows."""
    if _setns(fd, nstype) < 0:
        raise _oserror(name)


def unshare(flags: int) -> None:
    """Give this process namespaces of its own, unshare(2)."""
    if _unshare(flags) < 0:
        raise _oserror()


def mount(source: str | None, target: str, fstype: str | None, flags: int) -> None:
    """Mount, bind or change propagation, mount(2); the error names the target."""
    arguments = [None if a is None else os.fsencode(a) for a in (source, target, fstype)]
    if _mount(*arguments, flags, None) < 0:
        raise _oserror(target)


def umount2(target: str, flags: int) -> None:
    """Unmount, umount2(2)."""
    if _umount2(os.fsencode(target), flags) < 0:
        raise _oserror(target)


def ns_type(fd: int) -> int:
    """Tell the CLONE_NEW* constant of an open namespace, ioctl_ns(2); ENOTTY for other files."""
    return fcntl.ioctl(fd, NS_GET_NSTYPE)


def ns_userns(fd: int) -> int:
    """Open the user namespace that owns an open namespace, ioctl_ns(2).

    EPERM where the owner is neither this process's user namespace nor one below it.
    """
    return fcntl.ioctl(fd, NS_GET_USERNS)


def clone_tree(path: str) -> int:
    """Open a copy of the mounts at a path and below it, which is mounted nowhere, open_tree(2)."""
    call = _function("syscall", _UnsignedLong, _Int, _Text, _UnsignedLong)
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | AT_RECURSIVE
    fd: int = call(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags)
    if fd < 0:
        raise _oserror(path)
    return fd


def attach_tree(fd: int, path: str) -> None:
    """Mount what `clone_tree` has opened, move_mount(2)."""
    call = _function("syscall", _UnsignedLong, _Int, _Text, _Int, _Text, _UnsignedLong)
    target = os.fsencode(path)
    if call(SYS_MOVE_MOUNT, fd, b"", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0:
        raise _oserror(path)


def become_subreaper() -> None:
    """Have orphans below this process become its children, prctl(2)."""
    call = _function("prctl", _Int, _UnsignedLong)
    if call(PR_SET_CHILD_SUBREAPER, 1) < 0:
        raise _oserror()


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """Take a copy of a descriptor of another process, pidfd_getfd(2); it is close-on-exec.

    EPERM where this process may not trace the other one, EBADF where that has no such descriptor,
    ENOSYS before Linux 5.6. `pidfd` is a descriptor of the process.
    """
    # Made here: a warm call does not need it.
    call = _function("syscall", _UnsignedLong, _UnsignedLong, _UnsignedLong, _UnsignedLong)
    taken: int = call(SYS_PIDFD_GETFD, pidfd, fd, 0)
    if taken < 0:
        raise _oserror()
    return taken

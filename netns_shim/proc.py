# SPDX-License-Identifier: Apache-2.0
"""What proc(5) says of this boot, of this PID namespace, and of processes by their IDs."""

from __future__ import annotations

import errno
import os

# Where proc_pid_stat(5) has what we look at, counted from the state of the process.
_STATE, _FLAGS, _START_TIME, _PENDING = 0, 6, 19, 28
# Flag and pending signal of a process that is on its way out: it takes pasta(1) 10 to 40 ms.
_EXITING, _SIGKILL = 0x4, 1 << 8


def boot_id() -> str:
    """Tell the identity of this boot of the machine, random(4).

    After the next boot all namespaces are new, and some have the numbers of old ones.
    """
    path = "/proc/sys/kernel/random/boot_id"
    try:
        return _read(path).decode().strip()
    except FileNotFoundError:
        why = "the kernel's values are hidden: mount proc(5) without subset=pid"
        raise FileNotFoundError(errno.ENOENT, why, path) from None


def pid_namespace() -> int:
    """Tell the PID namespace of this process, by its inode: in another one, it has other IDs."""
    return os.stat("/proc/self/ns/pid").st_ino


def start_time(pid: int) -> int:
    """Tell when a process started, in clock ticks after boot, proc_pid_stat(5).

    A process ID alone may belong to another process by now; with this it is an identity. 0 where
    the process is gone, or a zombie: some init processes never reap one.
    """
    fields = _stat(pid)
    return int(fields[_START_TIME]) if fields else 0


def lives(pid: int, since: int) -> bool:
    """Tell whether a process is there, is the one that started then, and has not been killed.

    One that has got its SIGKILL may be there for a moment, but does nothing any more.
    """
    fields = _stat(pid) if pid and since else []
    return (
        bool(fields)
        and int(fields[_START_TIME]) == since
        and not int(fields[_FLAGS]) & _EXITING
        and not int(fields[_PENDING]) & _SIGKILL
    )


def is_stopped(pid: int) -> bool:
    """Tell whether a process does nothing until it is told to go on, by a signal or a debugger."""
    fields = _stat(pid)
    return bool(fields) and fields[_STATE] in (b"T", b"t")


def _stat(pid: int) -> list[bytes]:
    """Read what proc_pid_stat(5) says after the name; empty where it is gone, or a zombie."""
    try:
        text = _read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return []
    fields = text.rpartition(b")")[2].split()
    return [] if fields[_STATE] in (b"Z", b"X") else fields


def has_interface(pid: int, fd: object) -> bool:
    """Tell whether a descriptor of a TUN device still has its interface, proc_pid_fdinfo(5)."""
    try:
        return b"\niff:\t\n" not in _read(f"/proc/{pid}/fdinfo/{fd}")
    except OSError:
        return True  # it is not known, or we may not look


def _read(path: str) -> bytes:
    """Read a short file of proc(5) in one system call."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)

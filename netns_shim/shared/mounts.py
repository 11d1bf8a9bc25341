# SPDX-License-Identifier: Apache-2.0
"""The pin of a netns, and removing directories without anything that is mounted below them.

Use it in the outer mount namespace, where no mount hides the state directory.
"""

from __future__ import annotations

import _socket as socket  # see `addresses`
import errno
import fcntl
import os
import sys

from .. import netns
from ..errors import CANNOT_ENTER, TRY_AGAIN_LATER, ShimError
from ..libc import CLONE_NEWNET, MNT_DETACH, MS_BIND, UMOUNT_NOFOLLOW, mount, umount2, unshare
from ..state import FILE_MODE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..state import State

SIOCSIFFLAGS = 0x8914
IFF_UP = 1
# struct ifreq, netdevice(7)
LOOPBACK_UP = b"lo".ljust(16, b"\0") + IFF_UP.to_bytes(2, sys.byteorder) + bytes(14)


def pin(state: State) -> None:
    """Make a netns with its loopback up and keep it by a bind mount, as `ip netns` does."""
    os.close(os.open(state.pin, os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE))
    # A child does it, because this process has to stay in the host's netns.
    pid = os.fork()
    if pid == 0:
        try:
            unshare(CLONE_NEWNET)
            control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            fcntl.ioctl(control.fileno(), SIOCSIFFLAGS, LOOPBACK_UP)
            mount("/proc/self/ns/net", state.pin, None, MS_BIND)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == errno.EPERM:
        raise ShimError(
            CANNOT_ENTER,
            "this user namespace cannot mount",
            "it needs a mount namespace of its own: "
            "start what calls it with `netns-shim unshare -- RUNTIME`",
        )
    if code:
        raise OSError(abs(code), f"cannot make a netns: {os.strerror(abs(code))}", state.pin)


def pin_again(state: State, pid: int, inode: object) -> bool:
    """Pin a netns, known by its inode, that a process has open; tell whether the process has it.

    Raises FileNotFoundError where the process ends meanwhile.
    """
    directory = f"/proc/{pid}/fd"
    for path in [f"{directory}/{fd}" for fd in os.listdir(directory)]:
        if os.stat(path).st_ino == inode and netns.identity(path) is not None:
            # A file at the path of the pin stays: pasta ends when it is removed.
            os.close(os.open(state.pin, os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE))
            mount(path, state.pin, None, MS_BIND)
            return True
    return False


def unpin(state: State) -> None:
    """Remove the pin, or any other file at its path."""
    while True:
        try:
            umount2(state.pin, MNT_DETACH | UMOUNT_NOFOLLOW)
        except FileNotFoundError:
            return
        except OSError as error:
            # EPERM: this mount namespace is not ours, so we have mounted nothing in it.
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
            break
    os.unlink(state.pin)


def remove_tree(directory: str) -> None:
    """Remove a directory of ours, but never anything that is mounted below it.

    Call it with a path that we have made ourselves: all that is in there goes.
    """
    directory = directory.rstrip("/")  # else the kernel would follow a link
    if not os.path.isdir(directory) or os.path.islink(directory):
        # A link or a file at its path is removed, but never the target of a link.
        try:
            os.unlink(directory)
        except FileNotFoundError:
            pass
        return
    refuse_if_mounted(directory)
    _remove(directory)


def refuse_if_mounted(directory: str) -> None:
    """Refuse to remove a directory in which something is mounted: ShimError (code 11)."""
    real = os.path.realpath(directory)
    for target in [mounted.point for mounted in table()]:
        if target == real or target.startswith(real + "/"):
            raise ShimError(
                TRY_AGAIN_LATER,
                f"not removing {directory}",
                f"something is mounted on {target}: unmount it, then call again",
            )


def _remove(directory: str) -> None:
    # Not shutil.rmtree: its import takes longer than all the rest of a last DEL.
    for _, directories, files, fd in os.fwalk(directory, topdown=False):
        for name in files:
            os.unlink(name, dir_fd=fd)
        for name in directories:
            _remove_directory(name, fd)
    os.rmdir(directory)


def _remove_directory(name: str, fd: int) -> None:
    try:
        os.rmdir(name, dir_fd=fd)
    except NotADirectoryError:
        os.unlink(name, dir_fd=fd)  # a link to a directory


class Mount:
    """One line of proc_pid_mountinfo(5): the mounted part of a file system, where, and its kind.

    For a mounted network namespace, that part is its name, `net:[…]`.
    """

    __slots__ = ("_point", "kind", "number", "root")

    def __init__(self, line: bytes) -> None:
        before, _, after = line.partition(b" - ")
        number, _, _, root, self._point, *_ = before.split(b" ")
        self.number = int(number)
        self.root = root.decode(errors="surrogateescape")
        self.kind = after.split(b" ")[0].decode(errors="surrogateescape")

    @property
    def point(self) -> str:
        """The mount point; the kernel writes spaces and the like as octal numbers."""
        return os.fsdecode(self._point.decode("unicode_escape").encode("latin-1"))


def table(process: int | str = "self") -> list[Mount]:
    """List the mounts in the mount namespace of a process. OSError where it has ended."""
    with open(f"/proc/{process}/mountinfo", "rb") as file:
        return [Mount(line) for line in file]

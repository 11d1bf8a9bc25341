# SPDX-License-Identifier: Apache-2.0
"""The state directory, and in it the directory of a shared netns.

A directory `refs/` means that the netns is ready. One file in it is one reference. Creating one
needs no lock. Removing the netns begins with `rmdir refs/`. The kernel refuses that while a
reference is there, and after it every creation fails. So no container can be attached to a netns
that is going away, and nothing is ever counted twice.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from .errors import IO_FAILURE, ShimError, warn
from .records import UplinkRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOG_IN_OF_ROOT = "/run/user/0"
# How names of directories begin that Podman and Buildah make, below /tmp, for a user who has no
# runtime directory. Their plugins have XDG_RUNTIME_DIR set to that, and no shell of the user has.
MADE_UP = ("podman-run-", "storage-run-")
# The mode of files: systemd-tmpfiles(8) does not remove an old file that has the sticky bit.
FILE_MODE = 0o1600
# The errors that say for good that a path leads to nothing that we could use.
NOTHING_THERE = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)
# The files of a netns that works, besides the pin and the record of its uplink.
PARTS = ("resolv.conf", "run", "started", "var/lib/cni")
# For plugins that run in place; the name of a shared netns never begins with a dot.
IN_PLACE = ".in-place"
# The directory of the names of containers, in that of a shared netns.
NAMES = "names"
# The same for published ports: claims of them, and the logs of publishers.
PORTS = "ports"
# The record of the pause process of the user's own user namespace, see `userns.pause`.
HOLDER = ".holder"
# A file in the directory of a shared netns, which says that it is ours: see `shared.ownership`.
MARK = ".netns-shim"
# The largest file of ours, in bytes: the largest part of one is the result of a plugin.
MAXIMUM_FILE = 64 << 20


class State:
    """The directory of one shared netns; it need not exist."""

    __slots__ = ("base", "dir", "name", "pin", "refs")

    def __init__(self, base: str, name: str) -> None:
        self.base = base
        self.name = name
        self.dir = f"{base}/{name}"
        self.pin = f"{self.dir}/netns"
        self.refs = f"{self.dir}/refs"

    @property
    def lock(self) -> str:
        """The lock for making and removing it, outside of the directory that is removed."""
        return f"{self.base}/.lock-{self.name}"

    def path(self, name: str) -> str:
        """Give the path of one of the files: `uplink.json`, `resolv.conf`, `run`, …"""
        return f"{self.dir}/{name}"

    @property
    def stamps(self) -> str:
        """The directory of the stamps of configurations that were found valid."""
        return f"{self.dir}/validated"

    def exists(self) -> bool:
        """Tell whether the netns is ready, after checking that the directories are ours."""
        if not (is_private(self.base) and is_private(self.dir)):
            return False
        try:
            mode = os.lstat(self.refs).st_mode
        except FileNotFoundError:
            return False
        if stat.S_ISLNK(mode):
            # We would list, and delete, files that are not ours.
            raise ShimError(
                IO_FAILURE, f"refusing the state directory {self.refs}", "it is a link: remove it"
            )
        return stat.S_ISDIR(mode) and self.is_ours()

    def is_ours(self) -> bool:
        """Tell whether the directory is there and is ours: another may have its name."""
        if self.name == IN_PLACE or os.path.exists(f"{self.dir}/{MARK}"):
            return True  # nothing is ever removed from IN_PLACE but references
        from .shared import ownership  # only where there is no netns, or one of 0.1.0

        return ownership.is_of_before(self)

    def uplink(self) -> UplinkRecord:
        """Read the record of the uplink; empty where it is missing or makes no sense."""
        try:
            return UplinkRecord.read(read_file(self.path("uplink.json")))
        except OSError:
            return UplinkRecord()

    def has_publishers(self) -> bool:
        """Tell whether processes other than the uplink open ports of the host for it."""
        try:
            return any(name[:3] == "pub" for name in os.listdir(self.path(PORTS)))
        except FileNotFoundError:
            return False

    def missing(self) -> list[str]:
        """List the missing files of a netns; one that is empty was cut off while it was made."""
        return [name for name in PARTS if _is_missing(self.path(name))]


def _is_missing(path: str) -> bool:
    try:
        info = os.stat(path)
    except OSError:
        return True
    return info.st_size == 0 and stat.S_ISREG(info.st_mode)


def all_in(base: str) -> list[State]:
    """List what is ready in a state directory: each shared netns, and IN_PLACE."""
    names = sorted(os.listdir(base)) if is_private(base) else []
    # Other names that begin with a dot are locks, and HOLDER.
    found = [State(base, name) for name in names if name == IN_PLACE or name[0] != "."]
    return [where for where in found if _is_ready(where)]


def _is_ready(where: State) -> bool:
    try:
        return where.exists()
    except ShimError as error:
        warn(str(error))  # an odd directory is no reason to hide the others
        return False


def base_dir(environ: Mapping[str, str], override: str = "", part: str = "") -> str:
    """Tell where the state directory is: `stateDir`, else where this user's state is already.

    `part` is what the call needs of it: where that is, nothing else is looked at. Without state,
    it is where `userns.places` would make it. Raises OSError where that cannot be told.
    """
    if override:
        # With a slash or a dot at its end, the kernel would follow a link that we mean to look at.
        return os.path.normpath(override)
    if part:
        for base in usual(environ, user_id(environ)):
            if owns(base) and os.path.lexists(f"{base}/{part}"):
                return base
    from .userns import places  # only where nothing is attached, or not where it usually is

    return places.choose(environ, part)


def usual(environ: Mapping[str, str], uid: str) -> Iterator[str]:
    """Name the usual state directories of this user, there or not, in their order.

    Root's is in /run, with and without a log-in. Only an earlier release used that of a log-in.
    """
    runtimes = runtime_directories(environ, uid)
    if uid == "0":
        if runtimes[:1] not in ([], [LOG_IN_OF_ROOT]):
            yield f"{runtimes[0]}/netns-shim"  # root's choice, as a `stateDir` is
            return
        yield "/run/netns-shim"
    for runtime in runtimes:
        yield f"{runtime}/netns-shim"
    if uid != "0":
        yield f"/tmp/netns-shim-{uid}"


def runtime_directories(environ: Mapping[str, str], uid: str) -> list[str]:
    """List the runtime directories of this user that are there: that of the environment first.

    XDG_RUNTIME_DIR counts only if it is ours: after sudo or su it may be another user's, and an
    engine's own (MADE_UP) is in no shell of the user's. A runtime may not pass it at all, so
    /run/user/UID counts as well, with the ID outside the user namespace. Raises OSError where an
    error hides whose it is: state may be there.
    """
    given = environ.get("XDG_RUNTIME_DIR", "").rstrip("/")
    if given.rpartition("/")[2] in [f"{name}{uid}" for name in MADE_UP]:
        given = ""
    places = dict.fromkeys((given, f"/run/user/{uid}"))
    return [path for path in places if path.startswith("/") and owns(path, follow=True)]


def user_id(environ: Mapping[str, str]) -> str:
    """Tell the ID of the user outside of all user namespaces of rootless tools."""
    uid = environ.get("_CONTAINERS_ROOTLESS_UID", "")
    return uid if uid.isascii() and uid.isdigit() else outer_uid()


def outer_uid() -> str:
    """Tell the user's ID as the parent user namespace knows it, user_namespaces(7)."""
    euid = os.geteuid()
    with open("/proc/self/uid_map", encoding="utf-8") as file:
        for line in file:
            inside, outside, count = map(int, line.split())
            if inside <= euid < inside + count:
                return str(outside + euid - inside)
    return str(euid)


def owns(path: str, *, follow: bool = False) -> bool:
    """Tell whether a path is a directory of this user's; a link counts only if it is to `follow`.

    Raises OSError for an error that may pass: it says nothing of what is there.
    """
    try:
        info = os.stat(path, follow_symlinks=follow)
    except OSError as error:
        if error.errno in NOTHING_THERE:
            return False
        raise
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid()


def is_private(path: str, *, may_be_hidden: bool = False) -> bool:
    """Tell whether a directory exists; refuse one into which others could have written.

    One that `may_be_hidden` is in the mounts of the pause process only, see `userns.places`.
    """
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return False
    except PermissionError:
        if may_be_hidden:
            return False
        raise
    if not stat.S_ISDIR(info.st_mode):
        problem = "it is not a directory"
    elif info.st_uid != os.geteuid():
        problem = f"it belongs to user {info.st_uid}, not {os.geteuid()}"
    elif info.st_mode & 0o077:
        problem = f"its mode is {stat.S_IMODE(info.st_mode):04o}, not 0700"
    else:
        return True
    raise ShimError(IO_FAILURE, f"refusing the state directory {path}", problem)


def make_below(directory: str, path: str) -> None:
    """Make nested directories of mode 0700; `os.makedirs` applies its mode only to the last."""
    for name in path.strip("/").split("/"):
        directory = f"{directory}/{name}"
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            pass


def read_file(path: str) -> bytes:
    """Read a file of ours; OSError where it is a link, not a file, or larger than ours can be.

    From a pipe in its place we would wait for ever, from a device read for ever.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > MAXIMUM_FILE:
            raise OSError(errno.EINVAL, "not a file of ours", path)
        return os.read(fd, info.st_size)
    finally:
        os.close(fd)


def remove(path: str) -> None:
    """Remove a file of ours that may be there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def now() -> str:
    """Tell the time as RFC 3339 has it, in UTC."""
    return rfc3339(time.time())


def rfc3339(seconds: float) -> str:
    """Write a time, in seconds since 1970, as RFC 3339 has it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))

# SPDX-License-Identifier: Apache-2.0
"""The namespaces and mounts in which a plugin runs: first a list of steps, then the steps.

Entering the shared netns is one-way: the kernel refuses a process of a user namespace to go back
into the host's netns with setns(2). The mount namespace is different. It belongs to our own user
namespace, so the process returns to it through a descriptor that it kept. That makes a helper
process unnecessary, and the state is changed where it really is, not in a private copy.
"""

from __future__ import annotations

import errno
import os

from .errors import warn
from .libc import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_REC,
    MS_SLAVE,
    mount,
    setns,
    unshare,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .request import Request
    from .state import State

MAXIMUM_LINKS = 255
CNI_STATE = "/var/lib/cni"
RESOLVED = "/run/systemd/resolve"


class Bind:
    """One bind mount; its source is opened before the first step, so a step may cover it."""

    __slots__ = ("flags", "source", "target")

    def __init__(self, source: str, target: str, flags: int = 0) -> None:
        self.source = source
        self.target = target
        self.flags = MS_BIND | flags

    def __str__(self) -> str:
        recursive = " with what is mounted in it" if self.flags & MS_REC else ""
        return f"bind {self.source} on {self.target}{recursive}"


class Tmpfs:
    """One empty file system."""

    __slots__ = ("target",)

    def __init__(self, target: str) -> None:
        self.target = target

    def __str__(self) -> str:
        return f"mount an empty tmpfs on {self.target}"


Step = Bind | Tmpfs


def plan(state: State, environ: Mapping[str, str], keep: Iterable[str]) -> list[Step]:
    """List the mounts for the netns of this state, in the order in which they must be made.

    `keep` are paths that a plugin will be given: they stay visible even below a mount.
    """
    cni = existing_parent(CNI_STATE)
    steps: list[Step] = [Bind(state.path("run"), "/run"), Bind(state.dir + cni, cni)]
    steps += _kept([os.path.dirname(state.base), *_always_kept(environ), *keep], cni)
    try:
        target = resolv_conf_target("/etc/resolv.conf")
    except OSError as error:
        warn(f"names will not resolve in the shared netns: {error}")
        return steps
    if target.startswith(RESOLVED + "/"):
        # systemd-resolved replaces its file by rename(2), which would remove a mount on it.
        steps.append(Tmpfs(RESOLVED))
    steps.append(Bind(state.path("resolv.conf"), target))
    return steps


def throwaway_plan(environ: Mapping[str, str], keep: Iterable[str]) -> list[Step]:
    """List the mounts for a netns without attachments, in which a late DEL can run."""
    cni = existing_parent(CNI_STATE)
    return [
        Tmpfs("/run"),
        Tmpfs(cni),
        *_kept([*_always_kept(environ), *keep], cni),
    ]


def can_keep_state() -> bool:
    """Tell whether plugins can keep their state where they expect to, /var/lib/cni."""
    return os.access(existing_parent(CNI_STATE), os.W_OK)


def plan_in_place(state: State, keep: list[str]) -> list[Step]:
    """List the mounts for the caller's netns: only a directory for the plugins' state."""
    cni = existing_parent(CNI_STATE)
    kept = [bind for bind in _kept(keep, cni) if bind.target.startswith(cni + "/")]
    return [Bind(state.dir + cni, cni), *kept]


def _always_kept(environ: Mapping[str, str]) -> list[str]:
    # Many files are links into the second one, such as /dev/log.
    return [environ.get("XDG_RUNTIME_DIR", ""), "/run/systemd"]


def _kept(paths: list[str], cni: str) -> list[Bind]:
    """Bind again the paths that /run and the directory of CNI's state hide, none twice."""
    wanted = set()
    for path in filter(None, paths):
        # A path may lie there as it is written, or after its links are followed, or both.
        for form in (os.path.normpath(path), _real(path)):
            if form.startswith(("/run/", cni + "/")) and os.path.exists(form):
                wanted.add(form)
    chosen: list[str] = []
    for path in sorted(wanted):
        if not any(path.startswith(outer + "/") for outer in chosen):
            chosen.append(path)
    return [Bind(path, path, MS_REC) for path in chosen]


def _real(path: str) -> str:
    """Give a path without links.

    A path whose link cannot be read stays as it is: /proc/PID/ns/net of a process that has ended
    and is not reaped yet is there, and leads nowhere.
    """
    try:
        return os.path.realpath(path)
    except OSError:
        return path


def existing_parent(path: str) -> str:
    """Give the nearest directory above a path, or the path itself, that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def resolv_conf_target(path: str) -> str:
    """Tell where to mount the netns's resolv.conf so that `path` leads to it.

    The kernel follows links before it mounts, so this does too, in every component; but it stops
    at the first one under /run, because links below are not in the new /run.

    Raises OSError where there is no such file, or more than 255 links.
    """
    done, todo, links = "", path.split("/")[::-1], 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = os.path.dirname(done).rstrip("/")
            continue
        done = f"{done}/{part}"
        if done == "/run":
            return os.path.normpath("/".join([done, *todo[::-1]]))
        try:
            link = os.readlink(done)
        except OSError as error:
            if error.errno == errno.EINVAL:
                continue
            raise
        links += 1
        if links > MAXIMUM_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        todo += link.split("/")[::-1]
        done = "" if link.startswith("/") else os.path.dirname(done).rstrip("/")
    return done


class Unchanged:
    """Staying where the process is, as a context that does nothing."""

    __slots__ = ()

    def __enter__(self) -> None:
        """Enter nothing."""

    def __exit__(self, *_: object) -> None:
        """Leave nothing."""


# A netns for `Inside`: the one in which this process is.
HERE = -1


def open_cwd() -> int:
    """Open the working directory; go to the root where it cannot be used any more.

    After su or sudo it may be one that the user may not search, such as /root.
    """
    flags = os.O_PATH | os.O_CLOEXEC
    try:
        return os.open(".", flags)
    except OSError:
        os.chdir("/")
        return os.open(".", flags)


class Inside:
    """Being inside a netns and the mounts made for it, as a context.

    The process stays in the netns after the end of the context, but not in the mount namespace.
    """

    __slots__ = ("_cwd", "_mounts", "_netns", "_root", "_steps")

    def __init__(self, netns: int | None, steps: list[Step]) -> None:
        """Take a descriptor of the netns, HERE, or None for a new one that ends with us."""
        self._netns = netns
        self._steps = steps

    def __enter__(self) -> None:
        self._mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        self._cwd = open_cwd()
        if self._netns is None:
            unshare(CLONE_NEWNET)
        elif self._netns != HERE:  # setns(2) into it needs a right that we may lack
            setns(self._netns, CLONE_NEWNET)
        unshare(CLONE_NEWNS)
        # Slave: our mounts stay here; the host's unmounts reach us, so we keep nothing busy.
        mount(None, "/", None, MS_SLAVE | MS_REC)
        try:
            _do(self._steps)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        setns(self._mounts, CLONE_NEWNS)
        # setns(2) leaves a process at the root of the mount namespace, not at its own root.
        os.fchdir(self._root)
        os.chroot(".")
        os.fchdir(self._cwd)
        for fd in (self._mounts, self._root, self._cwd):
            os.close(fd)


def _do(steps: list[Step]) -> None:
    # Sources are opened first, from within the new mount namespace: the kernel refuses a bind
    # mount of something outside it, and later steps cover some sources.
    flags = os.O_PATH | os.O_CLOEXEC
    sources = [os.open(s.source, flags) if isinstance(s, Bind) else -1 for s in steps]
    for step, fd in zip(steps, sources, strict=True):
        if isinstance(step, Tmpfs):
            _make_target(step.target, is_directory=True)
            mount("tmpfs", step.target, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
            continue
        source = f"/proc/self/fd/{fd}"
        _make_target(step.target, is_directory=os.path.isdir(source))
        mount(source, step.target, None, step.flags)
        os.close(fd)


def _make_target(path: str, *, is_directory: bool) -> None:
    """Make a missing mount point: it is in our own new /run, which is empty at first."""
    if os.path.exists(path):
        return
    directory = path if is_directory else os.path.dirname(path)
    os.makedirs(directory, 0o700, exist_ok=True)
    if not is_directory:
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))


def paths_of(request: Request) -> list[str]:
    """List the directories that hold the paths that a call gives to a plugin."""
    paths = [*request.path.split(":"), *(request.conf.get("pluginDirs") or [])]
    for entry in [request.conf.get("delegate") or {}, *(request.conf.get("plugins") or [])]:
        # With `type`, the key belongs to the plugin and may be of any kind.
        if "driver" in entry and entry.get("path"):
            paths.append(os.path.dirname(entry["path"]))
    # realpath("") would be the current directory.
    for netns in {request.netns, _real(request.netns)} if request.netns else ():
        # A file directly in /run is kept alone: its directory would be all of /run.
        directory = os.path.dirname(netns)
        paths.append(netns if directory == "/run" else directory)
    return paths

# SPDX-License-Identifier: Apache-2.0
"""The namespaces and mounts in which a plugin runs: first a list of steps, then the steps.

Entering the shared netns is one-way: the kernel refuses a process of a user namespace to go back
into the host's netns with setns(2). The mount namespace is different. It belongs to our own user
namespace, so the process returns to it through a descriptor that it kept. That makes a helper
process unnecessary, and the state is changed where it really is, not in a private copy.
"""

from __future__ import annotations

import os

from . import kept
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
from .state import make_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .kept import Paths
    from .state import State

RESOLVED = "/run/systemd/resolve"
# In a directory that has the places: the real one, for links to what has no place of its own.
WHOLE = ".netns-shim-host"


class Bind:
    """One bind mount; its source is opened before the first step, so a step may cover it."""

    __slots__ = ("flags", "source", "target", "within")

    def __init__(self, source: str, target: str, flags: int = 0, *, within: str = "") -> None:
        """Take what to bind where; a directory that is gone is made again `within` one of ours."""
        self.within = within
        self.source = source
        self.target = target
        self.flags = MS_BIND | flags


class Tmpfs:
    """One empty file system."""

    __slots__ = ("target",)

    def __init__(self, target: str) -> None:
        self.target = target


class Beside:
    """The directory of CNI's state where its parent lacks it: a parent of ours has both.

    In the parent of ours, each entry of the real one has a place, on which it is bound: see
    `shared.beside`, which makes them. `source` is ours, or empty for one that goes with us.
    """

    __slots__ = ("source", "target", "within")

    def __init__(self, source: str, target: str, *, within: str = "") -> None:
        """Take what to bind where; a directory that is gone is made again `within` one of ours."""
        self.source = source
        self.target = target
        self.within = within

    def prepare(self) -> None:
        """Make the places in the directory of ours, unless they are there."""
        if self.source and _changed(self.source) != stamp(_changed(self.target)):
            from .shared import beside  # only where something in the parent is new

            beside.make_places(self.source, self.target, self.target)

    def do(self, source: str, target: int) -> None:
        """Mount ours, by the path of an open descriptor, and in it what is in the open parent."""
        if self.source:
            if os.path.isdir(f"{source}/{WHOLE}"):
                # First, as what is mounted on a directory is part of it.
                parent = f"/proc/self/fd/{target}"
                mount(parent, f"{source}/{WHOLE}", None, MS_BIND | MS_REC)
            mount(source, self.target, None, MS_BIND | MS_REC)
        else:
            mount("tmpfs", self.target, "tmpfs", MS_NOSUID | MS_NODEV)
            from .shared import beside  # a DEL that finds nothing is cold

            parent = f"/proc/self/fd/{target}"
            beside.make_places(self.target, parent, self.target, most=1 << 30)
        own = first_missing(self.target)
        with os.scandir(self.target) as places:
            names = [place.name for place in places if not place.is_symlink()]
        for name in names:
            if name in (own, WHOLE):
                continue
            try:
                mount(
                    f"/proc/self/fd/{target}/{name}",
                    f"{self.target}/{name}",
                    None,
                    MS_BIND | MS_REC,
                )
            except FileNotFoundError:
                pass  # a plugin has made it, or the host has removed it
            except OSError as error:
                warn(f"{error.filename} is not visible to plugins: {error.strerror}")


def _changed(directory: str) -> int:
    return os.stat(directory).st_mtime_ns


def stamp(changed: int) -> int:
    """Give the time of a directory of ours that has the places for what another one has had.

    In nanoseconds. One made in the same moment has not this time.
    """
    return changed + 1


Step = Bind | Tmpfs | Beside


def plan(state: State, environ: Mapping[str, str], keep: Paths) -> list[Step]:
    """List the mounts for the netns of this state, in the order in which they must be made.

    `keep` are paths that a plugin will be given: they stay visible even below a mount.
    """
    keep.add(os.path.dirname(state.base))
    keep.add_caller(environ)
    run = Bind(state.path("run"), kept.RUN, within=state.dir)
    steps: list[Step] = [run, *_state_steps(state), *_binds(keep)]
    try:
        target = kept.resolv_conf_target("/etc/resolv.conf")
    except OSError as error:
        warn(f"names will not resolve in the shared netns: {error}")
        return steps
    if target.startswith(RESOLVED + "/"):
        # systemd-resolved replaces its file by rename(2), which would remove a mount on it.
        steps.append(Tmpfs(RESOLVED))
    steps.append(Bind(state.path("resolv.conf"), target))
    return steps


def throwaway_plan(environ: Mapping[str, str], keep: Paths) -> list[Step]:
    """List the mounts for a netns without attachments, in which a late DEL can run."""
    keep.add_caller(environ)
    return [Tmpfs(kept.RUN), *_state_steps(None), *_binds(keep)]


def plan_in_place(state: State | None, keep: Paths) -> list[Step]:
    """List the mounts for the caller's netns: only a directory for the plugins' state.

    Without `state`, it is one that goes with us.
    """
    binds = [bind for bind in _binds(keep) if not bind.target.startswith(f"{kept.RUN}/")]
    return [*_state_steps(state), *binds]


def _state_steps(state: State | None) -> list[Step]:
    """Give the mount for /var/lib/cni, in the directory of a netns or one that goes with us."""
    parent = existing_parent(kept.CNI_STATE)
    within = state.dir if state is not None else ""
    source = within and within + parent
    if parent == kept.CNI_STATE:
        return [Bind(source, parent, within=within) if source else Tmpfs(parent)]
    # Nothing can be mounted in the place of the root.
    return [Beside(source, parent, within=within)] if parent != "/" else []


def _binds(keep: Paths) -> list[Bind]:
    return [Bind(path, path, MS_REC) for path in keep.list()]


def existing_parent(path: str) -> str:
    """Give the nearest directory above a path, or the path itself, that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def first_missing(parent: str) -> str:
    """Give the name in a parent of /var/lib/cni that leads there."""
    return kept.CNI_STATE[len(parent) :].strip("/").split("/")[0]


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


def _open(step: Bind | Beside) -> int:
    flags = os.O_PATH | os.O_CLOEXEC
    try:
        return os.open(step.source, flags)
    except FileNotFoundError:
        if not step.within:
            raise
        # It was empty, and another program removes what is old.
        make_below(step.within, step.source.removeprefix(step.within))
        return os.open(step.source, flags)


def _do(steps: list[Step]) -> None:
    # Sources are opened first, from within the new mount namespace: the kernel refuses a bind
    # mount of something outside it, and later steps cover some sources.
    flags = os.O_PATH | os.O_CLOEXEC
    opened = []
    for step in steps:
        fd = -1 if isinstance(step, Tmpfs) or not step.source else _open(step)
        if isinstance(step, Beside):
            step.prepare()
        opened.append((fd, os.open(step.target, flags) if isinstance(step, Beside) else -1))
    for step, (fd, covered) in zip(steps, opened, strict=True):
        source = f"/proc/self/fd/{fd}"
        if isinstance(step, Tmpfs):
            _make_target(step.target, is_directory=True)
            mount("tmpfs", step.target, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        elif isinstance(step, Bind):
            _make_target(step.target, is_directory=os.path.isdir(source))
            try:
                mount(source, step.target, None, step.flags)
            except NotADirectoryError:
                # Such as resolv.conf: Docker makes a directory where a file was to be bound.
                warn(f"{step.target} is a directory, and not the file that plugins expect")
        else:
            step.do(source, covered)
        for done in (fd, covered):
            if done >= 0:
                os.close(done)


def _make_target(path: str, *, is_directory: bool) -> None:
    """Make a missing mount point: it is in our own new /run, which is empty at first."""
    if os.path.exists(path):
        return
    directory = path if is_directory else os.path.dirname(path)
    os.makedirs(directory, 0o700, exist_ok=True)
    if not is_directory:
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))

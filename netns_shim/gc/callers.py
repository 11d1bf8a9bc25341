# SPDX-License-Identifier: Apache-2.0
"""The namespaces of callers, in which plugins work in place: is one there, and how to get into it?

No pin of ours keeps such a netns, and no record says when it ends. Each reference says in which
one it was made, and /proc which are there: those of processes, and those that are mounted
somewhere, as Podman's is in the mounts of its pause process.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import netns
from ..errors import CANNOT_ENTER
from ..in_place import HERE, PIDS, USERS
from ..libc import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, setns
from ..proc import start_time
from ..shared import mounts, nsenter, processes
from . import liveness

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..attachment import AttachmentRecord


class Way(NamedTuple):
    """How to get to a netns: by the namespaces of a process, and a path that it knows."""

    pid: int
    path: str


class Callers:
    """The network namespaces that are there at the moment in which it is made."""

    def __init__(self) -> None:
        """Look into /proc."""
        here = netns.identity(HERE)
        assert here is not None
        self.here = here
        self._own = os.stat(PIDS).st_ino, os.stat(USERS).st_ino
        self._sees_below = netns.is_initial_userns()
        self._is_complete = _is_complete()
        self._ways = {it: Way(pid, HERE) for it, pid in liveness.visible().items()}
        self._pinned = _pinned()

    def is_there(self, record: AttachmentRecord) -> bool | None:
        """Tell whether the netns is there in which an attachment was made.

        None where that cannot be seen from here, or the record does not say which it was.
        """
        place = record.place
        if record.is_of_other_boot:
            return False
        if place is None:
            return None
        if place in self._ways or place[1] in self._pinned:
            return True
        # Nothing is gone because we may not look at it: a sibling has power over nothing of ours.
        pids, users = record.place_of_caller
        sees = pids == self._own[0] and (self._sees_below or users == self._own[1])
        return False if sees and self._is_complete else None

    def is_here(self, record: AttachmentRecord) -> bool:
        """Tell whether it is the netns of this process."""
        return record.place == self.here and not record.is_of_other_boot

    def has(self, netns_id: tuple[int, int] | None) -> bool:
        """Tell whether a netns is there: that of a container may be mounted somewhere as well."""
        return netns_id is not None and (netns_id in self._ways or netns_id[1] in self._pinned)

    def way(self, place: tuple[int, int]) -> Way | None:
        """Tell how to get into a netns; None where that is not known."""
        # A mount first: its process has the mounts in which plugins have worked.
        return self._pinned.get(place[1]) or self._ways.get(place)


def _is_complete() -> bool:
    """Tell whether this process may look at the namespaces of all processes of its user."""
    for pid in processes.ids():
        try:
            if os.stat(f"/proc/{pid}").st_uid == os.geteuid():
                os.stat(f"/proc/{pid}/ns/net")
        except PermissionError:
            # The kernel says the same of one that has just ended. Nothing of a caller is init's.
            if pid != 1 and start_time(pid):
                return False
        except OSError:
            continue  # it has ended
    return True


def _pinned() -> dict[int, Way]:
    """Find the network namespaces that are mounted somewhere, by their inodes."""
    found: dict[int, Way] = {}
    seen = set()
    for pid in processes.ids():
        try:
            space = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            if space in seen:
                continue
            seen.add(space)
            mounted = mounts.table(pid)
        except OSError:
            continue  # it has ended, or we may not look at it
        for mount in mounted:
            number = mount.root.removeprefix("net:[").removesuffix("]")
            if mount.root.startswith("net:[") and number.isdigit():
                found.setdefault(int(number), Way(pid, mount.point))
    return found


def visit(way: Way, place: tuple[int, int], function: Callable[[], Any]) -> Any:
    """Run a function in a child that is where a caller's plugins work; give its answer, JSON.

    Raises ShimError (code 103) where this process has no power there, or the function fails.
    """
    what = "cannot look into the network namespace in which it was attached"
    return nsenter.ask_child(lambda: _go(way, place), function, CANNOT_ENTER, what)


def _go(way: Way, place: tuple[int, int]) -> None:
    user, own = (os.open(f"/proc/{p}/ns/user", os.O_RDONLY) for p in (way.pid, "self"))
    space = os.open(f"/proc/{way.pid}/ns/mnt", os.O_RDONLY)
    if os.fstat(user).st_ino != os.fstat(own).st_ino:
        setns(user, CLONE_NEWUSER)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    # Before: there, /proc may be that of another PID namespace.
    fd = netns.open_netns(f"/proc/{way.pid}/ns/net") if way.path == HERE else -1
    setns(space, CLONE_NEWNS)
    fd = netns.open_netns(way.path) if fd < 0 else fd
    info = os.fstat(fd)
    if (info.st_dev, info.st_ino) != place:
        raise OSError(f"{way.path} is another one by now")
    setns(fd, CLONE_NEWNET)
    for each in (user, own, space, fd):
        os.close(each)

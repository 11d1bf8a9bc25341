# SPDX-License-Identifier: Apache-2.0
"""References: what an ADD leaves for CHECK, DEL and GC, one file an attachment.

A reference is a journal: each phase appends one line of JSON, and of each key the last complete
line wins. It is not replaced by rename(2) as other files are, because its inode carries the lock,
flock(2), of the current operation. The kernel drops that lock when the process dies.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time

from . import encoding, locks
from .attachment import ADDING, AttachmentRecord, ReferenceName
from .errors import TRY_AGAIN_LATER, ShimError
from .state import FILE_MODE, IN_PLACE, MAXIMUM_FILE, State, remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# In the environment of plugins: the session of the call, and the path of its reference.
MARK = "NETNS_SHIM_CALL"

# How long to wait for another operation on the same attachment, in seconds: one that was cancelled
# is about to end. After that the caller has to try again.
WAIT_SECONDS = 5.0
# Where a link of the index leads: to the reference, or to all where an interface has several.
ENTRY, SEVERAL = "../refs/", "../refs"


class Reference:
    """One file in `refs/`, locked by this process until it is dropped or closed.

    `is_ours` tells that this call made it, or took it over: on failure it gives it back.
    """

    __slots__ = ("_fd", "is_ours", "path", "record")

    def __init__(self, path: str, fd: int, record: AttachmentRecord, *, is_ours: bool) -> None:
        self.path = path
        self._fd = fd
        self.record = record
        self.is_ours = is_ours

    @property
    def phase(self) -> str:
        """The phase it is in."""
        return self.record.phase

    def write(self, phase: str, **fields: Any) -> None:
        """Append a line that says that the attachment is in this phase now."""
        line = {"phase": phase, **fields}
        self.record.fields.update(line)
        if phase == ADDING:
            self.is_ours = True
        text = encoding.compact(line).encode() + b"\n"
        size = os.fstat(self._fd).st_size
        try:
            written = os.write(self._fd, text)
        except OSError as error:
            error.filename = self.path  # for a person who makes room
            raise
        if written != len(text):
            # A part of a line would spoil the next one.
            os.ftruncate(self._fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)

    def note(self, **fields: Any) -> None:
        """Append a line about the attachment, whose phase stays."""
        is_ours = self.is_ours
        self.write(self.phase, **fields)
        self.is_ours = is_ours

    def enter(self) -> None:
        """Enter the reference in the index, before its first line: see `anywhere`."""
        name, link = self.record.name, self._link
        try:
            os.symlink(f"{ENTRY}{name}", link)
        except FileNotFoundError:
            os.mkdir(os.path.dirname(link), 0o700)  # in place, nothing else needs it
            os.symlink(f"{ENTRY}{name}", link)
        except FileExistsError:
            if _target(link) != f"{ENTRY}{name}":
                remove(f"{link}.new")
                os.symlink(SEVERAL, f"{link}.new")
                os.rename(f"{link}.new", link)

    @property
    def _link(self) -> str:
        refs = os.path.dirname(self.path)
        return index(os.path.dirname(refs), *self.record.name.attachment[1:])

    def fileno(self) -> int:
        """Give the descriptor that has the lock, for a process that takes over."""
        return self._fd

    def close(self) -> None:
        """End the operation and leave the reference."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def give_back(self) -> None:
        """End an operation that failed: keep a reference from before it, drop one that it made."""
        if self.is_ours:
            self.drop()
        else:
            self.close()

    def drop(self) -> None:
        """Remove the reference: nothing is attached any more."""
        name = self.record.name
        entered = _target(self._link) if name.is_attachment else ""
        is_last = entered == SEVERAL and len(_named(os.path.dirname(self.path), name)) == 1
        if is_last or entered == f"{ENTRY}{name}":
            remove(self._link)
        remove(self.path)
        self.close()


def index(directory: str, container_id: str, ifname: str) -> str:
    """Name the link that says which reference an interface has; no network begins with a colon.

    `directory` is that of a netns.
    """
    return f"{directory}/started/:{container_id}:{ifname}"


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _named(refs: str, name: ReferenceName) -> list[ReferenceName]:
    """List the names of the references that belong to the interface of one."""
    part = ReferenceName.part(name.container_id, name.ifname)
    found = [ReferenceName(file) for file in _list(refs) if part in file]
    # The types of plugins may look like the part.
    return [each for each in found if each.attachment[1:] == name.attachment[1:]]


def mark(state: State, name: ReferenceName) -> dict[str, str]:
    """Give the variable that marks the processes of a call; see `processes.end_orphans`."""
    return {MARK: f"{os.getsid(0)}:{state.refs}/{name}"}


def take(state: State, name: ReferenceName) -> Reference:
    """Create a reference.

    Raises FileNotFoundError where the netns is not ready, FileExistsError where the attachment
    already has one.
    """
    path = f"{state.refs}/{name}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    while True:
        fd = os.open(path, flags, FILE_MODE)
        _lock(fd, path)
        info = os.fstat(fd)
        if info.st_nlink and not info.st_size:
            return Reference(path, fd, AttachmentRecord(name), is_ours=True)
        os.close(fd)
        # Before we locked it, another call for the attachment took it over.
        if info.st_nlink:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        # Or another process took it for a ghost, or deleted it.


def find(state: State, name: ReferenceName) -> Reference | None:
    """Open the reference of an attachment and lock it; None where it does not exist."""
    path = f"{state.refs}/{name}"
    fd = _open(path)
    if fd is None:
        return None
    _lock(fd, path)
    return _read_locked(path, fd, name)


def find_idle(state: State, name: ReferenceName) -> Reference | None:
    """Open a reference as `find` does; None as well where another call has it locked."""
    path = f"{state.refs}/{name}"
    fd = _open(path)
    if fd is None:
        return None
    if not locks.lock(fd):
        os.close(fd)
        return None
    return _read_locked(path, fd, name)


def _open(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None


def _read_locked(path: str, fd: int, name: ReferenceName) -> Reference | None:
    # The last process with the lock may have dropped the reference.
    if os.fstat(fd).st_nlink == 0:
        os.close(fd)
        return None
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_size > MAXIMUM_FILE:
        os.close(fd)
        raise OSError(errno.EINVAL, "not a file of ours", path)
    record = AttachmentRecord.parse(name, os.pread(fd, info.st_size, 0))
    return Reference(path, fd, record, is_ours=False)


def _lock(fd: int, path: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    try:
        while not locks.lock(fd):
            locks.wait(deadline, BUSY, path)
    except BaseException:
        os.close(fd)
        raise


BUSY = "another operation on this attachment is running"


def busy(name: ReferenceName) -> ShimError:
    """Make the error for a reference that another call is working on."""
    return ShimError(TRY_AGAIN_LATER, BUSY, name.file)


def drop_ghosts(state: State, at_most: int = sys.maxsize) -> int:
    """Remove the ghosts, which killed calls have left; give how many.

    A ghost is not locked. It either has no line yet, so that nothing was done for it, or it is a
    guard, which belongs to a process. `at_most` is how many references are looked at.
    """
    dropped = 0
    try:
        with os.scandir(state.refs) as entries:
            for number, entry in enumerate(entries):
                if number == at_most:
                    break
                dropped += drop_ghost(entry.path, ReferenceName(entry.name))
    except FileNotFoundError:
        pass  # the last attachment has just gone
    return dropped


def drop_ghost(path: str, name: ReferenceName, *, dry_run: bool = False) -> bool:
    """Remove a reference if it is a ghost; tell whether it is, or for a dry run, was."""
    try:
        # Other references are not even locked: their own call might come at this moment.
        if not (name.is_guard or os.lstat(path).st_size == 0):
            return False
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False  # it is gone, or not a file
    try:
        if not locks.lock(fd):
            return False
        info = os.fstat(fd)
        if info.st_nlink == 0 or (info.st_size and not name.is_guard):
            return False
        if not dry_run:
            os.unlink(path)
        return True
    except OSError:
        return False  # a directory
    finally:
        os.close(fd)


def anywhere(
    base: str, container_id: str, ifname: str, *, thoroughly: bool = False
) -> list[tuple[State, ReferenceName]]:
    """Name the references of one interface of a container in all of a state directory.

    The links of the index tell, which 0.1.0 did not make; to look `thoroughly` is to list all
    references. A reference may be gone. Ask whether a directory is ours before you open a file.
    """
    found: list[tuple[State, ReferenceName]] = []
    wanted = ReferenceName.of("-", container_id, ifname, [])
    for netns in _list(base):
        if netns[0] == "." and netns != IN_PLACE:
            continue
        there = State(base, netns)
        entered = _target(index(there.dir, container_id, ifname))
        if thoroughly or entered == SEVERAL:
            found += ((there, name) for name in _named(there.refs, wanted))
        else:
            name = ReferenceName(entered.removeprefix(ENTRY))
            if name.attachment[1:] == (container_id, ifname):
                found.append((there, name))
    return found


def _list(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []

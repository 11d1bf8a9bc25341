# SPDX-License-Identifier: Apache-2.0
"""The user's own user namespace: calls without capabilities join it, a pause process holds it.

A user without capabilities has power only over a user namespace of their own. The pause process
holds it, with a mount namespace that has the pins of the shared netns in it. It runs as long as a
shared netns exists, or a call or a command is in the namespace. Its record is a file in the state
directory. A process inside has that file locked, flock(2), together with others; a process that
ends the pause process must have the lock alone. So no process is left behind in there. The kernel
drops the lock of a process that is killed. Making and ending happen under a lock of their own.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import os

from .. import interrupt, locks, netns, state
from ..errors import CANNOT_ENTER, ShimError, warn
from ..libc import CLONE_NEWNS, CLONE_NEWUSER, setns
from ..shared import files
from .record import HolderRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..locks import Lock

# The lowest number of the descriptor that a command inherits: a shell uses lower ones.
INHERITED = 100
# The same where the limit of open files is lower than that.
FEW = 10
AGAIN = "another process holds it now"
CHANGED = (
    "/etc/subuid or /etc/subgid has changed since the user namespace was made: to use the new "
    "ranges, detach all containers and end all commands in it"
)

# The state directory whose namespaces this process has joined, and its lock.
_joined: list[tuple[str, int]] = []


def join(base: str) -> None:
    """Go into the user's own namespaces, make them first if need be, and stay there.

    `base` is the state directory. This process must have one thread and no capabilities; it is
    root in there. Raises ShimError (code 103 where they cannot be made, 11 where another process
    is making or ending them all the time).
    """
    if state.is_private(base, may_be_hidden=True):
        if join_if_held(base):
            return
    elif _join_out_of_sight(base):
        return
    files.make_private(base)
    with _locked(base):
        fd = _open(base, os.O_CREAT)
        # A process has it alone only while it holds the other lock.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        try:
            record = HolderRecord.read_open(fd) or _adopt(base, fd)
            if not (record.is_alive and _enter(record)):
                _make_and_enter(base, fd, record)
        except BaseException:
            _end(base, fd)
            raise
        _stay(base, fd)


def join_if_held(base: str) -> bool:
    """Go into the user's own namespaces if they exist; tell whether they do."""
    try:
        fd = _open(base)
    except FileNotFoundError:
        return False
    return _join_open(base, fd)


def reach(base: str) -> None:
    """Go to where a state directory can be seen, if that is only in the pause process's mounts."""
    if not netns.is_privileged() and not os.path.lexists(base):
        _join_out_of_sight(base)


def _join_out_of_sight(base: str) -> bool:
    """Join as `join_if_held` does, where the state directory is in the other mounts only.

    A service may have a /tmp of its own, and no /run/user; see `places.in_use`.
    """
    from . import places  # not where the state directory is there

    for pid, path in places.holders():
        if path == _path(base):
            try:
                fd = _open(f"/proc/{pid}/root{base}")
            except OSError:
                continue  # it has ended
            if _join_open(base, fd):
                return True
    return False


def _join_open(base: str, fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        record = HolderRecord.read_open(fd)
        is_changed = _is_changed(record)
        # The last process with the lock may have ended the namespaces.
        if os.fstat(fd).st_nlink and record.is_alive and _enter(record):
            if is_changed:
                warn(CHANGED)
            _stay(base, fd)
            return True
    except BlockingIOError:
        pass  # they are being ended
    os.close(fd)
    return False


def look(base: str) -> None:
    """Go into the user's own namespaces if they exist, only to look.

    It removes what a killed call has left of them.
    """
    if os.path.lexists(base):
        if not join_if_held(base):
            end_if_unused(base)
    else:
        _join_out_of_sight(base)


def hold(base: str) -> int:
    """Lock the record for a command and its children: give a descriptor for them to inherit."""
    fd = _open(base)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        for lowest in (INHERITED, FEW):
            try:
                return fcntl.fcntl(fd, fcntl.F_DUPFD, lowest)
            except OSError as error:
                if error.errno != errno.EINVAL:  # the limit of open files is below the number
                    raise
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    finally:
        # Else it would keep the pause process from being ended.
        os.close(fd)


def leave() -> None:
    """End the pause process if it is not needed any more; this process stays where it is."""
    for base, fd in _joined:
        _end_if_unused(base, fd)


def end_if_unused(base: str) -> None:
    """End the pause process if it is not needed any more, or forget one that has ended."""
    try:
        fd = _open(base)
    except FileNotFoundError:
        return
    try:
        _end_if_unused(base, fd)
    finally:
        os.close(fd)


def _end_if_unused(base: str, fd: int) -> None:
    if os.fstat(fd).st_nlink and not _is_needed(base, HolderRecord.read_open(fd)):
        with _locked(base):
            _end(base, fd)


def _end(base: str, fd: int) -> None:
    """End the pause process, under the lock, if no other process is in its namespaces."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # the processes in there will end it
    record = HolderRecord.read_open(fd)
    if os.fstat(fd).st_nlink and not _is_needed(base, record):
        if record.is_alive:
            from ..shared import processes  # only for the last process

            processes.stop(record.pid, record.start_time)
        os.unlink(_path(base))


def _is_needed(base: str, record: HolderRecord) -> bool:
    """Tell whether a shared netns is pinned in there. A call that makes one is inside itself."""
    for where in state.all_in(base):
        there = where.uplink().mount_namespace
        if where.name != state.IN_PLACE and there in (0, record.mount_namespace):
            return True
    return False


def _make_and_enter(base: str, fd: int, before: HolderRecord) -> None:
    """Start a pause process and join it; `before` is the record of an ended one, or empty."""
    from ..shared import scope  # only where it does not exist
    from . import places, recover, start, subids

    recover.refuse_hidden(before, base, _path(base))
    record = HolderRecord()
    with recover.Found(before, base, _path(base)) as found:
        # Namespaces that exist have the map that they were made with.
        maps = {} if found else subids.wanted(os.environ)
        ranges = before.ranges if found else maps
        is_usual = places.is_usual(base, os.environ)

        def write_down(pid: int) -> None:
            record.fields.update(HolderRecord.of(pid, ranges, is_usual=is_usual).fields)
            record.write(fd)

        pid = start.start(_path(base), maps, write_down, found)
    scope.move([pid], "holder", state.outer_uid(), os.environ)
    recover.move_records(base, before, record)
    if not _enter(record):
        message = "the process that holds the user namespace has ended"
        raise ShimError(CANNOT_ENTER, message, "call again")
    if found:
        warn(f"the process that held the user namespace, PID {before.pid}, was gone: {AGAIN}")
        recover.pin_again(base, record)


def _adopt(base: str, fd: int) -> HolderRecord:
    """Find a pause process whose record was removed, and write it down; else give an empty one."""
    from . import recover  # only where there is no record

    record = recover.find(base, _path(base))
    if record:
        record.write(fd)
    return record


def _is_changed(record: HolderRecord) -> bool:
    """Tell whether the user's subordinate IDs have changed; call it outside."""
    from . import subids  # imports nothing but `pwd`

    # A directory server would be asked in each call.
    return not subids.is_elsewhere() and record.ranges != subids.wanted(os.environ)


def _enter(record: HolderRecord) -> bool:
    """Go into the namespaces of a record; False where its process has ended."""
    pid = record.pid
    fds = []
    try:
        for key, kind in record.NAMESPACES:
            fds.append(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
            if os.fstat(fds[-1]).st_ino != record.number(key):
                return False
        # Only now: the descriptors stay with the namespaces that we check.
        if not record.is_running:
            return False
        _set(*fds)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except PermissionError as error:
        raise ShimError(
            CANNOT_ENTER,
            "the user namespace of an earlier call cannot be joined",
            f"that of the process {pid}: {error.strerror}",
        ) from None
    finally:
        for fd in fds:
            os.close(fd)
    return True


def _set(user: int, mounts: int) -> None:
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = "/"
    setns(user, CLONE_NEWUSER)
    setns(mounts, CLONE_NEWNS)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    try:
        os.chdir(cwd)
    except OSError:
        pass  # it does not exist there, and setns(2) has put us at the root


def _stay(base: str, fd: int) -> None:
    _joined[:] = [(base, fd)]
    atexit.register(_leave_at_end)  # after the answer


def _leave_at_end() -> None:
    interrupt.disregard()
    try:
        leave()
    except (OSError, ShimError) as error:
        warn(f"leaving the user namespace: {error}")


def _path(base: str) -> str:
    return f"{base}/{state.HOLDER}"


def _locked(base: str) -> Lock:
    what = "the user namespace is being made or ended by another process"
    who = "a process that makes or ends it"
    return locks.making(f"{_path(base)}.lock", who, what)


def _open(base: str, flags: int = 0) -> int:
    flags |= os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(_path(base), flags, state.FILE_MODE)

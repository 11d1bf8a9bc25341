# SPDX-License-Identifier: Apache-2.0
"""The way back to the namespaces of a pause process that was killed, or whose record is gone.

Containers belong to the user namespace in which they were made, and no other has power over them.
Uplinks and commands go on when the pause process is killed, and any of them leads to the
namespaces. So a new pause process is put into the old ones, and the containers notice nothing.
"""

from __future__ import annotations

import os

from .. import netns, state
from ..errors import CANNOT_ENTER, ShimError, warn
from ..proc import pid_namespace
from ..shared import mounts, processes, register
from ..shared.files import file_at, is_same
from . import places
from .record import HolderRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..records import UplinkRecord

# PROC_PID_INIT_INO in include/linux/proc_ns.h
INITIAL_PID_NAMESPACE = 0xEFFFFFFC

Namespaces = tuple[int, int | None]


def find(base: str, path: str) -> HolderRecord:
    """Find a pause process whose record, at a path, was removed; else give an empty record."""
    for pid, named in places.holders():
        try:
            if is_same(named, path):
                is_usual = places.is_usual(base, os.environ)
                return HolderRecord.of(pid, _ranges_of(pid), is_usual=is_usual)
        except OSError:
            continue  # it has ended
    return HolderRecord()


def _ranges_of(pid: int) -> dict[str, list[list[int]]]:
    found = {}
    for kind in ("uid", "gid"):
        with open(f"/proc/{pid}/{kind}_map", encoding="ascii") as file:
            found[kind] = [[int(number) for number in line.split()] for line in file]
    return found


def refuse_hidden(record: HolderRecord, base: str, path: str) -> None:
    """Refuse to replace namespaces that another PID namespace may keep: ShimError (code 103).

    Where no shared netns is up, nothing can be lost. The first PID namespace sees all others.
    """
    processes.check_numbers()
    is_held = record.is_of_this_boot and record.is_hidden and bool(state.all_in(base))
    if is_held and pid_namespace() == INITIAL_PID_NAMESPACE:
        users = (file_at(f"/proc/{pid}/ns/user") for pid in processes.ids())
        is_held = record.user_namespace in (user[1] for user in users if user)
    if is_held:
        raise ShimError(
            CANNOT_ENTER,
            "the user namespace of an earlier call is held in another PID namespace",
            f"pid:[{record.number('pidNamespace')}], where the process {record.pid} holds it: "
            f"call from there; if that session is over, remove {path}",
        )


class Found:
    """The namespaces of a record, as a context: open while it lasts, None where they are gone.

    The mount namespace is None where only the user namespace is left.
    """

    __slots__ = ("_namespaces",)

    def __init__(self, before: HolderRecord, base: str, path: str) -> None:
        """Look for them; `path` is the record's."""
        self._namespaces: Namespaces | None = None
        if before.is_of_this_boot:
            candidates = [*_users(path), *(uplink.pid for _, uplink in _alive(base, before))]
            candidates += _guardians(base, before)
            for pid in candidates:
                self._namespaces = self._namespaces or _open(pid, before)

    def __enter__(self) -> Namespaces | None:
        return self._namespaces

    def __exit__(self, *_: object) -> None:
        for fd in self._namespaces or ():
            if fd is not None:
                os.close(fd)


def _open(pid: int, before: HolderRecord) -> Namespaces | None:
    user = _open_one(f"/proc/{pid}/ns/user", before.user_namespace)
    if user is None:
        return None
    return user, _open_one(f"/proc/{pid}/ns/mnt", before.mount_namespace)


def _open_one(path: str, inode: int) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None  # it has ended, or is not ours
    if os.fstat(fd).st_ino == inode:
        return fd
    os.close(fd)
    return None


def _users(path: str) -> list[int]:
    """List the processes that have the record open: the inode alone proves nothing."""
    record, found = os.stat(path), []
    for pid in processes.ids():
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), record):
                    found.append(pid)
                    break
        except OSError:
            continue  # it has ended, or is not ours
    return found


def _alive(base: str, before: HolderRecord) -> list[tuple[state.State, UplinkRecord]]:
    """List each shared netns of a record whose uplink lives."""
    found = []
    for where in state.all_in(base):
        uplink = where.uplink()
        is_of = uplink.mount_namespace == before.mount_namespace
        if uplink.pid and is_of and uplink.is_alive:
            found.append((where, uplink))
    return found


def _guardians(base: str, before: HolderRecord) -> list[int]:
    """List the guardians of uplinks of a record: they may be at work on a dead one."""
    records = [where.uplink() for where in state.all_in(base)]
    found = [r.guardian for r in records if r.mount_namespace == before.mount_namespace]
    return [guardian.pid for guardian in found if guardian.is_running]


def move_records(base: str, before: HolderRecord, record: HolderRecord) -> None:
    """Move uplinks' records from the namespaces of one pause process to those of another.

    A live uplink in neither of them keeps its record: we cannot tell whose it is.
    """
    if not before or before.mount_namespace == record.mount_namespace:
        return
    is_revived = before.user_namespace == record.user_namespace
    for where in state.all_in(base):
        uplink = where.uplink()
        if uplink.mount_namespace != before.mount_namespace:
            continue
        if is_revived or not (uplink.pid and uplink.is_alive):
            register.move(uplink, record)
            register.write(where, uplink)


def pin_again(base: str, record: HolderRecord) -> None:
    """Pin again, in the mount namespace of a record, each netns that an uplink has open."""
    for where, uplink in _alive(base, record):
        if netns.identity(where.pin, is_ours=True) is not None:
            continue
        try:
            if mounts.pin_again(where, uplink.pid, uplink.netns):
                warn(f"the pin of the shared netns {where.name!r} was gone and is made again")
        except OSError:
            continue  # it has just ended

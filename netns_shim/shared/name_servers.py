# SPDX-License-Identifier: Apache-2.0
"""The servers of names in a shared netns, which netavark or we have started: found and ended."""

from __future__ import annotations

import os

from ..proc import start_time
from ..state import NAMES, read_file
from . import processes
from .files import is_same

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..state import State

# Below NAMES, each server of names has a directory, with these in it: see the wing `names`.
FILES, GUARDIAN = "conf", "guardian"
# Of aardvark-dns itself, beside the files that it reads.
PID_FILE = "aardvark.pid"


def stop_all(state: State) -> None:
    """End each aardvark-dns that netavark or we have started in this netns and left there.

    It ends by itself with the last container, unless a teardown failed.
    """
    netavark, names = state.path("netavark"), state.path(NAMES)
    for own in _list(names):
        processes.stop(*written(f"{names}/{own}/{GUARDIAN}"))  # it would start the server again
    configs = [f"{netavark}/{name}/aardvark-dns" for name in _list(netavark)]
    for where in (*configs, *(f"{names}/{own}/{FILES}" for own in _list(names))):
        pid, since = find(where)
        if pid:
            processes.stop(pid, since)


def find(where: str) -> tuple[int, int]:
    """Find the aardvark-dns of a directory: process ID and start time, 0 and 0 if it has ended.

    Its record is only a process ID, so we check that its arguments name the directory.
    """
    try:
        pid = int(read_file(f"{where}/{PID_FILE}"))
    except (OSError, ValueError):
        return 0, 0  # it was never started
    since = _serving_since(pid, where)
    return (pid, since) if since else (0, 0)


def strays(where: str, home: int) -> set[tuple[int, int]]:
    """Find each aardvark-dns of a directory, whether or not it is on record, in a netns."""
    found = set()
    for pid in processes.ids():
        try:
            is_inside = os.stat(f"/proc/{pid}/ns/net").st_ino == home
        except OSError:
            continue  # it has ended, or is not ours
        if is_inside and (since := _serving_since(pid, where)):
            found.add((pid, since))
    return found


def _serving_since(pid: int, where: str) -> int:
    """Tell since when an aardvark-dns serves a directory; 0 where it does not, or has ended."""
    try:
        since = start_time(pid)
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")
    except OSError:
        return 0
    is_it = any(is_same(os.fsdecode(word).rstrip("/"), where) for word in arguments)
    return since if is_it else 0


def written(path: str) -> tuple[int, int]:
    """Read a process ID and a start time from a file, 0 and 0 where it has none."""
    try:
        pid, since = map(int, read_file(path).split())
    except (OSError, ValueError):
        return 0, 0
    return pid, since


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []

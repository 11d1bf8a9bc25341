# SPDX-License-Identifier: Apache-2.0
"""The places in a directory of ours for what lies beside the directory of CNI's state.

If a machine has no /var/lib/cni, only /var/lib can be covered. So ours has a place for each of its
entries, and each call binds the entries on them (`enter.Beside`). Places stay. Links stand for
entries beyond the first few dozen, because each bind costs every call 10 µs.
"""

from __future__ import annotations

import os
import stat
import time

from ..enter import WHOLE, first_missing, stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import DirEntry

# How many entries are bound. A machine has 20 to 60 in /var/lib.
MOST = 64
# The modes of places, by which they are told from what plugins make there.
DIRECTORY, FILE = 0o500, 0o400
# A change within this time after another one may leave the time of the directory as it is.
UNSURE_NS = 10**8


def make_places(ours: str, theirs: str, parent: str, *, most: int = MOST) -> None:
    """Make the places for what is in a directory, and remove those that have lost it.

    `theirs` is a path of the directory at this moment, `parent` the one that everybody uses. Up to
    `most` entries are bound. Other calls may do the same at once.
    """
    before = os.stat(theirs).st_mtime_ns
    own = first_missing(parent)
    entries = {name: entry for name, entry in _list(theirs).items() if name not in (own, WHOLE)}
    places = _list(ours)
    bound = 0
    for name, place in places.items():
        if name in (own, WHOLE):
            continue
        if name in entries and _fits(place, entries[name]):
            bound += not entries.pop(name).is_symlink() and not place.is_symlink()
        else:
            _remove(place)
    # A home comes first: a program may not expect that it is behind a link.
    used = [os.environ.get("HOME", ""), _working_directory()]
    below = [path.removeprefix(parent) for path in used if path.startswith(f"{parent}/")]
    first = {path.split("/")[1] for path in below}
    for name in sorted(entries, key=lambda name: name not in first):
        bound += _make(f"{ours}/{name}", entries[name], is_bound=bound < most)
    is_sure = abs(time.time_ns() - before) > UNSURE_NS
    os.utime(ours, ns=(0, stamp(before) if is_sure else 0))


def _list(directory: str) -> dict[str, DirEntry[str]]:
    with os.scandir(directory) as entries:
        return {entry.name: entry for entry in entries}


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""  # it was removed, or cannot be seen from here


def _fits(place: DirEntry[str], entry: DirEntry[str]) -> bool:
    """Tell whether a place still is one for an entry, which may be another one by now."""
    if entry.is_symlink():
        return place.is_symlink() and os.readlink(place.path) == os.readlink(entry.path)
    if place.is_symlink():
        return os.readlink(place.path) == f"{WHOLE}/{entry.name}"
    return place.is_dir() == entry.is_dir()


def _make(path: str, entry: DirEntry[str], *, is_bound: bool) -> bool:
    """Make the place for an entry; tell whether it is one to bind on."""
    try:
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), path)
            return False
        if not is_bound:
            _make_directory(f"{os.path.dirname(path)}/{WHOLE}")
            os.symlink(f"{WHOLE}/{entry.name}", path)
            return False
        if entry.is_dir():
            _make_directory(path)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, FILE))
    except (FileExistsError, FileNotFoundError):
        return False  # another call has made it, or the entry is gone
    return True


def _make_directory(path: str) -> None:
    try:
        os.mkdir(path, DIRECTORY)
    except FileExistsError:
        pass


def _remove(place: DirEntry[str]) -> None:
    """Remove a place; what a plugin has made stays."""
    try:
        mode = stat.S_IMODE(place.stat(follow_symlinks=False).st_mode)
        if place.is_symlink() or (place.is_file() and mode == FILE):
            os.unlink(place.path)
        elif place.is_dir() and mode == DIRECTORY:
            os.rmdir(place.path)
    except OSError:
        pass  # something is in it, or another call has removed it

# SPDX-License-Identifier: Apache-2.0
"""Whose a directory is: what the shim may take over, and what it may remove.

A configuration names a directory by two keys, `stateDir` and `netns`. A slip in one of them can
name a private directory of the user's. So the shim leaves a mark, a file, in each directory that
it makes for a shared netns. It takes over no directory without the mark, unless that is empty, and
in one with the mark it removes only the names that it makes. 0.1.0 left no mark: a directory that
it has made is known by its names.
"""

from __future__ import annotations

import errno
import os

from ..errors import IO_FAILURE, ShimError, warn
from ..state import FILE_MODE, MARK, State, is_private, read_file
from . import mounts
from .files import remove_special

# What the shim makes in the directory of a shared netns. In the directories, plugins and netavark
# have files of their own, which belong to the netns.
DIRECTORIES = frozenset({"names", "netavark", "ports", "run", "started", "validated", "var"})
REPLACED = ("plugins.json", "resolv.conf", "uplink.json")
FILES = frozenset(
    {
        *(
            "control",
            "control.lock",
            "left",
            "lifeline",
            "netavark.lock",
            "netns",
            "refs",
            "turn.lock",
        ),
        *("uplink.log", "uplink.pid"),
        *REPLACED,
        *(f"{name}.new" for name in REPLACED),
    }
)
# 0.1.0 makes the first of these before all else, and removes the second after all else.
SIGNS_OF_BEFORE = frozenset({"started", "uplink.json"})
# The content of the mark. A directory that was there before the shim used it stays afterwards.
MADE = b"netns-shim has made this directory, and removes it with its network namespace.\n"
FOUND = b"netns-shim uses this directory, and leaves it empty in the end.\n"


def is_of_before(state: State) -> bool:
    """Tell whether a directory without the mark was made by 0.1.0: by all the names in it."""
    try:
        names = set(os.listdir(state.dir))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return names <= DIRECTORIES | FILES and bool(names & SIGNS_OF_BEFORE)


def check(state: State) -> None:
    """Refuse a directory that is not ours to take over: ShimError (code 5)."""
    where = os.path.realpath(state.base)
    while where != "/":
        if os.path.lexists(f"{where}/{MARK}"):
            raise _refused(state.base, f"{where} is the directory of a shared netns")
        where = os.path.dirname(where)
    if not is_private(state.dir) or state.is_ours():
        return
    names = sorted(os.listdir(state.dir))
    if names and not _is_rest(state):
        raise _refused(
            state.dir,
            f"netns-shim has not made it, and it holds {names[0]!r}: set another 'netns' or "
            "'stateDir'",
        )


def _is_rest(state: State) -> bool:
    """Tell whether a directory is what a removal by 0.1.0 that was cut off has left.

    That has removed all files by then: nothing can be lost.
    """
    if not set(os.listdir(state.dir)) <= DIRECTORIES:
        return False
    for directory, directories, files in os.walk(state.dir):
        if files or any(os.path.islink(f"{directory}/{name}") for name in directories):
            return False
    return True


def _refused(path: str, why: str) -> ShimError:
    return ShimError(IO_FAILURE, f"refusing the state directory {path}", why)


def claim(state: State) -> None:
    """Make the directory, or take over one that passes `check`, and leave the mark in it.

    A new one gets its name when it has its mark: a call that is killed leaves none without.
    """
    if not is_private(state.dir):
        forget(state)
        os.mkdir(_aside(state), 0o700)
        try:
            _write_mark(_aside(state), MADE)
            os.rename(_aside(state), state.dir)
        except OSError:
            forget(state)
            raise
    elif not os.path.lexists(_mark(state)):
        check(state)
        text = MADE if os.listdir(state.dir) else FOUND
        try:
            _write_mark(state.dir, text)
        except OSError:
            remove_file(_mark(state))
            raise


def forget(state: State) -> None:
    """Remove what making or removing a directory has left beside it, if that was cut off."""
    try:
        remove_file(f"{_aside(state)}/{MARK}")
        os.rmdir(_aside(state))
    except FileNotFoundError:
        pass


def _write_mark(directory: str, text: bytes) -> None:
    remove_special(f"{directory}/{MARK}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(f"{directory}/{MARK}", flags, FILE_MODE)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def remove(state: State) -> None:
    """Remove a directory of ours, by the names that we make; what else is in it stays, and it too.

    Raises ShimError (code 11) where something is mounted in it; then nothing is removed.
    """
    mounts.refuse_if_mounted(state.dir)
    left = []
    for name in sorted(os.listdir(state.dir)):
        if name in DIRECTORIES:
            mounts.remove_tree(state.path(name))
        elif name != MARK and not (name in FILES and remove_file(state.path(name))):
            left.append(name)
    if left:
        warn(f"{state.dir} stays: netns-shim has not made {', '.join(map(repr, left))} in it")
        return
    try:
        was_there = read_file(_mark(state)) == FOUND
    except OSError:
        was_there = False  # it is gone, or something else is in its place: what is left is empty
    if was_there:
        os.unlink(_mark(state))
    else:
        forget(state)
        os.rename(state.dir, _aside(state))
        forget(state)


def remove_file(path: str) -> bool:
    """Remove a file, or an empty directory in its place; tell whether it is gone."""
    try:
        os.unlink(path)
    except IsADirectoryError:
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            return False
    except FileNotFoundError:
        pass
    return True


def _aside(state: State) -> str:
    return f"{state.base}/.new-{state.name}"


def _mark(state: State) -> str:
    return state.path(MARK)

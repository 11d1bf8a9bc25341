# SPDX-License-Identifier: Apache-2.0
"""The references of a shared netns, listed and read without taking one."""

from __future__ import annotations

import itertools
import os
import stat
import sys

from ..attachment import AttachmentRecord, ReferenceName
from ..references import drop_ghost
from ..state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..state import State


def records(state: State) -> list[AttachmentRecord]:
    """Read all references, without taking a lock."""
    return _read(state, "")


def of_container(state: State, container_id: str) -> list[AttachmentRecord]:
    """Read the references of a container, as `records` does."""
    records = _read(state, f":{container_id}:")
    return [record for record in records if record.name.container_id == container_id]


def names(state: State, part: str = "") -> list[ReferenceName]:
    """List the names of the references that have `part` in their names, sorted."""
    try:
        return [ReferenceName(name) for name in sorted(os.listdir(state.refs)) if part in name]
    except FileNotFoundError:
        return []


def in_order(records: list[AttachmentRecord]) -> list[AttachmentRecord]:
    """Sort records for people, as `natural` does."""
    return sorted(records, key=lambda record: list(map(natural, record.name.file.split(":"))))


def natural(name: str) -> list[tuple[int, str]]:
    """Give a key that sorts names as people do: `c2` is before `c10`."""
    parts = itertools.groupby(name, "0123456789".__contains__)
    # A number is before a text, as a digit is before a letter. The name itself tells 1 from 01.
    return [
        (int(text), "") if is_number else (sys.maxsize, text)
        for is_number, text in ((is_number, "".join(part)) for is_number, part in parts)
    ] + [(-1, name)]


def ghosts(state: State) -> list[ReferenceName]:
    """Name what `references.drop_ghosts` would remove at this moment."""
    return [n for n in names(state) if drop_ghost(f"{state.refs}/{n}", n, dry_run=True)]


def odd(state: State, read: list[AttachmentRecord]) -> list[tuple[ReferenceName, str]]:
    """Name what is in the place of references, beside those that were read.

    It keeps the netns, as they do. Each comes with what is wrong, and what to do.
    """
    known = {r.name.file for r in read if r.name.is_attachment or r.name.is_guard}
    found = []
    for name in names(state):
        if name.file in known:
            continue
        try:
            problem = _problem(f"{state.refs}/{name}")
        except FileNotFoundError:
            continue  # it has just been dropped
        if problem or not (name.is_attachment or name.is_guard):
            when = "once its container is gone, " if name.is_attachment else ""
            found.append((name, f"{problem or 'is no reference'}: {when}remove it"))
    return found


def _problem(path: str) -> str:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return "is no file"
    try:
        read_file(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""


def _read(state: State, part: str) -> list[AttachmentRecord]:
    records = (read(state, name) for name in names(state, part))
    return [record for record in records if record is not None]


def read(state: State, name: ReferenceName) -> AttachmentRecord | None:
    """Read one reference without a lock; None where it has just been dropped, or is not ours."""
    try:
        return AttachmentRecord.parse(name, read_file(f"{state.refs}/{name}"))
    except OSError:
        return None

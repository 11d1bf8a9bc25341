# SPDX-License-Identifier: Apache-2.0
"""The references of a shared netns, listed and read without taking one."""

from __future__ import annotations

import os

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


def ghosts(state: State) -> list[ReferenceName]:
    """Name what `references.drop_ghosts` would remove at this moment."""
    return [n for n in names(state) if drop_ghost(f"{state.refs}/{n}", n, dry_run=True)]


def _read(state: State, part: str) -> list[AttachmentRecord]:
    records = (read(state, name) for name in names(state, part))
    return [record for record in records if record is not None]


def read(state: State, name: ReferenceName) -> AttachmentRecord | None:
    """Read one reference without a lock; None where it has just been dropped, or is not ours."""
    try:
        return AttachmentRecord.parse(name, read_file(f"{state.refs}/{name}"))
    except OSError:
        return None

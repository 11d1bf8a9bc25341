# SPDX-License-Identifier: Apache-2.0
"""What drivers of netavark leave in the state directory: requests, and netavark's own state.

In place, netavark has a directory for each netns of a caller, because its name server serves only
the netns in which it was started. Such a directory goes with the last attachment in that netns.
"""

from __future__ import annotations

import os

from ..errors import ShimError
from ..locks import Lock
from ..shared import listing, mounts
from ..state import remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..attachment import ReferenceName
    from ..state import State

# Below the directory of a netns.
DIRECTORY = "netavark"
REQUESTS = "attachments"
CONFIG = "config-"
LOCK_SECONDS = 10


def of_place(inode: int) -> str:
    """Name the directory of netavark's own state for the netns with this inode."""
    return f"{CONFIG}{inode}"


def remove_unused(state: State) -> None:
    """Remove netavark's state for each netns in which nothing is attached in place any more.

    Nothing is removed while a reference does not say where it is, and none while netavark runs.
    """
    directory = state.path(DIRECTORY)
    try:
        found = [name for name in os.listdir(directory) if name.startswith(CONFIG)]
    except OSError:
        return  # no driver has ever run in place
    if not _unused(state, found):
        return
    try:
        with Lock(f"{directory}/lock", LOCK_SECONDS, "removing what netavark has left"):
            for name in _unused(state, found):
                mounts.remove_tree(f"{directory}/{name}")
    except (ShimError, OSError):
        pass  # the next call tries again


def _unused(state: State, names: list[str]) -> list[str]:
    used = set()
    for name in listing.names(state):
        if not name.is_attachment:
            continue
        record = listing.read(state, name)
        if record is not None and record.place is None and not record.is_of_other_boot:
            return []
        if record is not None and record.place is not None:
            used.add(of_place(record.place[1]))
    return [name for name in names if name not in used]


def forget(state: State, name: ReferenceName) -> None:
    """Remove the requests of an attachment whose driver has nothing left to undo."""
    directory = f"{state.path(DIRECTORY)}/{REQUESTS}"
    try:
        found = os.listdir(directory)
    except OSError:
        return
    part = f"{':'.join(name.attachment)}:"
    for file in found:
        if file.startswith(part):
            remove(f"{directory}/{file}")

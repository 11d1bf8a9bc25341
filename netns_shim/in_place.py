# SPDX-License-Identifier: Apache-2.0
"""Running plugins where the shim was started: in the netns of the caller."""

from __future__ import annotations

import os

from . import enter, kept, netns, references, state, target
from .locks import NoLock
from .netns import ContainerNetns
from .once import alone
from .target import ATTEMPTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .attachment import AttachmentRecord, ReferenceName
    from .conf import Configuration
    from .decoding import Json
    from .kept import Paths
    from .locks import Lock
    from .references import Reference
    from .request import Request
    from .state import State

# The netns of this process, its PID namespace and its user namespace.
HERE = "/proc/self/ns/net"
PIDS = "/proc/self/ns/pid"
USERS = "/proc/self/ns/user"


class Unchanged:
    """Staying where the process is, as a context that does nothing."""

    __slots__ = ()

    def __enter__(self) -> None:
        """Enter nothing."""

    def __exit__(self, *_: object) -> None:
        """Leave nothing."""


class InPlace:
    """The netns of the caller, which is not ours to make, repair or remove.

    It has references all the same: a caller may not remember the result of its ADD.
    """

    __slots__ = ("state",)
    is_in_place = True
    uplink = None  # it is the caller's
    is_connected = True
    netns_path = HERE
    nameless = None

    def __init__(self, where: State) -> None:
        self.state = where

    def join(self) -> None:
        """Do nothing: plugins have the caller's power and no other."""

    def open_container(self, path: str) -> ContainerNetns:
        """Open the netns of a container; whether it can be attached is left to the plugins."""
        return ContainerNetns(path)

    def take(self, name: ReferenceName) -> Reference:
        """Take a reference; one that already exists is given as it is."""
        for directory in (self.state.base, self.state.dir, self.state.refs):
            if not state.is_private(directory):
                from .shared import files  # only for the first one

                files.make_private(directory)
        for _ in range(ATTEMPTS):
            try:
                return references.take(self.state, name)
            except FileExistsError:
                reference = references.find(self.state, name)
                if reference is not None:
                    return reference
        raise references.busy(name)

    def find(self, name: ReferenceName) -> Reference | None:
        """Open a reference, None where it does not exist."""
        return references.find(self.state, name) if self.state.exists() else None

    def place(self) -> Json:
        """Give what a reference says about where its plugins work: which netns this is.

        Whether it is still there can be seen from this PID namespace and user namespace.
        """
        home = os.stat(HERE)
        seen_from = (os.stat(path).st_ino for path in (PIDS, USERS))
        return {"place": [home.st_dev, home.st_ino, *seen_from]}

    def is_of(self, record: AttachmentRecord) -> bool:
        """Tell whether an attachment was made here: another caller has its own in the same files.

        Nothing here outlives a boot.
        """
        home = os.stat(HERE)
        return record.place == (home.st_dev, home.st_ino) and not record.is_of_other_boot

    def open_repaired(self) -> int:
        """Open the netns of this process."""
        return netns.open_netns(HERE)

    # This netns is here.
    open_as_is = open_repaired

    def lock(self, request: Request, conf: Configuration) -> Lock | NoLock:
        """Do not wait unless told to: the caller decides what else works in its netns."""
        return alone(self.state, request, conf) if conf.parallel is False else NoLock()

    def inside(self, fd: int | None, keep: Paths) -> enter.Inside | Unchanged:
        """Stay where we are; with a /var/lib/cni of our own where the caller's is not writable.

        Inside Podman's rootless netns it is not, since Podman 5.
        """
        can_keep = os.access(enter.existing_parent(kept.CNI_STATE), os.W_OK)
        if can_keep or not (netns.can_return() and netns.can_mount()):
            return Unchanged()
        if not os.path.isdir(self.state.dir):
            # Nothing has ever been attached: a DEL and STATUS make no directory.
            return enter.Inside(enter.HERE, enter.plan_in_place(None, keep))
        state.make_below(self.state.dir, kept.CNI_STATE)
        return enter.Inside(enter.HERE, enter.plan_in_place(self.state, keep))

    def nowhere(self, keep: Paths) -> enter.Inside | Unchanged:
        """Stay where we are: this netns always exists."""
        return self.inside(self.open_as_is(), keep)

    def publication(self, reference: Reference, wanted: list[Json]) -> None:
        """Open no port: the owner of this netns does that."""

    def withdraw(self, record: AttachmentRecord) -> None:
        """Close no port."""

    def restore_names(self) -> None:
        """Have a server answer for the names in this netns, if there are any."""
        target.restore_names(self.state, HERE)

    def leave_behind(self, record: AttachmentRecord) -> None:
        """Write down nothing: this netns is the caller's."""

    def leave(self) -> None:
        """Leave the directory for the next call, but for what netavark has left of a netns."""
        if os.path.isdir(self.state.path("netavark")):
            from .netavark import configs  # only where a driver has run

            configs.remove_unused(self.state)

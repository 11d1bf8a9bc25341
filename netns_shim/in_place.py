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


class InPlace:
    """The netns of the caller, which is not ours to make, repair or remove.

    It has references all the same: a caller may not remember the result of its ADD.
    """

    __slots__ = ("state",)
    uplink = None  # it is the caller's
    is_connected = True

    def __init__(self, where: State) -> None:
        self.state = where

    def join(self) -> None:
        """Do nothing: plugins have the caller's power and no other."""

    def open_container(self, path: str) -> ContainerNetns:
        """Open the netns of a container; whether it can be attached is left to the plugins."""
        return ContainerNetns(path)

    def check_ready(self) -> None:
        """Do nothing: an ADD needs nothing of ours."""

    def take(self, name: ReferenceName) -> Reference:
        """Take a reference; one that already exists is given as it is."""
        for directory in (self.state.base, self.state.dir, self.state.refs):
            state.make_private(directory)
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

    def guard(self, name: ReferenceName) -> Reference | None:
        """Take nothing: the netns does not go with the references."""
        return None

    def place(self) -> Json:
        """Give what a reference says about where its plugins work: which netns this is.

        Whether it is still there can be seen from this PID namespace and user namespace.
        """
        home = os.stat(HERE)
        seen_from = (os.stat(path).st_ino for path in (PIDS, USERS))
        return {"place": [home.st_dev, home.st_ino, *seen_from]}

    def open_repaired(self) -> int:
        """Open the netns of this process."""
        return netns.open_netns(HERE)

    def await_uplink(self) -> None:
        """Do not wait: the uplink is the caller's."""

    # This netns is here.
    is_elsewhere = False
    open_as_is = open_repaired
    open_alive = open_repaired

    def lock(self, request: Request, conf: Configuration) -> Lock | NoLock:
        """Do not wait unless told to: the caller decides what else works in its netns."""
        return alone(self.state, request, conf) if conf.parallel is False else NoLock()

    def inside(self, fd: int | None, keep: Paths) -> enter.Inside | enter.Unchanged:
        """Stay where we are; with a /var/lib/cni of our own where the caller's is not writable.

        Inside Podman's rootless netns it is not, since Podman 5.
        """
        if enter.can_keep_state() or not (netns.can_return() and netns.can_mount()):
            return enter.Unchanged()
        state.make_below(self.state.dir, kept.CNI_STATE)
        return enter.Inside(enter.HERE, enter.plan_in_place(self.state, keep))

    def nowhere(self, keep: Paths) -> enter.Inside | enter.Unchanged:
        """Stay where we are: this netns always exists."""
        return self.inside(self.open_as_is(), keep)

    def publication(self, reference: Reference, wanted: list[Json]) -> None:
        """Open no port: the owner of this netns does that."""

    def withdraw(self, record: AttachmentRecord) -> None:
        """Close no port."""

    def check_ports(self, record: AttachmentRecord) -> None:
        """Look at no port."""

    def enter_names(self, reference: Reference, request: Request, result: Json) -> Json:
        """Enter an attachment under its names; give the result that names the server."""
        return target.enter_names(self.state, HERE, reference, request, result)

    def leave_names(self, reference: Reference) -> None:
        """Take an attachment out of the names, if it is there."""
        target.leave_names(self.state, HERE, reference)

    def check_names(self, record: AttachmentRecord) -> None:
        """Check that the names of an attachment resolve; ShimError (code 107) where not."""
        if record.naming:
            target.check_names(self.state, HERE, record)

    def spare_leases(self, network: str, addresses: list[str]) -> None:
        """Leave them as they are: they are the caller's."""

    def leave_behind(self, record: AttachmentRecord) -> None:
        """Write down nothing: this netns is the caller's."""

    def leave(self) -> None:
        """Leave the directory for the next call, but for what netavark has left of a netns."""
        if os.path.isdir(self.state.path("netavark")):
            from .netavark import configs  # only where a driver has run

            configs.remove_unused(self.state)

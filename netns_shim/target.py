# SPDX-License-Identifier: Apache-2.0
"""Where plugins run: inside a shared netns, or in the caller's own, see `in_place`.

You use both in the same way: take a reference, open the netns, be inside, leave. They import
`lifecycle` only to make or remove a netns, and `maintenance` only to repair one.
"""

from __future__ import annotations

import errno
import os

from . import conf as configuration
from . import enter, netns, references, state
from .errors import TRY_AGAIN_LATER, ShimError
from .netns import ContainerNetns
from .once import lock_of
from .records import UplinkRecord
from .state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from .attachment import AttachmentRecord, ReferenceName
    from .conf import Configuration
    from .decoding import Json
    from .in_place import InPlace
    from .kept import Paths
    from .locks import Lock, NoLock
    from .once import Once
    from .ports.publication import Publication
    from .references import Reference
    from .request import Request
    from .shared.uplink import Wanted

    Target: TypeAlias = "Shared | InPlace"

# The verbs for what an earlier call has attached.
NEED_REFERENCE = ("CHECK", "DEL")
# How often to make a netns again that other calls remove before this one gets in.
ATTEMPTS = 10
# How many references to look at when the last attachment may have gone: a netns with more of them
# is not about to be removed.
LAST_ONES = 8


def choose(conf: Configuration, request: Request) -> Target:
    """Tell where the plugins of a configuration run. Nothing is made or entered for it.

    What a CHECK or a DEL is for counts more than the netns: it may be in another state directory.
    """
    is_in_place = netns.is_in_place(conf.enter)
    name = state.IN_PLACE if is_in_place else conf.netns
    part = f"{name}/refs"
    if request.verb in NEED_REFERENCE:
        part = references.index(name, request.container_id, request.ifname)
    environ = request.environ
    where = State(state.base_dir(environ, conf.state_dir, part), name)
    if is_in_place:
        from .in_place import InPlace  # the netns is the caller's

        return InPlace(where)
    return Shared(where, conf.uplink, environ)


def of_attached(request: Request) -> Target:
    """Tell where to look for what is attached, for a CHECK or a DEL.

    It is the usual place if the network does not say it any more, because it was edited.
    """
    try:
        conf = configuration.read(request.conf)
    except ShimError:
        known = {k: v for k, v in request.conf.items() if k not in configuration.PLACE_KEYS}
        conf = configuration.read(known)
    return choose(conf, request)


def at(there: State, like: Target, environ: Mapping[str, str]) -> Target:
    """Give the target of something that is attached, perhaps elsewhere than `like`."""
    if there.dir == like.state.dir:
        return like
    if there.name == state.IN_PLACE:
        from .in_place import InPlace  # the netns is the caller's

        return InPlace(there)
    return Shared(there, configuration.DEFAULT_UPLINK, environ)


def choose_own(where: Target, conf: Configuration, request: Request) -> Shared | None:
    """Choose a shared netns of this user namespace, where another one has the default one.

    None where the network names its netns: then it is meant to be that one.
    """
    if where.state.name == state.IN_PLACE or "netns" in request.conf:
        return None
    from .shared import elsewhere  # only for a second user namespace

    return Shared(elsewhere.of_user_namespace(where.state), conf.uplink, request.environ)


def restore_names(where: State, path: str) -> None:
    """Have a server answer for the names in the netns at a path, if there are any."""
    if os.path.isdir(where.path(state.NAMES)):
        from .names import membership  # only where there are names

        membership.restore(where, path)


class Shared:
    """The shared netns of a configuration, which need not exist.

    `wanted` is the uplink to make it with. `uplink` is the record of the one it has, once it has
    been opened for an ADD. `netns_path` is the path of the netns in which plugins run.
    """

    __slots__ = ("environ", "nameless", "netns_path", "state", "uplink", "wanted")
    is_in_place = False

    def __init__(self, where: State, wanted: Wanted, environ: Mapping[str, str]) -> None:
        self.state = where
        self.netns_path = where.pin
        self.wanted = wanted
        self.environ = environ
        # The namespaces whose names `names.together` takes out later; None: each at once.
        self.nameless: set[int] | None = None
        self.uplink = UplinkRecord()

    def join(self) -> None:
        """Get power over the netns. Call it once the request is known to be right.

        After that, a caller without capabilities is root of the user's own user namespace, which
        is made if need be. Raises ShimError (code 103) where that is impossible.
        """
        if netns.check_return():
            netns.refuse_if_nested(self.state.pin)
        else:
            from .userns import pause  # only for a user without capabilities

            pause.join(self.state.base)

    def open_container(self, path: str) -> ContainerNetns:
        """Open the netns of a container; ShimError (code 8) where no plugin could attach it."""
        container = ContainerNetns(path)
        container.check()
        return container

    def take(self, name: ReferenceName) -> Reference:
        """Take a reference, and make the netns first if need be.

        A reference that already exists is given as it is, for the caller to judge.
        """
        for _ in range(ATTEMPTS):
            try:
                if self.state.exists():
                    return references.take(self.state, name)
            except FileNotFoundError:
                pass  # the last one is just leaving
            except FileExistsError:
                reference = references.find(self.state, name)
                if reference is not None:
                    return reference
            from .shared import lifecycle  # only where the netns is missing

            lifecycle.create(self.state, self.wanted, self.environ)
        raise ShimError(
            TRY_AGAIN_LATER,
            f"the shared netns {self.state.name!r} keeps being made and removed",
            "call again",
        )

    def find(self, name: ReferenceName) -> Reference | None:
        """Open a reference, None where it does not exist."""
        return references.find(self.state, name) if self.state.exists() else None

    def place(self) -> Json:
        """Give what a reference says about where its plugins work: the directory says it."""
        return {}

    def is_of(self, _record: AttachmentRecord) -> bool:
        """Tell whether an attachment was made here: what is among the references was."""
        return True

    def open_repaired(self) -> int:
        """Open the netns, to which a reference is held; repair it first if it is broken."""
        where = self.state
        self.uplink = uplink = where.uplink()
        fd = self._open()
        is_whole = fd is not None and os.fstat(fd).st_ino == uplink.netns
        is_whole = is_whole and (uplink.is_alive or bool(uplink.pending))
        if fd is None or not is_whole or where.missing():
            from .shared import maintenance  # only where something is broken

            if fd is not None:
                os.close(fd)
            maintenance.repair(where, self.wanted, self.environ)
            self.uplink = uplink = where.uplink()
            if not uplink.is_hidden:
                self.restore_ports()
                self.restore_names()
            fd = netns.open_netns(where.pin, is_ours=True)
            if not uplink.pending:
                return fd
        elif uplink.host is not None and self._follow(uplink.host):
            self.uplink = uplink = where.uplink()
        if uplink.pending:
            from .shared import fallback  # only where it waits for a network of the host

            fallback.say(where, uplink)
            return fd
        if uplink.lacks_guardian:
            from .shared import maintenance  # only where one was killed

            maintenance.guard(where)
        if uplink.is_stopped:
            from .shared import health  # only where a signal has stopped it

            health.warn_of_stopped(where, uplink)
        if uplink.lacks_ports or uplink.lacks_listed or where.has_publishers():
            self.restore_ports()
        return fd

    def _follow(self, before: Json) -> bool:
        """Follow the host's network, which was like this `before`; tell whether it has changed."""
        from . import hostnet  # a DEL does not look

        changes = hostnet.changes(before)
        if changes:
            from .shared import maintenance  # only where the host's network has changed

            maintenance.follow(self.state, changes, self.environ)
            self.restore_names()
        return bool(changes)

    @property
    def is_connected(self) -> bool:
        """Whether the uplink that the netns had when it was opened is still there."""
        # From another PID namespace, its end cannot be seen.
        return not self.uplink.pid or self.uplink.is_hidden or self.uplink.is_running

    def restore_ports(self) -> None:
        """Open again what is published where its publisher has ended."""
        from .ports import restore  # only where one can have ended

        restore.restore(self.state, self.environ)

    def publication(self, reference: Reference, wanted: list[Json]) -> Publication | None:
        """Prepare to open ports of the host for an attachment."""
        from .ports import publication  # only where ports are published

        return publication.prepare(self.state, reference, wanted, self.environ)

    def withdraw(self, record: AttachmentRecord) -> None:
        """Close the ports that an attachment publishes."""
        if record.ports:
            from .ports import publication  # only where ports are published
            from .shared import elsewhere

            elsewhere.refuse_processes(self.state)
            publication.withdraw(self.state, record)

    def restore_names(self) -> None:
        """Have a server answer for the names in this netns, if there are any."""
        restore_names(self.state, self.netns_path)

    def open_as_is(self) -> int | None:
        """Open the netns; None where it does not exist, or is lost.

        Raises ShimError where it lives on in another mount namespace.
        """
        fd = self._open()
        if fd is not None or not self.state.uplink():
            return fd
        from .shared import lifecycle  # only where something is broken

        lifecycle.check_reachable(self.state)
        return self._open()  # another call may just have made it again

    def _open(self) -> int | None:
        try:
            return netns.open_netns(self.state.pin, is_ours=True)
        except (OSError, ShimError):
            return None  # something else is at the path of the pin

    def lock(self, request: Request, conf: Configuration) -> Once | Lock | NoLock:
        """Give the lock of an ADD or a DEL, as a context; a reference must be held."""
        return lock_of(self.state, request, conf)

    def inside(self, fd: int | None, keep: Paths) -> enter.Inside:
        """Give the context for plugins in the netns, or in a new one with the same state.

        `keep` are paths that the plugins will be given; they have to stay visible.
        """
        return enter.Inside(fd, enter.plan(self.state, self.environ, keep))

    def nowhere(self, keep: Paths) -> enter.Inside:
        """Give the context for plugins without a shared netns: a netns that ends with us."""
        return enter.Inside(None, enter.throwaway_plan(self.environ, keep))

    def leave_behind(self, record: AttachmentRecord) -> None:
        """Write down what a DEL has left of an attachment, as it had no netns of the container."""
        from .shared import attached  # seldom: runtimes name it while it is there

        attached.leave_behind(self.state, record)

    def leave(self) -> None:
        """Remove the netns if the last reference was dropped.

        Ghosts, which killed calls have left, do not keep it. A directory that is not ours is left
        alone.
        """
        if not self.state.is_ours() and not os.path.lexists(self.state.lock):
            return
        while self.state.is_ours():
            try:
                os.rmdir(self.state.refs)
            except FileNotFoundError:
                # A process is removing or making it, or was killed while it did so.
                if not os.path.lexists(self.state.dir) and not os.path.lexists(self.state.lock):
                    return
            except OSError as error:
                is_used = error.errno == errno.ENOTEMPTY
                if is_used and references.drop_ghosts(self.state, LAST_ONES):
                    continue
                return
            break
        from .shared import lifecycle  # only for the last reference

        lifecycle.destroy(self.state)
        self.end_holder()

    def end_holder(self) -> None:
        """End the user's own user namespace with the last netns in it."""
        if os.path.lexists(f"{self.state.base}/{state.HOLDER}"):
            from .userns import pause  # only where there is a pause process

            pause.end_if_unused(self.state.base)

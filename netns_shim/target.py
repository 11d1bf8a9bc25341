# SPDX-License-Identifier: Apache-2.0
"""Where plugins run: inside a shared netns, or in the caller's own, see `in_place`.

You use both in the same way: take a reference, open the netns, be inside, leave. They import
`lifecycle` only to make, repair or remove a netns.
"""

from __future__ import annotations

import errno
import os
import time

from . import conf as configuration
from . import enter, hostnet, interrupt, kept, netns, references, state
from .errors import LIMITED_CONNECTIVITY, NOT_AVAILABLE, TRY_AGAIN_LATER, UPLINK_FAILED, ShimError
from .locks import PAUSE, NoLock
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
    from .locks import Lock
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
# How long an ADD waits for a guardian to bring the uplink back, in seconds.
REVIVAL_SECONDS = 20
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


def at(there: State, like: Target, environ: Mapping[str, str]) -> Target:
    """Give the target of something that is attached, perhaps elsewhere than `like`."""
    if there.dir == like.state.dir:
        return like
    if there.name == state.IN_PLACE:
        from .in_place import InPlace  # the netns is the caller's

        return InPlace(there)
    return Shared(there, configuration.DEFAULT_UPLINK, environ)


def beside(where: Target, conf: Configuration, request: Request) -> Shared | None:
    """Give what a user namespace gets in place of the default netns, which another one has.

    None where the network names its netns: then it is meant to be that one.
    """
    if where.state.name == state.IN_PLACE or "netns" in request.conf:
        return None
    from .shared import elsewhere  # only for a second user namespace

    return Shared(elsewhere.of_user_namespace(where.state), conf.uplink, request.environ)


def enter_names(
    state: State, path: str, reference: Reference, request: Request, result: Json
) -> Json:
    """Enter an attachment under its names in the netns at a path, see `names.membership`."""
    from .names import membership  # only for a network with names

    return membership.enter(state, path, reference, request, result)


def leave_names(state: State, path: str, reference: Reference) -> None:
    """Take an attachment out of the names in the netns at a path, if it is there."""
    if reference.record.naming:
        from .names import membership  # only for a network with names

        membership.leave(state, path, reference)


def check_names(state: State, path: str, record: AttachmentRecord) -> None:
    """Check that the names of an attachment resolve; ShimError (code 107) where not."""
    from .names import membership  # only for a network with names

    membership.verify(state, path, record)


class Shared:
    """The shared netns of a configuration, which need not exist.

    `wanted` is the uplink to make it with. `uplink` is the record of the one it has, once it has
    been opened for an ADD.
    """

    __slots__ = ("_environ", "_wanted", "state", "uplink")

    def __init__(self, where: State, wanted: Wanted, environ: Mapping[str, str]) -> None:
        self.state = where
        self._wanted = wanted
        self._environ = environ
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

    def check_ready(self) -> None:
        """Check that an ADD finds all it needs (STATUS). Raises ShimError (code 50 or 51)."""
        from .shared import health, ownership, uplink  # runtimes ask for STATUS seldom

        try:
            ownership.check(self.state)
            uplink.check(self._wanted, self._environ)
        except ShimError as error:
            raise ShimError(NOT_AVAILABLE, error.message, error.details) from None
        if not self.state.exists():
            return
        record = self.state.uplink()
        if not self._is_up(record):
            raise ShimError(
                LIMITED_CONNECTIVITY,
                f"the shared netns {self.state.name!r} has lost its uplink",
                "the next ADD repairs it",
            )
        if netns.identity(self.state.pin, is_ours=True) is not None:
            health.check(self.state, record, LIMITED_CONNECTIVITY)

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

            lifecycle.create(self.state, self._wanted, self._environ)
        raise ShimError(
            TRY_AGAIN_LATER,
            f"the shared netns {self.state.name!r} keeps being made and removed",
            "call again",
        )

    def find(self, name: ReferenceName) -> Reference | None:
        """Open a reference, None where it does not exist."""
        return references.find(self.state, name) if self.state.exists() else None

    def guard(self, name: ReferenceName) -> Reference | None:
        """Take a guard, so that the netns stays meanwhile; None where there is no netns.

        Where an ADD has just begun, it gives the reference of that instead, after the ADD's end.
        """
        for _ in range(ATTEMPTS):
            if not self.state.exists():
                return None
            try:
                return references.take(self.state, name)
            except FileNotFoundError:
                return None  # the last one is just leaving
            except FileExistsError:
                reference = references.find(self.state, name)
                if reference is not None:
                    return reference
        raise references.busy(name)

    def place(self) -> Json:
        """Give what a reference says about where its plugins work: the directory says it."""
        return {}

    def open_repaired(self) -> int:
        """Open the netns, to which a reference is held; repair it first if it is broken."""
        where = self.state
        self.uplink = uplink = where.uplink()
        fd = self._open()
        is_whole = fd is not None and os.fstat(fd).st_ino == uplink.netns
        is_whole = is_whole and (uplink.is_alive or bool(uplink.pending))
        if fd is None or not is_whole or where.missing():
            from .shared import lifecycle  # only where something is broken

            if fd is not None:
                os.close(fd)
            lifecycle.repair(where, self._wanted, self._environ)
            self.uplink = uplink = where.uplink()
            if not uplink.is_hidden:
                self.restore_ports()
                self.restore_names()
            fd = netns.open_netns(where.pin, is_ours=True)
            if not uplink.pending:
                return fd
        elif (before := uplink.host) is not None and (changes := hostnet.changes(before)):
            from .shared import lifecycle  # only where the host's network has changed

            lifecycle.follow(where, changes, self._environ)
            self.restore_names()
            self.uplink = uplink = where.uplink()
        if uplink.pending:
            from .shared import fallback  # only where it waits for a network of the host

            fallback.say(where, uplink)
            return fd
        if uplink.lacks_guardian:
            from .shared import lifecycle  # only where one was killed

            lifecycle.guard(where)
        if uplink.lacks_ports or uplink.lacks_listed or where.has_publishers():
            self.restore_ports()
        return fd

    @property
    def is_connected(self) -> bool:
        """Whether the uplink that the netns had when it was opened is still there."""
        # From another PID namespace, its end cannot be seen.
        return not self.uplink.pid or self.uplink.is_hidden or self.uplink.is_running

    def await_uplink(self) -> None:
        """Wait for the uplink that the guardian starts after the end of the one before.

        This process has entered the netns, so it cannot start one for the host's. Raises ShimError
        (code 102) where none comes.
        """
        deadline = time.monotonic() + REVIVAL_SECONDS
        while not (uplink := self.state.uplink()).is_alive:
            guardian = uplink.guardian
            problem = guardian.text("problem")
            if problem or not guardian.is_running or time.monotonic() > deadline:
                raise ShimError(
                    UPLINK_FAILED,
                    f"the uplink of {self.state.name!r} has ended during this ADD",
                    problem or "call again: the next ADD repairs it",
                )
            interrupt.check("waiting for the uplink")
            time.sleep(PAUSE)
        self.uplink = uplink

    def restore_ports(self) -> None:
        """Open again what is published where its publisher has ended."""
        from .ports import restore  # only where one can have ended

        restore.restore(self.state, self._environ)

    def publication(self, reference: Reference, wanted: list[Json]) -> Publication | None:
        """Prepare to open ports of the host for an attachment."""
        from .ports import publication  # only where ports are published

        return publication.prepare(self.state, reference, wanted, self._environ)

    def withdraw(self, record: AttachmentRecord) -> None:
        """Close the ports that an attachment publishes."""
        if record.ports:
            from .ports import publication  # only where ports are published
            from .shared import elsewhere

            elsewhere.refuse_processes(self.state)
            publication.withdraw(self.state, record)

    def check_ports(self, record: AttachmentRecord) -> None:
        """Check that the ports of an attachment are open; ShimError (code 106) where not."""
        if record.ports and not self.state.uplink().is_hidden:
            from .ports import look  # only where ports are published

            look.check(self.state, record)

    @property
    def is_elsewhere(self) -> bool:
        """Whether the netns lives on in another mount namespace, where this process cannot get."""
        try:
            fd = self.open_as_is()
        except ShimError:
            return True
        if fd is not None:
            os.close(fd)
        return False

    def enter_names(self, reference: Reference, request: Request, result: Json) -> Json:
        """Enter an attachment under its names; give the result that names the server."""
        return enter_names(self.state, self.state.pin, reference, request, result)

    def leave_names(self, reference: Reference) -> None:
        """Take an attachment out of the names, if it is there."""
        leave_names(self.state, self.state.pin, reference)

    def check_names(self, record: AttachmentRecord) -> None:
        """Check that the names of an attachment resolve; ShimError (code 107) where not."""
        if record.naming and not self.state.uplink().is_hidden:
            check_names(self.state, self.state.pin, record)

    def restore_names(self) -> None:
        """Have a server answer for the names in this netns, if there are any."""
        from .names import membership  # only after something has changed

        membership.restore(self.state, self.state.pin)

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

    def _is_up(self, uplink: UplinkRecord) -> bool:
        """Tell whether an uplink lives, perhaps in another PID namespace, or waits with reason."""
        waits = bool(uplink.pending) and not hostnet.routes()
        return waits or uplink.is_alive or self.state.has_uplink(uplink)

    def open_alive(self) -> int:
        """Open the netns, to which a reference is held (CHECK); ShimError where it is broken."""
        fd = self.open_as_is()
        uplink = self.state.uplink()
        if fd is None or not self._is_up(uplink):
            what = "is lost" if fd is None else f"has lost its uplink {uplink.driver}"
            raise ShimError(
                UPLINK_FAILED,
                f"the shared netns {self.state.name!r} {what}",
                "the next ADD repairs it",
            )
        from .shared import health  # runtimes ask for CHECK seldom

        health.check(self.state, uplink)
        return fd

    def lock(self, request: Request, conf: Configuration) -> Once | Lock | NoLock:
        """Give the lock of an ADD or a DEL, as a context; a reference must be held."""
        return lock_of(self.state, request, conf)

    def inside(self, fd: int | None, keep: Paths) -> enter.Inside:
        """Give the context for plugins in the netns, or in a new one with the same state.

        `keep` are paths that the plugins will be given; they have to stay visible.
        """
        return enter.Inside(fd, enter.plan(self.state, self._environ, keep))

    def nowhere(self, keep: Paths) -> enter.Inside:
        """Give the context for plugins without a shared netns: a netns that ends with us."""
        return enter.Inside(None, enter.throwaway_plan(self._environ, keep))

    def spare_leases(self, network: str, addresses: list[str]) -> None:
        """Mark the leases of an attachment as the shim's own files, see `state.FILE_MODE`."""
        if self.state.base.startswith("/run/"):
            return  # nothing is removed by its age there
        directory = f"{self.state.dir}{kept.CNI_STATE}/networks/{network}"
        for address in addresses:
            try:
                os.chmod(f"{directory}/{address.partition('/')[0]}", state.FILE_MODE | 0o044)
            except OSError:
                pass  # another IPAM plugin has it, or the network has another name there

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

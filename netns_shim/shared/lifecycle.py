# SPDX-License-Identifier: Apache-2.0
"""The life of a shared netns: made for the first reference, repaired, removed after the last.

All of it happens outside of the netns, in the outer mount namespace, under one lock a netns. The
lock is never held while a plugin runs.
"""

from __future__ import annotations

import errno
import fcntl
import os

from .. import hostnet, interrupt, locks, netns
from ..errors import INVALID_ENVIRONMENT, IO_FAILURE, UPLINK_FAILED, ShimError, warn
from ..state import NAMES, is_private, make_below, remove
from . import (
    attached,
    connect,
    elsewhere,
    listing,
    mounts,
    names,
    ownership,
    processes,
    register,
    uplink,
)
from .files import make_private, remove_special

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ..locks import Lock
    from ..records import UplinkRecord
    from ..state import State
    from .uplink import Wanted

# The SELinux type that Fedora and its relatives let iptables lock and write.
SELINUX_LABEL = b"system_u:object_r:iptables_var_run_t:s0\0"
REFRESH = "`netns-shim refresh` renews it"


def create(state: State, wanted: Wanted, environ: Mapping[str, str]) -> None:
    """Make the netns, unless another call just did, or it is there and has lost its references.

    `wanted` is the configured uplink.
    """
    chosen = uplink.check(wanted, environ)
    with locked(state):
        if state.exists():
            return
        elsewhere.refuse_mounts(state)
        elsewhere.refuse_beside(state)
        ownership.check(state)
        if attached.keep(state):
            return
        # What making or removing it has left, if that was cut off.
        _clear(state)
        try:
            _make_directories(state)
            mounts.pin(state)
            connect.connect(state, chosen, wanted)
            # Last: once it is there, all the rest is there.
            os.mkdir(state.refs, 0o700)
        except BaseException:
            interrupt.disregard()
            _clear(state)
            raise


def repair(state: State, wanted: Wanted, environ: Mapping[str, str]) -> None:
    """Repair a netns that has references, and say what was broken.

    A failure leaves things as they were; a netns with references is never removed.
    """
    with locked(state):
        record = state.uplink()
        is_pinned = netns.identity(state.pin, is_ours=True) is not None or _pin_again(
            state, record
        )
        if not is_pinned:
            _replace(state)
        elif register.is_up(state, record) or register.is_awaited(state, record):
            _complete(state, record)
            return
        else:
            what = "was gone" if record else "has no record that can be read"
            warn(f"the uplink of the shared netns {state.name!r} {what} and is started again")
        _make_directories(state)
        connect.again(state, uplink.check(wanted, environ), wanted)


def _pin_again(state: State, record: UplinkRecord) -> bool:
    """Pin a netns again whose pin is gone, if its uplink holds on to it, as pasta(1) does."""
    elsewhere.refuse_mounts(state)
    try:
        if not (record.pid and record.is_alive):
            return False
        if not mounts.pin_again(state, record.pid, record.netns):
            return False
    except FileNotFoundError:
        return False  # it has just ended
    warn(f"the pin of the shared netns {state.name!r} was gone and has been made again")
    return True


def _replace(state: State) -> None:
    """Make a new netns to replace one that is lost."""
    _forget_other_boot(state)
    processes.stop_publishers(state)
    processes.stop_name_servers(state)
    connect.disconnect(state)
    mounts.unpin(state)
    # In a new netns, the next ADD is the first again.
    mounts.remove_tree(state.path("started"))
    remove(state.path(attached.LEFT))
    mounts.pin(state)
    warn(
        f"the shared netns {state.name!r} was lost and has been made again; "
        "what was attached to it before has to be attached again"
    )


def _complete(state: State, record: UplinkRecord) -> None:
    """Make the missing files of a netns that works again."""
    lost = state.missing()
    if lost:
        _make_directories(state)
        names.follow(state, record)
        register.write(state, record)
        warn(f"{', '.join(lost)} of the shared netns {state.name!r} was gone and is made again")


def follow(state: State, changes: list[str], environ: Mapping[str, str]) -> None:
    """Act on changes of the host's network, see `hostnet`.

    Questions about names go to the new name servers. The uplink is started again only if it
    was started before there was a network, or waits for one, so that no connection is cut off.
    Otherwise a warning names `refresh`.
    """
    with locked(state):
        record = state.uplink()
        before = record.host
        has_any = register.is_up(state, record) or register.is_awaited(state, record)
        if before is None or not has_any:
            return
        is_copy = record.copies_addresses or bool(record.pending)
        if is_copy and "routes" in changes and before.get("routes") == []:
            warn(f"the host has a network now: the uplink of {state.name!r} is started again")
            connect.renew(state, environ)
            return
        if "nameServers" in changes:
            _follow_name_servers(state, record, environ)
        if not is_copy and {"routes", "addresses"}.intersection(changes):
            connect.follow(state, record, changes)
    others = [name for name in record.outdated(changes) if name != "nameServers"]
    if others:
        warn(
            f"the host's {' and '.join(others)} have changed since the uplink of {state.name!r} "
            f"was started: {REFRESH}"
        )


def _follow_name_servers(state: State, record: UplinkRecord, environ: Mapping[str, str]) -> None:
    before = record.dns_forwarders
    found = names.follow(state, record)
    register.write(state, record)
    if record.driver == "pasta" and record.forwards is None:
        warn(
            f"the host's name servers have changed, and the uplink of {state.name!r} forwards to "
            f"the old ones, as its options say so: {REFRESH}"
        )
    # pasta looks for a resolver on the host's loopback when it starts.
    if found.lost and before and record.driver == "pasta":
        connect.renew(state, environ)


def refresh(state: State, environ: Mapping[str, str]) -> None:
    """Start the uplink again in the same netns, so that it takes over the host's present network.

    Raises ShimError where that cannot work, if possible before anything is changed.
    """
    if not state.exists():
        raise ShimError(
            INVALID_ENVIRONMENT,
            f"no shared network namespace {state.name!r} is up",
            "`netns-shim status` lists those that are up",
        )
    with locked(state):
        if netns.identity(state.pin, is_ours=True) is None:
            elsewhere.refuse_mounts(state)
            what = f"the shared netns {state.name!r} is lost"
            raise ShimError(UPLINK_FAILED, what, "the next ADD repairs it")
        elsewhere.refuse_processes(state)
        record = state.uplink()
        before = record.host or {}
        depends = record.copies_addresses and before.get("routes")
        if depends and not hostnet.look([])["routes"] and record.is_alive:
            raise ShimError(
                UPLINK_FAILED,
                "the host has no default route now, so the uplink is left as it is",
                "call again when there is one",
            )
        _make_directories(state)
        connect.renew(state, environ)


def guard(state: State) -> None:
    """Give an uplink another guardian if its own was killed."""
    with locked(state):
        record = state.uplink()
        if record.lacks_guardian and register.is_up(state, record):
            connect.guard(state, record)


def destroy(state: State) -> None:
    """Remove a netns whose `refs/` is gone, unless another call made it again meanwhile.

    It stays as well where the kernel knows of a container in it, see `attached`.
    """
    with locked(state):
        if os.path.isdir(state.refs):
            return
        try:
            elsewhere.refuse_processes(state)
        except ShimError:
            os.mkdir(state.refs, 0o700)  # whole again, for a call that can remove it
            raise
        if not attached.keep(state):
            _clear(state)


def destroy_despite(state: State, left: Collection[str]) -> bool:
    """Remove a netns with these references in it; do nothing and give False if it has others.

    A process that holds one of them finds it gone, as after a DEL.
    """
    with locked(state):
        elsewhere.refuse_mounts(state)
        elsewhere.refuse_processes(state)
        names = {name.file for name in listing.names(state)}
        if names - set(left):
            return False
        for name in names:
            if not ownership.remove_file(f"{state.refs}/{name}"):
                what = f"not removing the directory {state.refs}/{name}"
                raise ShimError(IO_FAILURE, what, "netns-shim has not made it: remove it")
        try:
            os.rmdir(state.refs)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            return False  # a new one has come at this moment
        _clear(state)
    return True


def check_reachable(state: State) -> None:
    """Refuse a netns that lives in another mount namespace, while no process changes it.

    A call that is inside has a copy of the pin, also for a moment after another call unmounted it.
    """
    try:
        elsewhere.refuse_mounts(state)
    except ShimError:
        with locked(state):
            elsewhere.refuse_mounts(state)


def locked(state: State) -> Lock:
    """Give the lock for making, repairing and removing a netns, as a context."""
    make_private(state.base)
    what = f"the shared netns {state.name!r} is being made or removed by another process"
    who = "a process that makes, repairs or removes it"
    return locks.making(state.lock, who, what)


def _forget_other_boot(state: State) -> None:
    """Drop what an earlier boot left: its attachments and their addresses are gone with it."""
    if state.uplink().is_of_this_boot:
        return
    for name in os.listdir(state.refs):
        path = f"{state.refs}/{name}"
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            # References of running calls, this one's among them, are locked.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.unlink(path)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)
    for name in ("run", "var", "netavark", NAMES, processes.PUBLISHERS):
        mounts.remove_tree(state.path(name))


def _make_directories(state: State) -> None:
    ownership.claim(state)
    for name in ("started", "var", "run"):
        remove_special(state.path(name))  # a link leads out of our directory
    for name in ("started", "var/lib/cni", "run"):
        make_below(state.dir, name)
    run = state.path("run")
    if os.path.exists("/sys/fs/selinux/enforce"):
        try:
            os.setxattr(run, "security.selinux", SELINUX_LABEL)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                warn(f"cannot label {run} for iptables: {error.strerror}")


def _clear(state: State) -> None:
    """Remove all of a netns: the uplink first, as it may hold ports, then pin and files."""
    ownership.forget(state)
    if not (is_private(state.dir) and state.is_ours()):
        return
    if os.path.isdir(state.path(processes.PUBLISHERS)):
        processes.stop_publishers(state)
    processes.stop_name_servers(state)
    connect.disconnect(state)
    mounts.unpin(state)
    ownership.remove(state)

# SPDX-License-Identifier: Apache-2.0
"""The maintenance of a shared netns that is up: repaired, renewed, kept to the host's network.

As in `lifecycle`, all of it happens outside of the netns, under its lock.
"""

from __future__ import annotations

import fcntl
import os

from .. import hostnet, netns
from ..errors import INVALID_ENVIRONMENT, UPLINK_FAILED, ShimError, warn
from ..state import NAMES, PORTS, remove
from . import (
    attached,
    connect,
    elsewhere,
    lifecycle,
    mounts,
    name_servers,
    names,
    processes,
    register,
    uplink,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..records import UplinkRecord
    from ..state import State
    from .uplink import Wanted

REFRESH = "`netns-shim refresh` renews it"


def repair(state: State, wanted: Wanted, environ: Mapping[str, str]) -> None:
    """Repair a netns that has references, and say what was broken.

    A failure leaves things as they were; a netns with references is never removed.
    """
    with lifecycle.locked(state):
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
        lifecycle.make_directories(state)
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
    name_servers.stop_all(state)
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
    for name in ("run", "var", "netavark", NAMES, PORTS):
        mounts.remove_tree(state.path(name))


def _complete(state: State, record: UplinkRecord) -> None:
    """Make the missing files of a netns that works again."""
    lost = state.missing()
    if lost:
        lifecycle.make_directories(state)
        names.follow(state, record)
        register.write(state, record)
        warn(f"missing in the shared netns {state.name!r}, and made again: {', '.join(lost)}")


def follow(state: State, changes: list[str], environ: Mapping[str, str]) -> None:
    """Act on changes of the host's network, see `hostnet`.

    Questions about names go to the new name servers. The uplink is started again only if it
    was started before there was a network, or waits for one, so that no connection is cut off.
    Otherwise a warning names `refresh`.
    """
    with lifecycle.locked(state):
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
    with lifecycle.locked(state):
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
        lifecycle.make_directories(state)
        connect.renew(state, environ)


def guard(state: State) -> None:
    """Give an uplink another guardian if its own was killed."""
    with lifecycle.locked(state):
        record = state.uplink()
        if record.lacks_guardian and register.is_up(state, record):
            connect.guard(state, record)

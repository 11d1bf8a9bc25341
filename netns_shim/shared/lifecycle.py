# SPDX-License-Identifier: Apache-2.0
"""The life of a shared netns: made for the first reference, removed after the last.

All of it happens outside of the netns, in the outer mount namespace, under one lock a netns. The
lock is never held while a plugin runs.
"""

from __future__ import annotations

import errno
import os

from .. import interrupt, locks
from ..errors import IO_FAILURE, ShimError, warn
from ..state import PORTS, is_private, make_below
from . import (
    attached,
    connect,
    elsewhere,
    listing,
    mounts,
    name_servers,
    ownership,
    processes,
    uplink,
)
from .files import make_private, remove_special

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ..locks import Lock
    from ..state import State
    from .uplink import Wanted

# The SELinux type that Fedora and its relatives let iptables lock and write.
SELINUX_LABEL = b"system_u:object_r:iptables_var_run_t:s0\0"


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
        clear(state)
        try:
            make_directories(state)
            mounts.pin(state)
            connect.connect(state, chosen, wanted)
            # Last: once it is there, all the rest is there.
            os.mkdir(state.refs, 0o700)
        except BaseException:
            interrupt.disregard()
            clear(state)
            raise


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
            clear(state)


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
        clear(state)
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


def make_directories(state: State) -> None:
    """Make the directories of a netns that are missing, and mark that they are ours."""
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


def clear(state: State) -> None:
    """Remove all of a netns: the uplink first, as it may hold ports, then pin and files."""
    ownership.forget(state)
    if not (is_private(state.dir) and state.is_ours()):
        return
    if os.path.isdir(state.path(PORTS)):
        processes.stop_publishers(state)
    name_servers.stop_all(state)
    connect.disconnect(state)
    mounts.unpin(state)
    ownership.remove(state)

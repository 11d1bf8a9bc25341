# SPDX-License-Identifier: Apache-2.0
"""What of a shared netns lives in other namespaces, where this process has no power over it."""

from __future__ import annotations

import os

from .. import netns
from ..errors import CANNOT_ENTER, PinnedElsewhere, ShimError
from ..state import State
from . import mounts, processes, register
from .files import file_at


def refuse_mounts(state: State) -> None:
    """Refuse to touch a netns that lives in a mount namespace other than ours."""
    record = state.uplink()
    there = record.mount_namespace
    if netns.identity(state.pin, is_ours=True) is not None:
        return
    # Without a record that can be read, we have to look.
    if record.is_of_other_boot or not os.path.lexists(state.pin):
        return
    is_here = there == os.stat("/proc/self/ns/mnt").st_ino
    is_of_us = record.user_namespace in (0, _user_namespace())
    # With another owner, our namespace has just got the number of one that is gone.
    if is_here and is_of_us and record.user_namespace:
        return
    is_linked = record.pid and record.is_alive
    pid = record.pid if is_linked else pinned_in(state)
    if not pid:
        return
    where = f"mnt:[{there}], where its uplink {record.driver} was started " if there else ""
    guardian = record.guardian
    # It would bring back an uplink that is ended first.
    guarded = f", guarded by PID {guardian.pid}, to be ended first" if guardian.is_running else ""
    kind = ShimError if is_of_us else PinnedElsewhere
    raise kind(
        CANNOT_ENTER,
        f"the shared netns {state.name!r} is pinned in another mount namespace",
        f"{where}(PID {pid} is there{guarded}): run the container runtime there, or set another "
        "'netns' or 'stateDir'; if that session is over, end this process",
    )


def of_user_namespace(state: State) -> State:
    """Give the netns that this user namespace has in place of one that another one has."""
    return State(state.base, f"{state.name}.{_user_namespace()}")


def refuse_beside(state: State) -> None:
    """Refuse to make a netns where this user namespace has another one in its place."""
    own = of_user_namespace(state)
    if own.exists() and netns.identity(own.pin, is_ours=True) is not None:
        raise PinnedElsewhere(
            CANNOT_ENTER,
            f"this user namespace has {own.name!r} in place of the shared netns {state.name!r}",
            "leave out the key 'netns', or give the network another one",
        )


def _user_namespace() -> int:
    return os.stat("/proc/self/ns/user").st_ino


def refuse_processes(state: State) -> None:
    """Refuse to touch an uplink that lives in another PID namespace: no signal gets there."""
    record = state.uplink()
    if record.is_hidden and record.pid and register.is_up(state, record):
        number = record.number("pidNamespace")
        raise ShimError(
            CANNOT_ENTER,
            f"the uplink of the shared netns {state.name!r} is in another PID namespace",
            f"pid:[{number}], where {record.driver} is the process {record.pid}: call from there",
        )


def pinned_in(state: State) -> int:
    """Find a process in whose mount namespace the netns of a state is pinned; 0 if no process has.

    The mount namespace may belong to another user namespace.
    """
    number = f"net:[{state.uplink().netns}]"
    for pid in processes.ids():
        try:
            mounted = mounts.table(pid)
        except OSError:
            continue  # it has ended, or we may not look at it
        pins = (m for m in mounted if m.root[:5] == "net:[" and m.point[-6:] == "/netns")
        if any(_is_pin(pid, mount, state, number) for mount in pins):
            return pid
    return 0


def _is_pin(pid: int, mount: mounts.Mount, state: State, number: str) -> bool:
    """Tell whether a mounted netns is at the place of the pin, whatever leads to that.

    Where the place cannot be seen, because it is covered there, for instance, the netns tells. Its
    number alone does not: the kernel gives it to the next one when this is gone, which may well be
    another user's.
    """
    root = f"/proc/{pid}/root"
    there = file_at(f"{root}{os.path.dirname(mount.point)}")
    if there is not None and there == file_at(state.dir):
        return True
    pinned = file_at(f"{root}{mount.point}")
    if pinned is not None and mount.root == f"net:[{pinned[1]}]":
        return False  # it can be seen, and is in a directory that only has the same path
    if mount.root != number:
        return False
    if there is None:
        return processes.is_ours(pid)
    return mount.point == os.path.realpath(state.pin)

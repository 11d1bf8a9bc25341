# SPDX-License-Identifier: Apache-2.0
"""What is up but broken: dead uplinks, ghosts of killed calls, a changed host's network."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from ... import errors, hostnet, netns, state
from ...attachment import ADDING, DELETING
from ...errors import ShimError
from ...gc import sweep
from ...shared import health, listing, register
from .check import OK, OTHER_SESSION, PROBLEM, SKIPPED, WARNING, Context, Result, look_inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...decoding import Json
    from ...records import UplinkRecord


NOTHING = "no shared network namespace is up"


def stale_state(context: Context) -> Result:
    """Compare the state directory with what exists; nothing is changed."""
    try:
        in_place = sweep.in_place(context.base, context.environ, dry_run=True)
        can_look = look_inside(context)
        found = list(_shared(context))
        odd = _garbage(in_place)
        odd += [line for where in found for line in _odd(where)]
        odd += list(_unfinished(context, found))
    except (ShimError, OSError) as error:
        return Result(PROBLEM, str(error), f"make it yours alone, or remove {context.base}")
    # A warning, which is one of the details, has named those that are refused.
    is_refused = bool(errors.warnings)
    if found and can_look:
        odd += _garbage(sweep.everywhere(context.base, context.environ, dry_run=True)["netns"])
    if odd or is_refused:
        many = len(odd) + len(errors.warnings)
        return Result(
            WARNING,
            f"{many} thing{'s' if many > 1 else ''} in {context.base} to repair",
            "`netns-shim gc` detaches containers that are gone; the next ADD repairs the rest",
            tuple(dict.fromkeys(odd)),
        )
    if not found:
        return Result(OK, NOTHING)
    names = ", ".join(where.name for where in found)
    if not can_look:
        why = f"{names}: up, but what is attached cannot be seen from here"
        return Result(OK, why, OTHER_SESSION)
    return Result(OK, f"{names}: up, and nothing is left over")


def _shared(context: Context) -> Iterator[state.State]:
    for where in state.all_in(context.base):
        if where.name != state.IN_PLACE:
            yield where


def _odd(where: state.State) -> Iterator[str]:
    record = where.uplink()
    if not record:
        yield f"{where.name}: the record of its uplink cannot be read"
    elif record.is_of_other_boot:
        yield f"{where.name}: is of an earlier boot"
    elif not (record.is_alive or record.pending or register.is_up(where, record)):
        problem = record.guardian.text("problem")
        tried = f", and its guardian cannot start it again: {problem}" if problem else ""
        yield f"{where.name}: has lost its uplink {record.driver}{tried}"
    elif record.pid and not (record.is_hidden or record.guardian.is_running):
        yield f"{where.name}: its uplink has no guardian to restart it"
    elif record.pid and record.guardian.is_stopped:
        yield f"{where.name}: the guardian of its uplink, PID {record.guardian.pid}, is stopped"
    if missing := where.missing():
        yield f"{where.name}: {', '.join(missing)} is missing"
    for reference in listing.records(where):
        is_busy = bool(reference) and reference.phase in (ADDING, DELETING)
        if is_busy and not _is_locked(f"{where.refs}/{reference.name}"):
            yield f"{where.name}: {reference.name} was cut off ({reference.phase})"


def _unfinished(context: Context, found: list[state.State]) -> Iterator[str]:
    """Find what making or removing a namespace has left, if it was cut off."""
    names = {where.name for where in found}
    for name in sorted(os.listdir(context.base)) if os.path.isdir(context.base) else []:
        where = state.State(context.base, name)
        if name[0] == "." or name in names or os.path.lexists(where.refs):
            continue
        if not _is_locked(where.lock):
            yield f"{name}: its making or removal was cut off"


def _is_locked(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _garbage(swept: list[Json]) -> list[str]:
    words = {
        "deleted": "its container is gone",
        "released": "an address without a container",
        "dropped": "left by a killed call",
        "failed": "cannot be looked at",
    }
    found = []
    for found_in in swept:
        name = "in place" if found_in["name"] == state.IN_PLACE else found_in["name"]
        for kind, word in words.items():
            found += [f"{name}: {_name(entry)}{word}" for entry in found_in[kind]]
        # An attachment with a container is in doubt: there is nothing to repair.
        found += [entry["why"] for entry in found_in["skipped"] if len(entry) == 1]
    return found


def _name(entry: Json) -> str:
    keys = ("file", "network", "address", "containerID", "ifname", "why")
    name = " ".join(entry[key] for key in keys if entry.get(key))
    return f"{name}: " if name else ""


def _not_followed(record: UplinkRecord, look: Json) -> list[str]:
    """Tell what has changed of the host's network; its name servers are followed at once."""
    return [key for key in record.outdated(hostnet.changes(look)) if key != "nameServers"]


def host_network(context: Context) -> Result:
    """Check whether the host's network is still the one that the uplink was started in."""
    try:
        found = {where.name: where.uplink() for where in _shared(context)}
    except (ShimError, OSError) as error:
        return Result(SKIPPED, f"the state cannot be read: {error}")
    if all(record.host is None for record in found.values()):
        return Result(SKIPPED, NOTHING)
    changed = [
        (name, _not_followed(record, record.host))
        for name, record in found.items()
        if record.host is not None
    ]
    lines = [f"{name}: other {' and '.join(keys)}" for name, keys in changed if keys]
    if lines:
        names = " and ".join(f"netns-shim refresh --netns {n}" for n, keys in changed if keys)
        return Result(WARNING, f"changed since the uplink was started: {'; '.join(lines)}", names)
    return Result(OK, "as it was when the uplink was started")


def uplinks(context: Context) -> Result:
    """Ask each uplink something, and look at the routes that it has made."""
    try:
        look_inside(context)
        found = {where: where.uplink() for where in _shared(context)}
    except (ShimError, OSError) as error:
        return Result(SKIPPED, f"the state cannot be read: {error}")
    running = {where: record for where, record in found.items() if record.is_running}
    pending = {where: record for where, record in found.items() if record.pending}
    sick = _sick(running) if netns.is_privileged() else {}
    lines = [line for problems in sick.values() for line in problems]
    waiting = [
        f"{where.name}: {record.driver} waits until the host has a network: {record.pending}"
        for where, record in pending.items()
    ]
    poor = {where: health.lacks(record) for where, record in running.items() if _is_here(record)}
    waiting += [
        f"{where.name}: the host has IPv{kind}, and {running[where].driver} gave none"
        for where, lacking in poor.items()
        for kind in lacking
    ]
    cures = [
        health.cure(where)
        for where in found
        if sick.get(where) or poor.get(where) or where in pending
    ]
    if lines or waiting:
        status = PROBLEM if lines else WARNING
        return Result(status, "; ".join([*lines, *waiting]), " and ".join(cures))
    if not running:
        return Result(SKIPPED, "no uplink is running")
    if not sick:
        return Result(SKIPPED, "no uplink can be asked from here", OTHER_SESSION)
    return Result(OK, "each answers, and has the default routes that the host has")


def _is_here(record: UplinkRecord) -> bool:
    return record.host_netns == os.stat("/proc/self/ns/net").st_ino


def _sick(running: dict[state.State, UplinkRecord]) -> dict[state.State, list[str]]:
    """Give what is wrong with uplinks; one whose netns is elsewhere is left out."""
    found = {}
    for where, record in running.items():
        try:
            found[where] = health.problems(where, record)
        except ShimError:
            continue
    return found

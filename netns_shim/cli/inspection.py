# SPDX-License-Identifier: Apache-2.0
"""The facts about each shared netns, for the commands that show them: files, links, signs of life.

Nothing is locked, made or changed. A fact that cannot be seen from here is null, and `problem`
says why; the files tell the rest. Texts are as they were found, and may hold any character.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import hostnet, netns, result, state
from ..attachment import LIVE, PARTS
from ..errors import ShimError
from ..gc import liveness
from ..gc.callers import Callers
from ..gc.liveness import leads_there
from ..names import look as names
from ..ports.look import Host
from ..proc import start_time
from ..shared import health, listing, register
from ..shared import links as netlinks
from ..shared.attached import host_side
from ..target import Shared
from ..userns import pause
from ..userns.record import HolderRecord
from . import published
from .bridges import Bridges

if TYPE_CHECKING:
    from ..attachment import AttachmentRecord
    from ..decoding import Json
    from ..gc.liveness import Liveness
    from ..records import UplinkRecord

ELSEWHERE = "you see more where the container runtime runs"


def collect(base: str) -> Json:
    """Gather what is up in a state directory.

    Raises ShimError where that directory could belong to another user.
    """
    # Before: from the user's own user namespace, those of runtimes cannot be looked at.
    callers = Callers() if os.path.lexists(f"{base}/{state.IN_PLACE}") else None
    if not netns.is_privileged():
        pause.look(base)  # where a user without capabilities sees more
    found, borrowed = [], []
    for where in sorted(state.all_in(base), key=lambda where: listing.natural(where.name)):
        if where.name != state.IN_PLACE:
            found.append(look(where))
        elif listing.names(where):
            from . import in_place  # only where plugins have worked in place

            borrowed = in_place.look(where, callers or Callers())
    return {
        "stateDir": base,
        "netns": found,
        "inPlace": borrowed,
        "pauseProcess": _holder(base),
    }


def _holder(base: str) -> Json | None:
    """Tell which process holds the user's own user namespace; None where none does."""
    record = HolderRecord.read_file(base)
    return {"pid": record.pid, "alive": record.is_alive} if record else None


def made_from(base: str, name: str, container_id: str) -> dict[tuple[str, ...], list[Json]]:
    """List what each reference of a container says about the call that made it, by attachment.

    The keys are the values of PARTS. Plugins that are wrapped one by one have one reference each.
    """
    where = state.State(base, name)
    found: dict[tuple[str, ...], list[Json]] = {}
    for record in listing.of_container(where, container_id):
        origin = {
            "reference": f"{where.refs}/{record.name}",
            "args": record.args,
            "path": record.path,
            "configuration": record.conf,
            "result": record.result,
        }
        found.setdefault(record.name.attachment, []).append(origin)
    return found


def look(where: state.State) -> Json:
    """Gather what is known about one shared netns."""
    record = where.uplink()
    target = Shared(where, {}, {})
    there = listing.in_order(listing.records(where))
    commands = [_command(each) for each in there if each.name.is_command]
    attachments = by_attachment(there)
    all_records = [record for records in attachments.values() for record in records]
    # A path for each namespace, as many attachments may be in one.
    paths = {r.netns_id: r.netns for r in all_records if leads_there(r)}
    links, problem = _links(target, list(paths.values()))
    signs, bridges = _signs(target, all_records), Bridges(links)
    host = Host(record)
    ports = published.of_netns(host)
    return {
        "name": where.name,
        "path": where.pin,
        "uplink": {
            **_uplink(record, is_hidden=record.is_hidden and register.is_up(where, record)),
            "problems": _problems(where, record, links),
        },
        "addresses": record.addresses,
        "ports": ports,
        "publisher": published.publisher(host, ports, record.publisher),
        "names": names.of_netns(where),
        "references": [
            attachment(key, records, bridges, signs, host) for key, records in attachments.items()
        ],
        "commands": commands,
        "links": links,
        "problem": problem,
    }


def _uplink(record: UplinkRecord, *, is_hidden: bool) -> Json:
    is_alive = record.is_alive
    return {
        "driver": record.driver or None,
        "pid": record.pid or None,
        "alive": is_alive or is_hidden,
        "pending": record.pending or None,
        "since": _started(record.start_time) if is_alive and record.pid else None,
        "interface": record.interface,
        "mtu": record.mtu or None,
        "guardian": _guardian(record),
        "changes": _changes(record),
    }


def _guardian(record: UplinkRecord) -> Json | None:
    guardian = record.guardian
    if not guardian:
        return None
    problem = guardian.text("problem") or None
    is_alive = guardian.is_running and not guardian.is_stopped
    return {"pid": guardian.pid, "alive": is_alive, "problem": problem}


def _problems(
    where: state.State, record: UplinkRecord, links: list[Json] | None
) -> list[str] | None:
    """List what is wrong with an uplink whose process is there; None where it cannot be asked."""
    if links is None or not record.is_running:
        return None
    try:
        return health.problems(where, record)
    except ShimError:
        return None  # the netns is just being removed


def _started(ticks: int) -> str:
    """Write when a process started, from its clock ticks after boot, proc(5)."""
    with open("/proc/stat", encoding="ascii") as file:
        (boot,) = (line.split()[1] for line in file if line.startswith("btime "))
    return state.rfc3339(int(boot) + ticks // os.sysconf("SC_CLK_TCK"))


def _changes(record: UplinkRecord) -> list[str] | None:
    """List what has changed in the host's network; None where this is not the host's netns."""
    if record.host is None or record.host_netns != os.stat("/proc/self/ns/net").st_ino:
        return None
    return record.outdated(hostnet.changes(record.host))


def _links(target: Shared, paths: list[str]) -> tuple[list[Json] | None, str | None]:
    """List the links of a netns; None where it cannot be entered, and why."""
    pin = target.state.pin
    try:
        fd = target.open_as_is()
        if fd is None:
            return None, "the network namespace is lost; the next ADD makes it again"
        os.close(fd)
        if not netns.is_privileged():
            return None, f"no capabilities over the network namespace; {ELSEWHERE}"
        return netlinks.links(pin, paths), None
    except ShimError as error:
        # Its details tell runtimes what they should do instead.
        return None, f"{error.message}; {ELSEWHERE}"
    except OSError as error:
        return None, str(error)


def _signs(target: Shared, records: list[AttachmentRecord]) -> Liveness | None:
    try:
        return liveness.of_shared(target, records)
    except (ShimError, OSError):
        return None  # `_links` tells why


def by_attachment(
    found: list[AttachmentRecord],
) -> dict[tuple[str, ...], list[AttachmentRecord]]:
    """Sort references by their attachments: plugins that are wrapped one by one have one each.

    By the names of the files: their content may be damaged, or not written yet.
    """
    attachments: dict[tuple[str, ...], list[AttachmentRecord]] = {}
    for reference in found:
        if reference.name.is_attachment:
            attachments.setdefault(reference.name.attachment, []).append(reference)
    return attachments


def attachment(
    key: tuple[str, ...],
    records: list[AttachmentRecord],
    bridges: Bridges,
    signs: Liveness | None,
    host: Host,
) -> Json:
    """Gather what is known about one attachment; `signs` are None where they cannot be seen."""
    first = records[0]
    phases = [record.phase for record in records]
    lives = [_life(record, signs) for record in records]
    alive, sign = next((life for life in lives if life[0]), lives[0])
    publishing = next((record for record in records if record.ports), first)
    ports = published.of_attachment(host, records)
    return {
        **dict(zip(PARTS, key, strict=True)),
        "netns": first.netns or None,
        "ips": next(filter(None, map(_ips, records)), []),
        "since": first.since or None,
        "phase": next((phase for phase in phases if phase != LIVE), LIVE),
        "plugins": [kind for r in records for kind in r.name.kinds.split("+") if kind],
        "ports": ports,
        "publisher": published.publisher(host, ports, publishing.publisher),
        "names": next(filter(None, (record.naming.texts("names") for record in records)), []),
        "bridge": next(filter(None, map(bridges.of, records)), None),
        "hostInterfaces": sorted(set().union(*map(host_side, records))),
        "alive": alive,
        "sign": sign,
    }


def _life(record: AttachmentRecord, signs: Liveness | None) -> tuple[bool | None, str]:
    """Tell whether a container lives, None where that is not known, and by which sign."""
    if record.netns_id is None:
        return None, ""
    if signs is None:
        # From here, only a sign that is there says something; a missing one does not.
        is_there = leads_there(record)
        return (True, f"its network namespace is {record.netns}") if is_there else (None, "")
    if sign := signs.of(record):
        return True, sign
    doubt = signs.doubt(record)
    return (None, doubt) if doubt else (False, "")


def _ips(record: AttachmentRecord) -> list[str]:
    return result.addresses(record.result)


def _command(record: AttachmentRecord) -> Json:
    return {
        "pid": record.pid or None,
        "command": record.command,
        "since": record.since or None,
        # A value that is not a process ID is not looked up.
        "alive": start_time(record.pid) != 0 if record.pid else None,
    }

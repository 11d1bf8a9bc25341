# SPDX-License-Identifier: Apache-2.0
"""Published ports: whether they are open, and what a configuration would open them with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import conf, state
from ...attachment import LIVE
from ...errors import ShimError
from ...ports import listed, look, mappings
from ...ports.probe import Probe
from ...shared import listing, uplink
from .. import programs
from .check import (
    IN_PLACE,
    OK,
    OTHER_SESSION,
    PROBLEM,
    SKIPPED,
    WARNING,
    Context,
    Result,
    look_inside,
    worst,
)
from .configuration import usable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ...decoding import Json
    from ...ports.look import Seen

CAPABILITY = "portMappings"
NOTHING = "no port is published"


def published(context: Context) -> Result:
    """Check that recorded ports are open on the host, and that their publishers run."""
    try:
        look_inside(context)
        found = {where.name: _seen(where) for where in state.all_in(context.base)}
    except (ShimError, OSError) as error:
        return Result(SKIPPED, f"the state cannot be read: {error}")
    complaints = {name: look.complaint(seen) for name, seen in found.items()}
    lines = [f"{name}: {said[0]}" for name, said in complaints.items() if said]
    if lines:
        advice = next(said[1] for said in complaints.values() if said)
        return Result(WARNING, lines[0], advice, tuple(lines[1:]))
    states = [seen.state for there in found.values() for seen in there]
    if not states:
        return Result(SKIPPED, NOTHING)
    count = "1 port is" if len(states) == 1 else f"{len(states)} ports are"
    if unknown := states.count(None):
        why = f"{count} published; of {unknown} the state cannot be seen from here"
        return Result(OK, why, OTHER_SESSION)
    return Result(OK, f"{count} published, and open")


def _seen(where: state.State) -> list[Seen]:
    """Look at all ports that a shared netns and its attachments publish."""
    host = look.Host(where.uplink())
    attached = [record for record in listing.records(where) if record.phase == LIVE]
    of_attachments = [host.attachment(record) for record in attached]
    return [*host.netns(), *(seen for found in of_attachments for seen in found)]


def of_configuration(context: Context) -> Result:
    """Check that the ports of a configuration could be opened, and say by what."""
    if context.is_in_place:
        return Result(SKIPPED, IN_PLACE)
    results = []
    for entry, read in usable(context):
        mapped = _mapped(entry, read)
        results.append(mapped)
        if mapped.status != SKIPPED or read.uplink.get("publish"):
            results.append(_publisher(context, read))
        results += _listed(context, read)
    found = worst(results) or Result(SKIPPED, "the configuration cannot be used")
    others = dict.fromkeys(r.message for r in results if r is not found and r.status != SKIPPED)
    return Result(found.status, found.message, found.advice, tuple(others))


def _mapped(entry: Json, read: conf.Configuration) -> Result:
    """Check that the runtime's port mappings come to a plugin that takes them."""
    beside = _names(entry)
    takers = [
        plugin
        for plugin in read.plugins
        if _names(plugin) or ("capabilities" not in plugin and beside and "delegate" in entry)
    ]
    if beside and not takers:
        return Result(
            WARNING,
            f"an ADD with ports is refused: the entry has {CAPABILITY}, and no plugin takes them",
            f'add {{"type": "portmap", "capabilities": {{"{CAPABILITY}": true}}}} to `plugins`',
        )
    if takers and not beside:
        return Result(
            WARNING,
            "no runtime will give port mappings: it looks at the capabilities of the entry only",
            f'add "capabilities": {{"{CAPABILITY}": true}} beside `plugins`',
        )
    if not takers:
        return Result(SKIPPED, "the network takes no port mappings")
    if not read.publish:
        return Result(SKIPPED, "`publish` is false: ports are open in the shared namespace only")
    return Result(OK, "port mappings of the runtime are opened on the host")


def _names(entry: Json) -> bool:
    capabilities = entry.get("capabilities")
    return isinstance(capabilities, dict) and capabilities.get(CAPABILITY) is True


def _publisher(context: Context, read: conf.Configuration) -> Result:
    """Tell what would open ports: the uplink that runs, or the one that would be started."""
    where = state.State(context.base, read.netns)
    link = where.uplink() if where.exists() else None
    try:
        chosen = uplink.choose(read.uplink, context.environ)
    except ShimError:
        return Result(SKIPPED, "there is no uplink that could open ports")
    driver = link.driver if link and link.is_alive else chosen.driver
    control = link.control if link and link.is_alive else _control(chosen, context.environ)
    if control:
        name = "pesto" if driver == "pasta" else driver
        return Result(OK, f"opened by the uplink, with {name}")
    own = str(read.uplink.get("path") or "") if driver == "pasta" else ""
    program = uplink.program_path(own or "pasta", context.environ)
    if not program:
        return Result(
            PROBLEM,
            f"no program can open ports on the host for the uplink {driver}",
            'install passt, or set "publish" to false',
        )
    return Result(OK, f"opened by a pasta of its own for each container ({program})")


def _control(chosen: uplink.Uplink, environ: Mapping[str, str]) -> str:
    """Give the program that could change the ports of an uplink, "" where it has none."""
    if chosen.driver == "slirp4netns":
        try:
            return chosen.path if "--api-socket" in programs.usage(chosen.path, environ) else ""
        except ShimError:
            return ""
    return chosen.control


def _listed(context: Context, read: conf.Configuration) -> Iterator[Result]:
    """Check that the ports in the list are free, unless they are open for this netns already."""
    ports = [port for text in read.uplink.get("publish", ()) for port in listed.parse(text)]
    if not ports:
        return
    where = state.State(context.base, read.netns)
    link = where.uplink()
    is_up = where.exists() and link.is_alive
    if is_up and link.listed == list(read.uplink["publish"]):
        return  # `published` looks at them
    if is_up:
        yield Result(
            WARNING,
            f"the shared namespace {read.netns!r} is up, and was made without this list of ports",
            "detach what is in it: the next ADD makes it with them",
        )
    for port in ports:
        try:
            Probe([port]).check(mappings.bindings([port], {4, 6}))
        except ShimError as error:
            yield Result(PROBLEM, error.message, error.details)
            return
    yield Result(OK, "the listed ports are free")

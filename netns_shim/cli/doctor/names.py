# SPDX-License-Identifier: Apache-2.0
"""Names: does a name server answer, as the host and through the uplink of each shared netns?"""

from __future__ import annotations

import socket
import struct
from functools import partial
from typing import TYPE_CHECKING

from ... import hostnet, state
from ...errors import ShimError
from ...gc.callers import Callers, visit
from ...names import look, server
from ...netavark.network import can_listen
from ...shared import listing, resolvconf
from ...shared import names as planned
from ...shared.nsenter import run_in
from .check import OK, PROBLEM, SKIPPED, WARNING, Context, Result, look_inside
from .configuration import usable
from .uplinks import why_not

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...attachment import AttachmentRecord
    from ...records import UplinkRecord
    from ...state import State

SECONDS = 1.5
# How many servers of the host to wait for.
MOST = 3
# Which servers the root of all names has: every resolver can answer that, or refuse to.
QUESTION = b"\x4e\x53\x01\0\0\1\0\0\0\0\0\0" + b"\0\0\2\0\1"
KINDS = {"UDP": socket.SOCK_DGRAM, "TCP": socket.SOCK_STREAM}
REFRESH = "netns-shim refresh"
# Plugins that give no address of a gateway to the netns in which they run, unless they are told.
WITHOUT_GATEWAY = ("bridge", "dummy", "host-device", "ipvlan", "macvlan", "tap", "vlan")


def resolution(context: Context) -> Result:
    """Ask the first name server of the host, and the one that containers have, a question."""
    if why := why_not(context):
        return Result(SKIPPED, why)
    host = resolvconf.HostNames()
    if not host.listed:
        return Result(
            WARNING,
            f"{hostnet.RESOLV_CONF} names no server: no name resolves, here and in containers",
            "connect the host to a network",
        )
    look_inside(context)
    servers = ", ".join(host.listed)
    kinds = [kind for kind in KINDS if any(_answers(one, kind) for one in host.listed[:MOST])]
    if "UDP" not in kinds:
        return Result(
            WARNING,
            f"no name server of the host answers: {servers}",
            "look at the network of the host first",
        )
    try:
        found = [where for where in state.all_in(context.base) if where.uplink().forwarders]
        silent = [line for where in found for line in _silent(where, kinds)]
    except (ShimError, OSError) as error:
        return Result(SKIPPED, f"it cannot be tried: {error}")
    if silent:
        what = "name servers do not answer in containers"
        return Result(PROBLEM, what, f"{REFRESH}; docs/troubleshooting.md has more", tuple(silent))
    where = " and ".join(one.name for one in found)
    if not found:
        return Result(OK, f"{servers}: the host gets answers; no shared network namespace is up")
    return Result(OK, f"{servers}: answers come in {where}")


def of_containers(context: Context) -> Result:
    """Ask the server of each netns about the names of its containers."""
    try:
        # From the user's own user namespace, those of runtimes cannot be looked at.
        count, missed = _in_place(state.State(context.base, state.IN_PLACE))
        look_inside(context)
        found = {where: look.named(where) for where in state.all_in(context.base)}
        found = {where: records for where, records in found.items() if records}
        missed += [f"{where.name}: {name}" for where in found for name in _missed(where, found)]
    except (ShimError, OSError) as error:
        return Result(SKIPPED, f"it cannot be tried: {error}")
    if missed:
        advice = "docs/how-to/names.md says how; the next ADD of the network repairs it"
        return Result(PROBLEM, "names of containers do not resolve", advice, tuple(missed))
    if not found and not count:
        return Result(SKIPPED, "no container has a name: the key `names` gives them some")
    counts = {where.name: len(records) for where, records in found.items()}
    counts |= {"networks in place": count} if count else {}
    return Result(OK, ", ".join(f"{number} in {name}" for name, number in counts.items()))


def of_configuration(context: Context) -> Result:
    """Check that a configuration with names has a server, and a gateway where it can listen."""
    all_entries = [read for _, read in usable(context)]
    if not all_entries:
        return Result(SKIPPED, "the configuration cannot be used")
    entries = [read.plugins for read in all_entries if read.names]
    if not entries:
        return Result(SKIPPED, "the configuration has no names: see the key `names`")
    try:
        program = server.find(context.environ)
    except ShimError as error:
        return Result(PROBLEM, error.message, error.details)
    for plugins in entries:
        kind = plugins[0].get("type")
        if kind in WITHOUT_GATEWAY and not can_listen(plugins):
            why = f"the plugin {kind!r} makes no gateway here at which a server could listen"
            return Result(WARNING, why, "use bridge with isGateway, or ptp")
    return Result(OK, program)


def _in_place(where: State) -> tuple[int, list[str]]:
    """Count the containers with names in namespaces of callers, and ask the servers there."""
    found = listing.records(where) if where.exists() else []
    if not found:
        return 0, []
    callers, count, missed = Callers(), 0, list[str]()
    for place in sorted({record.place for record in found if record.place}):
        records, way = look.named(where, place[1]), callers.way(place)
        if records and way:
            silent = partial(look.silent, records[:MOST])
            missed += [f"in place: {name}" for name in visit(way, place, silent)]
            count += len(records)
    return count, missed


def _missed(where: State, found: Mapping[State, list[AttachmentRecord]]) -> list[str]:
    missed: list[str] = run_in(where.pin, lambda: look.silent(found[where][:MOST]))
    return missed


def _silent(where: State, kinds: list[str]) -> list[str]:
    """Ask the server of a shared netns, as the host can be asked; tell what does not answer."""
    record = where.uplink()
    if not record.is_alive:
        return [f"{where.name}: the uplink is gone"]
    if not record.dns_forwarders:
        return [f"{where.name}: {_why(record)}"]
    server = record.dns_forwarders[0]
    missed: list[str] = run_in(
        where.pin, lambda: [kind for kind in kinds if not _answers(server, kind)]
    )
    return [f"{where.name}: {server} does not answer over {kind}" for kind in missed]


def _why(record: UplinkRecord) -> str:
    """Tell why a netns has no forwarder; its servers may still be asked by their addresses."""
    found = planned.look(record)
    return planned.explain(found.lost) if found.lost else "the kernel has refused our rules"


def _answers(server: str, kind: str) -> bool:
    try:
        family, _, _, _, place = socket.getaddrinfo(
            server, 53, type=KINDS[kind], flags=socket.AI_NUMERICHOST
        )[0]
        with socket.socket(family, KINDS[kind]) as asker:
            asker.settimeout(SECONDS)
            asker.connect(place)
            length = struct.pack("!H", len(QUESTION)) if kind == "TCP" else b""
            asker.sendall(length + QUESTION)
            return bool(asker.recv(4096))
    except OSError:
        return False

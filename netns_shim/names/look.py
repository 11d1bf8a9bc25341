# SPDX-License-Identifier: Apache-2.0
"""What is seen of the names in a shared netns, for the commands that show it."""

from __future__ import annotations

import os

from ..attachment import LIVE
from ..proc import start_time
from ..shared import listing, name_servers
from ..shared.name_servers import FILES, GUARDIAN
from ..state import NAMES
from . import entries, server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..attachment import AttachmentRecord
    from ..decoding import Json
    from ..state import State


def of_netns(state: State, place: int = 0) -> Json | None:
    """Tell about the server of names, and its guardian; None where there are no names.

    `place` is the inode of a netns in which plugins work in place.
    """
    listed = named(state, place)
    if not listed:
        return None
    home = listed[0].naming.number("home")
    directory = state.path(f"{NAMES}/{home}")
    pid = server.running(f"{directory}/{FILES}")[0]
    guardian, since = name_servers.written(f"{directory}/{GUARDIAN}")
    addresses = [each for record in listed for each in record.naming.texts("gateways")]
    return {
        "pid": pid or None,
        "alive": pid > 0,
        "guardian": guardian if guardian and start_time(guardian) == since else None,
        "addresses": sorted(dict.fromkeys(addresses), key=lambda each: ":" in each),
    }


def named(state: State, place: int = 0) -> list[AttachmentRecord]:
    """List the attachments that are live and have names in the netns that is there now."""
    home = place or _home(state)
    found = listing.records(state) if home else []
    return [
        record
        for record in found
        if record.phase == LIVE
        and record.naming.number("home") == home
        and not record.is_of_other_boot
    ]


def _home(state: State) -> int:
    """Give the inode of a shared netns, 0 where it is missing."""
    try:
        home = os.stat(state.pin).st_ino
    except OSError:
        home = 0
    return state.uplink().netns or home


def silent(records: list[AttachmentRecord]) -> list[str]:
    """Ask the server about a name of each; list those that do not resolve.

    Call it in the netns.
    """
    missed = []
    for record in records:
        names, ips = record.naming.texts("names"), record.naming.texts("ips")
        kind = "AAAA" if all(":" in each for each in ips) else "A"
        name = f"{names[0]}.{entries.DOMAIN}" if names else ""
        servers = record.naming.texts("gateways")
        if name and not any(server.ask(one, name, kind) for one in servers):
            missed.append(names[0])
    return missed

# SPDX-License-Identifier: Apache-2.0
"""The facts about what is attached in place, in network namespaces of callers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import netns
from ..errors import ShimError
from ..gc.liveness import Liveness
from ..in_place import HERE
from ..names import look as names
from ..ports.look import Host
from ..records import UplinkRecord
from ..shared import links as netlinks
from ..shared import listing
from . import inspection
from .bridges import Bridges

if TYPE_CHECKING:
    from ..attachment import AttachmentRecord
    from ..decoding import Json
    from ..gc.callers import Callers
    from ..state import State


def look(where: State, callers: Callers) -> list[Json]:
    """Gather what is attached in place, by the netns in which the plugins have worked.

    `inode` is that of the netns, null where it is not known. `alive` tells whether it is there,
    and is null where that cannot be seen from here.
    """
    by_place: dict[tuple[int, int] | None, list[AttachmentRecord]] = {}
    for record in listing.in_order(listing.records(where)):
        by_place.setdefault(record.place, []).append(record)
    return [
        {
            **_look(callers, place, records),
            "names": names.of_netns(where, place[1]) if place else None,
        }
        for place, records in by_place.items()
    ]


def _look(
    callers: Callers, place: tuple[int, int] | None, records: list[AttachmentRecord]
) -> Json:
    is_here = all(map(callers.is_here, records))
    links: list[Json] | None = None
    signs: Liveness | None = None
    try:
        if is_here and netns.is_privileged():
            paths = {r.netns_id: r.netns for r in records if netns.identity(r.netns)}
            links = netlinks.links(HERE, list(paths.values()))
            signs = Liveness(HERE, records)
    except ShimError:
        pass  # nothing but the files tells then
    lives = set(map(callers.is_there, records))
    host, bridges = Host(UplinkRecord()), Bridges(links)
    entries = [
        {
            **inspection.attachment(key, found, bridges, signs, host),
            **({} if signs else _life(callers, found)),
        }
        for key, found in inspection.by_attachment(records).items()
    ]
    return {
        "inode": place[1] if place else None,
        "here": is_here,
        "alive": lives.pop() if len(lives) == 1 else None,
        "references": entries,
    }


def _life(callers: Callers, records: list[AttachmentRecord]) -> Json:
    """Tell whether a container lives whose plugins have worked in a netns that is elsewhere."""
    record = records[0]
    if not record.is_of_other_boot and callers.has(record.netns_id):
        return {"alive": True, "sign": "its network namespace is there"}
    # With the netns of its plugins, its interface has gone.
    return {"alive": False if callers.is_there(record) is False else None, "sign": ""}

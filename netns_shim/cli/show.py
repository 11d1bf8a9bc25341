# SPDX-License-Identifier: Apache-2.0
"""`netns-shim show`: all that is known about the attachments of one container."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from .. import state
from ..attachment import PARTS
from ..errors import UNKNOWN_CONTAINER, ShimError, shown
from ..shared.listing import natural
from . import options

if TYPE_CHECKING:
    import argparse

    from rich.text import Text

    from ..decoding import Json

SUMMARY = "Show what a container is attached to, and by which configuration."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "container",
        metavar="CONTAINER",
        help="the ID of a container, or enough of its beginning to be unique",
    )
    parser.add_argument("--ifname", metavar="NAME", help="show only this interface")
    parser.add_argument("--network", metavar="NAME", help="show only this network")
    options.add_json(parser)
    options.add_state_dir(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print the attachments, as JSON or for people."""
    from . import (
        inspection,  # not for the other commands
        printing,
    )

    base = options.base_of(arguments)
    found = []
    chosen = choose(inspection.collect(base), arguments)
    made = {name: inspection.made_from(base, name, entry["containerID"]) for name, entry in chosen}
    for name, entry in chosen:
        key = tuple(entry[part] for part in PARTS)
        found.append({"sharedNetns": name, **entry, "madeFrom": made[name].get(key, [])})
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    console = printing.console()
    for number, entry in enumerate(found):
        if number:
            console.print()
        for line in describe(entry, time.time(), is_ascii=console.options.ascii_only):
            console.print(line)
    return 0


def choose(facts: Json, arguments: argparse.Namespace) -> list[tuple[str, Json]]:
    """Choose attachments by container ID or the beginning of one, with the names of their netns.

    Raises ShimError (code 3) where no container matches, or more than one.
    """
    known = [(netns["name"], entry) for netns in facts["netns"] for entry in netns["references"]]
    known += [
        (state.IN_PLACE, entry) for place in facts["inPlace"] for entry in place["references"]
    ]
    wanted = arguments.container
    ids = sorted({entry["containerID"] for _, entry in known}, key=natural)
    meant = [wanted] if wanted in ids else [name for name in ids if name.startswith(wanted)]
    if not meant:
        raise _unknown(f"no container {_quoted(wanted)} is attached", ids)
    if len(meant) > 1:
        raise _unknown(f"{_quoted(wanted)} can be any of {len(meant)} containers", meant)
    found = [
        (name, entry)
        for name, entry in known
        if entry["containerID"] == meant[0]
        and arguments.ifname in (None, entry["ifname"])
        and arguments.network in (None, entry["network"])
    ]
    if not found:
        places = [
            f"{entry['ifname']} in {entry['network']}"
            for _, entry in known
            if entry["containerID"] == meant[0]
        ]
        raise _unknown(f"container {_quoted(meant[0])} is not attached in that way", places)
    return found


def _unknown(message: str, names: list[str]) -> ShimError:
    there = "nothing is there"
    if names:
        there = f"attached {'is' if len(names) == 1 else 'are'} {', '.join(map(shown, names))}"
    return ShimError(UNKNOWN_CONTAINER, message, there)


def _quoted(name: str) -> str:
    return f"'{shown(name)}'"


def describe(entry: Json, now: float, *, is_ascii: bool = False) -> list[Text]:
    """Write an attachment for people, a line or a block for each fact."""
    from rich.text import Text

    from .printing import age

    is_in_place = entry["sharedNetns"] == state.IN_PLACE
    since = entry["since"] or "unknown"
    old = age(since, now)
    facts = {
        "phase": entry["phase"],
        "since": f"{since} ({old})" if old else since,
        "container": _life(entry),
        "netns": entry["netns"] or "unknown",
        "shared netns": "none: in place" if is_in_place else entry["sharedNetns"],
        "bridge": entry["bridge"] or "",
        "plugins": ", ".join(entry["plugins"]),
        "interfaces": ", ".join(entry["hostInterfaces"]),
        "addresses": ", ".join(entry["ips"]) or "none",
        "names": ", ".join(entry["names"]),
    }
    container, ifname, network = (entry[key] for key in ("containerID", "ifname", "network"))
    lines = [Text(shown(f"{container}: {ifname} in network {network}"), "bold")]
    for name, text in facts.items():
        if text:
            lines.append(Text.assemble((f"  {name:<14}", "dim"), shown(text)))
    lines += _ports(entry, is_ascii=is_ascii)
    for origin in entry["madeFrom"]:
        lines += _origin(origin)
    return lines


def _ports(entry: Json, *, is_ascii: bool) -> list[Text]:
    """Write a line for each published port, and who has them open."""
    from rich.text import Text

    from .printing import ports, short_id

    rows = ports(entry["ports"], short_id(entry["containerID"]), is_ascii=is_ascii)
    lines = [
        Text.assemble((f"  {'' if number else 'ports':<14}", "dim"), text, "  ", (state, style))
        for number, (text, state, style) in enumerate(rows)
    ]
    if who := entry["publisher"]:
        words = f"{who['driver']} (PID {who['pid']})" if who["pid"] else f"{who['driver']}"
        words += "" if who["alive"] else ", gone"
        lines.append(Text.assemble(("  publisher     ", "dim"), shown(words)))
    for line in lines:
        line.rstrip()
    return lines


def _origin(origin: Json) -> list[Text]:
    """Write what an attachment was made from: short texts on the line, others as JSON."""
    from rich.text import Text

    from .printing import pretty

    lines = []
    for name, value in origin.items():
        if isinstance(value, str) and value:
            lines.append(Text.assemble((f"  {name:<14}", "dim"), shown(value)))
        elif value:
            block = [Text(f"  {name}", "dim"), *pretty(value).split("\n")]
            lines.append(Text("\n    ").join(block))
    return lines


def _life(entry: Json) -> str:
    if entry["alive"]:
        return f"alive: {entry['sign']}"
    if entry["alive"] is False:
        return "gone: netns-shim gc detaches what is left"
    return f"may be gone: {entry['sign']}" if entry["sign"] else "not known whether it lives"

# SPDX-License-Identifier: Apache-2.0
"""How facts become text for people: names that cannot harm a terminal, ages, JSON in colours."""

from __future__ import annotations

import calendar
import io
import json
import re
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.text import Text

from ..errors import shown

if TYPE_CHECKING:
    from ..decoding import Json

# The states of a published port, see `ports.look`, and how each is drawn.
STATES = {"open": "green", "refused": "bold red", "closed": "bold red", None: ""}
# A container's ID from Docker, Podman or containerd, and how much of it they show.
LONG_ID = re.compile(r"[0-9a-f]{64}")
SHORT_ID = 12
# The width without a terminal, in cells: no line is folded.
WHOLE_LINE = 1 << 16


def console() -> Console:
    """Make the console of standard output: colours on a terminal, whole lines elsewhere."""
    # The encoding may lack some characters.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    made = Console(highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = WHOLE_LINE
    return made


def short_id(container_id: str) -> str:
    """Shorten a container's ID that a program has made."""
    return container_id[:SHORT_ID] if LONG_ID.fullmatch(container_id) else container_id


def pretty(value: Any) -> Text:
    """Write JSON in colours; the text is still JSON, because odd characters are escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    safe = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    return JSONHighlighter()(Text(safe))


def ports(
    entries: Iterable[Json], name: str, *, is_ascii: bool = False
) -> list[tuple[str, str, str]]:
    """Write ports for people: `0.0.0.0:8080 → web:80/tcp`, its state in words, a style for that.

    `name` is what they lead to. Neighbours are written as one range.
    """
    runs: list[list[Json]] = []
    order = ("protocol", "hostIP", "hostPort")
    for entry in sorted(entries, key=lambda entry: [entry[key] for key in order]):
        if not (runs and _follows(runs[-1][-1], entry)):
            runs.append([])
        runs[-1].append(entry)
    arrow = "->" if is_ascii else "→"
    return [(_text(run, name, arrow), _state(run[0]), STATES[run[0]["state"]]) for run in runs]


def _follows(one: Json, other: Json) -> bool:
    rest = ("protocol", "hostIP", "address", "state", "holder")
    return all(other[key] == one[key] + 1 for key in ("hostPort", "containerPort")) and all(
        one[key] == other[key] for key in rest
    )


def _text(run: list[Json], name: str, arrow: str) -> str:
    first, last = run[0], run[-1]
    address = first["address"] or first["hostIP"]
    before = f"[{address}]:" if ":" in address else f"{address}:" if address else ""
    host, inside = (
        f"{first[key]}" if first is last else f"{first[key]}-{last[key]}"
        for key in ("hostPort", "containerPort")
    )
    return shown(f"{before}{host} {arrow} {name}:{inside}/{first['protocol']}")


def _state(entry: Json) -> str:
    if entry["state"] == "refused":
        return shown(f"refused: {entry['holder']} has the port")
    return entry["state"] or ""


def age(since: Any, now: float) -> str:
    """Write how long ago a time in RFC 3339 was; "" where it is not a time."""
    try:
        then = calendar.timegm(time.strptime(since, "%Y-%m-%dT%H:%M:%SZ"))
    except (TypeError, ValueError):
        return ""
    # If the clock was set back, the age is 0.
    seconds = max(0, int(now - then))
    for size, unit, below, smaller in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 0, ""),
    ):
        if seconds >= size:
            rest = seconds % size // below if below else 0
            return f"{seconds // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"

# SPDX-License-Identifier: Apache-2.0
"""How names, ages, ports and JSON are written for people."""

from __future__ import annotations

import json
from typing import Any

import pytest
from looks import NOW, SINCE, asked, port

from netns_shim import state
from netns_shim.cli import printing

NINE = range(9000, 9004)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (239, "3 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86399, "23 h 59 min"),
        (86400, "1 d"),
        (3 * 86400 + 4 * 3600 + 5, "3 d 4 h"),
        (400 * 86400, "400 d"),
    ],
)
def test_age(seconds: int, text: str) -> None:
    """An age has its two greatest units, and none is below zero."""
    assert printing.age(state.rfc3339(NOW - seconds), NOW) == text


@pytest.mark.parametrize(
    "since", [None, "", 7, [], "yesterday", "2026-13-01T00:00:00Z", SINCE + "\n"]
)
def test_no_age(since: Any) -> None:
    """What is no time has no age."""
    assert printing.age(since, NOW) == ""


@pytest.mark.parametrize(
    ("given", "text", "state", "style"),
    [
        (port(8080, 80), "0.0.0.0:8080 → web:80/tcp", "open", "green"),
        (port(53, 53, address="::1"), "[::1]:53 → web:53/tcp", "open", "green"),
        (port(53, 53, address="*"), "*:53 → web:53/tcp", "open", "green"),
        (port(53, 53, state="closed"), "0.0.0.0:53 → web:53/tcp", "closed", "bold red"),
        (
            port(53, 53, state="refused", holder="x (PID 7)"),
            "0.0.0.0:53 → web:53/tcp",
            "refused: x (PID 7) has the port",
            "bold red",
        ),
        (port(53, 53, state=None), "0.0.0.0:53 → web:53/tcp", "", ""),
        (asked(8080, 80, protocol="sctp"), "8080 → web:80/sctp", "", ""),
        (asked(53, 53, hostIP="192.0.2.1"), "192.0.2.1:53 → web:53/tcp", "", ""),
        (asked(53, 53, protocol="\x1b"), r"53 → web:53/\x1b", "", ""),
    ],
)
def test_port(given: dict[str, Any], text: str, state: str, style: str) -> None:
    """A port is written with its address, what it leads to, and its state where it is known."""
    assert printing.ports([given], "web") == [(text, state, style)]
    ((plain, _, _),) = printing.ports([given], "web", is_ascii=True)
    assert plain == text.replace("→", "->")


def test_ranges() -> None:
    """Neighbours are one line, as long as all about them is the same."""
    found = [port(n, n - 7000) for n in (8003, 8001, 8002)] + [port(8000, 80)]
    found += [port(n, n, protocol="udp", state="open" if n < 9002 else "closed") for n in NINE]

    assert [f"{text} {state}" for text, state, _ in printing.ports(found, "c")] == [
        "0.0.0.0:8000 → c:80/tcp open",
        "0.0.0.0:8001-8003 → c:1001-1003/tcp open",
        "0.0.0.0:9000-9001 → c:9000-9001/udp open",
        "0.0.0.0:9002-9003 → c:9002-9003/udp closed",
    ]


@pytest.mark.parametrize(
    "text", ["ü", "\x7f", "\x9b2J\x1b[", "\u202e", "\udcff", "\U000e0001", "[b]x[/b]"]
)
def test_pretty(text: str) -> None:
    """JSON for people is JSON still, and holds no control character."""
    value = {"a": [text, 1, None], text: True}

    written = printing.pretty(value).plain

    assert json.loads(written) == value
    assert all(line.isprintable() for line in written.split("\n"))

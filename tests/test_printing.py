# SPDX-License-Identifier: Apache-2.0
"""How names, ages, ports and JSON are written for people."""

from __future__ import annotations

import json
from typing import Any

import pytest
from looks import NOW, SINCE, port

from netns_shim import state
from netns_shim.cli import printing


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
    ("given", "text"),
    [
        (port(8080, 80), "8080->80/tcp"),
        (port(53, 53, protocol="udp", hostIP="192.0.2.1"), "192.0.2.1:53->53/udp"),
        (port(53, 53, protocol="\x1b", hostIP="2001:db8::1"), r"[2001:db8::1]:53->53/\x1b"),
    ],
)
def test_port(given: dict[str, Any], text: str) -> None:
    """A port is written as `docker ps` does."""
    assert printing.port(given) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web-1", "web-1"),
        ("größe 网络", "größe 网络"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J", r"\x9b2J"),
        ("a\r\n\tb", r"a\r\n\tb"),
        ("\u202egnp", r"\u202egnp"),
        ("\udcff", r"\udcff"),
        (7, "7"),
    ],
)
def test_shown(text: Any, shown: str) -> None:
    """What a terminal would act upon is an escape; letters stay."""
    assert printing.shown(text) == shown


@pytest.mark.parametrize(
    "text", ["ü", "\x7f", "\x9b2J\x1b[", "\u202e", "\udcff", "\U000e0001", "[b]x[/b]"]
)
def test_pretty(text: str) -> None:
    """JSON for people is JSON still, and holds no control character."""
    value = {"a": [text, 1, None], text: True}

    written = printing.pretty(value).plain

    assert json.loads(written) == value
    assert all(line.isprintable() for line in written.split("\n"))

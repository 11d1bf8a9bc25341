# SPDX-License-Identifier: Apache-2.0
"""What is written for people cannot harm a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from netns_shim import errors


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
    assert errors.shown(text) == shown


@pytest.mark.parametrize("write", [errors.say, errors.warn])
def test_a_line_for_people(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A plugin's message in a warning does not act on the terminal, and keeps its lines."""
    write("plugin: \x1b]0;title\x07\nsecond line\r")

    assert capsys.readouterr().err == "netns-shim: plugin: \\x1b]0;title\\x07\nsecond line\\r\n"


def test_a_warning_is_kept_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """What becomes of a warning in an answer is for JSON to escape."""
    errors.warn("\x1b[31m")

    assert errors.warnings == ["\x1b[31m"]
    capsys.readouterr()

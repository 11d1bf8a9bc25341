# SPDX-License-Identifier: Apache-2.0
"""A JSON text that a person has written: its value, the line of each part, and what is wrong.

The messages are those of `cni.decode`, which stops at the first problem and knows no lines. That
is enough for a call; this module finds as many problems as possible. No I/O.
"""

from __future__ import annotations

import bisect
import json
import re
from typing import TYPE_CHECKING, Any

from .. import decoding

if TYPE_CHECKING:
    from ..decoding import Json

Place = tuple[str | int, ...]

_SPACE = re.compile(r"[ \t\r\n]*")
_STRINGS = json.JSONDecoder()
# A value that is neither a string nor a container, in a text that is known to be JSON.
_SCALAR = re.compile(r"[^\s,\]}]+")


class Positions:
    """The parts of a text.

    `is_read` tells whether it could be read at all, and `value` is its whole value. Of a key that
    is given twice, the last value counts, as in runtimes that are written in Go. `problems` are
    pairs of a line number and a sentence, in the order of the lines.
    """

    def __init__(self, text: bytes) -> None:
        self.value: Any = None
        self.problems: list[tuple[int, str]] = []
        self._lines: dict[Place, int] = {}
        self._ends: list[int] = []
        self._text = self._decode(text)
        self.is_read = self._is_readable()
        if self.is_read:
            self.value, _ = self._read(0, ())
        self.problems.sort()

    def line(self, place: Place) -> int:
        """Tell the line of a part: of its key, of the item, or of the value that holds it."""
        while place not in self._lines and place:
            place = place[:-1]
        return self._lines.get(place, 1)

    def _decode(self, data: bytes) -> str:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            self.problems.append((data.count(b"\n", 0, error.start) + 1, str(error)))
            return ""
        if text.startswith("\ufeff"):
            self.problems.append(
                (1, "it begins with a byte order mark, which JSON does not allow")
            )
            text = text[1:]
        if not text.strip():
            self.problems.append((1, "it is empty"))
        self._ends = [match.start() for match in re.finditer("\n", text)]
        return text

    def _is_readable(self) -> bool:
        """Find text that is not JSON at all; skip text after the first value."""
        if not self._text.strip():
            return False
        start = _after_space(self._text, 0)
        # Numbers are read with their places, later.
        decoder = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
        try:
            value, end = decoder.raw_decode(self._text, start)
            decoding.check_depth(value, self._text)
        except json.JSONDecodeError as error:
            self.problems.append((error.lineno, f"{error.msg} (column {error.colno})"))
            return False
        except (RecursionError, ValueError):
            self.problems.append((1, "nested too deeply"))
            return False
        rest = _after_space(self._text, end)
        if rest < len(self._text):
            self.problems.append((self._line_at(rest), "Extra data"))
        return True

    def _read(self, at: int, place: Place) -> tuple[Any, int]:
        at = _after_space(self._text, at)
        self._lines.setdefault(place, self._line_at(at))
        match self._text[at]:
            case "{":
                return self._read_object(at, place)
            case "[":
                return self._read_list(at, place)
            case '"':
                return _STRINGS.raw_decode(self._text, at)
        scalar = _SCALAR.match(self._text, at)
        assert scalar is not None
        try:
            return decoding.one(scalar[0]), scalar.end()
        except ValueError as error:
            self.problems.append((self._line_at(at), str(error)))
            return 0, scalar.end()

    def _read_object(self, at: int, place: Place) -> tuple[Json, int]:
        found: Json = {}
        at = _after_space(self._text, at + 1)
        while self._text[at] != "}":
            line = self._line_at(at)
            key, at = _STRINGS.raw_decode(self._text, at)
            if key in found:
                known = decoding.shorten(key)
                self.problems.append((line, f"key {known!r} is given twice in one object"))
            self._forget((*place, key))
            self._lines[(*place, key)] = line
            colon = _after_space(self._text, at)
            found[key], at = self._read(colon + 1, (*place, key))
            at = self._after_comma(at)
        return found, at + 1

    def _read_list(self, at: int, place: Place) -> tuple[list[Any], int]:
        found: list[Any] = []
        at = _after_space(self._text, at + 1)
        while self._text[at] != "]":
            value, at = self._read(at, (*place, len(found)))
            found.append(value)
            at = self._after_comma(at)
        return found, at + 1

    def _after_comma(self, at: int) -> int:
        at = _after_space(self._text, at)
        return _after_space(self._text, at + 1) if self._text[at] == "," else at

    def _forget(self, place: Place) -> None:
        """Forget the parts of a key that is given once more."""
        if place in self._lines:
            size = len(place)
            self._lines = {p: line for p, line in self._lines.items() if p[:size] != place}

    def _line_at(self, at: int) -> int:
        return bisect.bisect_left(self._ends, at) + 1


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None  # it also matches an empty text
    return space.end()

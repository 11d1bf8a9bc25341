# SPDX-License-Identifier: Apache-2.0
"""Reading JSON that others have written. ValueError is the only failure, for any text.

A value that was read can be written again as JSON, anywhere in ours: a number or a nesting that
could be read but not written is refused.

The module `json` is not imported, because it imports `re`, which takes longer than everything else
that a call imports. The scanner that `json` uses is in C, in `_json`; it is used here directly.
"""

from __future__ import annotations

from _json import make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Json = dict[str, Any]

# Far more levels than a document needs, and far less than Python's limit of 1000 calls.
MAXIMUM_DEPTH = 200
WHITESPACE = " \t\r\n"
# SystemError: the scanner found no `json.decoder` to take its own error from.
NO_DOCUMENT = (StopIteration, SystemError)


def one(text: str | bytes, *, is_strict: bool = False) -> Any:
    """Read a text of one document; with `is_strict`, a key that is given twice is refused.

    Bytes are UTF-8.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    scan = _scan_strictly if is_strict else _scan
    try:
        value, end = scan(text, len(text) - len(text.lstrip(WHITESPACE)))
    except NO_DOCUMENT:
        _explain(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text[end:].strip(WHITESPACE):
        _explain(text)
    check_depth(value, text)
    return value


def several(text: str, maximum: int) -> list[tuple[Any, str]]:
    """Split a text into documents, each with its own text; `maximum` is how many there may be."""
    found: list[tuple[Any, str]] = []
    try:
        while text := text.lstrip(WHITESPACE):
            if len(found) == maximum:
                raise ValueError(f"more than {maximum} documents")
            document, end = _scan(text, 0)
            check_depth(document, text[:end])
            found.append((document, text[:end]))
            text = text[end:]
    except NO_DOCUMENT:
        _explain(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return found


def check_depth(value: Any, text: str) -> None:
    """Refuse a document that is nested too deeply; `text` is its text."""
    if text.count("[") + text.count("{") <= MAXIMUM_DEPTH:
        return  # true for all but a few
    level = [value]
    for _ in range(MAXIMUM_DEPTH + 1):
        level = [holder for holder in level if isinstance(holder, dict | list)]
        if not level:
            return
        level = [
            item
            for holder in level
            for item in (holder.values() if isinstance(holder, dict) else holder)
        ]
    raise ValueError("nested too deeply")


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {shorten(key)!r} is given twice in one object")
            seen.add(key)
    return value


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"number {shorten(digits)} is too large")
    return number


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON value")


def _explain(text: str) -> NoReturn:
    """Raise the error for a text that is not a document; it says at which character."""
    import json  # an error may take its time

    json.loads(text)
    raise ValueError("it is not JSON")


class _Reading:
    """The settings of a scanner, under the names that json.JSONDecoder has for them."""

    strict = True
    object_hook = None
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Json] | None = None
    parse_int = int
    parse_float = staticmethod(_finite)
    parse_constant = staticmethod(_no_number)


class _ReadingStrictly(_Reading):
    object_pairs_hook = staticmethod(_unique)


_scan = make_scanner(_Reading())  # type: ignore[arg-type]
_scan_strictly = make_scanner(_ReadingStrictly())  # type: ignore[arg-type]


def shorten(text: str) -> str:
    """Cut a text from outside to a length that fits into a message."""
    return text if len(text) <= 200 else text[:200] + "…"

# SPDX-License-Identifier: Apache-2.0
"""Reading JSON that others have written. ValueError is the only failure, whatever the text is.

What is read can be written again as JSON, at any place of ours: neither a number nor a nesting is
possible that only reading survives.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Json = dict[str, Any]

# Far more than anybody needs, and far less than Python can recurse into: 1000 calls.
MAXIMUM_DEPTH = 200


def one(text: str | bytes, *, is_strict: bool = False) -> Any:
    """Read a text that is one document; `is_strict` refuses a key that is given twice.

    Bytes are UTF-8.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique if is_strict else None,
            parse_float=_finite,
            parse_constant=_no_number,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_depth(value, text)
    return value


def several(text: str, maximum: int) -> list[tuple[Any, str]]:
    """Split a text into documents, each with its own text; `maximum` is how many there can be."""
    decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_no_number)
    found: list[tuple[Any, str]] = []
    try:
        while text := text.lstrip(" \t\r\n"):
            if len(found) == maximum:
                raise ValueError(f"more than {maximum} documents")
            document, end = decoder.raw_decode(text)
            check_depth(document, text[:end])
            found.append((document, text[:end]))
            text = text[end:]
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return found


def check_depth(value: Any, text: str) -> None:
    """Refuse a document that is nested too deeply; `text` is that of the document."""
    if text.count("[") + text.count("{") <= MAXIMUM_DEPTH:
        return  # which spares all but a few
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


def shorten(text: str) -> str:
    """Cut a text that somebody else has chosen to a length for messages."""
    return text if len(text) <= 200 else text[:200] + "…"

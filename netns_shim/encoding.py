# SPDX-License-Identifier: Apache-2.0
"""Writing JSON, in ASCII, without the module `json`.

That module imports `re`, which takes longer than everything else that a call imports. The encoder
that it uses is in C, in `_json`; it is used here directly.
"""

from __future__ import annotations

from _json import encode_basestring_ascii as quote
from _json import make_encoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

INDENT = "    "


def _refuse(value: Any) -> NoReturn:
    raise TypeError(f"{type(value).__name__} is not a type of JSON")


# As json.JSONEncoder makes it. The last arguments mean: no check for circles, no indentation, the
# separators, sorted or not, no key left out, and no NaN.
_encode = make_encoder(None, _refuse, quote, None, ":", ",", False, False, False)
_encode_sorted = make_encoder(None, _refuse, quote, None, ":", ",", True, False, False)


def compact(value: Any, *, sort_keys: bool = False) -> str:
    """Write a value in one line. Raises RecursionError where it is nested too deeply."""
    return "".join((_encode_sorted if sort_keys else _encode)(value, 0))


def pretty(value: Any, margin: str = "\n") -> str:
    """Write a value for people, each item in a line of its own. Raises as `compact` does."""
    inner = margin + INDENT
    if isinstance(value, dict) and value:
        items = [f"{quote(key)}: {pretty(item, inner)}" for key, item in value.items()]
        return f"{{{inner}{f',{inner}'.join(items)}{margin}}}"
    if isinstance(value, list | tuple) and value:
        items = [pretty(item, inner) for item in value]
        return f"[{inner}{f',{inner}'.join(items)}{margin}]"
    return compact(value)

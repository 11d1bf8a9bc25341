# SPDX-License-Identifier: Apache-2.0
"""Whether a document is valid: yes or no, and nothing about why.

The first ADD to a network asks, and so does each call of netavark. Nearly always the answer is
yes. jsonschema takes longer to import than pasta takes to start, so it only explains what is
wrong. This module reads the same schemas, and knows only the rules that are used in them (JSON
Schema 2020-12).
"""

from __future__ import annotations

import os

from .. import decoding
from ..cni import is_name
from ..shared import addresses
from ..shared.files import read_text
from . import semantic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..decoding import Json

_DIRECTORY = f"{os.path.dirname(os.path.dirname(__file__))}/schemas"
_PROTOCOL = "([tT][cC][pP]|[uU][dD][pP]|[sS][cC][tT][pP])"
_PROTOCOLS = rf"^ *{_PROTOCOL} *(, *{_PROTOCOL} *)*$(?!\n)"
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
# The patterns that nearly every document is checked with: `re` takes 5 ms.
_PATTERNS: dict[str, Callable[[str], bool]] = {
    r"^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$(?!\n)": is_name,
    r"^cni\.dev/": lambda text: text.startswith("cni.dev/"),
    r"^[^\u0000]*$": lambda text: "\0" not in text,
    r"^/[^\u0000-\u001f\u007f]*$(?!\n)": lambda text: (
        text.startswith("/") and not _has_control(text, "\x7f")
    ),
    r"^(?!\.{1,2}$)[^/\u0000-\u001f\u007f-\u009f]+$(?!\n)": lambda text: (
        text not in ("", ".", "..") and "/" not in text and not _has_control(text, "\x9f")
    ),
    r"^[^\u0000\ud800-\udfff]*$": lambda text: (
        "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
    ),
    _PROTOCOLS: lambda text: all(
        part.strip(" ").lower() in ("tcp", "udp", "sctp") for part in text.split(",")
    ),
}
# Formats of ours, which no pattern can express.
FORMATS: dict[str, Callable[[str], bool]] = {
    "ip": addresses.is_address,
    "ip-prefix": addresses.has_prefix,
}
# Keywords that only say something to people.
_NOTES = {"$schema", "$defs", "title", "description", "default"}


def schema_text(name: str = "netns-shim") -> str:
    """Give a JSON Schema of ours as text: that of the configuration, or of another document."""
    return read_text(f"{_DIRECTORY}/{name}.schema.json")


def is_right(conf: Json) -> bool:
    """Tell whether nothing is wrong with a configuration."""
    try:
        return is_valid(conf, decoding.one(schema_text())) and not any(
            semantic.beyond_schema(conf)
        )
    except RecursionError:
        return False


def is_valid(value: Any, schema: Json) -> bool:
    """Tell whether a value fits a schema; False as well where a rule of it is not supported."""
    return _fits(value, schema, schema["$defs"])


def _fits(value: Any, schema: Json, definitions: Json) -> bool:
    return all(_obeys(value, rule, schema, definitions) for rule in schema if rule not in _NOTES)


def _obeys(value: Any, rule: str, schema: Json, definitions: Json) -> bool:
    wanted = schema[rule]
    match rule:
        case "$ref":
            return _fits(value, definitions[wanted.removeprefix("#/$defs/")], definitions)
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else wanted
            return any(_is(value, kind) for kind in kinds)
        case "enum":
            # In Python 0 equals False.
            return any(type(value) is type(one) and value == one for one in wanted)
        case "if":
            branch = "then" if _fits(value, wanted, definitions) else "else"
            return branch not in schema or _fits(value, schema[branch], definitions)
        case "then" | "else":
            return "if" in schema
        case "oneOf":
            return sum(_fits(value, one, definitions) for one in wanted) == 1
        case "pattern":
            return not isinstance(value, str) or _matches(wanted, value)
        case "format":
            return not isinstance(value, str) or FORMATS[wanted](value)
        case "maxLength":
            return not isinstance(value, str) or len(value) <= wanted
        case "minimum":
            return not _is(value, "number") or value >= wanted
        case "exclusiveMinimum":
            return not _is(value, "number") or value > wanted
        case "maximum":
            return not _is(value, "number") or value <= wanted
        case "minItems":
            return not isinstance(value, list) or len(value) >= wanted
        case "items":
            return not isinstance(value, list) or all(_fits(v, wanted, definitions) for v in value)
        case "required":
            return not isinstance(value, dict) or all(key in value for key in wanted)
        case "properties" | "patternProperties" | "additionalProperties":
            return not isinstance(value, dict) or all(
                _fits_key(key, value[key], schema, definitions) for key in value
            )
        case _:
            return False


def _is(value: Any, kind: str) -> bool:
    if kind == "integer":
        return _is(value, "number") and value == value // 1
    # In Python a bool is an int.
    return isinstance(value, _TYPES[kind]) and isinstance(value, bool) == (kind == "boolean")


def _matches(pattern: str, text: str) -> bool:
    """Tell whether a pattern is found in a text."""
    if pattern in _PATTERNS:
        return _PATTERNS[pattern](text)
    import re

    return re.search(pattern, text) is not None


def _has_control(text: str, last: str) -> bool:
    return any(c < " " or "\x7f" <= c <= last for c in text)


def _fits_key(key: str, value: Any, schema: Json, definitions: Json) -> bool:
    """Tell whether a value may stand under this key of an object."""
    named = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    rules = [named[key]] if key in named else []
    rules += [rule for pattern, rule in patterns.items() if _matches(pattern, key)]
    if not rules:
        other = schema.get("additionalProperties", True)
        rules = [{"enum": []}] if other is False else [] if other is True else [other]
    return all(_fits(value, rule, definitions) for rule in rules)

# SPDX-License-Identifier: Apache-2.0
"""Every problem of a configuration at once, in sentences for people.

The schema is a JSON Schema (2020-12) in `schemas/`, which editors can use as it is; `semantic` has
the rules that it cannot express. This module is loaded to say what is wrong, once `quick` has said
that something is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import INVALID_NETWORK_CONFIG, ShimError, in_few_words
from . import quick, semantic
from .semantic import OWN_TYPE, Place, Problem, show

if TYPE_CHECKING:
    from ..decoding import Json


_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]*")

# For how many unknown keys to look for the key that was meant: the search is slow.
_MAX_GUESSES = 50

# Keys of the network that may be in an entry: a single plugin has them too.
OF_NETWORK = ("cniVersion", "name", "disableCheck", "disableGC")

_KINDS = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "null": "null",
}


def of_network() -> Json:
    """Make the JSON Schema of a network in a file, with an entry of the shim wherever one may be.

    Section 1 of the specification. It is self-contained: editors do not follow every reference.
    """
    entry = json.loads(quick.schema_text())
    definitions = entry.pop("$defs")
    dialect = entry.pop("$schema")
    own = {"properties": {"type": {"const": OWN_TYPE}}, "required": ["type"]}
    plugin = {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"$ref": "#/$defs/pluginType"}},
        "if": own,
        "then": {"$ref": "#/$defs/shim"},
    }
    network = {
        "required": ["name", "plugins"],
        "properties": {
            **{key: entry["properties"][key] for key in OF_NETWORK},
            "cniVersions": {"type": "array", "items": {"type": "string"}},
            "loadOnlyInlinedPlugins": {"$ref": "#/$defs/flag"},
            "plugins": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/entry"}},
        },
    }
    return {
        "$schema": dialect,
        "title": "CNI network",
        "description": "A network of CNI in a file: a list of plugins, or one plugin alone.",
        "type": "object",
        "if": {"required": ["type"]},
        "then": {"$ref": "#/$defs/entry"},
        "else": network,
        "$defs": {**definitions, "shim": entry, "entry": plugin},
    }


def validate(conf: Json) -> None:
    """Raise ShimError (code 7) unless the configuration is valid.

    A single problem is in the message itself. With several, the message has their number, and the
    details have one line each, in the order of their places.
    """
    lines = problems(conf)
    if lines:
        raise ShimError(INVALID_NETWORK_CONFIG, *in_few_words("invalid configuration", lines))


def problems(conf: Json) -> list[str]:
    """List what is wrong, one line each, in the order of the places."""
    try:
        return [f"{show_place(place)}: {why}" for place, why in located(conf)]
    except RecursionError:
        return ["$: nested too deeply"]


def located(conf: Json) -> list[Problem]:
    """List what is wrong as `problems` does: the place of each, and a sentence about it.

    Raises RecursionError where the configuration is nested too deeply.
    """
    document = json.loads(quick.schema_text())
    found = set() if quick.is_valid(conf, document) else _broken_rules(conf, document)
    if isinstance(conf, dict):
        found.update(semantic.beyond_schema(conf))
    return sorted(found, key=_order)


def _broken_rules(conf: Json, document: Json) -> set[Problem]:
    from jsonschema import Draft202012Validator  # only where something is wrong

    errors = Draft202012Validator(document).iter_errors(conf)
    return {problem for error in errors for problem in _explain(error)}


def _explain(error: Any) -> Iterator[Problem]:
    place: Place = tuple(error.absolute_path)
    value, rule, schema = error.instance, error.validator_value, error.schema
    match error.validator:
        case "additionalProperties":
            yield from _unknown_keys(place, value, schema)
        case "oneOf":
            # For a value that is not an object, "type" has already said it.
            if isinstance(value, dict):
                yield place, _delegate_or_plugins(value)
        case "required":
            # jsonschema makes one error for each key, but names the key only in its prose.
            for key in rule:
                if key not in value:
                    yield place, f"key '{key}' is missing"
        case "type":
            kinds = [rule] if isinstance(rule, str) else rule
            wanted = " or ".join(_KINDS[kind] for kind in kinds if kind != "null")
            yield place, f"must be {wanted}, is {show(value)}"
        case "enum":
            choices = ", ".join(json.dumps(choice) for choice in rule)
            yield place, f"must be one of {choices}; is {show(value)}"
        case "pattern":
            yield place, f"{show(value)} does not fit: {schema['description']}"
        case "minItems":
            yield place, "must not be empty"
        case "maxLength":
            yield place, f"must be at most {rule} characters long, is {len(value)}"
        case "exclusiveMinimum":
            yield place, f"must be more than {rule}, is {show(value)}"
        case "minimum":
            yield place, f"must be at least {rule}, is {show(value)}"
        case "maximum":
            yield place, f"must be at most {rule}, is {show(value)}"
        case other:
            yield place, f"{show(value)} breaks the rule '{other}' of the schema"


def _unknown_keys(place: Place, value: Json, schema: Json) -> Iterator[Problem]:
    import difflib  # only where something is wrong

    known = list(schema["properties"])
    patterns = list(schema.get("patternProperties", ()))
    guesses = 0
    for key in value:
        if key in known or any(re.search(pattern, key) for pattern in patterns):
            continue
        guesses += 1
        near = difflib.get_close_matches(key, known, n=1) if guesses <= _MAX_GUESSES else []
        if near:
            yield (*place, key), f"unknown key; did you mean '{near[0]}'?"
        elif place:
            yield (*place, key), f"unknown key; known are {', '.join(known)}"
        else:
            sentence = "unknown key; keys of the delegated plugin belong inside 'delegate'"
            yield (*place, key), sentence


def _delegate_or_plugins(conf: Json) -> str:
    if "delegate" in conf:
        return "'delegate' and 'plugins' exclude each other: keep one of them"
    return "'delegate' (the plugin to run) or 'plugins' (a chain of them) is missing"


def _order(problem: Problem) -> tuple[list[tuple[int, int, str]], str]:
    place, why = problem
    return [(0, p, "") if isinstance(p, int) else (1, 0, p) for p in place], why


def show_place(place: Place) -> str:
    """Write a place as a path from the root, such as `$.plugins[0].type`."""
    text = "$"
    for part in place:
        if isinstance(part, str) and _PLAIN_KEY.fullmatch(part):
            text += f".{part}"
        else:
            text += f"[{show(part)}]"
    return text

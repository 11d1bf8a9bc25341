# SPDX-License-Identifier: Apache-2.0
"""The quick answer is that of jsonschema, for whatever configuration."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from netns_shim.validate import quick

SCHEMA = json.loads(quick.schema_text())
JSONSCHEMA = Draft202012Validator(SCHEMA)

LEAVES: list[Any] = [
    *(None, True, False, 0, 1, -1, 0.5, 86400, 86401, 1e300, 4294967296, 2.0),
    *("", "a", "x\n", "/", "/run", "/\x7f", "..", "true", "True\n", "pasta", "never", "a" * 65),
    *("10.0.0.0/24", "fd00::/64", "::1", "1.2.3.4", "10.0.0.0/2222"),
    *([], {}, [[]], [{}], [""], ["/a"]),
]


def words(part: Any) -> Iterator[str]:
    """List the keys that a schema knows."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "properties":
                yield from value
            yield from words(value)
    elif isinstance(part, list):
        for value in part:
            yield from words(value)


KEYS = [*sorted(set(words(SCHEMA))), "cni.dev/x", "cni_dev/x", "unknown"]
VALUES = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)
DRIVER = {"driver": "bridge", "subnets": [{"subnet": "10.0.0.0/24", "gateway": "10.0.0.1"}]}
ROUTE = {"destination": "10.1.0.0/16", "gateway": "10.0.0.1", "metric": 1}
VALID: list[dict[str, Any]] = [
    {"delegate": {"type": "bridge", "ipam": {"type": "host-local"}}, "netns": "a", "timeout": 1},
    {"plugins": [{"type": "bridge", "capabilities": {"x": True}}], "uplink": {"driver": "none"}},
    {"delegate": {**DRIVER, "routes": [ROUTE], "options": {"mtu": "1"}}, "uplink": "pasta"},
    {"delegate": {"type": "ptp"}, "mtu": "uplink"},
    {"delegate": {"type": "ptp"}, "mtu": 68},
    {"delegate": {"type": "ptp"}, "mtu": False},
    {"delegate": {**DRIVER, "ipam": {}}, "disableGC": "true", "cni.dev/x": 1, "args": None},
]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """List the containers in a value, each with each of its keys."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


@given(VALUES)
def test_answer_for_anything(value: Any) -> None:
    """A value made of the schema's words is judged as jsonschema judges it."""
    assert quick.is_valid(value, SCHEMA) == JSONSCHEMA.is_valid(value)


@given(st.data())
def test_answer_for_what_is_nearly_valid(data: st.DataObject) -> None:
    """So is a valid configuration with one place changed, taken away or added."""
    conf = json.loads(json.dumps(data.draw(st.sampled_from(VALID))))
    assert quick.is_valid(conf, SCHEMA)
    inside, key = data.draw(st.sampled_from(list(places(conf))))
    match data.draw(st.sampled_from(["change", "remove", "add"])):
        case "change":
            inside[key] = data.draw(VALUES)
        case "remove":
            del inside[key]
        case "add" if isinstance(inside, dict):
            inside[data.draw(st.sampled_from(KEYS))] = data.draw(VALUES)

    assert quick.is_valid(conf, SCHEMA) == JSONSCHEMA.is_valid(conf)


@pytest.mark.parametrize("pattern", quick._PATTERNS)
@given(data=st.data())
def test_patterns(pattern: str, data: st.DataObject) -> None:
    """What is known of a pattern of the schema is what `re` finds, whatever the text."""
    anything = st.text(st.sampled_from("a0_.-/ \n\0\x1f\x7f\x80\x9fé"), max_size=4)
    text = data.draw(anything | st.from_regex(pattern) | st.sampled_from(["cni.dev/", "\n"]))

    assert quick._PATTERNS[pattern](text) == (re.search(pattern, text) is not None)
    assert json.dumps(pattern) in quick.schema_text()


def test_a_rule_that_is_not_known() -> None:
    """Where the schema says more than is understood, the answer is left to jsonschema."""
    assert not quick.is_valid({}, {"$defs": {}, "minProperties": 0})


@pytest.mark.parametrize(("name", "is_loaded"), [("net", False), ("-", True)])
def test_jsonschema_explains_and_no_more(name: str, is_loaded: bool) -> None:
    """A valid configuration does without jsonschema; it is loaded to say what is wrong."""
    conf = {"cniVersion": "1.0.0", "name": name, "type": "x", "delegate": {"type": "bridge"}}
    code = (
        "import sys; from netns_shim.validate import explain; "
        f"found = explain.problems({conf!r})\n"
        "print(bool(found), 'jsonschema' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == [str(is_loaded)] * 2

# SPDX-License-Identifier: Apache-2.0
"""Documents of netavark and their schema, as far as no wire uses them already in its own tests."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from netns_shim import errors
from netns_shim.errors import ShimError
from netns_shim.netavark import document
from netns_shim.validate import quick

SCHEMA = json.loads(quick.schema_text("netavark"))
RESULT = {"ips": [{"address": "10.0.0.2/24"}, {"gateway": "x"}], "routes": [{"gw": 1}]}


def test_the_schema_is_a_schema() -> None:
    """It is a valid JSON Schema, and what it breaks a text with has a description to quote."""
    Draft202012Validator.check_schema(SCHEMA)

    for kind, schema in SCHEMA["$defs"].items():
        assert "description" in schema or not schema.keys() & {"format", "pattern"}, kind


def test_all_problems_at_once() -> None:
    """All problems are found, each with its place."""
    assert document.problems(RESULT, "result") == [
        "ips[1].address: is missing",
        'ips[1].gateway: must be an IP address, is "x"',
        "routes[0].dst: is missing",
        "routes[0].gw: must be a string, is 1",
    ]


@pytest.mark.parametrize(
    ("within", "place"), [("", "it"), ("runtimeConfig.ipam", "runtimeConfig.ipam")]
)
def test_the_place_of_the_document(within: str, place: str) -> None:
    """Places begin with that of the document, and a document without one is called `it`."""
    assert document.problems(1, "ips", within) == [f"{place}: must be a list, is 1"]
    assert document.problems([{}], "ips", within) == [f"{within}[0].address: is missing"]


def test_keys_that_are_no_words() -> None:
    """A key from outside is quoted in a place, so that it cannot look like something else."""
    (problem,) = document.problems({"a b\n": 1}, "options")

    assert problem == '["a b\\n"]: must be a string, is 1'


def test_a_refusal() -> None:
    """One problem is in the message; of several it has the number, and the details are lines."""
    with pytest.raises(ShimError) as one:
        document.check({"ips": 1}, "result", "malformed result", code=errors.DECODING_FAILURE)
    with pytest.raises(ShimError) as several:
        document.check(RESULT, "result", "malformed result")

    assert one.value.code == errors.DECODING_FAILURE
    assert one.value.message == "malformed result: ips: must be a list, is 1"
    assert several.value.code == errors.INVALID_NETWORK_CONFIG
    assert several.value.message == "malformed result: 4 problems"
    assert len(several.value.details.splitlines()) == 4


def test_null_counts_as_absent() -> None:
    """A key that is null is left out wherever it stands; other keys and values are kept."""
    given = {"a": None, "b": [{"c": None, "d": [None, False, 0, ""]}], "e": {"f": None}}

    assert document.settled(given) == {"b": [{"d": [None, False, 0, ""]}], "e": {}}


@pytest.mark.parametrize("value", [80.0, 80])
def test_whole_numbers_are_integers(value: Any) -> None:
    """A port that is written as 80.0 is a port, and counts as 80."""
    found = document.check(value, "port", "invalid port")

    assert (found, type(found)) == (80, int)


@pytest.mark.parametrize("value", [80.5, True, "80", -1, 65536, 1e300])
def test_other_numbers_are_refused(value: Any) -> None:
    """What is not a port is refused."""
    with pytest.raises(ShimError):
        document.check(value, "port", "invalid port")


def test_long_values_are_cut() -> None:
    """What is shown of a wrong value is short."""
    (problem,) = document.problems("x" * 1000, "port")

    assert len(problem) < 100


@pytest.mark.parametrize(("result", "is_loaded"), [({"ips": []}, False), (RESULT, True)])
def test_jsonschema_explains_and_no_more(result: dict[str, Any], is_loaded: bool) -> None:
    """A document that is right does without jsonschema; it is loaded to say what is wrong."""
    code = (
        "import sys; from netns_shim.netavark import document; "
        f"found = document.problems({result!r}, 'result')\n"
        "print(bool(found), 'jsonschema' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == [str(is_loaded)] * 2

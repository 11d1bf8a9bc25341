# SPDX-License-Identifier: Apache-2.0
"""Small checks of JSON values, as far as no wire uses them already in its own tests."""

from __future__ import annotations

from typing import Any

import pytest

from netns_shim.netavark import fields

INNER = fields.record({"a": fields.number(9)}, {"b": fields.list_of(fields.address)})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": 9, "b": None, "c": object}, []),
        ({"a": 9, "b": ["::1", "10.0.0.1"]}, []),
        ({"b": ["x", "10.0.0.1", 3]}, ["p.a: is missing", "p.b[0]: must be", "p.b[2]: must be"]),
        ({"a": 10, "b": "x"}, ["p.a: must be an integer of 0 to 9, is 10", "p.b: must be a list"]),
        ([], ["p: must be an object, is a list"]),
        (None, ["p: must be an object, is null"]),
    ],
)
def test_record(value: Any, expected: list[str]) -> None:
    """All problems of an object are found, each with its place, and other keys are ignored."""
    found = list(INNER(value, "p"))

    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


def test_places_without_a_name() -> None:
    """The outermost object has no name, and is called `it` where it is none."""
    assert list(INNER({}, "")) == ["a: is missing"]
    assert list(INNER(1, "")) == ["it: must be an object, is 1"]


@pytest.mark.parametrize("value", ["10.0.0.1/24", "fd00::1/64", "0.0.0.0/0"])
def test_addresses_with_a_prefix(value: str) -> None:
    """An address with a prefix length is one for an interface and one of a subnet."""
    assert not list(fields.interface_address(value, "p"))
    assert not list(fields.subnet(value, "p"))


@pytest.mark.parametrize(
    "value", ["10.0.0.1", "10.0.0.1/255.0.0.0", "10.0.0.1/33", "/24", "", None, 10]
)
def test_addresses_without_one(value: Any) -> None:
    """Without a prefix length, or with an impossible one, it is neither."""
    assert len(list(fields.interface_address(value, "p"))) == 1
    assert len(list(fields.subnet(value, "p"))) == 1


def test_long_values_are_cut() -> None:
    """What is shown of a wrong value is short."""
    (problem,) = fields.flag("x" * 1000, "p")

    assert len(problem) < 100

# SPDX-License-Identifier: Apache-2.0
"""Parts of a sweep: together they are all of it, and a step more moves no other."""

from __future__ import annotations

from itertools import chain, count, takewhile

import pytest
from parts import Part

THREE = [Part(number, 3) for number in (1, 2, 3)]
NAMES = ["mkdir", "write", "write", "rename", "write", "flock", "write", "write", "rename"]


def test_parts_are_all_points() -> None:
    """Each point is in one part, in its place among the others."""
    taken = [part.take(range(len(NAMES)), NAMES) for part in THREE]

    assert sorted(chain(*taken)) == list(range(len(NAMES)))
    assert all(points == sorted(points) for points in taken)


def test_points_of_one_name_take_turns() -> None:
    """Of thirty points with one name each part has ten."""
    names = ["write"] * 30

    assert [len(part.take(names, names)) for part in THREE] == [10, 10, 10]


@pytest.mark.parametrize("part", THREE)
def test_another_step(part: Part) -> None:
    """A step more at the beginning leaves all steps of other names in their parts."""
    more = ["chmod", *NAMES]
    positions = part.take(range(len(NAMES)), NAMES)

    assert [n - 1 for n in part.take(range(len(more)), more) if n] == positions


def test_whole() -> None:
    """The one part of one is everything; a run by hand has that."""
    whole = Part.read("1/1")

    assert whole.is_whole
    assert whole.take(NAMES, NAMES) == NAMES
    assert list(whole.thin(NAMES, "x")) == NAMES
    assert whole.share(100) == 100


def test_more_parts_than_points() -> None:
    """A part visits one point at least, so that no sweep of a few points is left out."""
    taken = [Part(number, 9).take(["only"], ["mkdir"]) for number in range(1, 10)]

    assert taken == [["only"]] * 9


@pytest.mark.parametrize("name", ["test_x.py::test_a", "test_x.py::test_b", "test_y.py::test_a"])
def test_a_thing_of_its_own(name: str) -> None:
    """What there is once is in one part."""
    assert [part.has(name) for part in THREE].count(True) == 1


def test_series() -> None:
    """Of a series without an end the parts are all as well."""
    taken = [list(takewhile(lambda n: n < 20, part.thin(count(), "bridge"))) for part in THREE]

    assert sorted(chain(*taken)) == list(range(20))
    assert all(taken)


def test_share() -> None:
    """Of a number a part has its share, and one at least."""
    assert [Part(2, 3).share(many) for many in (100, 2, 1)] == [33, 1, 1]


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "-1/3", "x/3", "1/x", "1/3/3"])
def test_what_is_no_part(text: str) -> None:
    """A part has a number of 1 at least, and there are at least as many."""
    with pytest.raises(ValueError, match=r"."):
        Part.read(text)

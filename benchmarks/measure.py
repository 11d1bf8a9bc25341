# SPDX-License-Identifier: Apache-2.0
"""From rounds to rows: all that is compared runs in turn in every round, and is compared in it.

A machine that is busy for a while is busy for both sides of a comparison then. So the ratio is
taken in each round; its median and quartiles are what is shown.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from stage import Sample

Turn = Callable[[], Mapping[str, Sample]]
Rounds = list[dict[str, Sample]]
Quotient = Callable[[dict[str, float]], float]


class Spread(NamedTuple):
    """A median and its quartiles."""

    low: float
    median: float
    high: float


class Row(NamedTuple):
    """One line of the table; `goal` is the most that it should be, None where there is no goal.

    With `is_least`, more is better: the goal is the least that it should be.
    """

    figure: str
    what: str
    unit: str
    wall: Spread
    cpu: Spread | None = None
    goal: float | None = None
    is_least: bool = False

    @property
    def is_reached(self) -> bool | None:
        """Tell whether the goal is reached in wall time; None where there is none."""
        return self._is_reached(self.wall)

    @property
    def is_reached_in_cpu(self) -> bool | None:
        """Tell whether it is in CPU time; None where that was not taken."""
        return self._is_reached(self.cpu)

    def _is_reached(self, found: Spread | None) -> bool | None:
        if self.goal is None or found is None:
            return None
        return found.median >= self.goal if self.is_least else found.median <= self.goal


def rounds_of(count: int, turns: Sequence[Turn]) -> Rounds:
    """Let all have their turn in each round, in another order each time; the first is a rehearsal.

    Progress is shown on a terminal.
    """
    found = []
    for number in range(count + 1):
        measured: dict[str, Sample] = {}
        first = number % len(turns)
        for turn in [*turns[first:], *turns[:first]]:
            measured |= turn()
        found.append(measured)
        if sys.stderr.isatty():
            print(f"\r\033[K  round {number} of {count} ", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return found[1:]


def spread(values: Sequence[float]) -> Spread:
    """Give the quartiles; a single value is all three."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def times(figure: str, rounds: Rounds) -> list[Row]:
    """Make a row of milliseconds of each that had its turn."""
    return [
        Row(
            figure,
            name,
            "ms",
            spread([measured[name].wall for measured in rounds]),
            spread([measured[name].cpu for measured in rounds]),
        )
        for name in rounds[0]
    ]


def over(one: str, other: str) -> Quotient:
    """Make the quotient of two that had their turn, by their names."""
    return lambda values: values[one] / values[other]


def ratio(
    figure: str,
    what: str,
    rounds: Rounds,
    quotient: Quotient,
    goal: float | None = None,
) -> Row:
    """Make a row of a ratio, which `quotient` gives for the values of one round."""

    def of(kind: str) -> Spread:
        values = [{name: getattr(s, kind) for name, s in one.items()} for one in rounds]
        return spread([quotient(each) for each in values])

    return Row(figure, what, "×", of("wall"), of("cpu"), goal)


def count(figure: str, what: str, value: float, unit: str = "", goal: float | None = None) -> Row:
    """Make a row of something that is the same each time."""
    return Row(figure, what, unit, Spread(value, value, value), None, goal)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Give rows for programs."""
    return [
        {
            **row._asdict(),
            "wall": row.wall._asdict(),
            "cpu": row.cpu and row.cpu._asdict(),
            "reached": row.is_reached,
        }
        for row in rows
    ]

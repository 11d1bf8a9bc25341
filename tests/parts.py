# SPDX-License-Identifier: Apache-2.0
"""Parts of the points of a sweep: CI tests several releases, and each has a part of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar
from zlib import crc32

from hypothesis import settings

T = TypeVar("T")


class Part(NamedTuple):
    """The part with a number, from 1 on, of so many; together they are all points, each once."""

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> Part:
        """Read `NUMBER/OF`. Raises ValueError where that is no part."""
        number, slash, of = text.partition("/")
        part = cls(int(number), int(of))
        if not slash or not 1 <= part.number <= part.of:
            raise ValueError(f"no part: {text}")
        return part

    def __str__(self) -> str:
        return f"part {self.number} of {self.of}"

    @property
    def is_whole(self) -> bool:
        """Whether it is all there is."""
        return self.of == 1

    def take(self, points: Sequence[T], names: Iterable[str]) -> list[T]:
        """Choose those points that belong to this part, by their names.

        Points of one name take turns. So a step more, which another release of Python may have,
        moves no step of another name to another part. Where none belongs to it, it has the first.
        """
        seen: Counter[str] = Counter()
        chosen = []
        for point, name in zip(points, names, strict=True):
            if self.has(name, seen[name]):
                chosen.append(point)
            seen[name] += 1
        return chosen or list(points[:1])

    def thin(self, series: Iterable[T], name: str) -> Iterator[T]:
        """Choose those points of a series, which may be endless, that belong to this part."""
        first = next(n for n in range(self.of) if self.has(name, n))
        return islice(series, first, None, self.of)

    def share(self, many: int) -> int:
        """Say how many of so many things are this part of them: at least one."""
        return max(1, many // self.of)

    def has(self, name: str, n: int = 0) -> bool:
        """Tell whether the one thing of a name, or the nth, is in this part."""
        return (crc32(name.encode()) + n) % self.of == self.number - 1


def examples(many: int) -> int:
    """Say how many random examples a test makes that makes so many where the profile has 100."""
    return max(1, many * settings().max_examples // 100)

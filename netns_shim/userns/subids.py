# SPDX-License-Identifier: Apache-2.0
"""The subordinate IDs of a user, and the map of a user namespace with all of them."""

from __future__ import annotations

import os
import pwd

# subuid(5), subgid(5)
FILES = {"uid": "/etc/subuid", "gid": "/etc/subgid"}

# First ID inside, first ID outside, how many: a line of uid_map, user_namespaces(7).
Extent = list[int]


def wanted() -> dict[str, list[Extent]]:
    """Give the maps by kind: the caller is root, and the subordinate IDs come after that."""
    own = {"uid": os.geteuid(), "gid": os.getegid()}
    names = {str(own["uid"])}
    try:
        names.add(pwd.getpwuid(own["uid"]).pw_name)
    except KeyError:
        pass  # not every user has a name
    return {kind: _map(own[kind], ranges(path, names)) for kind, path in FILES.items()}


def _map(own: int, ranges: list[tuple[int, int]]) -> list[Extent]:
    extents, inside = [[0, own, 1]], 1
    for first, count in ranges:
        extents.append([inside, first, count])
        inside += count
    return extents


def ranges(path: str, names: set[str]) -> list[tuple[int, int]]:
    """Read the ranges of a user; skip lines that make no sense."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.strip().split(":") for line in file]
    except OSError:
        return []
    found = []
    for line in lines:
        if (
            len(line) == 3
            and line[0] in names
            and all(n.isascii() and n.isdigit() for n in line[1:])
        ):
            first, count = int(line[1]), int(line[2])
            if count:
                found.append((first, count))
    return found

# SPDX-License-Identifier: Apache-2.0
"""The subordinate IDs of a user, and the map of a user namespace with all of them.

They are in /etc/subuid and /etc/subgid, or where /etc/nsswitch.conf says: then getsubids(1) lists
them, as for newuidmap(1) itself. The kernel refuses a map in which an ID is twice. So of ranges
that overlap, and of one with the user's own ID, the rest counts.
"""

from __future__ import annotations

import os
import pwd

from ..shared.files import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# subuid(5), subgid(5)
FILES = {"uid": "/etc/subuid", "gid": "/etc/subgid"}
NSSWITCH = "/etc/nsswitch.conf"
PROGRAM = "getsubids"
SECONDS = 10
# The ID -1 means none. A map ends before a page, user_namespaces(7); a line has up to 33 bytes.
MAXIMUM_ID = 0xFFFFFFFF
MAXIMUM_EXTENTS = 120

# First ID inside, first ID outside, how many: a line of uid_map, user_namespaces(7).
Extent = list[int]
Range = tuple[int, int]


def wanted(environ: Mapping[str, str]) -> dict[str, list[Extent]]:
    """Give the maps by kind: the caller is root, and the subordinate IDs come after that."""
    maps = {}
    for kind in FILES:
        extents, inside = [[0, own(kind), 1]], 1
        for first, count in usable(kind, found(kind, environ)):
            extents.append([inside, first, count])
            inside += count
        maps[kind] = extents[:MAXIMUM_EXTENTS]
    return maps


def own(kind: str) -> int:
    """Give the user's own ID of a kind."""
    return os.geteuid() if kind == "uid" else os.getegid()


def usable(kind: str, ranges: list[Range]) -> list[Range]:
    """Give the ranges, first ID and how many, without what is in an earlier one or the own ID."""
    taken = [(own(kind), own(kind) + 1)]
    rest = []
    for first, count in ranges:
        pieces = [(first, min(first + count, MAXIMUM_ID))]
        for start, end in taken:
            cut = [((a, min(b, start)), (max(a, end), b)) for a, b in pieces]
            pieces = [piece for both in cut for piece in both if piece[0] < piece[1]]
        taken += pieces
        rest += [(a, b - a) for a, b in pieces]
    return rest


def found(kind: str, environ: Mapping[str, str]) -> list[Range]:
    """List the ranges of the user as they are written, wherever they come from."""
    uid = os.geteuid()
    names = [str(uid)]
    try:
        names.insert(0, pwd.getpwuid(uid).pw_name)
    except KeyError:
        pass  # not every user has a name
    if is_elsewhere() and (program := find_program(environ)):
        for name in names:
            if listed := _ask(program, kind, name, environ):
                return listed
        return []
    return [(first, count) for name, first, count in lines(FILES[kind]) if name in names]


def source(kind: str, environ: Mapping[str, str]) -> str:
    """Say where the ranges of a kind come from."""
    return PROGRAM if is_elsewhere() and find_program(environ) else FILES[kind]


def why_none(kind: str, environ: Mapping[str, str]) -> str:
    """Say why the user has no ranges of a kind."""
    place = source(kind, environ)
    if place != PROGRAM and os.path.exists(place) and not os.access(place, os.R_OK):
        return f"{place} cannot be read"
    return f"{place} has none for this user"


def is_elsewhere() -> bool:
    """Tell whether the IDs come from another source than the files, nsswitch.conf(5)."""
    for line in _read(NSSWITCH):
        key, _, value = line.partition("#")[0].partition(":")
        if key.strip() == "subid":
            return value.split() not in ([], ["files"])
    return False


def find_program(environ: Mapping[str, str]) -> str:
    """Find getsubids, or give ""."""
    from .. import invoke  # few machines need it

    return invoke.find_program(PROGRAM, invoke.with_path(environ)["PATH"].split(":"))


def _ask(program: str, kind: str, name: str, environ: Mapping[str, str]) -> list[Range]:
    from .. import child, invoke  # few machines need it
    from ..errors import ShimError, warn

    options = ["-g", name] if kind == "gid" else [name]
    try:
        status, stdout, _ = child.run(
            program,
            invoke.with_path(environ),
            b"",
            arguments=options,
            name=PROGRAM,
            what=" ".join([PROGRAM, *options]),
            timeout=SECONDS,
        )
    except ShimError as error:
        warn(str(error))
        return []
    # Lines like "0: user 100000 65536".
    words = [line.split()[-2:] for line in stdout.decode(errors="replace").splitlines()]
    return [] if status else [pair for pair in map(_pair, words) if pair]


def lines(path: str) -> list[tuple[str, int, int]]:
    """List the ranges of all users in a file: name or ID, first, how many."""
    result = []
    for line in _read(path):
        name, *numbers = line.strip().split(":")
        if pair := _pair(numbers):
            result.append((name, *pair))
    return result


def _pair(words: list[str]) -> Range | None:
    if len(words) != 2 or not all(word.isascii() and word.isdigit() for word in words):
        return None
    first, count = map(int, words)
    return (first, count) if count else None


def _read(path: str) -> list[str]:
    try:
        return read_text(path).splitlines()
    except OSError:
        return []

# SPDX-License-Identifier: Apache-2.0
"""Which subordinate IDs are the caller's."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from netns_shim import invoke
from netns_shim.userns import subids

NAME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of subordinate user IDs, which are not elsewhere; there is none of group IDs."""
    path = tmp_path / "subid"
    monkeypatch.setattr(subids, "FILES", {"uid": str(path), "gid": str(tmp_path / "none")})
    monkeypatch.setattr(subids, "NSSWITCH", str(tmp_path / "nsswitch.conf"))
    return path


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> int:
    """The ID of the caller, as if this were another user's process."""
    monkeypatch.setattr(subids, "own", lambda kind: 1000)
    return 1000


@pytest.mark.parametrize(
    ("text", "extents"),
    [
        ("", []),
        (f"{NAME}:100000:65536\n", [[1, 100000, 65536]]),
        (f"{os.geteuid()}:100000:65536", [[1, 100000, 65536]]),
        (f"x:1:1\n{NAME}:10:5\n{NAME}:30:7\n", [[1, 10, 5], [6, 30, 7]]),
        (f"{NAME}:x:1\n{NAME}:1\n{NAME}:1:0\n{NAME}:-1:5\n{NAME}:1:2:3\n# {NAME}:1:1\n", []),
        (f"{NAME}:٣:1\n\udcff\n", []),
    ],
)
def test_ranges(files: Path, text: str, extents: list[list[int]]) -> None:
    """Lines with the name or the ID of the user count, in their order; odd ones do not."""
    files.write_text(text, errors="surrogateescape")

    assert subids.wanted({}) == {
        "uid": [[0, os.geteuid(), 1], *extents],
        "gid": [[0, os.getegid(), 1]],
    }


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([(100, 10), (100, 10)], [(100, 10)]),
        ([(100, 10), (105, 10)], [(100, 10), (110, 5)]),
        ([(105, 10), (100, 10)], [(105, 10), (100, 5)]),
        ([(100, 10), (90, 30)], [(100, 10), (90, 10), (110, 10)]),
        ([(90, 30), (100, 10)], [(90, 30)]),
        ([(1000, 1)], []),
        ([(1000, 1), (5000, 5)], [(5000, 5)]),
        ([(990, 20)], [(990, 10), (1001, 9)]),
        ([(0xFFFFFFF0, 0x100)], [(0xFFFFFFF0, 15)]),
        ([(1 << 40, 5)], []),
        ([(10, 5), (15, 5)], [(10, 5), (15, 5)]),
    ],
)
def test_usable(ranges: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    """No ID is in it twice, not the caller's own, and none that there cannot be."""
    assert subids.usable("uid", ranges) == expected


def test_very_many_ranges(files: Path) -> None:
    """A map has to be shorter than a page."""
    files.write_text("".join(f"{NAME}:{n * 10 + 4 * 10**9}:2\n" for n in range(500)))

    extents = subids.wanted({})["uid"]

    assert len("".join("{} {} {}\n".format(*extent) for extent in extents)) < 4096
    assert len(extents) > 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("subid: sss\n", True),
        ("passwd: files\nsubid:files # here\n", False),
        ("subid: files sss", True),
        ("subid:\n", False),
        ("# subid: sss\n", False),
    ],
)
def test_is_elsewhere(files: Path, text: str, expected: bool) -> None:
    """nsswitch.conf says whether the IDs are in the files."""
    (files.parent / "nsswitch.conf").write_text(text)

    assert subids.is_elsewhere() is expected


def fake(files: Path, script: str) -> dict[str, str]:
    """Make the source another one, with this getsubids; give the environment."""
    (files.parent / "nsswitch.conf").write_text("subid: sss\n")
    program = files.parent / "getsubids"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": str(files.parent)}


def test_ranges_from_elsewhere(files: Path) -> None:
    """getsubids lists them, by the user's name; the files do not count then."""
    files.write_text(f"{NAME}:5:5\n")
    script = f"""
    test "$1" = -g && exec echo "0: {NAME} 300000 70"
    test "$1" = {NAME} || exit 1
    echo "0: {NAME} 200000 65536"; echo "1: {NAME} 200000 65536"; echo odd"""

    maps = subids.wanted(fake(files, script))

    assert maps["uid"][1:] == [[1, 200000, 65536]]
    assert maps["gid"][1:] == [[1, 300000, 70]]
    assert subids.source("uid", {"PATH": str(files.parent)}) == "getsubids"


def test_source_that_has_none(files: Path) -> None:
    """A source that does not know the user gives no IDs, and is asked by number as well."""
    environ = fake(files, 'echo "$@" >>"$0.log"; echo "Error fetching ranges" >&2; exit 1')

    assert subids.found("uid", environ) == []
    asked = (files.parent / "getsubids.log").read_text().split()
    assert asked == [NAME, str(os.geteuid())]


def test_without_getsubids(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no getsubids, the files are all that can be read."""
    files.write_text(f"{NAME}:5:5\n")
    (files.parent / "nsswitch.conf").write_text("subid: sss\n")
    monkeypatch.setattr(invoke, "DEFAULT_PATH", "/none")

    assert subids.found("uid", {}) == [(5, 5)]
    assert subids.source("uid", {}) == str(files)

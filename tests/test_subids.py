# SPDX-License-Identifier: Apache-2.0
"""Which subordinate IDs are the caller's."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from netns_shim.userns import subids

NAME = pwd.getpwuid(os.geteuid()).pw_name


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
def test_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, extents: list[list[int]]
) -> None:
    """Lines with the name or the ID of the user count, in their order; odd ones do not."""
    path = tmp_path / "subid"
    path.write_text(text, errors="surrogateescape")
    monkeypatch.setattr(subids, "FILES", {"uid": str(path), "gid": str(tmp_path / "none")})

    assert subids.wanted() == {
        "uid": [[0, os.geteuid(), 1], *extents],
        "gid": [[0, os.getegid(), 1]],
    }

# SPDX-License-Identifier: Apache-2.0
"""Waiting for another resolv.conf: which directories are watched, and what the shell compares."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from netns_shim import hostnet
from netns_shim.shared import watch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty directory, by its real path."""
    return tmp_path.resolve()


def test_directories_of_a_file(root: Path) -> None:
    """A file is replaced in its directory, also where that is yet to be made there."""
    (root / "file").touch()

    assert watch.directories(f"{root}/file") == [str(root)]
    assert watch.directories(f"{root}/missing") == [str(root)]


def test_directories_of_links(root: Path) -> None:
    """A link can be replaced where it is, and each link and file that it leads to."""
    for name in ("a", "b", "c"):
        (root / name).mkdir()
    (root / "a" / "link").symlink_to("../b/link")
    (root / "b" / "link").symlink_to(root / "alias" / "file")
    (root / "alias").symlink_to("c")
    (root / "c" / "file").touch()

    found = watch.directories(f"{root}/a/link")

    assert found == [f"{root}/a", f"{root}/b", f"{root}/c"]


def test_links_that_lead_in_a_circle(root: Path) -> None:
    """They do not keep anything waiting."""
    (root / "link").symlink_to("link")

    assert watch.directories(f"{root}/link") == [str(root)]


@pytest.mark.parametrize("is_there", [True, False])
def test_end_of_the_lifeline(root: Path, is_there: bool) -> None:
    """Whatever is watched, the shell goes on when its stdin ends."""
    text = watch.script(is_there=is_there)
    hold = f'exec {watch.HELD}<{hostnet.RESOLV_CONF}; exec sh -c "$0" "$@"'
    argv = ["sh", "-c", hold, text, "guardian", f"{root}/stamp", "echo", "went on"]

    done = subprocess.run(argv, input="", capture_output=True, text=True, timeout=20)

    assert (done.stdout, done.stderr) == ("went on\n", "")

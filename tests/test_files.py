# SPDX-License-Identifier: Apache-2.0
"""How directories and files of ours are made."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from netns_shim.errors import ShimError
from netns_shim.shared import files
from netns_shim.state import is_private


def test_private_directory_is_made(tmp_path: Path) -> None:
    """A directory is made with its parents; only itself is private."""
    path = tmp_path / "a" / "b" / "c"
    before = os.umask(0o022)
    try:
        files.make_private(str(path))
    finally:
        os.umask(before)

    assert is_private(str(path))
    assert path.stat().st_mode & 0o777 == 0o700
    assert path.parent.stat().st_mode & 0o777 == 0o755


def test_private_directory_is_there(tmp_path: Path) -> None:
    """What is there already is fine if it is private, and refused if it is not."""
    tmp_path.chmod(0o700)
    files.make_private(str(tmp_path))
    tmp_path.chmod(0o755)

    with pytest.raises(ShimError):
        files.make_private(str(tmp_path))


def test_private_directories_are_made_at_once(tmp_path: Path) -> None:
    """Two that make the same directory at the same time are both satisfied."""
    for attempt in range(50):
        path = str(tmp_path / str(attempt) / "a" / "b")
        together = threading.Barrier(4)
        failed: list[BaseException] = []

        def make(path: str = path, together: Any = together, failed: Any = failed) -> None:
            together.wait()
            try:
                files.make_private(path)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []


def test_file_is_replaced_at_once(tmp_path: Path) -> None:
    """A file is private, replaces its predecessor as a whole, and leaves no other."""
    path = tmp_path / "file"
    path.write_text("old")
    with open(path) as reader:
        files.write_atomically(str(path), "new é")

        assert reader.read() == "old"
    assert path.read_text() == "new é"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_file_that_cannot_be_replaced(tmp_path: Path) -> None:
    """A failure leaves what was there, and nothing else."""
    path = tmp_path / "file"
    (path / "full").mkdir(parents=True)

    with pytest.raises(IsADirectoryError):
        files.write_atomically(str(path), "new")

    assert os.listdir(tmp_path) == ["file"]


def test_spellings(tmp_path: Path) -> None:
    """A path is compared by its directory and its name, also where there is no such file."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    here = str(tmp_path)

    same = [f"{here}/link/a", f"{here}/real/../real/a", f"{here}/real/a"]
    others = [f"{here}/a", f"{here}/real/b", f"{here}/nothing/a", "a", ""]

    assert all(files.is_same(path, f"{here}/real/a") for path in same)
    assert not any(files.is_same(path, f"{here}/real/a") for path in others)
    assert files.is_same(f"{here}/nothing/a", f"{here}/nothing/a")

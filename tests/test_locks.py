# SPDX-License-Identifier: Apache-2.0
"""Locks: what becomes of them when something goes wrong."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from netns_shim import locks


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EACCES])
def test_a_file_that_cannot_be_removed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    """The lock is given up all the same, with a warning, and the next process gets it at once."""
    path = str(tmp_path / "lock")

    def fail(_: str) -> None:
        raise OSError(number, os.strerror(number), path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", fail)
        with locks.making(path, "one", "waiting"):
            pass

    assert os.strerror(number) in capsys.readouterr().err
    fd = locks.take(path, "another")
    assert fd >= 0
    os.close(fd)


def test_a_failure_under_a_lock(tmp_path: Path) -> None:
    """The lock is given up, and the failure is what the caller sees."""
    path = str(tmp_path / "lock")
    with pytest.raises(ValueError, match="wrong"), locks.making(path, "one", "waiting"):
        raise ValueError("wrong")

    assert not os.path.exists(path)

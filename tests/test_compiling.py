# SPDX-License-Identifier: Apache-2.0
"""What is put into the file of compiled modules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from netns_shim import compiled
from netns_shim.cli import compiling


def test_path() -> None:
    """The file is beside its launcher and hidden, one for each name."""
    assert compiling.path_for("/opt/cni/bin/shim") == "/opt/cni/bin/.shim.compiled"


def test_all_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every module is in it but those of the commands, without its docstring."""
    (tmp_path / "packed").write_bytes(compiling.pack())
    finders: list[compiled.Compiled] = []
    monkeypatch.setattr(sys, "meta_path", finders)

    compiled.use(str(tmp_path / "packed"))

    for source in Path(compiled.DIRECTORY).glob("*.py"):
        if source.stem != "__init__":
            code = finders[0].get_code(f"netns_shim.{source.stem}")
            assert code.co_filename == str(source)
            assert "__doc__" not in code.co_names
    assert finders[0].find_spec("netns_shim.cli", None) is None

# SPDX-License-Identifier: Apache-2.0
"""What is put into the file of compiled modules."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from netns_shim import compiled, netns
from netns_shim.cli import compiling, directories


def test_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each launcher has a file of its own in the cache of whoever installs it, if there is one."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    def name(path: str) -> str:
        return compiling.path_for(path, {"HOME": "/home/u"})

    assert name("/a/shim").startswith("/home/u/.cache/netns-shim/shim-")
    assert len({name("/a/shim"), name("/b/shim"), name("/a/other")}) == 3
    assert compiling.path_for("/a/shim", {"XDG_CACHE_HOME": "/c"}).startswith("/c/netns-shim/")
    assert compiling.path_for("/a/shim", {}) == ""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(netns, "is_initial_userns", lambda: True)
    of_root = compiling.path_for("/a/shim", {"HOME": "/root"})
    assert of_root.startswith(f"{directories.CACHE}/netns-shim/shim-")


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

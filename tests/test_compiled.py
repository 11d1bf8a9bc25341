# SPDX-License-Identifier: Apache-2.0
"""Importing from the file of compiled modules, and from the sources wherever that is right."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from netns_shim import compiled
from netns_shim.cli import compiling

# Tells by what each module was loaded, the one of an argument among others.
ASK = """
import sys
sys.path.append(sys.argv[1])
from netns_shim import compiled
compiled.use(sys.argv[2])
import netns_shim.verbs
modules = {n: m for n, m in sys.modules.items() if n.startswith("netns_shim.")}
import json
print(json.dumps({n.partition(".")[2]: [type(m.__spec__.loader).__name__, m.__file__]
    for n, m in modules.items()}))
"""


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that may be changed, and the file made of it, `packed`."""
    package = tmp_path / "netns_shim"
    shutil.copytree(compiled.DIRECTORY, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(compiled, "DIRECTORY", str(package))
    (tmp_path / "packed").write_bytes(compiling.pack())
    return tmp_path


def run(place: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run a program that is told where the copy is, and where the file."""
    argv = [sys.executable, "-IS", "-c", code, str(place), str(place / "packed")]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def loaders(place: Path) -> dict[str, list[str]]:
    """Return by what each module was loaded, and its path."""
    done = run(place, ASK)
    assert done.stderr == ""
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_modules_are_loaded_from_it(packed: Path) -> None:
    """All that a verb needs comes from the file, and says that it is the source's."""
    found = loaders(packed)

    assert found.pop("compiled")[0] == "SourceFileLoader"
    assert len(found) > 20
    for name, told in found.items():
        assert told == ["Compiled", f"{packed}/netns_shim/{name}.py"]


def test_changed_source_counts(packed: Path) -> None:
    """A module whose source has another time or size is imported from the source."""
    (packed / "netns_shim" / "errors.py").touch()
    state = packed / "netns_shim" / "state.py"
    made = state.stat()
    state.write_text(state.read_text() + "\n")
    os.utime(state, ns=(made.st_atime_ns, made.st_mtime_ns))

    found = loaders(packed)

    assert {name for name, told in found.items() if told[0] != "Compiled"} == {
        "compiled",
        "errors",
        "state",
    }


def test_removed_source_counts(packed: Path) -> None:
    """A module whose source is gone is not there."""
    (packed / "netns_shim" / "verbs.py").unlink()

    assert "No module named 'netns_shim.verbs'" in run(packed, ASK).stderr


@pytest.mark.parametrize("content", [None, b"", b"netns", b"netns-shim\0\0\0\0\0\0\0\0"])
def test_without_the_file(packed: Path, content: bytes | None) -> None:
    """Without the file, or with another Python's, all is imported as ever."""
    (packed / "packed").unlink()
    if content is not None:
        (packed / "packed").write_bytes(content)

    assert {told[0] for told in loaders(packed).values()} == {"SourceFileLoader"}


def test_errors_show_the_source(packed: Path) -> None:
    """A traceback shows the line of the source, as of any module."""
    done = run(
        packed,
        ASK.partition("import netns_shim.verbs")[0]
        + "from netns_shim import decoding\ndecoding.several('[]', 0)",
    )

    assert f'File "{packed}/netns_shim/decoding.py", line ' in done.stderr
    assert 'raise ValueError(f"more than {maximum} documents")' in done.stderr

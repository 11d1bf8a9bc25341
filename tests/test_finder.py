# SPDX-License-Identifier: Apache-2.0
"""The finder of the package's own modules: what it finds, and what it leaves to Python's own."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import sys
from pathlib import Path
from types import ModuleType

import pytest

from netns_shim import finder

SOURCE = "here = __file__\n\n\ndef where() -> str:\n    return where.__code__.co_filename\n"


def compiled(directory: Path, mode: py_compile.PycInvalidationMode | None = None) -> Path:
    """Write a module into a directory, and its compiled code beside it; give its source."""
    source = directory / "some.py"
    source.write_text(SOURCE)
    py_compile.compile(
        str(source),
        invalidation_mode=mode or py_compile.PycInvalidationMode.TIMESTAMP,
        doraise=True,
    )
    return source


def found(directory: Path, name: str = "netns_shim.some") -> ModuleType | None:
    """Load a module with the finder; None where it finds none."""
    spec = finder.Finder().find_spec(name, [str(directory)])
    if spec is None:
        return None
    module = importlib.util.module_from_spec(spec)
    finder.Finder().exec_module(module)
    return module


def test_module_is_as_python_would_make_it(tmp_path: Path) -> None:
    """A module has the attributes that Python's own finder gives it, and the same code."""
    source = compiled(tmp_path)

    module = found(tmp_path)

    assert module is not None
    assert module.__spec__ is not None
    own = importlib.util.spec_from_file_location("netns_shim.some", source)
    assert own is not None
    for name in ("name", "origin", "cached", "has_location", "parent", "loader_state"):
        assert getattr(module.__spec__, name) == getattr(own, name), name
    assert module.here == str(source)
    assert module.where() == str(source)


@pytest.mark.parametrize("content", [b"N", b"i\1\0\0\0", b"(\0\0\0\0"])
def test_what_is_no_code(tmp_path: Path, content: bytes) -> None:
    """A value that is no code is left to Python, which refuses it as a damaged file."""
    cache = Path(importlib.util.cache_from_source(str(compiled(tmp_path))))
    cache.write_bytes(cache.read_bytes()[:16] + content)

    assert found(tmp_path) is None


def test_code_that_was_compiled_elsewhere_says_where_it_is(tmp_path: Path) -> None:
    """The file in a traceback is the present one, also in a package that has been moved."""
    before, now = tmp_path / "before", tmp_path / "now"
    before.mkdir()
    compiled(before)
    before.rename(now)

    module = found(now)

    assert module is not None
    assert module.where() == str(now / "some.py")


def test_source_that_has_changed_is_not_found(tmp_path: Path) -> None:
    """Compiled code of another time or size than its source is left to Python: an upgrade."""
    source = compiled(tmp_path)
    info = source.stat()
    os.utime(source, ns=(info.st_atime_ns, info.st_mtime_ns + 10**9))
    newer = found(tmp_path)
    source.write_text(f"{SOURCE}\n")
    os.utime(source, ns=(info.st_atime_ns, info.st_mtime_ns))
    longer = found(tmp_path)
    source.write_text(SOURCE)
    os.utime(source, ns=(info.st_atime_ns, info.st_mtime_ns))

    assert newer is None
    assert longer is None
    assert found(tmp_path) is not None


def test_time_of_long_ago_or_far_away(tmp_path: Path) -> None:
    """A source of any time is compared as Python does: by the last 32 bits of its seconds."""
    for seconds in (0, 2**31 + 5, 2**32 + 5):
        source = tmp_path / "some.py"
        source.write_text(SOURCE)
        os.utime(source, (seconds, seconds))
        py_compile.compile(str(source), doraise=True)

        assert found(tmp_path) is not None, seconds


@pytest.mark.parametrize("spoil", ["missing", "no source", "empty", "magic", "hash", "large"])
def test_anything_else_is_left_to_python(tmp_path: Path, spoil: str) -> None:
    """Missing files, code of another Python, and code that is found by a hash are not found."""
    source = compiled(tmp_path)
    cache = Path(importlib.util.cache_from_source(str(source)))
    content = cache.read_bytes()
    if spoil == "missing":
        cache.unlink()
    elif spoil == "no source":
        source.unlink()
    elif spoil == "empty":
        cache.write_bytes(b"")
    elif spoil == "magic":
        cache.write_bytes(b"\0\0\r\n" + content[4:])
    elif spoil == "hash":
        compiled(tmp_path, py_compile.PycInvalidationMode.UNCHECKED_HASH)
    else:
        cache.write_bytes(content + bytes(finder.MAXIMUM))

    assert found(tmp_path) is None


def test_modules_of_others_are_not_looked_for(tmp_path: Path) -> None:
    """It finds modules of this package only, and no package."""
    compiled(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__init__.py").touch()

    assert found(tmp_path, "netns_shim_other.some") is None
    assert found(tmp_path, "netns_shim.folder") is None
    assert finder.Finder().find_spec("some", None) is None


def test_install_asks_it_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """After `install` the finder is the first that is asked."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])

    finder.install()

    assert isinstance(sys.meta_path[0], finder.Finder)


def test_modules_fit(tmp_path: Path) -> None:
    """The compiled code of each module is small enough for the finder."""
    sources = list(Path(finder.__file__).parent.rglob("*.py"))

    sizes = {}
    for number, source in enumerate(sources):
        made = py_compile.compile(str(source), str(tmp_path / f"{number}"), doraise=True)
        sizes[source.name] = Path(str(made)).stat().st_size

    assert len(sizes) > 30
    assert max(sizes.values()) < finder.MAXIMUM, sizes

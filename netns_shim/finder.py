# SPDX-License-Identifier: Apache-2.0
"""Find the modules of this package with less work than Python's own finder.

That one looks for a module in many forms. This one knows the form that an installed module has:
its source, and compiled code that was made of this source. It leaves everything else to Python's
own finder.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER  # `importlib.util` imports much more
from _imp import _fix_co_filename  # type: ignore[attr-defined]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

PACKAGE = "netns_shim."
# How compiled code begins that has the time and the size of its source next, see `py_compile`.
TIMED = MAGIC_NUMBER + bytes(4)
HEADER = 16
# No hot module has as much compiled code. A larger buffer would be mapped and unmapped each time.
MAXIMUM = 1 << 16
# The kind of a file in its mode, inode(7); the module `stat` would be one more to import.
FORMAT, REGULAR, DIRECTORY = 0o170000, 0o100000, 0o040000
# The type of compiled code; the module `types` would be one more to import.
CODE = type((lambda: 0).__code__)
SUFFIX = f".{sys.implementation.cache_tag}.pyc"


class Finder:
    """A finder for sys.meta_path, and the loader of what it finds."""

    __slots__ = ()

    def find_spec(
        self, name: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module of this package; None for one that Python's own finder has to find."""
        if not path or not name.startswith(PACKAGE):
            return None
        last = name.rpartition(".")[2]
        source = f"{path[0]}/{last}.py"
        compiled = f"{path[0]}/__pycache__/{last}{SUFFIX}"
        try:
            fd = os.open(compiled, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                content = os.read(fd, MAXIMUM)
            finally:
                os.close(fd)
            info = os.stat(source)
        except OSError:
            _refuse_special(compiled, path[0], last)
            return None  # such as for a folder
        if len(content) == MAXIMUM or content[:HEADER] != TIMED + _stamp(info):
            _refuse_special(compiled, path[0], last)
            return None
        try:
            code = marshal.loads(memoryview(content)[HEADER:])
        except (EOFError, ValueError, TypeError):
            return None  # Python's own finder says what is wrong with it
        if not isinstance(code, CODE):
            return None
        spec = type(__spec__)(name, self, origin=source, loader_state=code)  # type: ignore[arg-type]
        spec.cached = compiled
        spec.has_location = True
        return spec

    def create_module(self, _spec: ModuleSpec) -> None:
        """Have Python make the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the code of a module that `find_spec` has read."""
        spec = module.__spec__
        assert spec is not None
        code = spec.loader_state
        spec.loader_state = None
        # It may have been compiled elsewhere; tracebacks say where it is now.
        _fix_co_filename(code, spec.origin)
        exec(code, module.__dict__)


def _refuse_special(compiled: str, directory: str, last: str) -> None:
    """Refuse what is no file in the place of compiled code: Python's own finder would wait."""
    for path in (compiled, f"{directory}/{last}/__pycache__/__init__{SUFFIX}"):
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue
        if mode & FORMAT not in (REGULAR, DIRECTORY):
            raise ImportError(f"{path} is not a file")


def _stamp(info: os.stat_result) -> bytes:
    """Give the time and the size of a source as in the header of its compiled code."""
    time, size = int(info.st_mtime) & 0xFFFFFFFF, info.st_size & 0xFFFFFFFF
    return (size << 32 | time).to_bytes(8, "little")


def install() -> None:
    """Ask this finder first from now on."""
    sys.meta_path.insert(0, Finder())

# SPDX-License-Identifier: Apache-2.0
"""The compiled modules of the package, all in one file, for the launcher to import them from.

Python looks for each module in several directories, then opens, measures and reads two files of
it. A warm call imports two dozen of ours, so that is a tenth of a call. `netns-shim install`
writes this file and its path into the launcher. As with the files that Python itself writes, what
it holds of a module counts while time and size of the source are the same. Everything else is
imported as ever: all of it, where there is no such file or it is another Python's.
"""

from __future__ import annotations

# `importlib.machinery` and `importlib.util` have the same, and cost more than is saved here.
import _frozen_importlib
import _frozen_importlib_external
import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from types import CodeType, ModuleType

    # Of each module: time (ns) and size (bytes) of its source; where its code is, and how long.
    Index = dict[str, tuple[int, int, int, int]]
else:
    Loader = object

DIRECTORY = os.path.dirname(__file__)
# What the file begins with; then comes the size of the index, then the index, then the code.
MAGIC = b"netns-shim" + _frozen_importlib_external.MAGIC_NUMBER
SIZE = 4


def use(path: str) -> None:
    """Import from this file, if it is there and this Python's, what it holds."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    begin = len(MAGIC) + SIZE
    head = os.pread(fd, begin, 0)
    if head[:-SIZE] != MAGIC:
        os.close(fd)
        return
    size = int.from_bytes(head[-SIZE:], "little")
    sys.meta_path.insert(0, Compiled(fd, marshal.loads(os.pread(fd, size, begin)), begin + size))


class Compiled(Loader):
    """Finder and loader of the modules in an open file, as importlib.abc describes them."""

    def __init__(self, fd: int, index: Index, begin: int) -> None:
        """Take the index, and where the code of the modules begins."""
        self._fd = fd
        self._index = index
        self._begin = begin

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> _frozen_importlib.ModuleSpec | None:
        """Specify a module; None where it is not here, or its source is another one now."""
        if name not in self._index:
            return None
        source = f"{DIRECTORY}/{name.partition('.')[2].replace('.', '/')}.py"
        try:
            now = os.stat(source)
        except OSError:
            return None
        if (now.st_mtime_ns, now.st_size) != self._index[name][:2]:
            return None
        spec = _frozen_importlib.ModuleSpec(name, self, origin=source)
        spec.has_location = True  # so it has a __file__
        return spec

    def create_module(self, spec: _frozen_importlib.ModuleSpec) -> None:
        """Leave it to Python to make the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill a module."""
        exec(self.get_code(module.__name__), module.__dict__)

    def get_code(self, name: str) -> CodeType:
        """Read the code of a module."""
        *_, offset, length = self._index[name]
        code: CodeType = marshal.loads(os.pread(self._fd, length, self._begin + offset))
        return code

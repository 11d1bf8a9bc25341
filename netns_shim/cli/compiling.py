# SPDX-License-Identifier: Apache-2.0
"""Writing the file of compiled modules that `compiled` reads."""

from __future__ import annotations

import marshal
import os
from pathlib import Path

from .. import compiled


def path_for(launcher: str) -> str:
    """Tell where the file of a launcher is: beside it, hidden, as it is no plugin."""
    directory, name = os.path.split(launcher)
    return os.path.join(directory, f".{name}.compiled")


def pack() -> bytes:
    """Compile all modules but those of the commands, and make the content of the file of them.

    Docstrings are left out, as nobody reads them there.
    """
    index: compiled.Index = {}
    codes = []
    offset = 0
    for source in sorted(Path(compiled.DIRECTORY).glob("[!_]*.py")):
        made = source.stat()
        code = compile(source.read_bytes(), source, "exec", dont_inherit=True, optimize=2)
        codes.append(marshal.dumps(code))
        length = len(codes[-1])
        index[f"netns_shim.{source.stem}"] = (made.st_mtime_ns, made.st_size, offset, length)
        offset += length
    table = marshal.dumps(index)
    return b"".join([compiled.MAGIC, len(table).to_bytes(compiled.SIZE, "little"), table, *codes])

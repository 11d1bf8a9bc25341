# SPDX-License-Identifier: Apache-2.0
"""Writing the file of compiled modules that `compiled` reads, one for each launcher.

It is not beside the launcher, as whoever lists plugins would take it for one.
"""

from __future__ import annotations

import binascii
import marshal
import os
from collections.abc import Mapping
from pathlib import Path

from .. import compiled
from . import directories


def path_for(launcher: str, environ: Mapping[str, str]) -> str:
    """Tell where the file of a launcher is; "" where there is no place for it."""
    place = directories.cache(environ)
    path = os.fsencode(launcher)
    return place and f"{place}/{os.path.basename(launcher)}-{binascii.crc32(path):08x}"


def pack() -> bytes:
    """Compile all modules but those of the commands, and make the content of the file of them.

    Docstrings are left out, as nobody reads them there.
    """
    index: compiled.Index = {}
    codes = []
    offset = 0
    top = Path(compiled.DIRECTORY)
    for source in sorted({*top.rglob("[!_]*.py")} - {*top.glob("cli/**/*.py")}):
        made = source.stat()
        code = compile(source.read_bytes(), source, "exec", dont_inherit=True, optimize=2)
        codes.append(marshal.dumps(code))
        length = len(codes[-1])
        name = ".".join(["netns_shim", *source.relative_to(top).with_suffix("").parts])
        index[name] = (made.st_mtime_ns, made.st_size, offset, length)
        offset += length
    table = marshal.dumps(index)
    return b"".join([compiled.MAGIC, len(table).to_bytes(compiled.SIZE, "little"), table, *codes])

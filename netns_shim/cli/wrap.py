# SPDX-License-Identifier: Apache-2.0
"""`netns-shim wrap`: rewrite a network so that it runs through the shim."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from .. import cni
from ..errors import IO_FAILURE, ShimError, warn
from . import options, validate

if TYPE_CHECKING:
    import argparse

    from ..decoding import Json

SUMMARY = "Print a CNI network, changed so that it runs through the shim; the file stays as it is."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a CNI network: a list of plugins, or a single one; - is stdin",
    )
    parser.add_argument("--netns", metavar="NAME", help="the shared network namespace")
    parser.add_argument(
        "--uplink", choices=("pasta", "slirp4netns", "none"), help="what joins it to the outside"
    )
    options.add_type(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print the network; comments on stderr say what has changed and what to know."""
    try:
        text = validate.read(arguments.file)
    except OSError as error:
        raise ShimError(IO_FAILURE, str(error.strerror), arguments.file) from None
    conf = cni.decode(text.removeprefix(b"\xef\xbb\xbf"), what="CNI network")
    wanted = {"netns": arguments.netns, "uplink": arguments.uplink}
    from .wrapper import Wrapping  # not for the other commands

    wrapping = Wrapping(conf, arguments.type, {k: v for k, v in wanted.items() if v is not None})
    for note in [*wrapping.notes, *_beside(conf, arguments.file)]:
        warn(note)
    written = json.dumps(wrapping.conf, indent=2, ensure_ascii=False) + "\n"
    # JSON is UTF-8 in every locale; half a character is written as it was, \udcXX.
    sys.stdout.flush()
    sys.stdout.buffer.write(written.encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()
    return 0


def _beside(conf: Json, file: str) -> list[str]:
    """Look for plugins of the list in files of their own, which libcni 1.3 reads."""
    directory = os.path.join(os.path.dirname(file), str(conf.get("name")))
    if (
        file == validate.STDIN
        or conf.get("loadOnlyInlinedPlugins")
        or not os.path.isdir(directory)
    ):
        return []
    return [f"plugins in {directory} are not wrapped: add them first, or loadOnlyInlinedPlugins"]

# SPDX-License-Identifier: Apache-2.0
"""`netns-shim status`: what is up, and which containers are attached."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from . import options

if TYPE_CHECKING:
    import argparse

    from rich.console import Console, Group

    from ..decoding import Json

SUMMARY = "Show the shared network namespaces and what is attached to them."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    options.add_json(parser)
    parser.add_argument(
        "--watch",
        action="store_true",
        help="follow what changes, until q or Ctrl-C; in a pipe, print again after each change",
    )
    options.add_state_dir(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print the status, as JSON or as trees, once or until you stop it."""
    from . import (
        inspection,  # not for the other commands
        printing,
        watch,
    )

    base = options.base_of(arguments)
    console = printing.console()

    def write(found: Json) -> None:
        if arguments.json:
            # One line for each change, for programs to follow.
            print(json.dumps(found, indent=None if arguments.watch else 2), flush=True)
        else:
            console.print(paint(found, console))

    if not arguments.watch:
        write(inspection.collect(base))
        return 0
    if arguments.json or not console.file.isatty():
        return watch.follow(lambda: inspection.collect(base), write)
    return watch.redraw(
        lambda: inspection.collect(base), lambda found: paint(found, console), console
    )


def paint(found: Json, console: Console) -> Group:
    """Draw the status for people, in a form for this console."""
    from . import tree

    return tree.draw(
        found,
        time.time(),
        is_whole=not console.is_terminal,
        is_ascii=console.options.ascii_only,
    )

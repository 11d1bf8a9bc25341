# SPDX-License-Identifier: Apache-2.0
"""`netns-shim graph`: what is up, as a picture."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..errors import IO_FAILURE, ShimError
from . import options

if TYPE_CHECKING:
    import argparse

    from ..decoding import Json

SUMMARY = "Draw the shared network namespaces and what is attached to them."
FORMATS = ("dot", "mermaid", "svg")
ENDINGS = {
    **{"": "dot", ".dot": "dot", ".gv": "dot"},
    **{".svg": "svg", ".mmd": "mermaid", ".mermaid": "mermaid"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="what to write: dot for Graphviz, a Mermaid flowchart, or SVG drawn by Graphviz "
        "[as FILE ends; dot without an ending]",
    )
    parser.add_argument("--output", metavar="FILE", help="write into this file [stdout]")
    options.add_state_dir(parser)


def main(arguments: argparse.Namespace) -> int:
    """Write the picture."""
    from . import inspection  # not for the other commands

    kind = arguments.format or _kind_of(arguments.output or "")
    text = render(inspection.collect(options.base_of(arguments)), kind)
    if arguments.output:
        with open(arguments.output, "wb") as file:
            file.write(text)
    else:
        # The encoding is part of the format, and does not depend on the terminal.
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    return 0


def _kind_of(file: str) -> str:
    ending = os.path.splitext(file)[1]
    if ending not in ENDINGS:
        known = ", ".join(filter(None, ENDINGS))
        raise ShimError(
            IO_FAILURE,
            f"cannot write a picture as {ending}",
            f"use a name that ends in one of {known}, or choose one with --format",
        )
    return ENDINGS[ending]


def render(facts: Json, kind: str) -> bytes:
    """Write the picture in one of FORMATS. Raises ShimError (code 5) where Graphviz is missing."""
    import graphviz

    from . import picture

    drawn = picture.Picture(facts)
    if kind == "mermaid":
        return picture.mermaid(drawn).encode()
    graph = picture.dot(drawn)
    if kind == "dot":
        return str(graph.source).encode()
    try:
        return bytes(graph.pipe(format="svg", quiet=True))
    except graphviz.ExecutableNotFound:
        raise ShimError(
            IO_FAILURE,
            "the program dot, which draws SVG, is not installed",
            "install the package graphviz, or take --format mermaid",
        ) from None
    except graphviz.CalledProcessError as error:
        why = (error.stderr or b"").decode(errors="replace").strip()
        raise ShimError(IO_FAILURE, "the program dot cannot draw this", why) from None

# SPDX-License-Identifier: Apache-2.0
"""`netns-shim validate`: all that is wrong with files, where a runtime stops at the first."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from ..errors import shown
from ..validate import conflist
from . import options

if TYPE_CHECKING:
    import argparse

    from ..validate.document import Findings

SUMMARY = "Find everything that is wrong with networks in files, of CNI or of netavark."
STDIN = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a list of plugins, a single one, or a network of Podman; - is stdin",
    )
    options.add_type(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print a line for each problem, as compilers do; the exit status is 1 if there are any."""
    # The encoding may lack some characters.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    from ..validate import subnets  # not for the other commands
    from .networks import NetworkFindings

    status = 0
    earlier: list[subnets.Segment] = []
    for file in arguments.files:
        name = "stdin" if file == STDIN else file
        try:
            found = NetworkFindings(read(file), "" if file == STDIN else file, arguments.type)
        except OSError as error:
            lines, is_wrong = [f"{name}: {error.strerror}"], True
        else:
            lines, is_wrong = _report(name, found, arguments.type)
            clashes = [subnets.conflict(a, b) for b in found.segments for a in earlier]
            lines += [f"{name}: {why}" for why in dict.fromkeys(filter(None, clashes))]
            is_wrong = is_wrong or any(clashes)
            earlier += found.segments
        status |= is_wrong
        for line in lines:
            print(shown(line))
    return status


def _report(name: str, found: Findings, own_type: str) -> tuple[list[str], bool]:
    if found.problems:
        return [f"{name}:{line}: {why}" for line, why in found.problems], True
    if not found.ours:
        return [f"{name}: no entry of {own_type} in it, only {', '.join(found.types)}"], False
    unknown = ", ".join(dict.fromkeys(found.unknown))
    note = f", but nothing is known about the keys of {unknown}" if unknown else ""
    return [f"{name}: valid{note}"], False


def read(file: str) -> bytes:
    """Read a file, or stdin; OSError where it cannot be read or is larger than any network."""
    if file == STDIN:
        text = sys.stdin.buffer.read(conflist.MAXIMUM_SIZE + 1)
    else:
        with open(file, "rb") as opened:
            text = opened.read(conflist.MAXIMUM_SIZE + 1)
    if len(text) > conflist.MAXIMUM_SIZE:
        raise OSError(0, f"it is larger than {conflist.MAXIMUM_SIZE >> 20} MiB")
    return text

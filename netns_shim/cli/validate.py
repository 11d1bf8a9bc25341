# SPDX-License-Identifier: Apache-2.0
"""`netns-shim validate`: all that is wrong with files, where a runtime stops at the first."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from ..errors import shown
from ..validate import conflist

if TYPE_CHECKING:
    import argparse

SUMMARY = "Find everything that is wrong with networks of CNI in files."
STDIN = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="a list of plugins or a single one; - is stdin"
    )
    parser.add_argument(
        "--type",
        default="netns-shim",
        metavar="NAME",
        help="the name under which the plugin is installed [%(default)s]",
    )


def main(arguments: argparse.Namespace) -> int:
    """Print a line for each problem, as compilers do; the exit status is 1 if there are any."""
    # The encoding may lack some characters.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    status = 0
    for file in arguments.files:
        lines, is_wrong = _report(file, arguments.type)
        status |= is_wrong
        for line in lines:
            print(shown(line))
    return status


def _report(file: str, own_type: str) -> tuple[list[str], bool]:
    name = "stdin" if file == STDIN else file
    try:
        text = read(file)
    except OSError as error:
        return [f"{name}: {error.strerror}"], True
    from ..validate.document import Inspection  # not for the other commands

    found = Inspection(text, "" if file == STDIN else file, own_type)
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

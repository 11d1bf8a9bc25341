# SPDX-License-Identifier: Apache-2.0
"""`netns-shim schema`: the keys of a configuration, for editors and other programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

SUMMARY = "Print the JSON Schema of the configuration."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--network",
        action="store_true",
        help="print the schema of a whole network file, not of one entry of netns-shim",
    )


def main(arguments: argparse.Namespace) -> int:
    """Print the schema as JSON."""
    from ..validate import explain, quick  # not for the other commands

    text = quick.schema_text()
    if arguments.network:
        text = json.dumps(explain.of_network(), indent=2, ensure_ascii=False) + "\n"
    print(text, end="")
    return 0

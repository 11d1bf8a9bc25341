# SPDX-License-Identifier: Apache-2.0
"""`netns-shim doctor`: what is wrong here, most likely causes first, and what to do about it.

Nothing is changed. Each check runs in a process of its own and for a limited time, so that one
which hangs does not hide what the others find.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import options

if TYPE_CHECKING:
    import argparse

SUMMARY = "Look for what is wrong on this machine, and say what to do about it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--conf", default="", metavar="FILE", help="check what the network in this file needs"
    )
    options.add_json(parser)
    options.add_state_dir(parser)


def main(arguments: argparse.Namespace) -> int:
    """Do the checks and say what they find; the exit status is 1 if there is a problem."""
    # Imported here, because only this command needs them.
    from .check import context
    from .examination import CHECKS, OF_CONFIGURATION, diagnose

    told = context(os.environ, arguments.state_dir, arguments.conf)
    checks = [*OF_CONFIGURATION, *CHECKS] if arguments.conf else CHECKS
    try:
        return diagnose(checks, told, is_json=arguments.json)
    except KeyboardInterrupt:
        return 130  # as in a shell

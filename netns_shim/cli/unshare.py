# SPDX-License-Identifier: Apache-2.0
"""`netns-shim unshare`: a command in the user's own user namespace, like `podman unshare`.

A container runtime that you start this way makes containers over which the shim has power.
"""

from __future__ import annotations

import argparse
import os

from .. import enter, netns, state
from ..userns import pause
from . import options, run, supervisor

SUMMARY = "Run a command as root of the user namespace in which plugins run."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--netns", default="", metavar="NAME", help="inside this shared network namespace, too"
    )
    options.add_state_dir(parser)
    options.add_keep(parser)
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="-- COMMAND …", help="[$SHELL, or /bin/sh]"
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the command and give its exit status: 128 and the signal's number if one ended it."""
    command = supervisor.words_of(arguments) or [os.environ.get("SHELL") or "/bin/sh"]
    if arguments.netns:
        return run.run(command, options.state_of(arguments), "", arguments.keep)
    if netns.is_privileged():
        supervisor.execute(command)  # root already, of the machine or a user namespace
    base = state.base_dir(os.environ, arguments.state_dir)
    pause.join(base)
    kept = supervisor.Keeper(pause.leave)
    # The command's processes have the lock, not the keeper: they stay in there while they run.
    return kept.run(command, enter.Unchanged(), pause.hold(base))

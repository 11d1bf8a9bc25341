# SPDX-License-Identifier: Apache-2.0
"""`netns-shim unshare`: a command in the user's own user namespace, as `podman unshare` has it.

A container runtime that is started so makes its containers where netns-shim has power over them.
"""

from __future__ import annotations

import argparse
import os

from .. import enter, netns, state
from ..userns import pause
from . import run, supervisor

SUMMARY = "Run a command as root of the user namespace in which plugins run."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--netns", default="", metavar="NAME", help="inside this shared network namespace, too"
    )
    parser.add_argument(
        "--state-dir", default="", metavar="DIR", help="the `stateDir` of the configuration"
    )
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="-- COMMAND …", help="[$SHELL, or /bin/sh]"
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the command and give its exit status: 128 and the signal's number if one ended it."""
    command = supervisor.words_of(arguments) or [os.environ.get("SHELL") or "/bin/sh"]
    if arguments.netns:
        return run.run(command, run.place_of(arguments.netns, arguments.state_dir), "")
    if netns.is_privileged():
        supervisor.execute(command)  # it is root already, of a user namespace or of the machine
    base = state.base_dir(os.environ, arguments.state_dir)
    pause.join(base)
    kept = supervisor.Keeper(pause.leave)
    # What the command leaves running is in there as well, so it has the lock, and the keeper not.
    return kept.run(command, enter.Unchanged(), pause.hold(base))

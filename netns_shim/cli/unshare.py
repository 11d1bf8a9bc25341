# SPDX-License-Identifier: Apache-2.0
"""`netns-shim unshare`: a command in the user's own user namespace, like `podman unshare`.

A container runtime that you start this way makes containers over which the shim has power.
"""

from __future__ import annotations

import argparse
import os

from .. import netns, state
from ..errors import INVALID_ENVIRONMENT, ShimError
from ..in_place import Unchanged
from ..userns import pause
from . import copyup, options, run, supervisor

SUMMARY = "Run a command as root of the user namespace in which plugins run."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--netns", default="", metavar="NAME", help="also enter this shared network namespace"
    )
    parser.add_argument(
        "--copy-up",
        action="append",
        default=[],
        metavar="DIR",
        help="make a directory of the host writable for all commands in there, for instance /run "
        "and /var/lib for a container runtime; what was in it stays; can be repeated",
    )
    options.add_state_dir(parser)
    options.add_keep(parser)
    parser.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND …",
        help="what to run [$SHELL, or /bin/sh]",
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the command and give its exit status: 128 and the signal's number if one ended it."""
    directories = [copyup.check(directory) for directory in arguments.copy_up]
    command = supervisor.words_of(arguments) or [os.environ.get("SHELL") or "/bin/sh"]
    is_done = all(map(copyup.is_done, directories))
    if not is_done and (arguments.netns or netns.is_privileged()):
        why = "it is for the user namespace that the shim makes, and not for --netns"
        raise ShimError(INVALID_ENVIRONMENT, "--copy-up is not possible here", why)
    if arguments.netns:
        paths = options.kept(arguments)
        return run.run(command, options.state_of(arguments), "", paths)
    if netns.is_privileged():
        supervisor.execute(command)  # root already, of the machine or a user namespace
    base = state.base_dir(os.environ, arguments.state_dir)
    variables = (os.environ.get(name, "") for name in ("XDG_RUNTIME_DIR", "HOME"))
    needed = [path for path in (base, *variables, _cwd()) if path]
    pause.join(base)
    for directory in directories:
        copyup.copy_up(directory, needed)
    # The command's processes have the lock, not the keeper: they stay in there while they run.
    held = pause.hold(base)
    again = [base, "", ""]
    return supervisor.run(command, Unchanged(), pause.leave, again, inherited=held)


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""  # it was removed

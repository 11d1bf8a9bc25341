# SPDX-License-Identifier: Apache-2.0
"""`netns-shim run`: a command inside the shared netns and its mounts.

The keeper of the command, see `supervisor`, holds the guard as well.
"""

from __future__ import annotations

import argparse
import os

from .. import conf, enter, invoke, netns, state
from ..attachment import COMMAND, RUNNING, ReferenceName
from ..errors import warn
from ..kept import Paths
from ..libc import MS_REC
from ..target import Shared
from ..userns import pause
from . import options, supervisor

SUMMARY = "Run a command inside a shared network namespace."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    options.add_netns(parser)
    parser.add_argument(
        "--uplink",
        default="",
        choices=("pasta", "slirp4netns", "none"),
        help="the uplink, if the namespace has to be made [pasta if it is installed]",
    )
    options.add_state_dir(parser)
    options.add_keep(parser)
    parser.add_argument(
        "--explain", action="store_true", help="print what would be mounted, and do nothing"
    )
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="-- COMMAND …", help="what to run"
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the command and give its exit status: 128 and the signal's number if one ended it."""
    command = supervisor.words_of(arguments)
    paths = options.kept(arguments)
    where = options.state_of(arguments)
    if arguments.explain:
        plan = enter.plan(where, os.environ, _kept(command, paths))
        print("\n".join(map(shown, plan)))
        return 0
    if not command:
        arguments.refuse("no command is given: put it behind --")
    return run(command, where, arguments.uplink, paths)


def shown(step: enter.Step) -> str:
    """Say what a step does."""
    if isinstance(step, enter.Tmpfs):
        return f"mount an empty tmpfs on {step.target}"
    if isinstance(step, enter.Beside):
        what = step.source or "an empty tmpfs"
        return f"bind {what} on {step.target}, and in it all that was in {step.target}"
    recursive = " with what is mounted in it" if step.flags & MS_REC else ""
    return f"bind {step.source} on {step.target}{recursive}"


def _warn_of_a_slip(where: state.State) -> None:
    """Warn of a new netns with nearly the name of one that is there."""
    if not where.exists():
        import difflib  # where it is there, the command begins at once

        names = [other.name for other in state.all_in(where.base)]
        for near in difflib.get_close_matches(where.name, names, n=1):
            warn(f"the shared netns {where.name!r} is new; did you mean {near!r}?")


def _kept(command: list[str], paths: list[str]) -> Paths:
    """List what the command needs: these paths, and its own program, which may be a link."""
    keep = Paths(paths)
    directories = invoke.with_path(os.environ)["PATH"].split(":")
    program = invoke.find_program(command[0], directories) if command else ""
    if program:
        keep.add_around(program)
    return keep


def run(command: list[str], where: state.State, driver: str, paths: list[str]) -> int:
    """Run a command inside a shared netns, made with this uplink if need be, as `main` does.

    `paths` are those of the host that it needs to see.
    """
    if netns.is_in_place("auto") and not where.exists():
        # Where plugins work in the caller's netns, the command does too.
        supervisor.execute(command)
    target = Shared(where, {**conf.DEFAULT_UPLINK, "driver": driver}, os.environ)
    target.join()
    _warn_of_a_slip(where)
    name = ReferenceName.guard(COMMAND)
    reference = target.take(name)
    try:
        fd = target.open_repaired()
        reference.write(RUNNING, pid=os.getpid(), command=command, since=state.now())
        plan = enter.plan(where, os.environ, _kept(command, paths))
    except BaseException:
        reference.drop()
        target.leave()
        raise

    def undo() -> None:
        reference.drop()
        target.leave()
        pause.leave()

    again = [where.base, where.name, name.file]
    inside = enter.Inside(fd, plan)
    return supervisor.run(command, inside, undo, again, locked=reference.fileno())

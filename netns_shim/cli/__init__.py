# SPDX-License-Identifier: Apache-2.0
"""The commands for people: one module each, which adds its arguments and does its work."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import say
from ..skel import as_shim_error, settle
from . import (
    completers,
    completion,
    doctor,
    gc,
    graph,
    install,
    refresh,
    run,
    schema,
    show,
    status,
    stop,
    uninstall,
    unshare,
    validate,
    version,
    wrap,
)

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

COMMANDS = {
    "status": status,
    "show": show,
    "graph": graph,
    "run": run,
    "unshare": unshare,
    "gc": gc,
    "refresh": refresh,
    "stop": stop,
    "doctor": doctor,
    "version": version,
    "validate": validate,
    "wrap": wrap,
    "schema": schema,
    "install": install,
    "uninstall": uninstall,
    "completion": completion,
}


class Parser(argparse.ArgumentParser):
    """A parser whose help is an error where it cannot be written."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if message and file is not None and file is sys.stdout:
            file.write(message)  # in Python 3.13, argparse hides what goes wrong here
        else:
            super()._print_message(message, file)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = Parser(
        prog="netns-shim",
        description="Run CNI plugins inside a shared rootless network namespace.",
        epilog="A CNI runtime calls it without arguments, as a plugin.",
    )
    parser.add_argument("--version", action="version", version=f"netns-shim {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        summary = module.SUMMARY
        command = commands.add_parser(name, help=summary, description=summary)
        module.add_arguments(command)
        command.set_defaults(refuse=command.error)
    return parser


def main(arguments: list[str]) -> int:
    """Run a command; give its exit status: 1 if it failed, 2 if its arguments were wrong."""
    settle()
    if sys.stdout is None:
        # A caller has closed it. What is printed is lost, but nothing else.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)
    parser = make_parser()
    try:
        if os.environ.get(completers.VARIABLE):
            completers.answer(parser)
        try:
            parsed, unknown = parser.parse_known_args(arguments)
            if unknown:
                parsed.refuse(f"unrecognized arguments: {' '.join(unknown)}")  # with its own usage
            status: int = COMMANDS[parsed.command].main(parsed)
        except SystemExit:  # argparse has printed help or usage
            sys.stdout.flush()
            raise
        sys.stdout.flush()  # what cannot be written is a failure like any other
        return status
    except BrokenPipeError:
        return 1  # the reader, such as `head`, has seen enough
    except KeyboardInterrupt:
        return 128 + signal.SIGINT  # as in a shell
    except Exception as error:
        say(str(as_shim_error(error)))
        return 1

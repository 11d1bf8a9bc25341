# SPDX-License-Identifier: Apache-2.0
"""`netns-shim uninstall`: remove the plugin from a directory, and nothing that is not it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import state
from ..errors import IO_FAILURE, ShimError, shown, warn
from ..userns import places
from . import directories, install

if TYPE_CHECKING:
    import argparse

SUMMARY = "Remove the plugin that `install` has written."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    directories.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Remove it and say what was removed; there may be nothing to remove."""
    name = arguments.name or directories.NAMES[arguments.kind]
    install.check_name(name)
    wanted = [arguments.directory] if arguments.directory else []
    wanted = wanted or directories.candidates(arguments.kind, os.environ)
    removed = [path for path in (uninstall(place, name) for place in wanted) if path]
    for path in removed:
        print(f"removed {shown(path)}")
    if not removed:
        print(f"nothing to remove: no {name} in {shown(', '.join(wanted))}")
    elif any(_is_shared(base) for base in places.in_use(os.environ)):
        warn("a shared network namespace is up: `netns-shim stop` removes it")
    return 0


def _is_shared(base: str) -> bool:
    return any(where.name != state.IN_PLACE for where in state.all_in(base))


def uninstall(directory: str, name: str) -> str:
    """Remove a launcher; give its path, "" where there is nothing.

    Raises ShimError where there is something else.
    """
    path = os.path.join(os.path.abspath(directory), name)
    if not os.path.lexists(path):
        return ""
    if install.is_packaged(path) and not os.path.islink(path):
        raise ShimError(
            IO_FAILURE, f"{path} is the distribution's netns-shim", "remove that package instead"
        )
    if os.path.islink(path) or not install.is_launcher(path):
        raise ShimError(IO_FAILURE, f"{path} is something else", "it is left as it is")
    os.unlink(path)
    return path

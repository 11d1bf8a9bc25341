# SPDX-License-Identifier: Apache-2.0
"""What a shell offers while you type a command: names that exist now.

Nothing here may fail or print, because the cursor is in the middle of a line.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from typing import Any

from .. import state
from ..errors import ShimError
from ..shared import listing

# argcomplete has a base class for them since 2.1, but Debian 12 has 2.0; any callable works.
Completer = Callable[..., Iterable[str]]
# The variable with which a shell asks for completions.
VARIABLE = "_ARGCOMPLETE"


class Netns:
    """The names of the shared network namespaces that are up."""

    def __call__(self, *, parsed_args: argparse.Namespace, **_: Any) -> Iterable[str]:
        """Give them all; argcomplete takes those that fit."""
        return [where.name for where in _up(parsed_args)]


class Containers:
    """The IDs of attached containers."""

    def __call__(self, *, parsed_args: argparse.Namespace, **_: Any) -> Iterable[str]:
        """Give them all; argcomplete takes those that fit."""
        names = [name for where in _up(parsed_args) for name in listing.names(where)]
        return sorted(
            {name.container_id for name in names if name.container_id}, key=listing.natural
        )


def _up(parsed: argparse.Namespace) -> list[state.State]:
    try:
        found = state.all_in(state.base_dir(os.environ, getattr(parsed, "state_dir", "") or ""))
    except (OSError, ShimError):
        return []
    return [where for where in found if where.name != state.IN_PLACE]


def attach(parser: argparse.ArgumentParser, by_name: dict[str, Completer]) -> None:
    """Give the arguments of a parser, and of its commands, their completers, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                attach(command, by_name)
        elif action.dest in by_name and not action.choices:
            action.completer = by_name[action.dest]  # type: ignore[attr-defined]


def answer(parser: argparse.ArgumentParser) -> None:
    """Answer a shell, and exit."""
    import argcomplete  # the commands do without it
    from argcomplete.completers import DirectoriesCompleter

    by_name: dict[str, Completer] = {
        "netns": Netns(),
        "container": Containers(),
        "directory": DirectoriesCompleter(),
        "state_dir": DirectoriesCompleter(),
    }
    attach(parser, by_name)
    argcomplete.autocomplete(parser, always_complete_options="long")

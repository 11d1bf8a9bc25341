# SPDX-License-Identifier: Apache-2.0
"""The options that several commands have, and the shared netns that they name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import conf, state
from ..cni import is_name
from ..errors import INVALID_ENVIRONMENT, ShimError, warn
from ..userns import pause, places

if TYPE_CHECKING:
    import argparse


def add_netns(parser: argparse.ArgumentParser) -> None:
    """Add `--netns`, which names the shared netns to work on."""
    parser.add_argument(
        "--netns",
        default=conf.DEFAULT_NETNS,
        metavar="NAME",
        help="the shared network namespace [%(default)s]",
    )


def add_state_dir(parser: argparse.ArgumentParser) -> None:
    """Add `--state-dir`, for configurations that have the key `stateDir`."""
    parser.add_argument(
        "--state-dir",
        default="",
        type=_absolute,
        metavar="DIR",
        help="the state directory, if the network has the key stateDir",
    )


def add_keep(parser: argparse.ArgumentParser) -> None:
    """Add `--keep`, as the key `keep` of configurations."""
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="PATH",
        help="a path of the host below /run that stays visible inside; can be repeated",
    )


def kept(arguments: argparse.Namespace) -> list[str]:
    """Give the paths of `--keep`; warn of those of no use, as an ADD does with the key.

    Raises ShimError (code 4) for one that the key could not have.
    """
    paths: list[str] = arguments.keep
    if paths:
        from ..validate import semantic  # few commands have the option
    for path in paths:
        if not path.startswith("/"):
            why = "name an absolute path below /run"
            raise ShimError(INVALID_ENVIRONMENT, f"--keep: not to be kept: {path!r}", why)
        for _, why in semantic.beyond_keep([path]):
            raise ShimError(INVALID_ENVIRONMENT, f"--keep: not to be kept: {path!r}", why)
        if not os.path.exists(path):
            warn(f"--keep: {path} is not there: its daemon may not be running")
    return paths


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`, for programs that read the output."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def add_type(parser: argparse.ArgumentParser) -> None:
    """Add `--type`, for a plugin that is installed under another name."""
    parser.add_argument(
        "--type",
        default="netns-shim",
        metavar="NAME",
        help="the name under which the plugin is installed [%(default)s]",
    )


def state_of(arguments: argparse.Namespace) -> state.State:
    """Give the state of the shared netns that the options name.

    Raises ShimError (code 4) where the name cannot be one.
    """
    name = arguments.netns
    if not is_name(name):
        raise ShimError(
            INVALID_ENVIRONMENT,
            f"not a name for a netns: {name!r}",
            "take letters, digits, `_`, `.` and `-`, with a letter or a digit first",
        )
    return state.State(base_of(arguments, f"{name}/refs"), name)


def base_of(arguments: argparse.Namespace, part: str = "") -> str:
    """Give the state directory, and go to where it can be seen; `part` as in `state.base_dir`.

    A warning names other ones of this user: there are two if two calls were the first at once.
    """
    base = state.base_dir(os.environ, arguments.state_dir, part)
    if not arguments.state_dir:
        for other in places.in_use(os.environ):
            if other != base:
                warn(f"there is state in {other}, too: see it with --state-dir {other}")
    pause.reach(base)
    return base


def _absolute(path: str) -> str:
    """Write a path so that the programs that stay can use it, wherever they are."""
    return os.path.abspath(path) if path else ""

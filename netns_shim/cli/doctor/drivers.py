# SPDX-License-Identifier: Apache-2.0
"""netavark, its name server, and the directories of its plugins: for `driver` and Podman 5."""

from __future__ import annotations

import os

from ...errors import ShimError
from ...netavark import program
from .. import programs
from .check import OK, SKIPPED, WARNING, Context, Result

NOT_INSTALLED = "netavark is not installed; only `driver` needs it"


def netavark(context: Context) -> Result:
    """Check that netavark runs, if it is installed."""
    path = programs.binary(context.environ)
    if not path:
        return Result(SKIPPED, NOT_INSTALLED)
    try:
        return Result(OK, f"{programs.version(path, context.environ)} ({path})")
    except ShimError as error:
        return Result(WARNING, f"{path} does not run: {error}", "install netavark again")


def aardvark(context: Context) -> Result:
    """Check netavark's name server, without which names of containers do not resolve."""
    binary = programs.binary(context.environ)
    if not binary:
        return Result(SKIPPED, NOT_INSTALLED)
    path = program.aardvark(binary)
    if not path:
        return Result(
            WARNING,
            "not installed: networks with `names` or `dns_enabled` are refused",
            "install aardvark-dns",
        )
    try:
        return Result(OK, f"{programs.version(path, context.environ)} ({path})")
    except ShimError as error:
        return Result(WARNING, f"{path} does not run: {error}", "install aardvark-dns again")


def plugins(context: Context) -> Result:
    """Check the plugins of netavark; ask those that are this program what they are."""
    found, odd = [], []
    for directory in program.PLUGIN_DIRS:
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for name in names:
            path = f"{directory}/{name}"
            if not os.path.isfile(path):
                continue
            if problem := _problem(path, context):
                odd.append(f"{path}: {problem}")
            found.append(f"{path} (netns-shim)" if program.is_shim(path) else path)
    if odd:
        advice = "install them again: netns-shim install --name NAME DIR"
        return Result(WARNING, f"{len(odd)} of {len(found)} do not work", advice, tuple(odd))
    if not found:
        return Result(SKIPPED, f"none in {', '.join(program.PLUGIN_DIRS)}")
    return Result(OK, ", ".join(found))


def _problem(path: str, context: Context) -> str:
    if not os.access(path, os.X_OK):
        return "it is not executable"
    if program.is_shim(path):
        try:
            answer = programs.as_json(programs.output(path, ["info"], context.environ))
        except ShimError as error:
            return str(error)
        return "" if isinstance(answer, dict) else "it does not say who it is"
    return ""

# SPDX-License-Identifier: Apache-2.0
"""CNI plugins: which exist, and which versions of the specification each speaks."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ... import cni, invoke, versions
from ...errors import PLUGIN_TIMED_OUT, ShimError
from ...netavark import program
from .check import OK, PROBLEM, WARNING, Context, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long one plugin may take to say what it speaks, and all of them, in seconds.
ONE = 2.0
ALL = 7.0
INSTALL = "install containernetworking-plugins (Debian, Ubuntu, Fedora)"


def plugins(context: Context) -> Result:
    """Check the plugins in CNI_PATH, by asking each for its versions."""
    known = versions.Versions(None)
    spoken: dict[str, list[str]] = {}
    odd = []
    deadline = time.monotonic() + ALL
    found = list(_found(context))
    for name, path in found:
        if time.monotonic() > deadline:
            odd.append(f"{path}: not asked, because the others took too long")
            continue
        answer = ask(name, path, context, known)
        if isinstance(answer, str):
            odd.append(f"{path}: {answer}")
        else:
            spoken.setdefault(_range(answer), []).append(name)
    if not found:
        return Result(
            PROBLEM,
            f"none in {context.plugin_path}",
            f"{INSTALL}, or set CNI_PATH",
        )
    details = [f"{', '.join(names)}: {span}" for span, names in spoken.items()]
    directories = list(dict.fromkeys(os.path.dirname(path) for _, path in found))
    said = f"{len(found)} in {', '.join(directories)}"
    if odd:
        advice = "install them again, or remove what is not a plugin"
        said = f"{said}, of which {len(odd)} do not work"
        return Result(WARNING, said, advice, (*odd, *details))
    if all(program.is_shim(path) for _, path in found):
        said = f"{said}, none of which netns-shim could run"
        return Result(WARNING, said, f"{INSTALL}, or set CNI_PATH", tuple(details))
    return Result(OK, said, details=tuple(details))


def _found(context: Context) -> Iterator[tuple[str, str]]:
    """List the program that libcni would run for each type."""
    path = invoke.with_path(context.environ)["PATH"]
    programs = {os.path.realpath(directory) for directory in path.split(":")}
    seen = set()
    for directory in filter(None, context.plugin_path.split(":")):
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for name in names:
            path = f"{directory}/{name}"
            if name in seen or not os.path.isfile(path) or not os.access(path, os.X_OK):
                continue  # archives of plugins have a LICENSE and a README among them
            # Other programs in the directory are not run: we do not know what they do.
            if os.path.realpath(directory) not in programs or program.is_shim(path):
                seen.add(name)
                yield name, path


def ask(name: str, path: str, context: Context, known: versions.Versions) -> list[str] | str:
    """Ask a plugin for the versions that it speaks; or give a text that says what is wrong."""
    plugin = invoke.Plugin(name, os.path.dirname(path), ONE)
    try:
        spoken = known.of(plugin, context.environ)
        if not spoken:
            # Only this check wants to know why, so it asks again.
            environ = {**context.environ, "CNI_NETNS": "dummy", "CNI_IFNAME": "dummy"}
            plugin.call("VERSION", environ, {"cniVersion": cni.CURRENT_VERSION})
            return "does not say which versions it speaks"
        versions.choose(spoken, cni.CURRENT_VERSION, name)
    except ShimError as error:
        if error.code == PLUGIN_TIMED_OUT:
            return error.message
        return str(error)
    return spoken


def _range(spoken: list[str]) -> str:
    known = [version for version in cni.SUPPORTED_VERSIONS if version in spoken]
    return known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}"

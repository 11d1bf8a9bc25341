# SPDX-License-Identifier: Apache-2.0
"""`netns-shim version`: all that a bug report needs, ready to paste."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import sys
from typing import TYPE_CHECKING

from .. import __version__, netns, state
from ..errors import ShimError
from ..netavark import program
from ..validate.conflist import PLUGIN_DIRS
from . import directories, options, programs
from .install import LIBRARIES, OPTIONAL, PACKAGE, is_launcher, is_packaged

if TYPE_CHECKING:
    import argparse

    from ..decoding import Json

SUMMARY = "Print the versions of all that matters, for a bug report."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    options.add_json(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print it, as JSON or as text."""
    found = collect()
    print(json.dumps(found, indent=2) if arguments.json else describe(found))
    return 0


def collect() -> Json:
    """Gather it; programs that are asked for their version have 2 seconds each."""
    launcher = os.path.abspath(sys.argv[0])
    return {
        "version": __version__,
        "package": PACKAGE,
        "launcher": launcher if is_launcher(launcher) or is_packaged(launcher) else "",
        "installed": _installed(),
        "python": f"{platform.python_version()} ({sys.executable})",
        "kernel": f"{platform.release()} {platform.machine()}",
        "distribution": _distribution(),
        "libraries": {name: _library(name) for name in LIBRARIES},
        "programs": programs.versions(os.environ),
        "plugins": {path: _count(path) for path in _plugin_path() if os.path.isdir(path)},
        "drivers": {path: _count(path) for path in program.PLUGIN_DIRS if os.path.isdir(path)},
        "user": _user(),
        "stateDir": _state_dir(),
    }


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown"


def _library(name: str) -> str:
    try:
        return importlib.metadata.version("rpds-py" if name == "rpds" else name)
    except importlib.metadata.PackageNotFoundError:
        # The files of a library may be there without its metadata.
        return "not installed" if name in OPTIONAL else "unknown"


def _installed() -> list[str]:
    """List where this program is as a plugin, of CNI or of netavark."""
    places = [*_plugin_path(), *program.PLUGIN_DIRS]
    with contextlib.suppress(ShimError):  # a user without a home
        for kind in directories.NAMES:
            places += directories.candidates(kind, os.environ)
    found = []
    for place in dict.fromkeys(places):
        with contextlib.suppress(OSError):
            found += [f"{place}/{name}" for name in sorted(os.listdir(place))]
    return [path for path in found if program.is_shim(path)]


def _plugin_path() -> list[str]:
    path = os.environ.get("CNI_PATH", "").split(":")
    return list(dict.fromkeys(filter(None, [*path, *PLUGIN_DIRS])))


def _count(directory: str) -> int:
    """Count the programs in a directory."""
    paths = [f"{directory}/{name}" for name in os.listdir(directory)]
    return sum(os.path.isfile(path) and os.access(path, os.X_OK) for path in paths)


def _state_dir() -> str:
    try:
        return state.base_dir(os.environ)
    except (ShimError, OSError) as error:
        return f"none: {error}"


def _user() -> Json:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        uid_map = [" ".join(line.split()) for line in file]
    is_privileged = netns.is_privileged()
    return {
        "uid": os.geteuid(),
        "outerUID": int(state.outer_uid()),
        "uidMap": uid_map,
        "isPrivileged": is_privileged,
        "isInPlace": netns.is_in_place("auto"),
        "XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR", ""),
    }


def describe(found: Json) -> str:
    """Write it for people: one aligned line for each thing."""
    user = found["user"]
    power = "shared namespace" if user["isPrivileged"] else "no capabilities"
    place = "in place" if user["isInPlace"] else power
    rows = [
        ("netns-shim", f"{found['version']} ({found['package']})"),
        ("launcher", found["launcher"] or "none: this is the command itself"),
        ("installed as", ", ".join(found["installed"]) or "no plugin in the usual directories"),
        ("Python", found["python"]),
        ("kernel", found["kernel"]),
        ("distribution", found["distribution"]),
        *found["libraries"].items(),
        *found["programs"].items(),
        *(("CNI plugins", f"{count} in {path}") for path, count in found["plugins"].items()),
        *(("drivers", f"{count} in {path}") for path, count in found["drivers"].items()),
        ("user", f"{user['uid']}, outside {user['outerUID']} (map {', '.join(user['uidMap'])})"),
        ("plugins run", place),
        ("XDG_RUNTIME_DIR", user["XDG_RUNTIME_DIR"] or "not set"),
        ("state", found["stateDir"]),
    ]
    width = max(len(key) for key, _ in rows)
    return "\n".join(f"{key:{width}}  {value}" for key, value in rows)

# SPDX-License-Identifier: Apache-2.0
"""A check, its result, and its context."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ... import cni, conf, netns, state
from ...errors import ShimError
from ...userns import pause
from ...validate import conflist
from ..directories import NAMES, candidates
from ..install import is_launcher

if TYPE_CHECKING:
    from ...decoding import Json


OK = "ok"
WARNING = "warning"
PROBLEM = "problem"
SKIPPED = "skipped"

# The longest text, in characters: some programs print their whole usage for an error.
MAXIMUM_LINE = 400

IN_PLACE = "plugins work in place here: nothing has to be made for them"
NO_ENTRY = "it has no entry of netns-shim"
OTHER_SESSION = (
    "run doctor inside the user namespace of the container runtime as well, with the command "
    "that the runtime has for that, such as `podman unshare`"
)


@dataclass(frozen=True)
class Result:
    """The result of a check: one of four kinds, a message, and what to do about it."""

    status: str
    message: str
    advice: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class File:
    """A network in a file: the entries of the shim, those of other plugins, or what is wrong."""

    path: str
    entries: tuple[Json, ...] = ()
    others: tuple[Json, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Context:
    """The context of every check. `plugin_path` is CNI_PATH, `base` the state directory.

    `is_in_place` tells that plugins called from here need no shared netns; `is_privileged` that
    this process has a user namespace of its own, or is root.
    """

    environ: Mapping[str, str]
    plugin_path: str
    base: str
    is_given: bool
    is_privileged: bool
    is_in_place: bool
    file: File | None = None

    @property
    def wants_uplink(self) -> bool:
        """Tell whether any network here has an uplink."""
        entries = self.file.entries if self.file else ()
        uplinks = [entry.get("uplink") for entry in entries]
        drivers = [u.get("driver") if isinstance(u, dict) else u for u in uplinks]
        return not drivers or any(driver != "none" for driver in drivers)


@dataclass(frozen=True)
class Check:
    """One check: its name and its function."""

    name: str
    look: Callable[[Context], Result]
    # How long the check may take, in seconds.
    seconds: float = 10.0


def context(environ: Mapping[str, str], state_dir: str, path: str) -> Context:
    """Make the context of the checks. `path` is that of a network's file, or empty."""
    file = read(path) if path else None
    entries = file.entries if file else ()
    given = [state_dir, *(entry["stateDir"] for entry in entries if _is_path(entry))]
    override = next(filter(None, given), "")
    is_privileged = netns.is_privileged()
    modes = [entry.get("enter") for entry in entries] or [conf.DEFAULT_ENTER]
    return Context(
        environ=environ,
        plugin_path=environ.get("CNI_PATH") or default_path(environ),
        base=_base(environ, override),
        is_given=bool(override),
        is_privileged=is_privileged,
        is_in_place=is_privileged and all(map(_is_in_place, modes)),
        file=file,
    )


def _base(environ: Mapping[str, str], override: str) -> str:
    """Tell where state is; "" where there is no place for it, see `places.runtime_directory`."""
    try:
        return state.base_dir(environ, override)
    except ShimError:
        return ""


def _is_path(entry: Json) -> bool:
    given = entry.get("stateDir")
    return isinstance(given, str) and given.startswith("/")


def _is_in_place(mode: object) -> bool:
    return netns.is_in_place(mode if mode in ("always", "never") else conf.DEFAULT_ENTER)


def default_path(environ: Mapping[str, str]) -> str:
    """Give the search path for plugins without CNI_PATH: the usual directories, and ours.

    Ours is where `netns-shim install` has put the plugin, or where this program is.
    """
    own = installed(environ)
    # pip puts its script among other programs, which we must not run.
    if is_launcher(sys.argv[0]):
        own.append(os.path.dirname(os.path.realpath(sys.argv[0])))
    return ":".join(dict.fromkeys([*conflist.PLUGIN_DIRS, *own]))


def installed(environ: Mapping[str, str]) -> list[str]:
    """List the default directories in which `netns-shim install` has put the plugin."""
    try:
        directories = candidates("cni", environ)
    except ShimError:
        return []  # a user without a home
    return [one for one in directories if is_launcher(f"{one}/{NAMES['cni']}")]


def look_inside(context: Context) -> bool:
    """Go where the user's shared netns can be seen, as `netns-shim status` does.

    Tell whether this process has power over them, or would have.
    """
    if not netns.is_privileged() and context.base:
        pause.reach(context.base)
        if os.path.lexists(context.base):
            pause.join_if_held(context.base)
    return netns.is_privileged()


def read(path: str) -> File:
    """Read a network: a list, or the configuration of one plugin."""
    try:
        with open(path, "rb") as file:
            text = file.read(conflist.MAXIMUM_SIZE)
        network = cni.decode(text, what=f"network in {path}")
    except OSError as error:
        return File(path, problem=f"cannot be read: {error.strerror}")
    except ShimError as error:
        return File(path, problem=str(error))
    plugins = network.get("plugins")
    if "type" in network or not isinstance(plugins, list):
        plugins = [network]
    if not all(isinstance(entry, dict) for entry in plugins):
        return File(path, problem="'plugins' must be a list of objects")
    named = {key: network[key] for key in ("cniVersion", "name") if key in network}
    ours = [{**named, **e} for e in plugins if _is_ours(e)]
    others = [e for e in plugins if not _is_ours(e)]
    if not ours:
        return File(path, problem=NO_ENTRY)
    return File(path, tuple(ours), tuple(others))


def _is_ours(entry: Json) -> bool:
    """Tell whether an entry is one of the shim, even if it says nothing to run."""
    return entry.get("type") == NAMES["cni"] or any(key in entry for key in conflist.OURS)


def worst(results: list[Result]) -> Result | None:
    """Give the worst of some results, None for an empty list."""
    order = (SKIPPED, OK, WARNING, PROBLEM)
    return max(results, key=lambda result: order.index(result.status), default=None)


def as_json(name: str, result: Result) -> Json:
    """Write a result for programs; quoted texts in it are made to fit into one line."""
    return {
        "check": name,
        "result": result.status,
        "message": _line(result.message),
        "advice": _line(result.advice),
        "details": [_line(line) for line in result.details],
    }


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAXIMUM_LINE else f"{line[:MAXIMUM_LINE]}…"


def dump(result: Result) -> bytes:
    """Write a result for another process."""
    return json.dumps(as_json("", result)).encode()


def load(text: bytes) -> Result:
    """Read a result of another process."""
    found = json.loads(text)
    details = tuple(found["details"])
    return Result(found["result"], found["message"], found["advice"], details)

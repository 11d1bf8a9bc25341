# SPDX-License-Identifier: Apache-2.0
"""Calling a plugin: find it, run it, read its answer or its error."""

from __future__ import annotations

import os

from . import decoding, encoding, interrupt
from .child import explain, run
from .errors import INVALID_NETWORK_CONFIG, PLUGIN_MISBEHAVED, PluginFailed, ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .decoding import Json

# A runtime may pass no PATH at all, and plugins call iptables and nft.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The system of NixOS and of Guix, which have programs in none of these directories. Those that are
# set-uid come first: their namesakes in the system lack the power.
SYSTEM = "/run/current-system"
WRAPPERS = ("/run/wrappers/bin", "/run/privileged/bin", "/run/setuid-programs")
SYSTEM_PATH = (*WRAPPERS, f"{SYSTEM}/sw/bin", f"{SYSTEM}/profile/sbin", f"{SYSTEM}/profile/bin")
# Where Podman keeps the programs that help it, besides PATH.
HELPER_DIRECTORIES = (
    "/usr/local/libexec/podman",
    "/usr/local/lib/podman",
    "/usr/libexec/podman",
    "/usr/lib/podman",
)
# How many documents a plugin may print: it has no reason for more, and each costs a copy.
MAXIMUM_DOCUMENTS = 8
# The reference library reads a code as an unsigned integer of the machine.
MAXIMUM_CODE = 0xFFFFFFFF
# The stdout of these verbs has no meaning when they succeed; libcni does not look at it.
WITHOUT_ANSWER = ("DEL", "CHECK", "GC", "STATUS")


class Plugin:
    """An executable that speaks the CNI protocol.

    `timeout` is how many seconds one call may take.
    """

    __slots__ = ("path", "timeout", "type")

    def __init__(self, type_: str, search_path: str, timeout: float) -> None:
        """Find it in `search_path` (CNI_PATH); ShimError (code 7) where no directory has it."""
        self.type = type_
        self.timeout = timeout
        self.path = find(type_, search_path)

    def call(self, verb: str, environ: Mapping[str, str], conf: Json) -> Json | None:
        """Call a verb; give the object it printed, None where it printed nothing.

        Raises PluginFailed with the plugin's own error, ShimError where it gave none.
        """
        name = f"plugin {self.type!r}"
        what = f"{name} ({verb})"
        text = encoding.compact(conf).encode()
        environment = {**with_path(environ), "CNI_COMMAND": verb}
        status, stdout, stderr = run(
            self.path, environment, text, name=name, what=what, timeout=self.timeout
        )
        try:
            is_ignored = status == 0 and verb in WITHOUT_ANSWER
            answers = [] if is_ignored else decoding.several(stdout.decode(), MAXIMUM_DOCUMENTS)
        except ValueError as error:
            raise ShimError(
                PLUGIN_MISBEHAVED,
                f"{what} {ending(status)} and printed no JSON",
                explain(f"{error}; it printed {stdout[:500]!r}", stderr),
            ) from None
        if status:
            raise _failure(what, status, answers, stderr)
        pass_on(stderr)
        return answers[-1][0] if answers else None


def pass_on(stderr: bytes) -> None:
    """Write the log of a plugin that succeeded to our stderr, as libcni does."""
    try:
        if stderr:
            interrupt.write(2, stderr, "passing on what a plugin has printed")
    except OSError:
        pass  # a caller that does not read it has its network all the same


def _failure(what: str, status: int, answers: list[tuple[Any, str]], stderr: bytes) -> ShimError:
    """Make the error for an exit status that is not zero."""
    if not answers:
        return ShimError(PLUGIN_MISBEHAVED, f"{what} {ending(status)}", explain("", stderr))
    # A plugin of the Go library whose netns check fails late has already printed its result.
    error, text = answers[-1]
    if _is_error(error):
        return PluginFailed(error["code"], error["msg"], error.get("details") or "", text)
    return ShimError(
        PLUGIN_MISBEHAVED,
        f"{what} {ending(status)} and printed no error object",
        explain(f"it printed {text[:500]}", stderr),
    )


def _is_error(value: Any) -> bool:
    """Tell whether a runtime can read an error: for Go, one wrong type makes all of it unreadable.

    Any code that fits is passed on, as plugins choose their own.
    """
    return (
        isinstance(value, dict)
        and type(value.get("code")) is int
        and 0 <= value["code"] <= MAXIMUM_CODE
        and isinstance(value.get("msg"), str)
        and isinstance(value.get("details"), str | None)
        and isinstance(value.get("cniVersion"), str | None)
    )


def ending(status: int) -> str:
    """Say how a process has ended."""
    if status < 0:
        return f"was ended by {interrupt.name_of(-status)}"
    return f"failed with exit status {status}" if status else "ended"


def find(type_: str, search_path: str) -> str:
    """Find a plugin as libcni does: the first regular file of that name in CNI_PATH."""
    for directory in search_path.split(":"):
        path = f"{directory}/{type_}"
        if directory and os.path.isfile(path):
            return path
    raise ShimError(
        INVALID_NETWORK_CONFIG,
        f"failed to find plugin {type_!r} in path [{search_path}]",
        "install the plugin, or add its directory to CNI_PATH",
    )


def find_program(name: str, directories: list[str]) -> str:
    """Find a program in directories, as a shell does; "" where it is in no directory."""
    for path in [name] if "/" in name else [f"{directory}/{name}" for directory in directories]:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


def with_path(environ: Mapping[str, str]) -> dict[str, str]:
    """Give an environment whose PATH has the usual directories, even if the caller's has not."""
    # An empty or relative entry would start a program from the caller's working directory.
    given = [d for d in environ.get("PATH", "").split(":") if d.startswith("/")]
    return {**environ, "PATH": with_usual_places(given)}


def with_usual_places(given: list[str]) -> str:
    """Give the PATH that has these directories, and after them the usual ones."""
    missing = [d for d in usual_places() if d not in given]
    return ":".join([*given, *missing])


def usual_places() -> list[str]:
    """List the directories in which this machine has its programs, whatever PATH says."""
    places = DEFAULT_PATH.split(":")
    return [*places, *SYSTEM_PATH] if os.path.lexists(SYSTEM) else places

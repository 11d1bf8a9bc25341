# SPDX-License-Identifier: Apache-2.0
"""The programs of netavark: where they are, and one run of one."""

from __future__ import annotations

import os

from .. import child, encoding, invoke
from ..errors import INTERNAL, INVALID_NETWORK_CONFIG, PLUGIN_MISBEHAVED, ShimError
from . import translate, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..child import Outcome
    from ..decoding import Json

# Where Podman looks for plugins of netavark.
PLUGIN_DIRS = (
    "/usr/local/libexec/netavark",
    "/usr/libexec/netavark",
    "/usr/local/lib/netavark",
    "/usr/lib/netavark",
)


def find(entry: Json, plugin_dirs: list[str], environ: Mapping[str, str]) -> str:
    """Find the program of an entry: `path`, the netavark binary, or a plugin of netavark.

    Raises ShimError (code 7) where it is not found.
    """
    name = entry["driver"]
    if entry.get("path"):
        candidates = [entry["path"]]
    elif translate.is_built_in(entry):
        candidates = binaries("netavark", environ)
    else:
        candidates = [f"{directory}/{name}" for directory in plugin_dirs or PLUGIN_DIRS]
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK) and not is_shim(path):
            return str(path)
    places = ":".join(os.path.dirname(path) for path in candidates)
    raise ShimError(
        INVALID_NETWORK_CONFIG,
        f"failed to find driver {name!r} in path [{places}]",
        "install netavark" if translate.is_built_in(entry) else "install it, or set pluginDirs",
    )


def binaries(name: str, environ: Mapping[str, str]) -> list[str]:
    """List where a binary of netavark may be, the best first."""
    directories = invoke.with_path(environ)["PATH"].split(":")
    return [f"{directory}/{name}" for directory in (*directories, *invoke.HELPER_DIRECTORIES)]


def aardvark(beside: str) -> str:
    """Find aardvark-dns: beside the netavark binary, else among Podman's helpers; or ""."""
    directories = [os.path.dirname(beside), *invoke.HELPER_DIRECTORIES]
    for path in [f"{directory}/aardvark-dns" for directory in directories]:
        if os.access(path, os.X_OK):
            return path
    return ""


def is_shim(path: str) -> bool:
    """Tell whether a program is our own launcher, which would wait for itself for ever."""
    if not os.path.isfile(path):
        return False  # a pipe may have no end
    try:
        with open(path, "rb") as file:
            text = file.read(4096)
    except OSError:
        return False
    first = text.partition(b"\n")[0]
    return first.startswith(b"#!") and b"python" in first and b"netns_shim.main" in text


def run(
    path: str,
    environ: Mapping[str, str],
    arguments: list[str],
    given: Mapping[str, object],
    what: str,
    timeout: float,
) -> bytes:
    """Run a program to its end, with a document on its stdin; give its stdout.

    `what` names it in errors, `timeout` is in seconds. Raises ShimError where it fails, with what
    the program has said about that.
    """
    text = encoding.compact(given).encode()
    status, stdout, stderr = start(path, environ, arguments, text, what, timeout)
    if status == 0:
        invoke.pass_on(stderr)
        return stdout
    error = wire.parse_error(stdout)
    if error:
        raise ShimError(INTERNAL, f"{what} failed: {error}", child.explain("", stderr))
    raise ShimError(
        PLUGIN_MISBEHAVED,
        f"{what} {invoke.ending(status)}",
        child.explain(f"it printed {stdout[:500]!r}" if stdout else "", stderr),
    )


def start(
    path: str,
    environ: Mapping[str, str],
    arguments: list[str],
    stdin: bytes,
    what: str,
    timeout: float,
) -> Outcome:
    """Run a program as `run` does; give its exit status, its stdout and its stderr as they are."""
    inherited = {k: v for k, v in environ.items() if not k.startswith("CNI_")}
    return child.run(
        path,
        invoke.with_path(inherited),
        stdin,
        arguments=arguments,
        name=what,
        what=what,
        timeout=timeout,
    )

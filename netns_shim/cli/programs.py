# SPDX-License-Identifier: Apache-2.0
"""Other programs: where they are, and which version they are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from ..child import explain, run
from ..errors import PLUGIN_MISBEHAVED, ShimError
from ..invoke import ending, with_path
from ..netavark import program
from ..shared import uplink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..child import Outcome

# How long a program may take to say its version, in seconds.
SECONDS = 2.0
# What the pasta of Debian 12 says instead.
UNKNOWN = "unknown version"


def find(name: str, environ: Mapping[str, str]) -> str:
    """Find a program as plugins do, in PATH and the usual directories; or ""."""
    return shutil.which(name, path=with_path(environ)["PATH"]) or ""


def output(
    path: str, arguments: Sequence[str], environ: Mapping[str, str], *, stdin: str = ""
) -> str:
    """Run a program to its end; give its stdout. ShimError where it fails or takes too long."""
    status, stdout, stderr = _run(path, arguments, environ, stdin)
    if status:
        what = " ".join([os.path.basename(path), *arguments])
        why = explain("", stderr or stdout)
        raise ShimError(PLUGIN_MISBEHAVED, f"{what} {ending(status)}", why)
    return stdout.decode(errors="replace")


def _run(path: str, arguments: Sequence[str], environ: Mapping[str, str], stdin: str) -> Outcome:
    name = os.path.basename(path)
    return run(
        path,
        _environment(environ),
        stdin.encode(),
        arguments=arguments,
        name=name,
        what=" ".join([name, *arguments]),
        timeout=SECONDS,
    )


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the environment of a program that is asked: that of the caller, but for the call."""
    return with_path({k: v for k, v in environ.items() if not k.startswith("CNI_")})


def usage(path: str, environ: Mapping[str, str]) -> str:
    """Give what a program says about its options, on any stream and with any exit status."""
    _, stdout, stderr = _run(path, ["--help"], environ, "")
    return (stdout + stderr).decode(errors="replace")


def version(path: str, environ: Mapping[str, str]) -> str:
    """Give the line with a program's version. ShimError where it does not print one."""
    text = output(path, ["--version"], environ).strip()
    # pasta of May 2025 (Debian 13) ends before all its output is in the pipe.
    text = text or _on_terminal(path, ["--version"], environ).strip()
    if not text:
        raise ShimError(PLUGIN_MISBEHAVED, f"{path} does not say its version")
    line = text.splitlines()[0]
    if UNKNOWN in line:
        name = os.path.basename(path)
        known = _of_package(path, environ)
        return f"{name} {known}" if known else f"{name} of an unknown version"
    return line


def _of_package(path: str, environ: Mapping[str, str]) -> str:
    """Give the version of the Debian package that a program belongs to, or ""."""
    query = find("dpkg-query", environ)
    if not query:
        return ""
    try:
        package = output(query, ["--search", path], environ).partition(": ")[0]
        return output(query, ["--show", "--showformat=${Version}", package], environ)
    except ShimError:
        return ""


def _on_terminal(path: str, arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    """Give what a program prints on a terminal; "" where it fails or takes too long."""
    terminal, its = os.openpty()
    try:
        subprocess.run(
            [path, *arguments],
            env=_environment(environ),
            stdin=subprocess.DEVNULL,
            stdout=its,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            timeout=SECONDS,
            check=True,
        )
        os.set_blocking(terminal, False)
        return os.read(terminal, 4096).decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return ""
    finally:
        os.close(terminal)
        os.close(its)


def versions(environ: Mapping[str, str]) -> dict[str, str]:
    """List the programs that work with us: where each is and its version, or why not."""
    paths = {name: uplink.program_path(name, environ) for name in ("pasta", "slirp4netns")}
    netavark = binary(environ)
    paths |= {"netavark": netavark, "aardvark-dns": program.aardvark(netavark)}
    paths |= {name: find(name, environ) for name in ("podman", "iptables", "nft", "newuidmap")}
    return {name: _say(name, path, environ) for name, path in paths.items()}


def _say(name: str, path: str, environ: Mapping[str, str]) -> str:
    if not path:
        return "not installed"
    if name == "newuidmap":
        return path  # it does not say
    try:
        return f"{version(path, environ)} ({path})"
    except ShimError as error:
        return f"{error.message} ({path})"


def binary(environ: Mapping[str, str]) -> str:
    """Find the netavark binary, or give ""."""
    try:
        return program.find({"driver": "bridge"}, [], environ)
    except ShimError:
        return ""


def as_json(text: str) -> object:
    """Read the output of a program as JSON; None where it is not JSON."""
    try:
        value: object = json.loads(text)
    except ValueError:
        return None
    return value

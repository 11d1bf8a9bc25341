# SPDX-License-Identifier: Apache-2.0
"""Asking `netns-shim doctor`, on a machine that has been made ill for the purpose."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bench
from runtime import PLUGIN

Found = dict[str, dict[str, Any]]

FAKES = "/opt/fakes"
# It hangs, and where there is a FIFO beside it, holds that open as long as it does.
HANGING = """#!/usr/bin/python3 -IS
import os, signal, sys
if os.path.exists(sys.argv[0] + ".ready"):
    file = open(sys.argv[0] + ".ready", "w")
signal.pause()
"""


def command(*arguments: str) -> list[str]:
    """List the words of the command, with its output for programs."""
    return [PLUGIN, "doctor", "--json", *arguments]


def results(done: Any) -> Found:
    """Read what it printed: the results by the names of the checks."""
    assert done.stderr == ""
    found = json.loads(done.stdout)
    by_name = {result["check"]: result for result in found["results"]}
    assert len(by_name) == len(found["results"])
    for result in found["results"]:
        assert result["result"] in ("ok", "warning", "problem", "skipped")
        assert result["message"]
        # A problem without advice is of no help.
        assert result["result"] in ("ok", "skipped") or result["advice"], result
    is_well = not any(result["result"] == "problem" for result in found["results"])
    assert (found["isWell"], done.returncode) == (is_well, 0 if is_well else 1)
    return by_name


def ask(place: bench.Place, *arguments: str, **env: str) -> Found:
    """Ask it in a place; `env` are variables besides the usual ones."""
    return results(place.run(command(*arguments), env={**place.env, **env}))


def ask_in(
    world: bench.World, script: str, *arguments: str, as_root: bool = False, **env: str
) -> Found:
    """Ask it as the user where root has run a script in a mount namespace that goes with it."""
    become = ["setpriv", f"--reuid={world.uid}", f"--regid={world.uid}", "--init-groups"]
    words = [*([] if as_root else become), *command(*arguments)]
    shell = ["unshare", "--mount", "sh", "-euc", f'{script}\nexec "$@"', "sh"]
    return results(world.root.run([*shell, *words], env={**world.env, **env}))


def hide(*programs: str) -> str:
    """Write a script that makes programs be missing, wherever links lead."""
    return "\n".join(f'mount --bind /dev/null "$(readlink -f {path})"' for path in programs)


@contextmanager
def replaced(world: bench.World, path: str, text: str) -> Iterator[None]:
    """Give a file of the machine another content for a while."""
    file = world.path(path)
    before = file.read_text() if file.exists() else None
    file.write_text(text)
    try:
        yield
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before)


class Fakes:
    """A directory in the machine for fakes of programs or plugins, for the user to run."""

    def __init__(self, world: bench.World, path: str = FAKES) -> None:
        self.path = path
        self._directory = world.path(path)
        self._directory.mkdir()
        self._directory.chmod(0o755)

    def add(self, name: str, text: str, mode: int = 0o755) -> Path:
        """Write a fake; give its path as the bench knows it."""
        file = self._directory / name
        file.write_text(text)
        file.chmod(mode)
        return file

    @property
    def first(self) -> str:
        """A PATH in which fakes come first."""
        return f"{self.path}:{bench.PATH}"

    def remove(self) -> None:
        """Remove it with all that is in it."""
        for name in os.listdir(self._directory):
            (self._directory / name).unlink()
        self._directory.rmdir()

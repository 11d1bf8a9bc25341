# SPDX-License-Identifier: Apache-2.0
"""The commands for people have one way to take arguments, and to refuse them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from netns_shim.cli import COMMANDS
from netns_shim.main import main

# What each command needs beside its options.
NEEDED = {
    "completion": ["bash"],
    "show": ["web"],
    "validate": ["-"],
    "wrap": ["-"],
}

PROGRAM = "import sys; from netns_shim.main import run; run()"


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped option is refused with the usage of the command it was given to."""
    with pytest.raises(SystemExit) as caught:
        main(["netns-shim", command, "--jsno", *NEEDED.get(command, [])])

    assert caught.value.code == 2
    usage, *_, message = capsys.readouterr().err.splitlines()
    assert usage.startswith(f"usage: netns-shim {command} [-h]")
    assert message == f"netns-shim {command}: error: unrecognized arguments: --jsno"


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped command is refused with the list of all."""
    with pytest.raises(SystemExit) as caught:
        main(["netns-shim", "staus"])

    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert all(command in message for command in COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["completion", "bash"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_full_disk(arguments: list[str], unbuffered: str) -> None:
    """What is printed last, and cannot be written, is a failure that is told in one line."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            text=True,
            check=False,
        )

    assert (done.returncode, done.stderr) == (1, "netns-shim: No space left on device\n")

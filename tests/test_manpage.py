# SPDX-License-Identifier: Apache-2.0
"""The manual page: it is that of the commands there are, can be read, and is installed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from conftest import give_up

from netns_shim import cli

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "netns-shim.1"


def script() -> ModuleType:
    """Load the program that writes it."""
    spec = importlib.util.spec_from_file_location("manpage", ROOT / "scripts" / "manpage.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rendered() -> str:
    """Read the page as man(1) shows it; nothing about it is worth a warning."""
    if not shutil.which("man"):
        give_up("no man here")
    env = {"PATH": "/usr/bin:/bin", "MANWIDTH": "300", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["man", "--warnings=w", "--no-hyphenation", "-l", PAGE],
        env=env,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_it_is_up_to_date() -> None:
    """Who changes a command has to run scripts/manpage.py."""
    assert PAGE.read_text() == script().page()


def test_it_can_be_read() -> None:
    """man(1) shows every command with its summary, and each of its options."""
    text = " ".join(rendered().split())

    for name, command in cli.COMMANDS.items():
        assert f"netns-shim {name}" in text
        assert command.SUMMARY.replace("`", "") in text
    for option in ("--netns NAME", "--dry-run", "-- COMMAND", "--uplink pasta|slirp4netns|none"):
        assert option in text
    assert "NETNS_SHIM_LOG" in text
    assert "\\" not in text


def test_texts_are_no_requests() -> None:
    """What means something to roff in the texts of a command is shown as it is."""
    escape = script().escape

    assert escape(".SH x") == "\\&.SH x"
    assert escape("'a' \\n -- …") == "\\&'a' \\en \\-\\- ..."


def test_it_is_installed(tmp_path: Path) -> None:
    """An installation has it where man(1) looks."""
    program = [sys.executable, "-W", "ignore", "-c", "import setuptools; setuptools.setup()"]
    arguments = ["--quiet", "install_data", "--install-dir", str(tmp_path)]

    subprocess.run([*program, *arguments], cwd=ROOT, check=True, capture_output=True)

    assert (tmp_path / "share/man/man1/netns-shim.1").read_text() == PAGE.read_text()

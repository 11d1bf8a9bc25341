# SPDX-License-Identifier: Apache-2.0
"""The Debian package agrees with the sources. What it does is tried by scripts/try-package."""

from __future__ import annotations

import configparser
import fnmatch
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import give_up

import netns_shim
from netns_shim import state
from netns_shim.cli import completion, directories, install
from netns_shim.netavark import program
from netns_shim.validate import conflist

ROOT = Path(__file__).resolve().parent.parent
DEBIAN = ROOT / "debian"


def read(name: str) -> str:
    """Read a file of the package."""
    return (DEBIAN / name).read_text()


def settings() -> configparser.ConfigParser:
    """Read setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_version() -> None:
    """The newest entry of the package's changelog is about this version."""
    newest = re.match(r"netns-shim \(([^)]+)\)", read("changelog"))

    assert newest
    assert newest[1] == netns_shim.__version__


def test_what_apt_installs() -> None:
    """The package recommends what the README says that apt installs, each without a choice."""
    (sentence,) = re.findall(
        r"apt installs\s+what it recommends: (.*)\.", (ROOT / "README.md").read_text()
    )
    (recommended,) = re.findall(r"^Recommends:\n((?: .*,\n)+)", read("control"), re.M)

    assert sorted(re.findall(r"`([^`]+)`", sentence)) == recommended.replace(",", "").split()


def test_launcher(tmp_path: Path) -> None:
    """The build writes the plugin by Debian's Python alone, and with the mark of the package."""
    (written,) = re.findall(r"^\t(scripts/launcher.py .*) >debian/launcher$", read("rules"), re.M)
    done = subprocess.run(
        [install.INTERPRETER, "-IS", *written.split()],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    launcher = tmp_path / "launcher"
    launcher.write_text(done.stdout)

    assert done.stdout.startswith("#!/usr/bin/python3 -IS\n")
    assert f"sys.path += ['{install.DIST_PACKAGES}']" in done.stdout
    assert install.is_packaged(str(launcher))
    assert not install.is_launcher(str(launcher))


@pytest.mark.parametrize("written", ["#!/usr/bin/python3", "#! /usr/bin/python3"])
def test_command_is_isolated(tmp_path: Path, written: str) -> None:
    """The build isolates the command, however the release that builds writes its first line."""
    (change,) = re.findall(r"^\tsed -i '(.*)' debian/netns-shim/usr/bin/", read("rules"), re.M)
    command = tmp_path / "netns-shim"
    command.write_text(f"{written}\nimport sys\n")

    subprocess.run(["sed", "-i", change.replace("$$", "$"), command], check=True)

    assert command.read_text() == "#!/usr/bin/python3 -I\nimport sys\n"


def test_where_plugins_are() -> None:
    """The plugin and the driver are where runtimes and Podman look, by the names they look for."""
    installed = re.findall(r"debian/launcher debian/netns-shim(\S+)", read("rules"))

    assert installed == [
        f"/usr/lib/cni/{directories.NAMES['cni']}",
        f"{directories.PACKAGED_NETAVARK}/{directories.NAMES['netavark']}",
    ]
    assert "/usr/lib/cni" in conflist.PLUGIN_DIRS
    assert directories.PACKAGED_NETAVARK in program.PLUGIN_DIRS


def test_manual_page() -> None:
    """The manual page is a file of every installation, and so of the package."""
    assert settings()["options.data_files"]["share/man/man1"] == "docs/netns-shim.1"


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completions(shell: str) -> None:
    """There is a file for each shell, which asks the command for the code; its syntax is right."""
    (file,) = (DEBIAN / "completions" / shell).iterdir()

    assert f"debian/completions/{shell}/{file.name} " in read("netns-shim.install")
    assert f"netns-shim completion {shell}" in file.read_text()
    program = shutil.which(shell)
    if program is None:
        give_up(f"no {shell} here")
    subprocess.run([program, "-n", file], check=True)


def test_state_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd-tmpfiles leaves the state that is in /tmp alone."""
    monkeypatch.setattr(state, "outer_uid", lambda: "4711")
    place = state.base_dir({})
    kept = re.findall(r"^x (\S+)$", read("netns-shim.tmpfiles"), re.M)

    assert place == "/tmp/netns-shim-4711"
    assert any(fnmatch.fnmatch(place, pattern) for pattern in kept)


def test_what_it_needs() -> None:
    """Python is as new as setup.cfg demands; libraries come from there by the build itself."""
    (python,) = re.findall(r"^ python3 \((>= [\d.]+)\),$", read("control"), re.M)

    assert python.replace(" ", "") == settings()["options"]["python_requires"]
    assert " ${python3:Depends},\n" in read("control")


def test_oldest_libraries() -> None:
    """tox tries the oldest libraries that setup.cfg allows."""
    allowed = settings()["options"]["install_requires"].replace(">=", "==").split()
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")

    assert tox["testenv:oldest"]["deps"].split() == allowed

# SPDX-License-Identifier: Apache-2.0
"""The netavark of several releases of Debian, each with the libraries that it came with.

What is installed is of one release. The others are fetched, by apt from the machine's own sources.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

# The netavark of Debian 12 and 13, by its version.
RELEASES = {"1.4.0": "bookworm", "1.14.0": "trixie"}
INSTALLED = Path("/usr/lib/podman")
TREES = Path(__file__).resolve().parent.parent / ".cache"
PACKAGES = ("netavark", "aardvark-dns", "libc6", "libgcc-s1")
PROGRAMS = ("netavark", "aardvark-dns")
LIBRARIES = ("ld-linux-*.so.*", "libc.so.6", "libm.so.6", "libgcc_s.so.1")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# apt with everything of its own, so that nothing of the machine's is changed. Its hooks do not run
# either: what clears them must be read last, so it is given with -c, not by APT_CONFIG.
OWN_STATE = """
Dir::State "{0}/state";
Dir::State::status "{0}/status";
Dir::Cache "{0}/cache";
APT::Sandbox::User "root";
#clear APT::Update;
"""
OWN_SOURCES = """
Dir::Etc::SourceList "{0}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Update::Error-Mode "any";
"""

WRAPPER = """#!/bin/sh
here=${0%/*}
exec "$here"/lib/ld-linux-*.so.* --library-path "$here/lib" "$here/lib/${0##*/}" "$@"
"""


@cache
def installed() -> str:
    """Give the version of the netavark that is installed here; "" where there is none."""
    try:
        done = subprocess.run([INSTALLED / "netavark", "version"], capture_output=True, check=True)
        return str(json.loads(done.stdout)["version"])
    except (OSError, ValueError, KeyError, subprocess.CalledProcessError):
        return ""


def versions() -> list[str]:
    """List the versions to test with: those of the releases, and the one that is installed."""
    return list(dict.fromkeys(filter(None, [*RELEASES, installed()])))


def fetch(release: str) -> Path:
    """Fetch the packages of a release and unpack them, unless that is done; give the directory."""
    tree = TREES / release
    if not tree.exists():
        new = TREES / f"{release}.{os.getpid()}"
        try:
            _unpack(release, new)
            new.rename(tree)
        except OSError:
            if not tree.exists():  # else another process was faster
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return tree


def _unpack(release: str, new: Path) -> None:
    apt = new / "apt"
    for directory in ("state/lists/partial", "cache/archives/partial"):
        (apt / directory).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "machine.conf").write_text(OWN_STATE.format(apt))
    source = f"deb [signed-by={KEYRING}] {_mirror(apt / 'machine.conf')} {release} main\n"
    (apt / "sources.list").write_text(source)
    (apt / "release.conf").write_text((OWN_STATE + OWN_SOURCES).format(apt))
    for command in (["update"], ["download", *PACKAGES]):
        _run(["apt-get", "-qq", f"-c={apt}/release.conf", *command], cwd=apt)
    for package in apt.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(package), str(new)])
    shutil.rmtree(apt)


def _mirror(configuration: Path) -> str:
    """Tell where this machine has its own packages from; the configuration has its sources."""
    about = ["Created-By: Packages", "Origin: Debian", "Label: Debian"]
    list_them = ["indextargets", "--format", "$(REPO_URI)", *about]
    found = _run(["apt-get", *list_them]).split()
    if not found:  # The machine has no lists now, and is to have none afterwards.
        _run(["apt-get", "-qq", f"-c={configuration}", "update"])
        found = _run(["apt-get", f"-c={configuration}", *list_them]).split()
    if not found:
        raise OSError("the sources of apt do not name a mirror of Debian")
    return found[0]


def _run(command: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def install(version: str, directory: Path) -> None:
    """Put netavark and aardvark-dns of a version into a directory, with what they need."""
    if version == installed():
        directory.mkdir()
        for program in PROGRAMS:
            (directory / program).symlink_to(INSTALLED / program)
        return
    tree = fetch(RELEASES[version])
    (directory / "lib").mkdir(parents=True)
    for pattern in LIBRARIES:
        # Where /lib is not a link the same library may be found twice.
        for found in {path.name: path for path in tree.rglob(pattern)}.values():
            shutil.copy(found, directory / "lib")
    for program in PROGRAMS:
        shutil.copy(tree / "usr/lib/podman" / program, directory / "lib")
        (directory / program).write_text(WRAPPER)
        (directory / program).chmod(0o755)

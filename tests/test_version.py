# SPDX-License-Identifier: Apache-2.0
"""`netns-shim version`: what a bug report needs, as text and as JSON."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterator
from typing import Any

import bench
import pytest
from diagnosis import HANGING, Fakes, hide
from runtime import PLUGIN

import netns_shim
from netns_shim.cli import install

MODULE_PATH = f"/opt/netns-shim/{bench.LIB}/netns_shim"


@pytest.fixture
def fakes(world: bench.World) -> Iterator[Fakes]:
    """Fakes of programs."""
    fakes = Fakes(world)
    yield fakes
    fakes.remove()


def version(place: bench.Place, **env: str) -> dict[str, Any]:
    """Ask for it."""
    done = place.run([PLUGIN, "version", "--json"], env={**place.env, **env}, check=True)
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_all_of_it(world: bench.World) -> None:
    """It has our version and place, the system's, the libraries' and the programs'."""
    found = version(world)

    assert found["version"] == netns_shim.__version__
    assert found["package"] == MODULE_PATH
    assert found["launcher"] == PLUGIN
    assert found["installed"] == [PLUGIN]
    assert found["python"].startswith(f"{platform.python_version()} (/")
    assert found["kernel"] == f"{platform.release()} {platform.machine()}"
    assert "Debian" in found["distribution"]
    assert found["libraries"].keys() == set(install.LIBRARIES)
    assert all(
        re.match(r"\d+\.\d", text) or (name == "rpds" and text == "not installed")
        for name, text in found["libraries"].items()
    )
    assert re.fullmatch(r"pasta .+ \(/usr/bin/pasta\)", found["programs"]["pasta"])
    assert re.fullmatch(r"slirp4netns version 1.+\(/.+\)", found["programs"]["slirp4netns"])
    assert re.fullmatch(r"netavark 1.+\(/.+/netavark\)", found["programs"]["netavark"])
    assert re.fullmatch(r"aardvark-dns 1.+\(/.+\)", found["programs"]["aardvark-dns"])
    assert found["programs"]["podman"].startswith("podman version ")
    assert found["programs"]["iptables"].startswith("iptables v1.")
    assert found["programs"]["nft"].startswith("nftables v1.")
    plugins = world.path(world.plugin_dir)
    assert found["plugins"][world.plugin_dir] == len(os.listdir(plugins))


@pytest.mark.usefixtures("log_in")
def test_who_asks(world: bench.World, session: bench.Session) -> None:
    """It tells who the user is, and where plugins would be run."""
    places = {"user": world, "session": session, "root": world.root}
    users = {name: version(place)["user"] for name, place in places.items()}

    assert {name: user["uid"] for name, user in users.items()} == {
        "user": world.uid,
        "session": 0,
        "root": 0,
    }
    assert [users[name]["outerUID"] for name in places] == [world.uid, world.uid, 0]
    assert [users[name]["isPrivileged"] for name in places] == [False, True, True]
    assert [users[name]["isInPlace"] for name in places] == [False, False, True]
    assert users["user"]["uidMap"] == ["0 0 4294967295"]
    assert users["session"]["uidMap"][0] == f"0 {world.uid} 1"
    assert users["user"]["XDG_RUNTIME_DIR"] == world.runtime_dir


def test_text(world: bench.World) -> None:
    """As text it is a line for each thing, aligned, to be pasted as it is."""
    lines = world.run([PLUGIN, "version"], check=True).stdout.splitlines()

    pairs = dict(re.split(r"  +", line, maxsplit=1) for line in lines)
    assert len({line.index(pairs[re.split(r"  +", line)[0]]) for line in lines[:8]}) == 1
    assert pairs["netns-shim"] == f"{netns_shim.__version__} ({MODULE_PATH})"
    assert pairs["launcher"] == PLUGIN
    assert pairs["plugins run"] == "no capabilities"
    assert "\x1b" not in "".join(lines)


def test_without_the_launcher(world: bench.World) -> None:
    """Called by the script that pip makes, it says that there is no launcher."""
    done = world.run(["/opt/netns-shim/bin/netns-shim", "version"], check=True)

    assert re.search(r"^launcher +none: this is the command itself$", done.stdout, re.M)
    assert re.search(rf"^installed as +{PLUGIN}$", done.stdout, re.M)


def test_not_installed(world: bench.World) -> None:
    """Where there is no plugin yet, it says so; a user without a home is no reason to fail."""
    hidden = (
        "mount -t tmpfs tmpfs /opt/cni; unset HOME; exec /opt/netns-shim/bin/netns-shim version"
    )

    done = world.root.run(["unshare", "--mount", "sh", "-euc", hidden], env=world.env, check=True)

    assert re.search(r"^installed as +no plugin in the usual directories$", done.stdout, re.M)


def test_programs_that_are_missing_or_broken(world: bench.World, fakes: Fakes) -> None:
    """A program that is not there, fails or hangs is told as such, and costs little time."""
    fakes.add("nft", "#!/bin/sh\nexit 7\n")
    fakes.add("podman", HANGING)
    fakes.add("iptables", "#!/bin/sh\n")
    script = hide("/usr/bin/slirp4netns", "/usr/lib/podman/netavark")
    shell = ["unshare", "--mount", "sh", "-euc", f'{script}\nexec "$@"', "sh"]

    done = world.root.run(
        [*shell, PLUGIN, "version", "--json"], env={**world.env, "PATH": fakes.first}, check=True
    )

    programs = json.loads(done.stdout)["programs"]
    assert programs["slirp4netns"] == programs["netavark"] == "not installed"
    assert programs["nft"].startswith("nft --version failed with exit status 7")
    assert programs["podman"].startswith("podman --version did not end within 2 s")
    assert "does not say its version" in programs["iptables"]


def test_unknown_distribution(world: bench.World) -> None:
    """Where os-release(5) is missing the distribution is unknown."""
    script = """
        mount -t tmpfs tmpfs /mnt
        touch /mnt/closed
        chmod 0 /mnt/closed
        mount --bind /mnt/closed "$(readlink -f /etc/os-release)"
        mount --bind /mnt/closed "$(readlink -f /usr/lib/os-release)"
        exec "$@"
    """
    shell = ["unshare", "--mount", "sh", "-euc", script, "sh"]
    become = ["setpriv", f"--reuid={world.uid}", f"--regid={world.uid}", "--init-groups"]

    done = world.root.run(
        [*shell, *become, PLUGIN, "version", "--json"], env=world.env, check=True
    )

    assert json.loads(done.stdout)["distribution"] == "unknown"


def test_plugin_path(world: bench.World, fakes: Fakes) -> None:
    """The directories in CNI_PATH come first; those that are not there are left out."""
    fakes.add("mine", "#!/bin/sh\n")
    fakes.add("README", "", mode=0o644)

    found = version(world, CNI_PATH=f"{fakes.path}:/none")

    assert next(iter(found["plugins"])) == fakes.path
    assert found["plugins"][fakes.path] == 1
    assert "/none" not in found["plugins"]


def test_option(world: bench.World) -> None:
    """`--version` is still one line."""
    done = world.run([PLUGIN, "--version"], check=True)

    assert done.stdout == f"netns-shim {netns_shim.__version__}\n"

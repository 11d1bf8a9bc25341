# SPDX-License-Identifier: Apache-2.0
"""What lies beside /var/lib/cni stays visible on a machine that has no /var/lib/cni."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import bench
import pytest
from runtime import PLUGIN, Runtime, until

from netns_shim import kept
from netns_shim.enter import WHOLE, stamp
from netns_shim.shared import beside

LIB = "/var/lib"
RUN = (PLUGIN, "run", "--uplink", "none", "--")
# A plugin that tells what it sees of the paths of its configuration.
LOOKING = """#!/usr/bin/python3 -IS
import json, os, sys
conf = json.load(sys.stdin)
if os.environ["CNI_COMMAND"] == "VERSION":
    print('{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}')
elif os.environ["CNI_COMMAND"] == "ADD":
    seen = [path for path in conf["paths"] if os.path.exists(path)]
    os.makedirs("/var/lib/cni/looking", exist_ok=True)
    print(json.dumps({"cniVersion": "1.0.0", "dns": {"search": seen}}))
"""


@pytest.fixture
def lib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /var/lib: it has an entry of each kind, and no `cni`."""
    path = tmp_path.resolve() / "lib"
    (path / "home" / "below").mkdir(parents=True)
    (path / "file").write_text("content")
    (path / "link").symlink_to("../elsewhere")
    os.utime(path, ns=(1, 10**18))
    monkeypatch.setattr(kept, "CNI_STATE", f"{path}/cni")
    return path


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A directory of ours for it, with the state of plugins."""
    path = tmp_path.resolve() / "ours"
    (path / "cni").mkdir(parents=True)
    return path


def make(ours: Path, lib: Path) -> dict[str, str]:
    """Make the places; tell what each of them is."""
    beside.make_places(str(ours), str(lib), str(lib))
    return {
        path.name: os.readlink(path) if path.is_symlink() else "bound"
        for path in ours.iterdir()
        if path.name != "cni"
    }


def test_places(ours: Path, lib: Path) -> None:
    """A directory or a file has a place that is bound; a link is the same link."""
    assert make(ours, lib) == {"home": "bound", "file": "bound", "link": "../elsewhere"}
    assert (ours / "home").is_dir()
    assert (ours / "file").is_file()
    assert (ours / "file").stat().st_size == 0


def test_time_tells_what_is_new(ours: Path, lib: Path) -> None:
    """Ours gets the time of theirs, so that a look tells whether something is new."""
    make(ours, lib)

    assert ours.stat().st_mtime_ns == stamp(lib.stat().st_mtime_ns) == stamp(10**18)


def test_time_of_a_moment_ago(ours: Path, lib: Path) -> None:
    """A directory that has changed a moment ago may change again in the same tick: look again."""
    (lib / "new").mkdir()

    make(ours, lib)

    assert ours.stat().st_mtime_ns != stamp(lib.stat().st_mtime_ns)


def test_places_follow(ours: Path, lib: Path) -> None:
    """What is new gets a place, what is gone loses it, and what is another kind gets another."""
    make(ours, lib)
    (lib / "new").mkdir()
    (lib / "file").unlink()
    (lib / "link").unlink()
    (lib / "link").symlink_to("home")
    shutil.rmtree(lib / "home")
    (lib / "home").write_text("")

    assert make(ours, lib) == {"new": "bound", "link": "home", "home": "bound"}
    assert (ours / "home").is_file()


def test_what_plugins_make_stays(ours: Path, lib: Path) -> None:
    """A directory or file that a plugin has made beside its state is none of the places."""
    make(ours, lib)
    (ours / "plugins").mkdir()
    (ours / "lock").touch()

    assert {"plugins", "lock"} < set(make(ours, lib))


def test_very_many_entries(ours: Path, lib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From some number on, links lead to the entries, but a home is bound all the same."""
    monkeypatch.setenv("HOME", f"{lib}/zz/home")
    (lib / "zz").mkdir()
    for number in range(200):
        (lib / f"entry-{number}").mkdir()

    places = make(ours, lib)

    bound = {name for name, what in places.items() if what == "bound"} - {WHOLE}
    assert len(bound) == beside.MOST
    assert "zz" in bound
    assert places[WHOLE] == "bound"
    assert set(places) == {*os.listdir(lib), WHOLE}
    linked = set(places) - bound - {WHOLE, "link"}
    assert all(places[name] == f"{WHOLE}/{name}" for name in linked)
    assert make(ours, lib) == places


def test_place_is_made_by_another_call(ours: Path, lib: Path) -> None:
    """Calls that make places at the same time do not disturb each other."""
    with os.scandir(lib) as entries:
        found = list(entries)
    make(ours, lib)

    for entry in found:
        beside._make(f"{ours}/{entry.name}", entry, is_bound=True)

    assert make(ours, lib) == {"home": "bound", "file": "bound", "link": "../elsewhere"}


@pytest.fixture
def home(world: bench.World) -> Iterator[str]:
    """A home below /var/lib with a file in it, as a service account has one; no /var/lib/cni."""
    path = f"{LIB}/ci"
    world.root.run(["install", "-d", f"--owner={world.uid}", path], check=True)
    world.root.run(["sh", "-c", f"echo mine >{path}/x; chown {world.uid} {path}/x"], check=True)
    before = world.env["HOME"]
    world.env["HOME"] = path
    yield path
    world.env["HOME"] = before


@pytest.fixture
def vendor(world: bench.World) -> Iterator[str]:
    """A directory for plugins with a link to one below /var/lib; gives its path."""
    plugin = world.root.path(f"{LIB}/vendor/looking")
    plugin.parent.mkdir()
    plugin.write_text(LOOKING)
    plugin.chmod(0o755)
    directory = world.root.path("/opt/linked")
    directory.mkdir()
    (directory / "looking").symlink_to(f"{LIB}/vendor/looking")
    yield "/opt/linked"
    shutil.rmtree(directory)


def test_home_is_there(world: bench.World, home: str) -> None:
    """A command sees its home as it is, and can write into it; the state is in its own place."""
    script = 'cat ~/x; echo more >~/y; pwd; mkdir /var/lib/cni/mine; stat -c %F ~ "$0"'
    for command in (RUN, (PLUGIN, "unshare", "--netns", "default", "--")):
        argv = ["env", f"--chdir={home}", *command, "sh", "-euc", script, home]
        done = world.run(argv)

        assert done.stdout.splitlines() == ["mine", home, "directory", "directory"], done.stderr
        assert world.path(f"{home}/y").read_text() == "more\n"
        assert not world.path("/var/lib/cni").exists()
    assert until(lambda: world.leftovers() == [])


def test_plugin_and_what_it_needs(
    world: bench.World, session: bench.Session, home: str, vendor: str
) -> None:
    """A plugin is found that is a link to below /var/lib, and sees what lies there."""
    paths = [f"{home}/x", f"{LIB}/vendor", f"{LIB}/cni"]
    delegate = {"type": "looking", "paths": paths}
    runtime = Runtime(session, path=vendor, delegate=delegate, uplink="none")
    with session.container() as container:
        seen = runtime.add("one", container)["dns"]["search"]
        # What comes later is seen as well.
        world.root.run(["mkdir", f"{LIB}/later"], check=True)
        delegate["paths"] = [*paths, f"{LIB}/later"]
        later = runtime.add("two", container, CNI_IFNAME="eth1")["dns"]["search"]
        runtime.delete("two", container, CNI_IFNAME="eth1")
        runtime.delete("one", container)
        # A DEL of something unknown is in a place that goes with it.
        runtime.delete("one", container)

    assert seen == paths
    assert later == [*paths[:2], paths[2], f"{LIB}/later"]
    assert not world.path(f"{LIB}/cni").exists()
    assert until(lambda: world.leftovers() == [])


def test_plugin_in_place(
    world: bench.World, session: bench.Session, home: str, vendor: str
) -> None:
    """In place, too, only /var/lib/cni is another one."""
    paths = [f"{home}/x", f"{LIB}/vendor", f"{LIB}/cni"]
    runtime = Runtime(
        session, path=vendor, delegate={"type": "looking", "paths": paths}, enter="never"
    )
    with session.container() as container:
        assert runtime.add("one", container)["dns"]["search"] == paths[:2] + paths[2:]
        runtime.delete("one", container)

    assert not world.path(f"{LIB}/cni").exists()


def test_state_in_the_home(
    world: bench.World, session: bench.Session, home: str, vendor: str
) -> None:
    """The state directory itself may lie there, in several shared netns."""
    keys = {"path": vendor, "uplink": "none", "stateDir": f"{home}/state"}
    delegate = {"type": "looking", "paths": [f"{home}/state/a", f"{home}/state/b"]}
    with session.container() as container:
        for name in ("a", "b", "a"):
            runtime = Runtime(session, netns=name, delegate=delegate, **keys)
            seen = runtime.add(name, container, CNI_IFNAME=f"eth{name}")["dns"]["search"]
            runtime.delete(name, container, CNI_IFNAME=f"eth{name}")
            assert f"{home}/state/{name}" in seen

    assert [path.name for path in world.path(f"{home}/state").iterdir()] == []


def test_mounts_and_files_below(world: bench.World, session: bench.Session) -> None:
    """File systems that are mounted there, sockets and files stay what they are."""
    script = (
        f"mkdir {LIB}/disk; mount -t tmpfs tmpfs {LIB}/disk; touch {LIB}/disk/inside {LIB}/file;"
        f"ln -s disk {LIB}/alias; chmod 700 {LIB}/disk"
    )
    world.root.run(["sh", "-euc", script], check=True)
    show = f"cd {LIB}; stat -c '%n %F %a' disk file alias; readlink alias; test ! -e missing"

    with world.unshared() as unshared:
        expected = unshared.run(["sh", "-euc", show], check=True).stdout
        done = unshared.run([*RUN, "sh", "-euc", show])

    assert done.stdout == expected, done.stderr
    world.root.run(["umount", f"{LIB}/disk"], check=True)


def test_very_many_entries_cost_little(world: bench.World, session: bench.Session) -> None:
    """A thousand entries are all there, and a call mounts no more than for some dozens."""
    world.root.run(["sh", "-c", f"cd {LIB}; seq 1000 | xargs mkdir"], check=True)
    script = f"ls {LIB} | wc -l; ls -d {LIB}/*/. | wc -l; wc -l </proc/self/mountinfo"

    bare = session.run(["sh", "-c", "wc -l </proc/self/mountinfo"], check=True)
    done = session.run([*RUN, "sh", "-euc", script], check=True)

    listed, entered, mounted = map(int, done.stdout.split())
    assert (listed, entered) == (1001, 1001), done.stderr
    assert mounted - int(bare.stdout) < 2 * beside.MOST
    assert until(lambda: world.leftovers() == [])


def test_modes_tell_places_from_what_plugins_make() -> None:
    """No umask gives what a plugin makes the mode of a place, which nobody can write to."""
    for mode in (beside.DIRECTORY, beside.FILE):
        assert not mode & stat.S_IWUSR

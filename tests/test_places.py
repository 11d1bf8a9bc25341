# SPDX-License-Identifier: Apache-2.0
"""Where a user's state is: one place, whichever way the user comes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import bench
import kinder
import pytest
from places import HOLD
from runtime import PLUGIN, Runtime, bridge, reaches, until

from netns_shim import references, state
from netns_shim.errors import ALREADY_ATTACHED, ShimError
from netns_shim.userns import places

UID = "987654321"
ENVIRON = {"_CONTAINERS_ROOTLESS_UID": UID}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in the place of /tmp."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    directory.chmod(0o1777)
    monkeypatch.setattr(places, "TEMPORARY", str(directory))
    monkeypatch.setattr(state, "usual", lambda environ, uid: iter(()))
    return directory


def attach(base: Path, netns: str = "default") -> str:
    """Make state with something attached; give its path."""
    refs = base / netns / "refs"
    refs.mkdir(parents=True, mode=0o700)
    base.chmod(0o700)
    (refs / "net:c:eth0:bridge").touch()
    return str(base)


def squat(path: Path, kind: str = "directory") -> None:
    """Take a name as another user may."""
    if kind == "directory":
        path.mkdir(mode=0o700)
        os.chown(path, 65534, 65534)
    elif kind == "link":
        path.symlink_to(path.parent.parent)
    else:
        path.touch()


@pytest.mark.parametrize("kind", ["directory", "link", "file"])
def test_name_that_another_has_taken(temporary: Path, kind: str) -> None:
    """The state gets the next free name, and is found there, also after the first one is free."""
    if os.geteuid():
        pytest.skip("only root makes files of another user")
    first, third = temporary / f"netns-shim-{UID}", temporary / f"netns-shim-{UID}-2"
    squat(first, kind)
    squat(temporary / f"netns-shim-{UID}-1", kind)

    assert places.choose(ENVIRON) == str(third)

    attach(third)
    (first.rmdir if kind == "directory" else first.unlink)()
    assert places.choose(ENVIRON) == str(third)


@pytest.mark.parametrize("end", ["x", "-", "-0", "-01", "-x", "--1", "-1x", "-\u0661"])
def test_name_that_is_like_one_of_ours(temporary: Path, end: str) -> None:
    """A directory with another name is not looked into, though it is this user's."""
    attach(temporary / f"netns-shim-{UID}{end}")

    assert places.in_use(ENVIRON) == {}


def test_what_is_attached_wins(temporary: Path, tmp_path: Path) -> None:
    """A place with something attached comes before a runtime directory with nothing in it."""
    base = attach(temporary / f"netns-shim-{UID}")
    runtime = tmp_path / "run"
    runtime.mkdir()

    assert places.choose({**ENVIRON, "XDG_RUNTIME_DIR": str(runtime)}) == base


def test_temporary_directory_of_a_session(temporary: Path, tmp_path: Path) -> None:
    """TMPDIR counts if state is there already, or if /tmp cannot be used."""
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    environ = {**ENVIRON, "TMPDIR": f"{own}/"}

    assert places.choose(environ) == f"{temporary}/netns-shim-{UID}"
    temporary.chmod(0o777)
    assert places.choose(environ) == f"{own}/netns-shim-{UID}"
    temporary.chmod(0o1777)
    base = attach(own / f"netns-shim-{UID}")
    assert places.choose(environ) == base


@pytest.mark.parametrize("name", state.MADE_UP)
def test_runtime_directory_that_an_engine_has_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Podman gives its plugins a variable that no shell of the user has: it decides nothing.

    State that an earlier release has made there is found.
    """
    monkeypatch.setattr(places, "TEMPORARY", str(tmp_path))
    monkeypatch.setattr(state, "usual", lambda environ, uid: iter(()))
    own = tmp_path / f"{name}{UID}"
    own.mkdir(mode=0o700)
    environ = {**ENVIRON, "XDG_RUNTIME_DIR": f"{own}/"}

    assert state.runtime_directories(environ, UID) == []
    assert state.runtime_directories(environ, "1") == [str(own)]
    assert places.choose(environ) == f"{tmp_path}/netns-shim-{UID}"
    base = attach(own / "netns-shim")
    assert places.choose(environ) == places.choose(ENVIRON) == base


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_directory_in_which_others_can_replace(temporary: Path, mode: int) -> None:
    """State goes into no directory from which others could take it away."""
    temporary.chmod(mode)

    with pytest.raises(ShimError) as caught:
        places.choose(ENVIRON)

    assert f"has the mode {mode:04o}" in caught.value.details


def test_two_that_are_in_use(temporary: Path, tmp_path: Path) -> None:
    """A call gets the place that has its attachment, else its netns, else the first."""
    first = attach(temporary / f"netns-shim-{UID}", "one")
    environ = {**ENVIRON, "TMPDIR": str(tmp_path)}
    second = attach(tmp_path / f"netns-shim-{UID}", "two")
    Path(f"{first}/two/refs").mkdir(parents=True)

    assert list(places.in_use(environ)) == [first, second]
    assert places.choose(environ) == first
    assert places.choose(environ, "three/refs") == first
    for base in (first, second):
        Path(f"{base}/two/started").mkdir()
    Path(f"{second}/two/started/:c:eth0").symlink_to("../refs/edited:c:eth0:bridge")
    assert places.choose(environ, references.index("two", "c", "eth0")) == second
    assert places.choose(environ, references.index("two", "d", "eth0")) == first


def test_what_ran_in_place(temporary: Path) -> None:
    """The directory of plugins that run in place stays, and counts only with a reference."""
    base = temporary / f"netns-shim-{UID}"
    (base / state.IN_PLACE / "refs").mkdir(parents=True)
    base.chmod(0o700)

    assert places.in_use(ENVIRON) == {}
    (base / state.IN_PLACE / "refs" / "net:c:eth0:bridge").touch()
    assert list(places.in_use(ENVIRON)) == [str(base)]


@pytest.mark.parametrize("name", state.MADE_UP)
def test_runtime_directory_of_podman(temporary: Path, tmp_path: Path, name: str) -> None:
    """Without a log-in Podman has a runtime directory of its own: what is in it is found later.

    It has to be this user's: others may make it first.
    """
    own = tmp_path / "own"
    own.mkdir()
    for directory in (temporary, own):
        runtime = directory / f"{name}{UID}"
        base = attach(runtime / "netns-shim", state.IN_PLACE)

        environ = {**ENVIRON, "TMPDIR": str(own), "XDG_RUNTIME_DIR": str(tmp_path)}
        assert places.choose(environ, f"{state.IN_PLACE}/refs") == base

        if not os.geteuid():
            os.chown(runtime, 65534, 65534)
            assert places.in_use(environ) == {}
        runtime.rename(tmp_path / "gone")
        (tmp_path / "gone").rename(tmp_path / f"gone-{directory.name}")


def test_error_that_hides_the_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that may pass is told, and no other place is taken for it."""

    def fail(path: str, **_: Any) -> os.stat_result:
        raise OSError(5, os.strerror(5), path)

    monkeypatch.setattr(os, "stat", fail)

    with pytest.raises(OSError, match="Input/output error: '/run/mine'"):
        state.base_dir({**ENVIRON, "XDG_RUNTIME_DIR": "/run/mine"}, part="default/refs")


def test_root_finds_what_an_earlier_release_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's state is in /run; one in the runtime directory of a log-in is found still."""
    there = {"/run/user/0", "/run/user/0/netns-shim"}
    environ = {"_CONTAINERS_ROOTLESS_UID": "0"}
    monkeypatch.setattr(state, "owns", lambda path, follow=False: path in there)
    monkeypatch.setattr(os.path, "lexists", lambda path: path.startswith("/run/user/0/"))

    for value in ("", "/run/user/0"):
        found = state.base_dir({**environ, "XDG_RUNTIME_DIR": value}, part=".in-place/refs")
        assert found == "/run/user/0/netns-shim"


class Way:
    """A way in which the user comes: the variables that it brings, and the mounts it is in."""

    def __init__(self, place: bench.Place, **variables: str) -> None:
        self.place, self.variables = place, variables
        login = {"XDG_RUNTIME_DIR": variables.get("XDG_RUNTIME_DIR", "")}
        self.env = {**place.env, **login, **variables}

    def unshared(self) -> bench.Place:
        """Enter the user namespace that the shim makes, and stay there."""
        argv = [*self.place._enter, PLUGIN, "unshare", "--", "sh", "-euc", HOLD]
        return bench.Place(argv, flags=bench.Session.flags, env=self.env)

    def command(self, *words: str) -> Any:
        """Call a command that prints JSON."""
        done = self.place.run([PLUGIN, *words], env=self.env)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


def private_tmp(world: bench.World) -> bench.Place:
    """Start a service with PrivateTmp= and ProtectHome=: its own /tmp, and no /run/user."""
    script = "mount -t tmpfs -o mode=1777 tmpfs /tmp; mount -t tmpfs -o mode=0 tmpfs /run/user\n"
    become = ["setpriv", f"--reuid={world.uid}", f"--regid={world.uid}", "--init-groups"]
    unshare = ["unshare", "--mount", "--propagation=slave"]
    argv = [*world.root._enter, *unshare, "sh", "-euc", script + HOLD]
    return bench.Place(argv, flags=world.root._flags, then=become, env=world.env)


@contextmanager
def ways(world: bench.World) -> Iterator[dict[str, Way]]:
    """Prepare each way in which a user comes."""
    home = world.env["HOME"]
    world.run(["mkdir", "-m", "0700", f"{home}/run", f"{home}/tmp", "/tmp/own"], check=True)
    with private_tmp(world) as service:
        yield {
            "log-in": Way(world, XDG_RUNTIME_DIR=world.runtime_dir),
            "cron": Way(world),
            "su": Way(world, XDG_RUNTIME_DIR="/run/user/0", TMPDIR="/tmp/own"),
            "job": Way(world, XDG_RUNTIME_DIR=f"{home}/run", TMPDIR=f"{home}/tmp"),
            "service": Way(service),
        }


WAYS = ("log-in", "cron", "su", "job", "service")


@pytest.mark.spread
@pytest.mark.parametrize(("first", "second"), list(permutations(WAYS, 2)))
def test_ways_with_a_runtime_directory(world: bench.World, first: str, second: str) -> None:
    """What a user attached in one way, each other way finds, and makes no state beside it."""
    with ExitStack() as stack:
        stack.callback(world.reset)
        stack.enter_context(kinder.log_in(world))
        found = stack.enter_context(ways(world))
        walk(world, found[first], found[second])


@pytest.mark.spread
@pytest.mark.parametrize("second", ["log-in", "service"])
@pytest.mark.parametrize("first", ["cron", "job", "service"])
def test_ways_before_a_log_in(world: bench.World, first: str, second: str) -> None:
    """A log-in makes a runtime directory, and state from before it is found still."""
    with ExitStack() as stack:
        stack.callback(world.reset)
        found = stack.enter_context(ways(world))
        walk(world, found[first], found[second], lambda: stack.enter_context(kinder.log_in(world)))


def walk(world: bench.World, one: Way, other: Way, between: Callable[[], object] = int) -> None:
    """Attach in one way, and do all else in another."""
    runtime = Runtime(one.place, delegate=bridge(), uplink="none")
    beside = Runtime(other.place, delegate=bridge(), uplink="none")
    with ExitStack() as stack:
        own = stack.enter_context(one.unshared())
        c, d = (stack.enter_context(own.container()) for _ in range(2))
        runtime.add("c", c, **one.variables)
        own.close()
        between()

        seen = other.command("status", "--json")
        assert seen == one.command("status", "--json")
        assert [found["containerID"] for found in seen["netns"][0]["references"]] == ["c"]
        assert beside.fail("ADD", "c", c.netns, **other.variables)["code"] == ALREADY_ATTACHED
        beside.add("d", d, **other.variables)
        assert reaches(c, d.run(["hostname", "-I"]).stdout.split()[0])
        (judged,) = other.command("gc", "--json")["netns"]
        assert len(judged["live"]) == 2
        assert judged["deleted"] == judged["failed"] == []
        beside.delete("c", c, **other.variables)
        stop = other.place.run([PLUGIN, "stop", "--force"], env=other.env, check=True)
        assert stop.stdout == "default: detached rootless d eth0\ndefault: removed\n"
        assert one.command("status", "--json")["netns"] == []
        assert until(lambda: world.leftovers() == [])
        assert not list(world.path(world.env["HOME"]).glob("*/netns-shim*/default"))


def test_state_is_seen_from_inside(world: bench.World) -> None:
    """In the mounts of a shared netns, the state is found as well, in whichever way you enter."""
    with ExitStack() as stack:
        stack.callback(world.reset)
        stack.enter_context(kinder.log_in(world))
        found = stack.enter_context(ways(world))
        one = found["log-in"]
        runtime = Runtime(world, delegate=bridge(), uplink="none")
        own = stack.enter_context(one.unshared())
        c = stack.enter_context(own.container())
        runtime.add("c", c, **one.variables)
        own.close()

        for name in WAYS:
            seen = found[name].command("run", "--", PLUGIN, "status", "--json")
            assert seen["stateDir"] == f"{world.runtime_dir}/netns-shim"
            (inside,) = seen["netns"]
            assert [entry["containerID"] for entry in inside["references"]] == ["c"]
        runtime.delete("c", c)


def test_squatted_name(world: bench.World) -> None:
    """Another user who makes the directory first keeps no user out, and is given nothing."""
    taken = f"/tmp/netns-shim-{world.uid}"
    runtime = Runtime(world, delegate=bridge(), uplink="none")
    with ExitStack() as stack:
        stack.callback(world.reset)
        squat = f"mkdir -m 0700 {taken} {taken}-1; chown 1:1 {taken}; ln -s /etc {taken}-2"
        world.root.run(["sh", "-euc", f"{squat}; chown 1:1 {taken}-1"], check=True)
        own = stack.enter_context(world.unshared())
        c, d = (stack.enter_context(own.container()) for _ in range(2))
        runtime.add("c", c)
        own.close()

        assert Way(world).command("status", "--json")["stateDir"] == f"{taken}-3"
        world.root.run(["rm", "-r", taken], check=True)
        runtime.add("d", d)
        assert reaches(c, d.run(["hostname", "-I"]).stdout.split()[0])
        runtime.delete("d", d)
        runtime.delete("c", c)
        assert until(lambda: world.leftovers() == [])
        assert os.listdir(world.path(f"{taken}-3")) == []
        assert os.listdir(world.path(f"{taken}-1")) == []

# SPDX-License-Identifier: Apache-2.0
"""Whose a directory is: what is not the shim's stays, whatever a configuration names."""

from __future__ import annotations

import re
from pathlib import Path

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge, page

import netns_shim
from netns_shim import errors
from netns_shim.errors import ShimError
from netns_shim.shared import ownership
from netns_shim.state import MARK, State

# What a user may have in a private directory, as a script that is run in it.
POSSESSIONS = {
    "files": "echo kept >file; mkdir -p deep/er; echo kept >deep/er/file",
    "the refs of a repository": "mkdir -p refs/heads objects; echo kept >HEAD",
    "an empty directory refs": "mkdir -m 0700 refs",
    "an empty file in refs": "mkdir -m 0700 refs; : >refs/file",
    "directories of a system": "mkdir -p run var/lib; echo kept >var/lib/file",
    "a link to a directory": "mkdir -p ../elsewhere; echo kept >../elsewhere/file;"
    "ln -s ../elsewhere run",
    "names of ours, and one more": "mkdir started run var; : >uplink.json; echo kept >notes",
    "nothing": ":",
}


def make(where: State, *names: str) -> None:
    """Make the directory of a state with these names in it; those with a slash at the end too."""
    Path(where.dir).mkdir(parents=True, mode=0o700)
    for path in (Path(where.base), Path(where.dir)):
        path.chmod(0o700)
    for name in names:
        path = Path(where.path(name))
        path.mkdir() if name.endswith("/") else path.write_text("{}")


@pytest.mark.parametrize(
    ("names", "is_ours"),
    [
        (("started/", "run/", "var/"), True),
        (("run/", "uplink.json", "uplink.log"), True),
        (("refs/", "started/", "uplink.json", "var/", "run/", "plugins.json.new"), True),
        (("refs/",), False),
        (("run/", "var/"), False),
        (("started/", "notes"), False),
        ((), False),
    ],
)
def test_directory_of_0_1_0(tmp_path: Path, names: tuple[str, ...], is_ours: bool) -> None:
    """One without the mark is known by its names: all are known, and one is special."""
    where = State(str(tmp_path / "base"), "default")
    make(where, *names)

    assert where.is_ours() is is_ours


def test_what_0_1_0_has_left_is_taken_over(tmp_path: Path) -> None:
    """Empty directories with our names are taken over: a removal that was cut off leaves them."""
    where = State(str(tmp_path / "base"), "default")
    make(where, "run/", "var/", "var/lib/")
    assert not where.is_ours()

    ownership.check(where)
    ownership.claim(where)
    ownership.remove(where)

    assert not Path(where.dir).exists()


def test_a_link_among_empty_directories(tmp_path: Path) -> None:
    """A link is something of the user's."""
    where = State(str(tmp_path / "base"), "default")
    make(where, "run/")
    Path(where.path("var")).symlink_to(tmp_path)

    with pytest.raises(ShimError, match="netns-shim has not made it"):
        ownership.check(where)


def test_only_known_names_are_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What somebody has put beside our files stays, and so does the directory with its mark."""
    where = State(str(tmp_path), "default")
    tmp_path.chmod(0o700)
    ownership.claim(where)
    for name in ("run", "uplink.log", "notes/deep"):
        Path(where.path(name)).mkdir(parents=True)
    Path(where.path("uplink.log/notes")).touch()

    ownership.remove(where)

    assert sorted(path.name for path in Path(where.dir).iterdir()) == [MARK, "notes", "uplink.log"]
    assert Path(where.path("notes/deep")).is_dir()
    assert "'notes', 'uplink.log'" in capsys.readouterr().err
    ownership.check(where)  # it can be used again


def test_all_names_are_known() -> None:
    """Each name that the package gives to a file of a shared netns is one that it removes."""
    package = Path(netns_shim.__file__).parent
    text = "\n".join(path.read_text() for path in sorted(package.rglob("*.py")))
    named = set(re.findall(r"(?:self|state|where|state_of|_state)\.path\(f?\"([\w.-]+)", text))

    assert named >= {"uplink.json", "resolv.conf", "turn.lock"}  # the pattern finds them
    assert named <= ownership.DIRECTORIES | ownership.FILES


@pytest.fixture
def mine(session: bench.Session, world: bench.World) -> str:
    """A private directory of the user's, in which other programs keep their data."""
    path = f"{world.env['HOME']}/mine"
    session.run(["mkdir", "-m", "0700", path], check=True)
    return path


def listing(session: bench.Session, path: str) -> str:
    """List all that is below a path."""
    return session.run(["ls", "-lAR", "--full-time", path], check=True).stdout


@pytest.mark.parametrize("possession", POSSESSIONS)
def test_a_directory_of_the_users(session: bench.Session, mine: str, possession: str) -> None:
    """Neither a DEL nor a command takes anything from it, and an ADD is refused or uses it."""
    script = f'umask 077; mkdir "$0"; cd "$0"; {POSSESSIONS[possession]}'
    session.run(["sh", "-euc", script, f"{mine}/containers"], check=True)
    runtime = Runtime(session, delegate=bridge(), uplink="none", stateDir=mine, netns="containers")
    before = listing(session, mine)
    with session.container() as container:
        runtime.delete("c", container)
        session.run([PLUGIN, "gc", "--state-dir", mine], check=True)
        for more in ([], ["--force"]):
            stop = [PLUGIN, "stop", "--state-dir", mine, "--netns", "containers", *more]
            assert "is up" in session.run(stop, check=True).stdout
        assert listing(session, mine) == before

        if possession == "nothing":
            runtime.add("c", container)
            runtime.delete("c", container)
        else:
            error = runtime.fail("ADD", "c", container.netns)
            assert error["code"] == errors.IO_FAILURE
            assert f"{mine}/containers" in error["msg"]
            assert "netns-shim has not made it" in error["details"]
            status = runtime.fail("STATUS", conf={"cniVersion": "1.1.0"})
            assert status["code"] == errors.NOT_AVAILABLE
    assert before.splitlines()[2:] == listing(session, mine).splitlines()[2:] or (
        possession == "nothing"
    )
    assert session.path(f"{mine}/containers").is_dir()


def test_a_state_directory_as_a_netns(session: bench.Session, mine: str) -> None:
    """A state directory with a living netns in it is not taken for a netns, nor is one in that."""
    inner = Runtime(session, delegate=bridge(), stateDir=f"{mine}/inner")
    outer = Runtime(session, delegate=bridge(), stateDir=mine, netns="inner")
    below = Runtime(session, delegate=bridge(), stateDir=f"{mine}/inner/default", netns="run")
    with session.container() as container, session.container() as other:
        inner.add("c", container)

        for runtime in (outer, below):
            runtime.delete("o", other)
            assert runtime.fail("ADD", "o", other.netns)["code"] == errors.IO_FAILURE
            assert runtime.call("DEL", "o", other.netns).returncode == 0
            assert page(container, bench.PAGE)

        inner.delete("c", container)
    assert not session.path(f"{mine}/inner/default").exists()


def test_a_file_of_the_users_among_ours(session: bench.Session, mine: str) -> None:
    """The last DEL leaves it, with a warning, and the next ADD works beside it."""
    runtime = Runtime(session, delegate=bridge(), uplink="none", stateDir=mine)
    with session.container() as container:
        for _ in range(2):
            runtime.add("c", container)
            session.path(f"{mine}/default/notes").write_text("kept")
            done = runtime.call("DEL", "c", container.netns)
            assert done.returncode == 0
            assert "notes" in done.stderr
            found = {path.name for path in session.path(f"{mine}/default").iterdir()}
            assert found == {MARK, "notes"}


def test_links_inside(session: bench.Session, mine: str) -> None:
    """What a link in the directory of a netns leads to stays, also when `stop` removes all."""
    runtime = Runtime(session, delegate=bridge(), uplink="none", stateDir=mine)
    session.run(["sh", "-euc", 'mkdir "$0"; echo kept >"$0/file"', f"{mine}/kept"], check=True)
    with session.container() as container:
        runtime.add("c", container)
        for name in ("ports", "validated", "netavark"):
            script = 'rm -rf "$1"; ln -s "$0" "$1"'
            path = f"{mine}/default/{name}"
            session.run(["sh", "-euc", script, f"{mine}/kept", path], check=True)
        stop = [PLUGIN, "stop", "--force", "--state-dir", mine]
        assert session.run(stop).returncode == 0
    assert session.path(f"{mine}/kept/file").read_text() == "kept\n"
    assert not session.path(f"{mine}/default").exists()

# SPDX-License-Identifier: Apache-2.0
"""`netns-shim unshare --copy-up`: directories of root's that commands in there can write to."""

from __future__ import annotations

import subprocess

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge, reaches, until

UP = ["--copy-up", "/run", "--copy-up", "/var/lib"]
WAIT = ["sh", "-c", "echo ready; exec cat"]


def unshare(world: bench.World, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the user's own user namespace."""
    return world.run([PLUGIN, "unshare", *words], env={**world.env, **env})


def test_it_can_be_written(world: bench.World) -> None:
    """All that was there is there, can be replaced, and the machine sees none of it."""
    world.root.run(["sh", "-euc", "mkdir -m 711 /run/daemon /var/lib/x; echo old >/var/lib/x/f"])
    script = """
        cat /var/lib/x/f
        rm /run/daemon && mkdir /run/daemon && echo new >/run/daemon/f && mkdir -p /var/lib/a/b
        stat -c %a /run /var/lib
    """
    done = unshare(world, *UP, "--", "sh", "-euc", script)

    try:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "old\n755\n755\n"
        assert world.root.run(["ls", "/run/daemon"], check=True).stdout == ""
        assert not world.path("/var/lib/a").exists()
        assert world.leftovers() == []
    finally:
        world.root.run(["rm", "-r", "/run/daemon", "/var/lib/x"], check=True)


def test_all_commands_and_calls_share_it(world: bench.World) -> None:
    """It is there for all as long as one is; a second time changes nothing, also from within."""
    first = world.popen(
        [PLUGIN, "unshare", *UP, "--", *WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert first.stdout is not None
    first.stdout.readline()

    made = unshare(world, *UP, "--", "mkdir", "/run/made")
    within = f"{PLUGIN} unshare {' '.join(UP)} -- ls /run/made"
    seen = unshare(world, "--", "sh", "-euc", f"touch /run/made/file; {within}")

    assert (made.returncode, made.stderr) == (0, "")
    assert (seen.stdout, seen.stderr) == ("file\n", "")
    first.communicate()
    assert until(lambda: world.leftovers() == [])
    assert unshare(world, "--", "ls", "/run/made").returncode != 0


@pytest.mark.usefixtures("log_in")
def test_containers_are_attached_as_before(world: bench.World) -> None:
    """The state, which is below /run, is found from both sides, before and afterwards."""
    runtime = Runtime(world, delegate=bridge())
    with world.unshared() as own, own.container() as one, own.container() as two:
        runtime.add("before", one)
        unshare(world, *UP, "--", "true").check_returncode()

        runtime.add("after", two)

        assert reaches(one, "10.89.0.3")
        for place in (world, own):
            assert place.run([PLUGIN, "status"], check=True).stdout.count("●") == 3
        runtime.delete("before", one)
        runtime.delete("after", two)
    assert until(lambda: world.leftovers() == [])


NOT_COPIED = ["/", "run", "/none", "/etc/passwd", "", "/proc", "/proc/sys", "/sys/fs", "/dev"]


@pytest.mark.parametrize("directory", NOT_COPIED)
def test_what_cannot_be_copied(world: bench.World, directory: str) -> None:
    """Only a directory can be, by its path, and neither the root nor what is the kernel's."""
    done = unshare(world, "--copy-up", directory, "--", "true")

    assert done.returncode == 1
    assert f"not to be copied: {directory!r}" in done.stderr
    assert world.leftovers() == []


def test_where_it_is_refused(world: bench.World, session: bench.Session) -> None:
    """Root, and a user namespace that the shim has not made, are left as they are."""
    for place in (session, world.root):
        done = place.run([PLUGIN, "unshare", *UP, "--", "true"])
        assert (done.returncode, "--copy-up is not possible here" in done.stderr) == (1, True)
    assert unshare(world, *UP, "--netns", "default", "--", "true").returncode == 1
    assert world.leftovers() == []

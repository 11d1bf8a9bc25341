# SPDX-License-Identifier: Apache-2.0
"""Pipes in the place of files: no call waits for one, whoever has put it there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge

# In the state of a shared netns.
FILES = (
    "uplink.json",
    "uplink.log",
    "resolv.conf",
    "left",
    "plugins.json",
    "turn.lock",
    ".netns-shim",
    "started/rootless",
    "var/lib/cni/networks/rootless/10.89.0.9",
)


def swap(path: Path) -> None:
    """Put a pipe in the place of a file."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    path.chmod(0o644)


@pytest.mark.parametrize("name", FILES)
def test_in_the_state(world: bench.World, session: bench.Session, name: str) -> None:
    """Whichever file of the state is a pipe, all verbs and commands end, and nothing is left."""
    runtime = Runtime(session, delegate=bridge(), uplink="none", cniVersion="1.1.0")
    with session.container() as one, session.container() as two:
        runtime.add("one", one)
        directory = world.path(f"{world.state_dir}/default")
        swap(directory / name)
        os.chown(directory / name, world.uid, world.uid)

        for words in (["status"], ["gc"], ["doctor"]):
            done = session.run(["timeout", "30", PLUGIN, *words])
            assert done.returncode in (0, 1), done.stderr
            assert "Traceback" not in done.stderr
        for verb in ("ADD", "CHECK", "STATUS", "GC", "DEL"):
            done = runtime.call(verb, "two", two.netns)
            assert done.returncode == 0 or json.loads(done.stdout)["code"] != 999, done.stdout
        one.close()
        assert runtime.call("DEL", "one", one.netns).returncode == 0
        session.run([PLUGIN, "stop", "--force"])
    assert world.leftovers() == []


@pytest.mark.parametrize("path", ["/etc/resolv.conf", "/etc/subuid"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_of_the_host(world: bench.World, path: str, make: Callable[[str], None]) -> None:
    """A file of the host that is a pipe, or has no end, counts as one that cannot be read."""
    real = world.path(path)
    before = real.read_bytes()
    real.unlink()
    make(str(real))
    try:
        done = world.run(["timeout", "40", PLUGIN, "run", "--", "cat", "/etc/resolv.conf"])
        assert done.returncode in (0, 1), done.stderr
        assert "Traceback" not in done.stderr
        assert world.run(["timeout", "60", PLUGIN, "doctor"]).returncode in (0, 1)
    finally:
        real.unlink()
        real.write_bytes(before)
    assert world.leftovers() == []

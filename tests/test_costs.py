# SPDX-License-Identifier: Apache-2.0
"""What a warm call costs the kernel: system calls, counted. Milliseconds are for benchmarks/run.

Modules, which most of these come from, are kept by test_imports.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import bench
import pytest
from runtime import PLUGIN, Runtime

NOTHING = """#!/bin/sh
case $CNI_COMMAND in
VERSION) echo '{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}' ;;
ADD) echo '{"cniVersion": "1.0.0"}' ;;
esac
"""
# What was counted with Python 3.11 on Debian 12, beyond the bare interpreter: lower it when you
# have made it less. A module is four of them. The margin is for other releases of the two.
COUNTED = {"ADD": 510, "DEL": 458}
MARGIN = 1.1


def system_calls(runtime: Runtime, verb: str, netns: str) -> int:
    """Count the system calls of a call beyond those of the bare interpreter; not its plugin's."""
    place = runtime.place
    python = place.path(PLUGIN).read_text().split()[0].removeprefix("#!")
    return _count(runtime, verb, netns, [PLUGIN]) - _count(
        runtime, verb, netns, [python, "-IS", "-c", "pass"]
    )


def _count(runtime: Runtime, verb: str, netns: str, argv: list[str]) -> int:
    # Without -f: what a plugin does is its own affair.
    table = f"{runtime.place.env['HOME']}/strace"
    strace = ["strace", "-c", "-U", "name,calls", "-o", table]
    env = runtime.environment(verb, "counted", netns)
    runtime.place.run([*strace, *argv], env=env, input=json.dumps(runtime.conf), check=True)
    name, calls = runtime.place.path(table).read_text().splitlines()[-1].split()
    runtime.place.path(table).unlink()
    assert name == "total"
    return int(calls)


@pytest.fixture
def nothing(world: bench.World) -> Iterator[str]:
    """The directory of a plugin that does nothing."""
    directory = "/opt/bench/nothing"
    world.path(directory).mkdir()
    plugin = world.path(f"{directory}/nothing")
    plugin.write_text(NOTHING)
    plugin.chmod(0o755)
    yield directory
    shutil.rmtree(world.path(directory))


def test_system_calls_of_a_warm_call(session: bench.Session, nothing: str) -> None:
    """A warm ADD and DEL make no more system calls than they did, but for a tenth."""
    runtime = Runtime(session, path=nothing, delegate={"type": "nothing"}, uplink="pasta")
    with session.container() as container, session.container() as other:
        runtime.add("warm", other)

        found = {verb: system_calls(runtime, verb, container.netns) for verb in ("ADD", "DEL")}

        runtime.delete("warm", other)
    for verb, counted in COUNTED.items():
        assert found[verb] <= counted * MARGIN, found
        # Newer interpreters import with less; far less means that something else was counted.
        assert found[verb] >= counted / 2, found

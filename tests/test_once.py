# SPDX-License-Identifier: Apache-2.0
"""Who waits for whom: the first ADD of its kind runs alone, unless `parallel` says otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import bench
import pytest
from runtime import Runtime

from netns_shim import errors

# Looks, lets everybody else look as well, then makes: as `firewall` does with its chain.
CLASHING = """#!/bin/sh
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' ;;
ADD)
    if [ ! -d /run/chain ]; then
        timeout 0.3 tail -f /dev/null
        mkdir /run/chain 2>/dev/null || { echo '{"code":999,"msg":"File exists"}'; exit 1; }
    rmdir /run/fail 2>/dev/null && { rmdir /run/chain; echo '{"code":9,"msg":"no"}'; exit 1; }
    fi
    echo '{"cniVersion":"1.0.0"}' ;;
esac
"""
CONTAINERS = 8


@pytest.fixture
def runtime(world: bench.World, session: bench.Session) -> Runtime:
    """A runtime with a plugin that clashes with itself."""
    directory = f"{world.env['HOME']}/plugins"
    script = 'mkdir "$0"; cat >"$0/clashing"; chmod +x "$0/clashing"'
    session.run(["sh", "-euc", script, directory], input=CLASHING, check=True)
    return Runtime(session, path=directory, delegate={"type": "clashing"}, uplink="none")


def test_plugins_that_clash(world: bench.World, session: bench.Session, runtime: Runtime) -> None:
    """Eight ADDs at once of a plugin that clashes with itself in the beginning all succeed."""
    with session.container() as container, ThreadPoolExecutor(CONTAINERS) as pool:
        list(pool.map(lambda i: runtime.add(f"c{i}", container), range(CONTAINERS)))
        list(pool.map(lambda i: runtime.delete(f"c{i}", container), range(CONTAINERS)))
    assert world.leftovers() == []


def test_the_first_may_fail(world: bench.World, session: bench.Session, runtime: Runtime) -> None:
    """Where the first one fails, another one is the first."""
    with session.container() as container, ThreadPoolExecutor(CONTAINERS) as pool:
        keep = {"delegate": {"type": "clashing"}, "name": "other"}
        runtime.add("keep", container, conf=keep)
        script = [
            "/opt/cni/bin/netns-shim",
            "run",
            "--",
            "sh",
            "-c",
            "rmdir /run/chain; mkdir /run/fail",
        ]
        session.run(script, check=True)

        calls = pool.map(
            lambda i: runtime.call("ADD", f"c{i}", container.netns), range(CONTAINERS)
        )

        failures = [json.loads(done.stdout)["msg"] for done in calls if done.returncode]
        assert failures == ["no"]
        list(pool.map(lambda i: runtime.delete(f"c{i}", container), range(CONTAINERS)))
        runtime.delete("keep", container, conf=keep)
    assert world.leftovers() == []


@pytest.fixture
def busy(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> Iterator[Callable[[], object]]:
    """A shared netns in which another call has the lock; calling it ends that."""
    keep = {"name": "other"}
    lock = f"{world.state_dir}/default/turn.lock"
    script = 'printf "ADD of another" >"$0"; echo; exec cat'
    with session.container() as container:
        runtime.add("keep", container, conf=keep)
        argv = ["flock", lock, "sh", "-c", script, lock]
        holder = session.popen(argv, stdin=-1, stdout=-1, text=True)
        holder.stdout.readline()

        yield holder.communicate

        if holder.poll() is None:
            holder.communicate()
        runtime.delete("keep", container, conf=keep)
    assert world.leftovers() == []


@pytest.mark.usefixtures("busy")
def test_waiting_ends(session: bench.Session, runtime: Runtime) -> None:
    """Who waits for the first one does so no longer than `timeout`, and says for whom."""
    with session.container() as container:
        error = runtime.fail("ADD", "c", container.netns, conf={"timeout": 2})

    assert error["code"] == errors.TRY_AGAIN_LATER
    assert "first attachments to this network" in error["msg"]
    assert "turn.lock, held by ADD of another" in error["details"]


def test_waiting_for_a_turn_ends(
    session: bench.Session, runtime: Runtime, busy: Callable[[], None]
) -> None:
    """One at a time, an ADD and a DEL wait no longer than `timeout`, and nothing is lost by it."""
    conf = {"timeout": 2, "parallel": False}
    with session.container() as container:
        error = runtime.fail("ADD", "c", container.netns, conf=conf)
        assert error["code"] == errors.TRY_AGAIN_LATER
        assert error["msg"] == "ADD of container 'c' to 'rootless' waits for another one to end"
        assert "turn.lock, held by ADD of another" in error["details"]
        runtime.add("c", container, conf={"parallel": True})

        error = runtime.fail("DEL", "c", container.netns, conf=conf)

        assert error["code"] == errors.TRY_AGAIN_LATER
        assert error["msg"] == "DEL of container 'c' to 'rootless' waits for another one to end"
        runtime.succeed("CHECK", "c", container.netns)
        busy()
        runtime.delete("c", container, conf=conf)


@pytest.mark.usefixtures("busy")
def test_parallel(session: bench.Session, runtime: Runtime) -> None:
    """Told so, an ADD waits for no other call, not even the first one; neither does a DEL."""
    conf = {"parallel": True, "timeout": 20}
    with session.container() as container:
        runtime.add("c", container, conf=conf)
        runtime.delete("c", container, conf=conf)


ALONE = """#!/bin/sh
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' ;;
ADD | DEL)
    mkdir "$0.busy" 2>/dev/null || { echo '{"code":999,"msg":"not alone"}'; exit 1; }
    timeout 0.05 tail -f /dev/null
    rmdir "$0.busy"
    echo '{"cniVersion":"1.0.0"}' ;;
esac
"""


@pytest.mark.parametrize("enter", ["always", "never"])
def test_one_at_a_time(
    world: bench.World, session: bench.Session, runtime: Runtime, enter: str
) -> None:
    """Told so, ADDs and DELs of several networks never meet, in a shared netns or in place."""
    script = 'cat >"$0/alone"; chmod +x "$0/alone"'
    session.run(["sh", "-euc", script, runtime.path], input=ALONE, check=True)
    keys = {"delegate": {"type": "alone"}, "parallel": False, "enter": enter}

    def come_and_go(i: int) -> None:
        conf = {**keys, "name": f"net{i % 2}"}
        runtime.add(f"c{i}", container, conf=conf)
        runtime.delete(f"c{i}", container, conf=conf)

    with session.container() as container, ThreadPoolExecutor(CONTAINERS) as pool:
        list(pool.map(come_and_go, range(CONTAINERS)))
    if enter == "always":
        assert world.leftovers() == []


def test_another_plugin_is_another_first(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """A network that has got another plugin meanwhile has a first ADD again."""
    bare = {"delegate": {"type": "bare"}}
    script = 'echo "$1" >"$0/bare"; chmod +x "$0/bare"'
    answers = '#!/bin/sh\necho \'{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}\''
    session.run(["sh", "-euc", script, runtime.path, answers], check=True)
    with session.container() as container, ThreadPoolExecutor(CONTAINERS) as pool:
        runtime.add("keep", container, conf=bare)

        list(pool.map(lambda i: runtime.add(f"c{i}", container), range(CONTAINERS)))

        list(pool.map(lambda i: runtime.delete(f"c{i}", container), range(CONTAINERS)))
        runtime.delete("keep", container, conf=bare)
    assert world.leftovers() == []

# SPDX-License-Identifier: Apache-2.0
"""The first ADD of its kind runs alone, as real plugins clash when they make what they share."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

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
def runtime(world, session) -> Runtime:
    """A runtime with a plugin that clashes with itself."""
    directory = f"{world.env['HOME']}/plugins"
    script = 'mkdir "$0"; cat >"$0/clashing"; chmod +x "$0/clashing"'
    session.run(["sh", "-euc", script, directory], input=CLASHING, check=True)
    return Runtime(session, path=directory, delegate={"type": "clashing"}, uplink="none")


def test_plugins_that_clash(world, session, runtime):
    """Eight ADDs at once of a plugin that clashes with itself in the beginning all succeed."""
    with session.container() as container, ThreadPoolExecutor(CONTAINERS) as pool:
        list(pool.map(lambda i: runtime.add(f"c{i}", container), range(CONTAINERS)))
        list(pool.map(lambda i: runtime.delete(f"c{i}", container), range(CONTAINERS)))
    assert world.leftovers() == []


def test_the_first_may_fail(world, session, runtime):
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


def test_waiting_ends(world, session, runtime):
    """Who waits for the first one does so no longer than `timeout`, and says for what."""
    script = "echo; exec cat"
    state = f"{world.runtime_dir}/netns-shim/default"
    keep = {"name": "other"}
    with session.container() as container:
        runtime.add("keep", container, conf=keep)
        lock = ["flock", f"{state}/started/lock", "sh", "-c", script]
        holder = session.popen(lock, stdin=-1, stdout=-1, text=True)
        holder.stdout.readline()

        error = runtime.fail("ADD", "c", container.netns, conf={"timeout": 0.5})

        assert error["code"] == errors.TRY_AGAIN_LATER
        assert "first attachments to this network" in error["msg"]
        holder.communicate()
        runtime.delete("keep", container, conf=keep)
    assert world.leftovers() == []

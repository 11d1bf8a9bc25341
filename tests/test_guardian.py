# SPDX-License-Identifier: Apache-2.0
"""The guardian of an uplink: a dead uplink comes back without a call."""

from __future__ import annotations

import json
import time
from typing import Any

import bench
import pytest
from runtime import Runtime, bridge, kill, page, until

# How long a container may be without an uplink; the goal is 1 s on a machine that is not busy.
DEADLINE = 5.0


def uplink(runtime: Runtime) -> dict[str, Any]:
    """Give what `status` says about the uplink of the only netns."""
    (netns,) = runtime.status()
    found: dict[str, Any] = netns["uplink"]
    return found


def record(world: bench.World) -> dict[str, Any]:
    """Read the record of the uplink."""
    path = world.path(f"{world.state_dir}/default/uplink.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_a_dead_uplink_comes_back(world: bench.World, session: bench.Session, driver: str) -> None:
    """Without any call, in the same netns and with the same addresses."""
    runtime = Runtime(session, delegate=bridge(), uplink=driver)
    with session.container() as container:
        runtime.add("c", container)
        before = record(world)

        kill(before["pid"])
        began = time.monotonic()

        assert until(lambda: record(world)["pid"] != before["pid"], DEADLINE)
        took = time.monotonic() - began
        after = record(world)
        assert page(container, bench.PAGE_BEYOND)
        assert took < 1, took
        for key in ("netns", "addresses", "interface", "mtu", "dnsForwarders"):
            assert after[key] == before[key]
        runtime.delete("c", container)
    assert world.leftovers() == []

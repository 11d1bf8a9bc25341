# SPDX-License-Identifier: Apache-2.0
"""What tests of garbage collection have in common: the command, leases, lists of containers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench
from runtime import PLUGIN

# Containers that a runtime says are valid, and the two keys under which it does.
A, B, C = ({"containerID": name, "ifname": "eth0"} for name in "abc")
VALID, MISSPELLED = "cni.dev/valid-attachments", "cni.dev/attachments"


def gc(
    place: bench.Place, *arguments: str, status: int = 0, then: Sequence[str] = ()
) -> dict[str, Any]:
    """Run `netns-shim gc --json`, behind another command if one is given; give what it says."""
    done = place.run([*then, PLUGIN, "gc", "--json", *arguments])
    assert done.returncode == status, done.stdout + done.stderr
    assert status or done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def only(found: dict[str, Any]) -> dict[str, Any]:
    """Give what was found in the only netns, without the kinds of which there is nothing."""
    (netns,) = found["netns"]
    return {key: value for key, value in netns.items() if value and key != "name"}


def state(world: bench.World, *parts: str) -> Path:
    """Give a path in the state of the default netns."""
    return world.path("/".join([world.state_dir, "default", *parts]))


def leases(world: bench.World, network: str = "rootless") -> dict[str, str]:
    """Read the leases of host-local."""
    directory = state(world, "var/lib/cni/networks", network)
    return {p.name: p.read_bytes().decode() for p in sorted(directory.glob("10.*"))}

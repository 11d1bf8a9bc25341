# SPDX-License-Identifier: Apache-2.0
"""Files of release 0.1.0: what it has attached is deleted, and it can delete what is attached now.

The texts are as that release writes them, with `@NAME` in the place of what a test finds out.
"""

from __future__ import annotations

import json
import re
from typing import Any

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge, reaches, until

from netns_shim import state

UPLINK = """{
    "driver": "pasta",
    "wanted": {
        "driver": "pasta",
        "options": [],
        "path": ""
    },
    "pid": @pid,
    "startTime": @startTime,
    "tapDescriptor": @tapDescriptor,
    "bootID": "@bootID",
    "mountNamespace": @mountNamespace,
    "userNamespace": @userNamespace,
    "netns": @netns,
    "hostNetns": @hostNetns,
    "interface": "@interface",
    "addresses": @addresses,
    "dnsForwarders": [
        "169.254.1.1"
    ],
    "hostAddresses": [],
    "host": @host
}
"""
REFERENCE = (
    '{"phase":"adding","network":"rootless","containerID":"c","ifname":"eth0","netns":"@netns",'
    '"netnsID":@netnsID,"bootID":"@bootID","args":"","path":"@path","conf":@conf,'
    '"since":"2026-01-01T00:00:00Z","result":null}\n'
    '{"phase":"live","result":@result}\n'
)
HOLDER = """{
    "ranges": @ranges,
    "pid": @pid,
    "startTime": @startTime,
    "bootID": "@bootID",
    "userNamespace": @userNamespace,
    "mountNamespace": @mountNamespace
}
"""
NAME = "rootless:c:eth0:bridge"


def fill(text: str, facts: dict[str, Any]) -> str:
    """Put facts into a text."""

    def fact(match: re.Match[str]) -> str:
        value = facts[match[1]]
        return value if isinstance(value, str) else json.dumps(value)

    return re.sub(r"@(\w+)", fact, text)


def keys(text: str) -> list[list[str]]:
    """List the keys in each line of a journal, or of the one object in a text, in order."""
    lines = [text] if text.startswith("{\n") else text.splitlines()
    return [list(json.loads(line)) for line in lines]


def facts(text: str) -> dict[str, Any]:
    """Read what is in the one object of a text, or in all lines of a journal."""
    found: dict[str, Any] = {}
    for part in [text] if text.startswith("{\n") else text.splitlines():
        found |= json.loads(part)
    return found


def age(place: bench.Place, path: str, old: str) -> None:
    """Write a file as 0.1.0 does; what is there now has all of its keys, and may have more."""
    file = place.path(path)
    now = file.read_text()
    text = fill(old, facts(now))
    for present, before in zip(keys(now), keys(text), strict=True):
        assert [key for key in present if key in before] == before
    file.write_text(text)


@pytest.mark.parametrize("how", ["DEL", "gc", "stop"])
def test_attachments_of_0_1_0_are_deleted(
    world: bench.World, session: bench.Session, how: str
) -> None:
    """A DEL, and what deletes by the files alone, leave nothing of what 0.1.0 has attached."""
    base = world.state_dir
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container:
        runtime.add("c", container)
        age(session, f"{base}/default/uplink.json", UPLINK)
        age(session, f"{base}/default/refs/{NAME}", REFERENCE)
        session.path(f"{base}/default/{state.MARK}").unlink()
        assert runtime.status()[0]["references"][0]["alive"] is True

        if how == "DEL":
            runtime.delete("c", container)
        elif how == "stop":
            done = session.run([PLUGIN, "stop", "--force"], check=True)
            assert "default: detached rootless c eth0" in done.stdout
    if how == "gc":
        assert "detached rootless c eth0" in session.run([PLUGIN, "gc"], check=True).stdout
    assert world.leftovers() == []


def test_holder_of_0_1_0(world: bench.World) -> None:
    """A user namespace that 0.1.0 has made is joined, and is ended with the last DEL."""
    base = world.state_dir
    runtime = Runtime(world, delegate=bridge())
    with world.unshared() as own, own.container() as container:
        runtime.add("c", container)
        age(world, f"{base}/.holder", HOLDER)
        age(world, f"{base}/default/uplink.json", UPLINK)
        age(world, f"{base}/default/refs/{NAME}", REFERENCE)
        world.path(f"{base}/default/{state.MARK}").unlink()

        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert until(lambda: world.leftovers() == [])

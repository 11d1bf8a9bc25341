# SPDX-License-Identifier: Apache-2.0
"""own_pasta: a pasta for one attachment, as it starts, fails and ends."""

from __future__ import annotations

import json
from pathlib import Path

import bench
import pytest
from bench import HOST, PAGE
from fakes import executable
from ports import ASKER, answering, ask, mapping, publishing, runtime
from runtime import kill_publisher

pytestmark = pytest.mark.netns
# It is the uplink, and fails as a publisher.
BROKEN = """#!/bin/sh
case "$*" in *pub1*) echo 'no more of this' >&2; exit 3 ;; esac
exec /usr/bin/pasta "$@"
"""
INSIDE = "nsenter --net={}/default/netns {}"


def test_client_that_waits_already(world: bench.World, session: bench.Session) -> None:
    """A client that tries again all the time is answered as soon as the port is open."""
    client = runtime(session, uplink="none")
    command = ["/usr/bin/python3", "-I", "-", "tcp", HOST, "8080", "20"]
    with session.container() as container, answering(world, container):
        with world.internet.popen(command, stdin=-1, stdout=-1) as asker:
            asker.stdin.write(ASKER)
            asker.stdin.close()
            client.succeed("ADD", "web", container.netns, conf=publishing(mapping(8080)))
            answer = asker.stdout.read().strip()
        again = ask(world.internet, HOST, 8080)
        client.succeed("DEL", "web", container.netns)

    assert (answer, again) == (PAGE, PAGE)
    assert world.leftovers() == []


def test_pasta_that_fails(world: bench.World, session: bench.Session, tmp_path: Path) -> None:
    """What it says is in the error, and neither its tap nor a rule of its own is left."""
    world.provide(executable(tmp_path / "broken-pasta", BROKEN))
    path = f"{bench.TYPED}/broken-pasta"
    client = runtime(session, uplink={"driver": "pasta", "path": path})
    with session.container() as one, session.container() as other:
        client.succeed("ADD", "one", one.netns)
        error = client.fail("ADD", "two", other.netns, conf=publishing(mapping(8080)))
        look = INSIDE.format(
            world.state_dir, "sh -c 'ip link; ip rule; /usr/sbin/nft list ruleset'"
        )
        left = session.run(["sh", "-euc", look], check=True).stdout
        files = [path.name for path in world.path(f"{world.state_dir}/default/ports").iterdir()]
        client.succeed("DEL", "one", one.netns)

    assert (error["code"], error["details"]) == (106, "no more of this")
    assert "cannot publish 0.0.0.0:8080/tcp" in error["msg"]
    assert "pub1" not in left
    assert "publisher-1" not in left
    assert "fwmark" not in left
    assert files == []
    assert world.leftovers() == []


def test_pasta_that_was_killed(world: bench.World, session: bench.Session) -> None:
    """DEL removes what a killed pasta leaves: its tap stays without it."""
    client = runtime(session, uplink="none")
    with session.container() as one, session.container() as other:
        client.succeed("ADD", "one", one.netns)
        client.succeed("ADD", "web", other.netns, conf=publishing(mapping(8080)))
        (path,) = world.path(f"{world.state_dir}/default/refs").glob("*:web:*")
        lines = map(json.loads, path.read_text().splitlines())
        kill_publisher(
            [line["publisher"]["pid"] for line in lines if "pid" in line.get("publisher", {})][-1]
        )
        look = INSIDE.format(world.state_dir, "ip -brief link")
        before = session.run(["sh", "-euc", look], check=True).stdout
        client.succeed("DEL", "web", other.netns)
        after = session.run(["sh", "-euc", look], check=True).stdout
        client.succeed("DEL", "one", one.netns)

    assert "pub1" in before
    assert "pub1" not in after
    assert world.leftovers() == []

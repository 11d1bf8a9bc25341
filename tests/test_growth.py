# SPDX-License-Identifier: Apache-2.0
"""What grows with the number of attachments grows in proportion to it. Work is counted, not time.

With twice as many attachments, a step that looks at all of them for each of them is taken four
times as often. The counts at three numbers of attachments show whether there is such a step.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator

import bench
import pytest
from runtime import PLUGIN, Runtime

COUNTING = "/opt/bench/counting"
# Each twice the one before. A DEL takes longer than a look.
LOOKS, DELS = (50, 100, 200), (40, 80, 160)
COMMANDS = (
    *("gc --dry-run", "status --json", "status", "show c7"),
    *("graph --format mermaid", "graph --format dot"),
)
# How far `growth` may be from 1. How often a call looks whether its plugin has ended, and how many
# processes there are, differs from one time to the next.
MARGIN = 0.12
NOTHING = """#!/bin/sh
case $CNI_COMMAND in
VERSION) echo '{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}' ;;
ADD) echo '{"cniVersion": "1.0.0"}' ;;
esac
"""
# Makes attachments like the one that is there, each with a lease, a bridge and a network of its
# own, all with names, and writes down for `ip` what links these would have.
POPULATE = """
import json, os, sys
state, many = sys.argv[1], int(sys.argv[2])
(name,) = os.listdir(f"{state}/refs")
text = open(f"{state}/refs/{name}").read()
home = os.stat(f"{state}/netns").st_ino
for n in range(many):
    network, container, address = f"net{n}", f"c{n}", f"10.0.{n >> 8}.{n & 255}"
    result = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": f"v{n}"}],
        "ips": [{"address": f"{address}/8"}],
    }
    naming = {"home": home, "names": [container], "ips": [address], "gateways": ["127.0.0.1"]}
    more = {"network": network, "containerID": container, "result": result, "naming": naming}
    with open(f"{state}/refs/{network}:{container}:eth0:nothing", "w") as file:
        file.write(f"{text}{json.dumps(more)}\\n")
    os.makedirs(f"{state}/var/lib/cni/networks/{network}")
    with open(f"{state}/var/lib/cni/networks/{network}/{address}", "w") as file:
        file.write(f"{container}\\r\\neth0" if n % 2 else container)
    print(f"link add b{n} type bridge")
    print(f"link add v{n} type veth peer name w{n}")
    print(f"link set v{n} master b{n}")
"""


@pytest.fixture
def tools(world: bench.World) -> Iterator[str]:
    """The program that counts, and a plugin that does nothing, in the machine."""
    directory = world.path(os.path.dirname(COUNTING))
    directory.mkdir(exist_ok=True)
    plugin = directory / "nothing"
    plugin.write_text(NOTHING)
    plugin.chmod(0o755)
    shutil.copy(bench.INSIDE / "counting", world.path(COUNTING))
    yield str(os.path.dirname(COUNTING))
    for name in ("nothing", "counting"):
        (directory / name).unlink()


def work(place: bench.Place, home: str, *arguments: str) -> int:
    """Run a command of netns-shim; give how much it did."""
    python = place.path(PLUGIN).read_text().split()[0].removeprefix("#!")
    argv = [python, "-IS", COUNTING, f"{home}/count", PLUGIN, *arguments]
    done = place.run(argv)
    assert (done.returncode, done.stderr) == (0, "")
    return int(place.path(f"{home}/count").read_text())


def populated(
    world: bench.World,
    session: bench.Session,
    tools: str,
    container: bench.Container,
    many: int,
    *,
    linked: bool,
) -> None:
    """Attach a container, and as many as told that are just like it."""
    runtime = Runtime(session, path=tools, delegate={"type": "nothing"}, uplink="none")
    runtime.add("first", container)
    state = f"{world.state_dir}/default"
    links = session.run(["python3", "-I", "-c", POPULATE, state, str(many)], check=True).stdout
    if linked:
        enter = ["nsenter", f"--net={state}/netns", "ip", "-batch", "-"]
        session.run(enter, input=links, check=True)


def growth(counts: list[int]) -> float:
    """Tell how the work grows: 1 is in proportion to the number, and 2 with its square."""
    first, second = counts[1] - counts[0], counts[2] - counts[1]
    assert first > 0
    return second / (2 * first)


def test_looking(world: bench.World, session: bench.Session, tools: str) -> None:
    """A look at living containers: none of the commands takes more for each than before."""
    counts: dict[str, list[int]] = {command: [] for command in COMMANDS}
    for many in LOOKS:
        with session.container() as container:
            populated(world, session, tools, container, many, linked=True)

            for command, found in counts.items():
                found.append(work(session, world.env["HOME"], *command.split()))

            looked = session.run([PLUGIN, "gc", "--dry-run", "--json"], check=True)
            assert len(json.loads(looked.stdout)["netns"][0]["live"]) == many + 1
            session.run([PLUGIN, "stop", "--force"], check=True)
    assert world.leftovers() == []
    assert {command: growth(found) for command, found in counts.items()} == dict.fromkeys(
        counts, pytest.approx(1, abs=MARGIN)
    )


@pytest.mark.parametrize("command", ["gc", "stop --force"])
def test_detaching(world: bench.World, session: bench.Session, tools: str, command: str) -> None:
    """Detaching all that is gone: no DEL looks at the others, not for their names either."""
    counts = []
    for many in DELS:
        with session.container() as container:
            populated(world, session, tools, container, many, linked=False)

        counts.append(work(session, world.env["HOME"], *command.split()))

        assert world.leftovers() == []
    assert growth(counts) == pytest.approx(1, abs=MARGIN)

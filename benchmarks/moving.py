# SPDX-License-Identifier: Apache-2.0
"""Change the host's network, and count for how long who gets no answer. Started by roaming.

Four ways are tried all the time: datagrams of one socket, as a ping sends them; a connection that
is open from before; new connections; questions to the name server that resolv.conf names. They are
tried on the host itself, in a container behind the shim, and in one of rootless Podman if that is
installed. A cell has the seconds of the three, in this order.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import bench
import report
import roaming
import rootlessport
from places import Child, Place
from roaming import Change
from runtime import DUAL, Runtime, bridge

INSIDE = Path(__file__).resolve().parent / "inside"
WAYS = {
    "udp": "datagrams",
    "stream": "open connection",
    "new": "new connections",
    "names": "names",
}
# How long is counted after a change, in seconds.
WATCHED = 3.0
NONE = "–"
# Of what a container may lose more than the host, in seconds.
GOALS = {"udp": 0.5, "stream": 0.5, "new": 0.5, "names": 1.0}

Lost = dict[str, float | str]


class Prober:
    """A process that asks all the time."""

    def __init__(self, place: Place, server: str, resolv_conf: str) -> None:
        argv = ["/usr/bin/python3", "-IS", "/opt/bench/prober.py", server, resolv_conf]
        self._child: Child = place.popen(argv, stdin=-1, stdout=-1)

    def begin(self) -> None:
        """Wait until it has begun, and start to count."""
        self._child.stdout.readline()
        self._child.stdin.write("\n")
        self._child.stdin.flush()

    def end(self) -> Lost:
        """Stop, and tell how long there was no answer."""
        self._child.stdin.close()
        answer: Lost = json.loads(self._child.stdout.read())
        self._child.wait()
        return answer


@contextmanager
def behind_shim(world: bench.World) -> Iterator[tuple[Place, str]]:
    """Attach a container; give it, and its resolv.conf."""
    with world.session() as session, session.container() as container:
        runtime = Runtime(session, delegate=bridge(*DUAL))
        runtime.add("moving", container)
        try:
            yield container, f"{world.state_dir}/default/resolv.conf"
        finally:
            runtime.delete("moving", container)


@contextmanager
def behind_podman(world: bench.World) -> Iterator[tuple[Place, str]]:
    """Run a container of rootless Podman; give its network namespace, and its resolv.conf."""
    env = {**world.env, "PATH": bench.ROOT_PATH}
    with rootlessport.published(world, 8099, 80) as place:
        asked = ["podman", "inspect", "--latest", "--format={{.ResolvConfPath}}"]
        yield place, world.run(asked, env=env, check=True).stdout.strip()
    # So that it can be set up for the next change.
    forget = "podman network rm beside; rm -rf ~/root"
    world.run(["sh", "-euc", forget], env=env, check=True)


def uplinks(world: bench.World) -> list[int]:
    """List the processes of uplinks."""
    argv = ["pgrep", "-u", str(world.uid), "-f", "^[^ ]*(pasta|slirp4netns) "]
    return [int(pid) for pid in world.root.run(argv).stdout.split()]


def watched(world: bench.World, change: Change, *, beside: bool) -> list[Lost | None]:
    """Give what the host, a container of the shim and one of Podman lose by a change."""
    roaming.settle(world)
    if change.before:
        roaming.root(world, change.before)
    server = roaming.SERVER6 if change.ipv6 else roaming.SERVER
    places: list[tuple[Place, str] | None] = [(world, roaming.RESOLV_CONF)]
    with ExitStack() as undo:
        places.append(undo.enter_context(behind_shim(world)))
        places.append(None)
        if beside and not change.ipv6:
            try:
                places[-1] = undo.enter_context(behind_podman(world))
            except bench.BenchError as error:
                print(f"Podman does not start: {error}", file=sys.stderr)
        probers = [place and Prober(place[0], server, place[1]) for place in places]
        for prober in probers:
            if prober:
                prober.begin()
        stopped = uplinks(world) if change.suspends else []
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        roaming.happen(world, change)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        time.sleep(WATCHED)
        return [prober.end() if prober else None for prober in probers]


def is_met(way: str, lost: list[Lost | None], change: Change) -> bool:
    """Tell whether a container has lost no more than the host."""
    host, shim, _ = lost
    if host is None or shim is None or change.suspends or host[way] == "cut":
        return True
    return not isinstance(shim[way], str) and float(shim[way]) <= float(host[way]) + GOALS[way]


def cell(way: str, lost: list[Lost | None], change: Change) -> str:
    """Write the seconds, marked where there are more than the goal allows."""
    words = [str(each[way]) if each else NONE for each in lost]
    return " / ".join(words) + ("" if is_met(way, lost, change) else " !")


def main() -> int:
    """Make all changes, print the table; 1 where a goal is not met."""
    parser = argparse.ArgumentParser(prog="benchmarks/roaming", description=__doc__)
    parser.add_argument("--only", action="append", metavar="TEXT", help="changes with this name")
    parser.add_argument("--without-podman", action="store_true", help="the host and the shim only")
    given = parser.parse_args()
    beside = rootlessport.is_installed() and not given.without_podman
    rows: list[list[str]] = [["change", *WAYS.values()]]
    with bench.World() as world, roaming.networks(world):
        for name in ("prober.py", "echoes.py"):
            shutil.copy(INSIDE / name, world.path("/opt/bench"))
        echoes = ["/usr/bin/python3", "-IS", str(INSIDE / "echoes.py"), *roaming.NAME_SERVERS]
        with world.internet.popen(echoes, stdin=-1, stdout=-1) as server:
            server.stdout.readline()
            for change in roaming.CHANGES:
                if given.only and not any(text in change.name for text in given.only):
                    continue
                lost = watched(world, change, beside=beside)
                rows.append([change.name, *(cell(way, lost, change) for way in WAYS)])
                print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
            server.kill()
    show(rows)
    return int(any(text.endswith("!") for row in rows for text in row))


def show(rows: list[list[str]]) -> None:
    """Print the table as Markdown."""
    head, *body = rows
    for row in (head, ["---"] * len(head), *body):
        print(f"| {' | '.join(row)} |")
    print(f"\nSeconds on the host / behind the shim / behind Podman. {report.machine()}")


if __name__ == "__main__":
    sys.exit(main())

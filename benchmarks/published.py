# SPDX-License-Identifier: Apache-2.0
"""Published ports: what comes in through them, and what opening them adds to a call.

There are three ways to open a port, and which one the shim takes depends on the uplink and on what
is installed. Each way that this machine has is measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import bench
import datapath
import ports
import rootlessport
from measure import Row, Turn, rounds_of, spread, times
from networks import VERBS, Json, call, shim, warmed
from runtime import PLUGIN, bridge
from stage import BenchmarkError, Sample, Stage

CARRIED, ADDED = "published", "publish"
PODMAN = "rootlessport"
# What is measured of a route: TCP, with one stream and with eight.
KINDS = ("there", "back", "there, 8 streams", "back, 8 streams")
# In this order: a pasta that pesto cannot reach, and no uplink, have the same publisher.
UPLINKS = ("pasta", "slirp4netns", "none")
# How many ms a call may take longer for its ports.
GOALS = {"pesto": 15.0, "pasta": 60.0}
NAMES = {"pesto": "pesto", "pasta": "a pasta of its own", "slirp4netns": "slirp4netns"}


def driver(stage: Stage, netns: str) -> str:
    """Tell who has opened the ports in a shared netns: pesto, pasta or slirp4netns."""
    shown = json.loads(stage.session.run([PLUGIN, "status", "--json"], check=True).stdout)
    for one in shown["netns"]:
        if one["name"] == netns:
            return str(next(r["publisher"]["driver"] for r in one["references"] if r["publisher"]))
    raise BenchmarkError(f"no shared netns {netns}")


def carried(stage: Stage, rounds: int) -> list[Row]:
    """What comes in through published ports, from outside and loopback; not run unless named."""
    with ExitStack() as undo:
        opened = _opened(stage, undo)
        routes = [
            datapath.Route(f"{name}, {whence}", client, address, place, port=port)
            for name, (place, port) in opened.items()
            for whence, client, address in (
                ("from outside", stage.world.internet, bench.HOST),
                ("from loopback", stage.session, "127.0.0.1"),
            )
        ]
        found = rounds_of(max(3, rounds // 8), [_turn(route) for route in routes])
    pairs = [
        (route.name, f"{PODMAN}, {route.name.partition(', ')[2]}")
        for route in routes
        if PODMAN in opened and not route.name.startswith(PODMAN)
    ]
    ratios = [datapath.quotients(CARRIED, found, pair, what) for pair in pairs for what in KINDS]
    return [*ratios, *datapath.values(CARRIED, found)]


def _turn(route: datapath.Route) -> Callable[[], dict[str, Sample]]:
    return lambda: datapath.carried(route, KINDS)


def _opened(stage: Stage, undo: ExitStack) -> dict[str, tuple[bench.Place, int]]:
    """Publish a port in each way; give the containers and their ports on the host."""
    opened: dict[str, tuple[bench.Place, int]] = {}
    for number, uplink in enumerate(UPLINKS):
        one = ExitStack()
        place, name = one.enter_context(_attached(stage, uplink, 8000 + number))
        if name in opened:
            one.close()
            continue
        undo.push(one)
        opened[name] = place, 8000 + number
    if rootlessport.is_installed():
        port = 8000 + len(UPLINKS)
        place = undo.enter_context(rootlessport.published(stage.world, port, datapath.PORT))
        opened[PODMAN] = place, port
    return opened


@contextmanager
def _attached(stage: Stage, uplink: str, port: int) -> Iterator[tuple[bench.Place, str]]:
    """Attach a container with a port; give it, and the name of what has opened the port."""
    netns = f"open{uplink}"
    keys = {"netns": netns, "uplink": uplink, "name": netns, "bridge_name": netns}
    runtime = ports.runtime(stage.session, f"10.77.{port % 100}.0/24", **keys)
    runtime.conf |= ports.publishing(ports.mapping(port, datapath.PORT))
    with stage.session.container() as container:
        runtime.add(netns, container)
        try:
            yield container, NAMES[driver(stage, netns)]
        finally:
            runtime.delete(netns, container)


def added(stage: Stage, rounds: int) -> list[Row]:
    """What publishing adds to a warm ADD and DEL: the same ports, opened and not."""
    rows: list[Row] = []
    details: list[Row] = []
    seen: set[str] = set()
    for number, uplink in enumerate(UPLINKS):
        keys = {"netns": f"add{uplink}", "uplink": uplink}
        opened, closed, kept = (
            _network(number, index, f"{kind}{uplink}", publish=kind != "closed", **keys)
            for index, kind in enumerate(("opened", "closed", "kept"))
        )
        # The one that is kept has ports too: what the first ones cost is no warm call.
        with warmed(stage, kept):
            who = driver(stage, keys["netns"])
            if who in seen:
                continue
            seen.add(who)
            turns = [
                _calls(stage, f"{NAMES[who]}, publish: {kind}", conf)
                for kind, conf in (("true", opened), ("false", closed))
            ]
            found = rounds_of(max(3, rounds // 2), turns)
        for verb in VERBS:
            yes, no = (f"{NAMES[who]}, publish: {kind}: {verb}" for kind in ("true", "false"))
            more = [
                [getattr(r[yes], k) - getattr(r[no], k) for r in found] for k in ("wall", "cpu")
            ]
            what = f"{NAMES[who]}: added to a warm {verb}"
            rows.append(Row(ADDED, what, "ms", spread(more[0]), spread(more[1]), GOALS.get(who)))
        details += times(ADDED, found)
    return rows + details


def _network(number: int, index: int, name: str, **keys: Any) -> Json:
    entry = bridge(f"10.76.{10 * number + index}.0/24", name=name[:15])
    port = 8090 if name.startswith("kept") else 8080
    offered = {"capabilities": {"portMappings": True}, **ports.publishing(ports.mapping(port))}
    return shim(name, plugins=[entry, ports.PORTMAP], **offered, **keys)


def _calls(stage: Stage, name: str, conf: Json) -> Turn:
    """Give the turn of a network: an ADD and a DEL."""
    return lambda: {
        f"{name}: {verb}": stage.outside.run(call(stage, verb, conf, 1))[0] for verb in VERBS
    }

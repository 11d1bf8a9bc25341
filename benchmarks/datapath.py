# SPDX-License-Identifier: Apache-2.0
"""What a network carries: through the shim, and beside it through the bare uplink or bridge.

A `Route` is from one place to an address in another, and `measured` is all that is asked of it. So
a new way into a container needs no more than its own routes. Those to published ports are in
`published.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from subprocess import PIPE
from typing import Any, NamedTuple

import bench
import links
from measure import Rounds, Row, rounds_of, spread
from stage import TOOLS, BenchmarkError, Sample, Stage

FIGURE = "data path"
GIGA = 1e9
SECONDS = 1
PORT, OF_REQUESTS = 5201, 5202
REQUESTS = f"{TOOLS}/requests"
UPLINKS = ("pasta", "slirp4netns")
LARGE, SMALL = 65520, 1500
# How much UDP is offered, in packets that every link takes whole.
UDP = ("-u", "-b", "100M", "-l", "1200")
CONGESTION = "/proc/sys/net/ipv4/tcp_congestion_control"
# What is measured of a route: its unit, and the arguments of iperf3.
OF_IPERF: dict[str, tuple[str, tuple[str, ...]]] = {
    "there": ("Gbit/s", ()),
    "back": ("Gbit/s", ("-R",)),
    "there, 8 streams": ("Gbit/s", ("-P", "8")),
    "back, 8 streams": ("Gbit/s", ("-P", "8", "-R")),
    "UDP lost": ("%", UDP),
}
ASKED = "requests"
UNITS = {**{what: unit for what, (unit, _) in OF_IPERF.items()}, ASKED: "/s"}
# The ratios that are shown, and the least that they should be.
GOALS: dict[str, float] = {"there": 0.95, "back": 0.95}
GOALS_INSIDE: dict[str, float] = {"there": 0.98, "back": 0.98}


class Route(NamedTuple):
    """A way for packets: who sends, to which address, and where that is.

    `requests` is the path of the program of that name where the server is. `port` is what the
    client connects to; the server of iperf3 always has the same one.
    """

    name: str
    client: bench.Place
    address: str
    server: bench.Place
    requests: str = REQUESTS
    port: int = PORT


@contextmanager
def serving(route: Route, argv: list[str], word: str) -> Iterator[None]:
    """Run a server at the end of a route, from when it says so by a word of its output."""
    with route.server.popen(argv, stdout=PIPE, text=True) as server:
        try:
            if not any(word in line for line in server.stdout):
                raise BenchmarkError(f"does not start: {argv}")
            yield
        finally:
            server.kill()


def carried(route: Route, kinds: Iterable[str]) -> dict[str, Sample]:
    """Measure kinds of OF_IPERF, one after the other; the names are those of the rows."""
    found = {}
    for what in kinds:
        unit, arguments = OF_IPERF[what]
        # A new one each time: it is busy with what is still under way of the one before.
        argv = ["iperf3", "--server", "--port", str(PORT), "--forceflush"]
        with serving(route, argv, "listening"):
            to = ["-c", route.address, "-p", str(route.port), "-t", str(SECONDS)]
            end = _report(route, ["iperf3", "--json", *to, *arguments, "--omit", "0.2"])
        received = end.get("sum_received") or end["sum"]
        value = end["sum"]["lost_percent"] if unit == "%" else received["bits_per_second"] / GIGA
        found[f"{route.name}: {what}"] = Sample(value, 0)
    return found


def measured(route: Route) -> dict[str, Sample]:
    """Measure all of a route, one after the other."""
    found = carried(route, OF_IPERF)
    with serving(route, [route.requests, str(OF_REQUESTS)], "ready"):
        done = route.client.run([REQUESTS, str(OF_REQUESTS), route.address, str(SECONDS)])
    if done.returncode:
        raise BenchmarkError(f"{route.name}: a request has got no answer")
    found[f"{route.name}: {ASKED}"] = Sample(float(done.stdout), 0)
    return found


def _report(route: Route, argv: list[str]) -> dict[str, Any]:
    done = route.client.run(argv)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        raise BenchmarkError(f"{route.name}: {argv}: {done.stdout}{done.stderr}") from None
    if "error" in report:
        raise BenchmarkError(f"{route.name}: {argv}: {report['error']}")
    end: dict[str, Any] = report["end"]
    return end


def data_path(stage: Stage, rounds: int) -> list[Row]:
    """What uplinks and bridges carry: TCP there and back, UDP, requests; not run unless named."""
    count = max(3, rounds // 8)
    rows = []
    for uplink in UPLINKS:
        with ExitStack() as undo:
            rows += _compared(count, list(_to_outside(stage, uplink, undo)), GOALS)
    with ExitStack() as undo:
        inside = list(_inside(stage, undo))
        rows += _compared(count, inside, GOALS_INSIDE)
        name = inside[0].client.run(["cat", CONGESTION], check=True).stdout.strip()
    # That decides a lot about uploads, and is the host's.
    return [row._replace(figure=f"{row.figure}, {name}") for row in rows]


def _to_outside(stage: Stage, uplink: str, undo: ExitStack) -> Iterator[Route]:
    """Make the bare uplink and networks of the shim with each MTU; list the routes to outside."""
    # The internet has the files of the real machine.
    server = (bench.PAGE, stage.world.internet, str(stage.world.path(REQUESTS)))
    for mtu in (LARGE, SMALL):
        place = undo.enter_context(links.bare_uplink(stage, uplink, mtu))
        yield Route(f"{uplink} bare, {mtu}", place, *server)
        given = {"netns": uplink, "uplink": uplink, "mtu": mtu}
        network = links.Network(stage, f"{uplink}{mtu}", **given)
        place, _ = undo.enter_context(network.attached())
        yield Route(f"{uplink} and bridge, {mtu}", place, *server)


def _inside(stage: Stage, undo: ExitStack) -> Iterator[Route]:
    """List routes between containers: through the shim, and with the same bridge without it."""
    one, other = links.Network(stage, "inside1"), links.Network(stage, "inside2")
    client, _ = undo.enter_context(one.attached())
    for what, network in (("one bridge", one), ("two networks", other)):
        server, address = undo.enter_context(network.attached())
        yield Route(f"containers, {what}, shim", client, address, server)
    plain = undo.enter_context(links.PlainBridges(stage, LARGE))
    for what, number in (("one bridge", 0), ("two networks", 1)):
        server, address = undo.enter_context(plain.attached(number))
        if number == 0:
            client, _ = undo.enter_context(plain.attached(0))
        yield Route(f"containers, {what}, bare", client, address, server)


def _compared(count: int, routes: list[Route], goals: dict[str, float]) -> list[Row]:
    """Give each route its turn in every round; make the rows of ratios, then of values."""

    def turn(route: Route) -> Callable[[], dict[str, Sample]]:
        return lambda: measured(route)

    found = rounds_of(count, [turn(route) for route in routes])
    names = [route.name for route in routes]
    return [*_ratios(found, names, goals), *values(FIGURE, found)]


def _ratios(found: Rounds, names: list[str], goals: dict[str, float]) -> list[Row]:
    rows = []
    for ours, bare in links.pairs(names):
        for what in UNITS:
            if UNITS[what] == "%":
                continue
            goal = goals.get(what) if str(SMALL) not in ours else None
            rows.append(quotients(FIGURE, found, (ours, bare), what, goal))
    return rows


def quotients(
    figure: str, found: Rounds, names: tuple[str, str], what: str, goal: float | None = None
) -> Row:
    """Make the row of what one route carries, divided by what the other does."""
    ours, other = names
    each = [
        one[f"{ours}: {what}"].wall / (one[f"{other}: {what}"].wall or float("nan"))
        for one in found
    ]
    label = f"{ours} / {other}: {what}"
    return Row(figure, label, "×", spread(each), None, goal, is_least=True)


def values(figure: str, found: Rounds) -> list[Row]:
    """Make a row of each value."""
    return [
        Row(
            figure,
            name,
            UNITS[name.rpartition(": ")[2]],
            spread([one[name].wall for one in found]),
        )
        for name in found[0]
    ]

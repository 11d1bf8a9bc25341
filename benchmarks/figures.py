# SPDX-License-Identifier: Apache-2.0
"""What is measured: each function is one figure, makes its own networks and removes them."""

from __future__ import annotations

from typing import Any

import bench
import published
import runtime
from chain import chain_of_four
from counts import memory, resident, work
from measure import Rounds, Row, Turn, over, ratio, rounds_of, times
from networks import VERBS, Json, call, plain, plugin_path, shim, warmed
from runtime import PLUGIN
from stage import ByHand, Runner, Stage

NOTHING = f"{bench.World.plugin_dir}/nothing"
AT_ONCE = (1, 4, 16, 64)
LIVE = (1, 100, 1000, 5000)


def warm(stage: Stage, rounds: int) -> list[Row]:
    """The shim around a plugin that does nothing, that plugin alone, and the bare interpreter."""
    conf = shim("nothing", delegate={"type": "nothing"})
    alone = plain("nothing", {"type": "nothing"})

    def turn(name: str, verb: str, conf: Json, *argv: str) -> Turn:
        step = stage.step(verb, conf, 1, argv=argv)
        return lambda: {name: stage.outside.run([step])[0]}

    def add_and_delete() -> dict[str, Any]:
        return {
            f"shim {verb}": stage.outside.run(call(stage, verb, conf, 1))[0]
            for verb in ("ADD", "DEL")
        }

    with warmed(stage, conf):
        found = rounds_of(
            rounds,
            [
                turn("bare interpreter", "", {}, stage.python, "-IS", "-c", "pass"),
                turn("do-nothing plugin alone", "ADD", alone, NOTHING),
                add_and_delete,
                turn("shim VERSION", "VERSION", {"cniVersion": "1.0.0"}, PLUGIN),
            ],
        )

    def over_bare(verb: str) -> Any:
        plugin = "do-nothing plugin alone"
        return lambda v: (v[f"shim {verb}"] - v[plugin]) / v["bare interpreter"]

    return [
        ratio("warm", "overhead of a warm ADD / bare interpreter", found, over_bare("ADD"), 1.6),
        ratio("warm", "overhead of a warm DEL / bare interpreter", found, over_bare("DEL")),
        *times("warm", found),
    ]


def bridge(stage: Stage, rounds: int) -> list[Row]:
    """Debian's bridge with masquerading and host-local, through the shim and run directly."""
    entry = runtime.bridge("10.81.0.0/16", name="shim0")
    other = runtime.bridge("10.82.0.0/16", name="direct0")
    wrapped, alone = shim("bridge", delegate=entry), plain("direct", other)

    def through() -> dict[str, Any]:
        return {
            f"shim {verb}": stage.outside.run(call(stage, verb, wrapped, 1))[0]
            for verb in ("ADD", "DEL")
        }

    def directly() -> dict[str, Any]:
        argv = [plugin_path("bridge")]
        return {
            f"bridge {verb}": stage.inside.run([stage.step(verb, alone, 1, argv=argv)])[0]
            for verb in ("ADD", "DEL")
        }

    with warmed(stage, wrapped):
        found = rounds_of(max(3, rounds // 2), [through, directly])
    return [
        *(
            ratio(
                "bridge",
                f"{verb} through the shim / directly",
                found,
                over(f"shim {verb}", f"bridge {verb}"),
            )
            for verb in ("ADD", "DEL")
        ),
        *times("bridge", found),
    ]


def crowd(
    stage: Stage,
    runner: Runner,
    many: int,
    who: str,
    conf: Json,
    argv: list[str],
    before: str = "",
) -> Turn:
    """Make a turn of so many ADDs at once, then so many DELs; `before` is what is said first."""

    def both() -> dict[str, Any]:
        return {
            f"{before}{many} × {verb}, {who}": runner.run(
                *([stage.step(verb, conf, n, argv=argv)] for n in range(1, many + 1))
            )[0]
            for verb in VERBS
        }

    return both


def at_once(stage: Stage, rounds: int) -> list[Row]:
    """So many ADDs at once, then so many DELs, through the shim and directly."""
    wrapped = shim("crowd", delegate=runtime.bridge("10.86.0.0/16", name="crowd0"))
    alone = plain("throng", runtime.bridge("10.87.0.0/16", name="throng0"))
    rows, details = [], []

    path = plugin_path("bridge")
    with warmed(stage, wrapped):
        for many in AT_ONCE:
            count = max(3, rounds // (2 if many < 10 else many // 3))
            turns = [
                crowd(stage, stage.outside, many, "shim", wrapped, [PLUGIN]),
                crowd(stage, stage.inside, many, "directly", alone, [path]),
            ]
            found = rounds_of(count, turns)
            for verb, goal in (("ADD", 1.6), ("DEL", 1.25)):
                a, b = (f"{many} × {verb}, {kind}" for kind in ("shim", "directly"))
                what = f"{many} × {verb} at once, through the shim / directly"
                aim = goal if many == 16 else None
                rows.append(ratio("at once", what, found, over(a, b), aim))
            details += times("at once", found)
    return rows + details


def cold(stage: Stage, rounds: int) -> list[Row]:
    """The first ADD, which makes netns and uplink, against both done by hand."""
    entry = runtime.bridge("10.88.0.0/16", name="cold0")
    first = shim("cold", delegate=entry, stateDir=stage.state_dir("cold"), uplink="pasta")
    alone = plain("cold", entry)

    def through() -> dict[str, Any]:
        return {
            f"shim: {kind}": stage.outside.run(call(stage, verb, first, 1))[0]
            for verb, kind in (("ADD", "first ADD"), ("DEL", "last DEL"))
        }

    def by_hand() -> dict[str, Any]:
        with ByHand(stage) as hand:
            step = [stage.step(verb, alone, 1, argv=[plugin_path("bridge")]) for verb in VERBS]
            added = hand.run([step[0]])[0]
            deleted = hand.run([step[1]])[0]
            return {
                "by hand: uplink": hand.sample,
                "by hand: plugin": added,
                "by hand: both": hand.sample + added,
                "by hand: DEL": deleted,
            }

    found = rounds_of(max(3, rounds // 4), [through, by_hand])
    what = "cold ADD / (uplink by hand + plugin alone)"
    return [
        ratio("cold", what, found, lambda v: v["shim: first ADD"] / v["by hand: both"], 1.25),
        *times("cold", found),
    ]


# Writes references like the one that is there, for containers that are not.
POPULATE = """
import os, sys
refs, many = sys.argv[1], int(sys.argv[2])
(name,) = os.listdir(refs)
text = open(f"{refs}/{name}").read()
for number in range(1, many):
    container = f"other{number}"
    with open(f"{refs}/{name.replace('container0', container)}", "x") as file:
        file.write(text.replace("container0", container))
"""


def references(stage: Stage, rounds: int) -> list[Row]:
    """A warm ADD and DEL, and `status`, beside so many live attachments."""
    confs = {}
    for many in LIVE:
        directory = stage.state_dir(f"refs{many}")
        conf = shim("refs", delegate={"type": "nothing"}, uplink="none", stateDir=directory)
        stage.outside.run(call(stage, "ADD", conf))
        argv = [stage.python, "-IS", "-c", POPULATE, f"{directory}/default/refs", many]
        stage.session.run(argv, check=True)
        confs[many] = conf

    def turn(many: int) -> Turn:
        return lambda: {
            f"{verb}, {many} live": stage.outside.run(call(stage, verb, confs[many], 1))[0]
            for verb in VERBS
        }

    def status(many: int) -> Turn:
        argv = [PLUGIN, "status", "--json", "--state-dir", confs[many]["stateDir"]]
        step = stage.step("", {}, argv=argv)
        return lambda: {f"status, {many} live": stage.outside.run([step])[0]}

    found = rounds_of(rounds, [turn(many) for many in LIVE])
    listed = rounds_of(max(3, rounds // 4), [status(1), status(1000)])
    for many in LIVE:
        path = f"{confs[many]['stateDir']}/default/refs"
        stage.session.run(["find", path, "-name", "*:other*", "-delete"], check=True)
        stage.outside.run(call(stage, "DEL", confs[many]))
    return [
        *over_one(found, listed),
        *times("references", found),
        *times("references", listed),
    ]


def over_one(found: Rounds, listed: Rounds) -> list[Row]:
    """Divide what many live attachments cost by what one costs."""
    rows = [
        ratio(
            "references",
            f"warm {verb} with {many} live / with 1",
            found,
            over(f"{verb}, {many} live", f"{verb}, 1 live"),
            1.05 if (verb, many) == ("ADD", 5000) else None,
        )
        for verb in VERBS
        for many in LIVE[1:]
    ]
    what = "status of 1000 live / of 1"
    rows.append(
        ratio("references", what, listed, lambda v: v["status, 1000 live"] / v["status, 1 live"])
    )
    return rows


def counted(stage: Stage, rounds: int) -> list[Row]:
    """Memory, processes, system calls, modules: the same however busy the machine is."""
    conf = shim("counted", delegate={"type": "nothing"})
    first = {**conf, "stateDir": stage.state_dir("counted"), "uplink": "pasta"}
    with warmed(stage, conf):
        return [
            *memory(stage, conf, first),
            *resident(stage, first),
            *work(stage, conf),
        ]


FIGURES = {
    "warm": warm,
    "bridge": bridge,
    "chain": chain_of_four,
    "at-once": at_once,
    "cold": cold,
    "references": references,
    published.ADDED: published.added,
    "counts": counted,
}

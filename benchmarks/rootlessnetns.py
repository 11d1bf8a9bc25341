# SPDX-License-Identifier: Apache-2.0
"""The figure `seed`: the shim beside rootlessnetns, the Go code that Podman has for the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import chain
import runtime
from figures import crowd
from measure import Rounds, Row, over, ratio, rounds_of, times
from networks import VERBS, plain, plugin_path, shim, warmed
from runtime import PLUGIN
from stage import TOOLS, Stage

PROGRAM = f"{TOOLS}/seed"
# How many at once, and the part of the rounds that they have.
MANY = {1: 1, 4: 2, 16: 4}
# The container that keeps the namespace of the seed, as 0 keeps that of the shim.
KEPT = max(MANY) + 1
GOALS = {
    ("bridge", 1, "ADD"): 1.3,
    ("bridge", 1, "DEL"): 1.3,
    ("bridge", 16, "ADD"): 0.85,
    ("bridge", 16, "DEL"): 0.6,
}
CHAIN_GOAL = 0.9


def provide(stage: Stage, program: Path) -> None:
    """Put what benchmarks/seed/build has made into the machine."""
    inside = stage.world.path(PROGRAM)
    shutil.copy(program, inside)
    inside.chmod(0o755)


def seed(stage: Stage, rounds: int) -> list[Row]:
    """The shim and Podman's own code, around a do-nothing plugin and Debian's bridge."""
    plugins = {
        "nothing": ({"type": "nothing"}, {"type": "nothing"}),
        "bridge": (
            runtime.bridge("10.89.0.0/16", name="beside0"),
            runtime.bridge("10.90.0.0/16", name="seed0"),
        ),
    }
    rows, details = [], []
    for name, (ours, theirs) in plugins.items():
        wrapped, alone = shim(f"{name}-shim", delegate=ours), plain(f"{name}-seed", theirs)
        argv = [PROGRAM, stage.state_dir("seed"), plugin_path(name)]
        with warmed(stage, wrapped), warmed(stage, alone, KEPT, argv=argv):
            for many, part in MANY.items():
                turns = [
                    crowd(stage, stage.outside, many, "shim", wrapped, [PLUGIN], f"{name}, "),
                    crowd(stage, stage.outside, many, "seed", alone, argv, f"{name}, "),
                ]
                found = rounds_of(max(3, rounds // part), turns)
                for verb in VERBS:
                    a, b = (f"{name}, {many} × {verb}, {who}" for who in ("shim", "seed"))
                    what = f"{name}, {many} × {verb} at once, shim / seed"
                    goal = GOALS.get((name, many, verb))
                    rows.append(ratio("seed", what, found, over(a, b), goal))
                details += times("seed", found)
    found = chains(stage, rounds)
    rows += [
        ratio(
            "seed",
            f"chain of four, {verb}, one call of the shim / four of the seed",
            found,
            over(f"chain, shim {verb}", f"chain, seed {verb}"),
            CHAIN_GOAL,
        )
        for verb in VERBS
    ]
    return rows + details + times("seed", found)


def chains(stage: Stage, rounds: int) -> Rounds:
    """Run four plugins in one configuration, beside four calls of the seed."""
    one = chain.in_one("chain-shim", chain.entries("10.91.0.0/16", "four0"))
    each = [
        plain("chain-seed", entry, runtimeConfig=chain.PUBLISHED)
        for entry in chain.entries("10.92.0.0/16", "fours0")
    ]
    seed_of = [PROGRAM, stage.state_dir("seed")]
    commands = [[*seed_of, plugin_path(entry["type"])] for entry in each]
    with warmed(stage, one), warmed(stage, each[0], KEPT, argv=commands[0]):
        turns = [
            chain.turn(stage, "chain, shim", stage.outside, [one], [[PLUGIN]]),
            chain.turn(stage, "chain, seed", stage.outside, each, commands),
        ]
        return rounds_of(max(3, rounds // 2), turns)

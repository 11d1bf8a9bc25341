# SPDX-License-Identifier: Apache-2.0
"""What is counted and not timed: memory, processes, system calls, modules."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import bench
from measure import Row, count
from runtime import PLUGIN
from stage import TOOLS, BenchmarkError, Stage

Json = dict[str, Any]

FIGURE = "counts"
PEAK = f"{TOOLS}/peak"


def _run(stage: Stage, argv: list[str], verb: str, conf: Json) -> str:
    """Run a command as a call for the second container; give what it wrote to stderr."""
    step = stage.step(verb, conf, 1)
    done = stage.session.run(argv, env=step["env"], input=json.dumps(conf))
    if done.returncode:
        raise BenchmarkError(f"{argv}: {done.stdout}{done.stderr}")
    return done.stderr


def memory(stage: Stage, conf: Json, first: Json) -> list[Row]:
    """Peak memory of a call, as wait4(2) tells it: of the shim, as its plugin needs less.

    pasta needs more, but only while it starts.
    """
    alone = {**first, "uplink": "none"}

    def peak(verb: str, conf: Json, *argv: str) -> float:
        lines = _run(stage, [PEAK, *argv], verb, conf).splitlines()
        return int(lines[-1]) / 1024

    return [
        count(FIGURE, f"peak memory, {what}", peak(verb, which, *argv), "MiB", goal)
        for what, verb, which, argv, goal in (
            ("warm ADD", "ADD", conf, [PLUGIN], 14),
            ("warm DEL", "DEL", conf, [PLUGIN], 14),
            ("cold ADD", "ADD", alone, [PLUGIN], 14),
            ("last DEL", "DEL", alone, [PLUGIN], 14),
            ("cold ADD, or pasta's start", "ADD", first, [PLUGIN], None),
            ("last DEL with pasta", "DEL", first, [PLUGIN], 14),
            ("bare interpreter", "", {}, [stage.python, "-IS", "-c", "pass"], None),
        )
    ]


def resident(stage: Stage, first: Json) -> list[Row]:
    """What a cold ADD leaves running, and what is left after the DEL."""
    before = Counter(stage.world.programs())
    _run(stage, [PLUGIN], "ADD", first)
    during = Counter(stage.world.programs()) - before
    guardians = [line for line in stage.world.leftovers() if line.startswith("guardian ")]
    _run(stage, [PLUGIN], "DEL", first)
    after = Counter(stage.world.programs()) - before
    uplinks = [name for name in during.elements() if name.startswith(("pasta", "passt"))]
    others = during.total() - len(uplinks) - len(guardians)
    return [
        count(FIGURE, "processes that stay after an ADD, the uplink", len(uplinks)),
        count(FIGURE, "processes that stay after an ADD, its guardian", len(guardians)),
        count(FIGURE, "processes that stay, others", others, goal=0),
        count(FIGURE, "processes that stay after the last DEL", after.total(), goal=0),
    ]


def work(stage: Stage, conf: Json) -> list[Row]:
    """System calls, of all processes of a call, and modules imported."""
    rows = []
    nothing = f"{bench.World.plugin_dir}/nothing"
    bare = [stage.python, "-IS", "-c", "pass"]
    for what, verb, argv in (
        ("warm ADD", "ADD", [PLUGIN]),
        ("warm DEL", "DEL", [PLUGIN]),
        ("do-nothing plugin alone", "ADD", [nothing]),
        ("bare interpreter", "", bare),
    ):
        calls = system_calls(stage, argv, verb, conf)
        rows.append(count(FIGURE, f"system calls, {what}", calls.total()))
    for what, verb, rest in (
        ("warm ADD", "ADD", [PLUGIN]),
        ("warm DEL", "DEL", [PLUGIN]),
        ("bare interpreter", "", bare[2:]),
    ):
        names = modules(stage, rest, verb, conf)
        rows.append(count(FIGURE, f"modules, {what}", len(names)))
        ours = sum(name.startswith("netns_shim") for name in names)
        if ours:
            rows.append(count(FIGURE, f"modules, {what}, of netns-shim", ours))
    return rows


def system_calls(stage: Stage, argv: list[str], verb: str, conf: Json) -> Counter[str]:
    """Count the system calls of a command and its children, with strace(1)."""
    table = stage.state_dir("strace")
    _run(stage, ["strace", "-f", "-c", "-U", "name,calls", "-o", table, *argv], verb, conf)
    lines = stage.world.path(table).read_text().splitlines()
    stage.world.path(table).unlink()
    calls = [line.split() for line in lines[2:-2]]  # between the rules, above the total
    return Counter({name: int(number) for name, number in calls})


def modules(stage: Stage, rest: list[str], verb: str, conf: Json) -> list[str]:
    """List the modules that a script or command imports, as the interpreter says."""
    argv = [stage.python, "-IS", "-X", "importtime", *rest]
    lines = _run(stage, argv, verb, conf).splitlines()
    parts = [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")]
    return [name for name in parts if name != "imported package"]

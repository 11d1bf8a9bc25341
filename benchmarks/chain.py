# SPDX-License-Identifier: Apache-2.0
"""The figure `chain`: four plugins in one configuration, wrapped one by one, without the shim."""

from __future__ import annotations

from typing import Any

import runtime
from measure import Rounds, Row, Turn, over, ratio, rounds_of, times
from networks import VERBS, Json, plain, plugin_path, shim, warmed
from runtime import PLUGIN
from stage import Runner, Stage

# Without the shim only `portmap` opens the port. The shim would open it on the host as well.
PUBLISHED = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
OFFERED = {
    "capabilities": {"portMappings": True},
    "runtimeConfig": PUBLISHED,
    "publish": False,
}
ONE = "in one configuration"
# What one configuration is compared with, and the goals for its ADD and its DEL.
OTHERS = {"wrapped one by one": (0.6, 0.6), "directly": (None, None)}


def chain_of_four(stage: Stage, rounds: int) -> list[Row]:
    """Measure ADD and DEL of the chain in the three ways."""
    one = in_one("chain", entries("10.83.0.0/16", "one0"))
    each = [
        shim("wrapped", delegate=entry, **OFFERED) for entry in entries("10.84.0.0/16", "each0")
    ]
    directly = [
        plain("chained", entry, runtimeConfig=PUBLISHED)
        for entry in entries("10.85.0.0/16", "plain0")
    ]
    commands = [[plugin_path(entry["type"])] for entry in directly]
    with warmed(stage, one):
        found = rounds_of(
            max(3, rounds // 4),
            [
                turn(stage, ONE, stage.outside, [one], [[PLUGIN]]),
                turn(stage, "wrapped one by one", stage.outside, each, [[PLUGIN]] * 4),
                turn(stage, "directly", stage.inside, directly, commands),
            ],
        )
    return [*over_others(found), *times("chain", found)]


def in_one(name: str, plugins: list[Json]) -> Json:
    """Configure the four plugins in one configuration."""
    return shim(name, plugins=plugins, **OFFERED)


def entries(subnet: str, name: str) -> list[Json]:
    """Configure the four plugins."""
    return [
        runtime.bridge(subnet, name=name),
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall"},
        {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}},
    ]


def turn(
    stage: Stage, name: str, runner: Runner, confs: list[Json], commands: list[list[str]]
) -> Turn:
    """Give the turn of one way: an ADD of each configuration, and the DELs in reverse."""

    def both() -> dict[str, Any]:
        steps = [
            stage.step("ADD", conf, 1, argv=command)
            for conf, command in zip(confs, commands, strict=True)
        ]
        added, (answer,) = runner.run(steps)
        steps = [
            stage.step("DEL", {**conf, "prevResult": answer}, 1, argv=command)
            for conf, command in zip(confs[::-1], commands[::-1], strict=True)
        ]
        return {f"{name} ADD": added, f"{name} DEL": runner.run(steps)[0]}

    return both


def over_others(found: Rounds) -> list[Row]:
    """Divide what one configuration costs by what the other ways cost."""
    return [
        ratio(
            "chain",
            f"{verb} {ONE} / {other}",
            found,
            over(f"{ONE} {verb}", f"{other} {verb}"),
            goal,
        )
        for other, goals in OTHERS.items()
        for verb, goal in zip(VERBS, goals, strict=True)
    ]

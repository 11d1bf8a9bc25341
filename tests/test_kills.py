# SPDX-License-Identifier: Apache-2.0
"""`kill -9` at every step: what is left is repaired by the next call, and nothing is leaked."""

from __future__ import annotations

import itertools
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import bench
import pytest
import sweep
from kills import Point, Scenario, Scene, text_of
from parts import Part
from runtime import bridge
from sweep import Missed, Sweep

from netns_shim import errors


@pytest.fixture(scope="module")
def worlds(world: bench.World) -> Iterator[list[bench.World]]:
    """A machine for each processor."""
    with ExitStack() as stack:
        yield sweep.worlds(world, stack)


# What the steps with an uplink are marked with.
MARK = " (uplink)"
# A plugin that has nothing to do, but knows GC.
COLLECTOR = """#!/usr/bin/python3 -IS
import json, os, sys
conf, verb = json.load(sys.stdin), os.environ["CNI_COMMAND"]
versions = ["0.4.0", "1.0.0", "1.1.0"]
if verb == "VERSION":
    print(json.dumps({"cniVersion": "1.1.0", "supportedVersions": versions}))
elif verb == "ADD":
    print(json.dumps(conf["prevResult"]))
"""
EXTRA = "/opt/bench/extra"
COLLECTED = {
    "cniVersion": "1.1.0",
    "plugins": [bridge(), {"type": "collector"}],
    "path": f"{EXTRA}:{bench.World.plugin_dir}",
}
VALID = {"cni.dev/valid-attachments": [{"containerID": "beside", "ifname": "eth0"}]}

PUBLISHED = {
    "plugins": [bridge(), {"type": "portmap", "capabilities": {"portMappings": True}}],
    "capabilities": {"portMappings": True},
}
PORTS = {
    "runtimeConfig": {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
    },
}


def publishes(verb: str, uplink: str) -> Scenario:
    """Make a call of a container with a published port."""
    has = verb == "DEL"
    return Scenario(verb, uplink, beside=True, attached=has, keys=PUBLISHED, conf=PORTS)


NAMED = {"delegate": bridge(), "names": True}
CALLED = {"runtimeConfig": {"aliases": ["alias"]}}

# Each of these makes something for a container that only its own DEL removes.
CHAIN = {
    "plugins": [
        bridge(),
        {"type": "firewall", "backend": "iptables"},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
    "capabilities": {"portMappings": True},
}


def of_chain(*, in_place: bool, released: bool) -> Scenario:
    """Make an ADD of a chain, with a published port."""
    return Scenario(
        "ADD", beside=True, in_place=in_place, released=released, keys=CHAIN, conf=PORTS
    )


SHIM = {
    "a cold ADD": Scenario("ADD", uplink="pasta"),
    "a warm ADD": Scenario("ADD", beside=True),
    "the last DEL": Scenario("DEL", attached=True),
    "the last DEL, which ends the uplink": Scenario("DEL", uplink="pasta", attached=True),
    "a DEL beside another": Scenario("DEL", beside=True, attached=True),
    "a DEL too many": Scenario("DEL", beside=True),
    "a DEL too many, not repeated": Scenario("DEL", beside=True, forgotten=True),
    "GC": Scenario("GC", beside=True, attached=True, keys=COLLECTED, conf=VALID),
    "an ADD that repairs": Scenario("ADD", uplink="pasta", beside=True, dead=True),
    "a revival": Scenario("revive", uplink="pasta", beside=True, dead=True),
    "an ADD that publishes": publishes("ADD", "pasta"),
    "a DEL that withdraws": publishes("DEL", "pasta"),
    "an ADD that publishes by slirp4netns": publishes("ADD", "slirp4netns"),
    "a DEL that withdraws from slirp4netns": publishes("DEL", "slirp4netns"),
    "an ADD that publishes in isolation": publishes("ADD", "none"),
    "a DEL that withdraws in isolation": publishes("DEL", "none"),
    "an ADD with names": Scenario("ADD", beside=True, keys=NAMED, conf=CALLED),
    "a DEL with names": Scenario("DEL", beside=True, attached=True, keys=NAMED),
    "the first ADD with names": Scenario("ADD", keys=NAMED),
    "the last DEL with names": Scenario("DEL", attached=True, keys=NAMED),
    "an ADD of a chain": of_chain(in_place=False, released=False),
    "an ADD of a chain, then a DEL": of_chain(in_place=False, released=True),
    "an ADD of a chain in place": of_chain(in_place=True, released=False),
    "an ADD of a chain in place, then a DEL": of_chain(in_place=True, released=True),
}


# How many steps there are may depend on time, such as on who else has been at work. A kill at a
# neighbouring step is one as well, but most have to be where they were counted to be. If they are
# not, the call that was counted was an odd one: then the steps are counted once more.
OTHER_STEP, MOST_OTHERS, ATTEMPTS = "was killed at another step", 2, 2


def at_steps(names: list[str], act: str) -> list[Point]:
    """Make a point of each step."""
    return [
        Point(f"step {n} of {len(names)}, {name}", {"STEPWISE_AT": str(n), "STEPWISE_ACT": act})
        for n, name in enumerate(names, 1)
    ]


def kinds(points: list[Point]) -> list[str]:
    """Name what each point is before, without its number."""
    return [point.name.partition(", ")[2] for point in points]


def was_killed(
    scene: Scene, point: Point, done: subprocess.CompletedProcess[str]
) -> Iterator[str]:
    """Say it where the call was not killed, or at another step than it was counted to be."""
    if done.returncode != -signal.SIGKILL:
        yield Missed(f"was not killed: {text_of(done)}")
    elif not point.name.endswith(f", {scene.steps()[-1]}"):
        yield Missed(f"{OTHER_STEP}: {scene.steps()[-1]}")


@pytest.mark.parametrize("what", SHIM)
def test_the_shim_is_killed(
    worlds: list[bench.World], tell: Callable[[str], None], part: Part, what: str
) -> None:
    """Wherever it is killed, the next ADD works, and after the DEL nothing is left."""
    sweep.install(worlds, EXTRA, collector=COLLECTOR)
    for others in (_kill_at_steps(worlds, tell, part, what) for _ in range(ATTEMPTS)):
        if len(others) <= MOST_OTHERS:
            return
    pytest.fail("\n".join(others))


def _kill_at_steps(
    worlds: list[bench.World], tell: Callable[[str], None], part: Part, what: str
) -> list[str]:
    """Kill the shim at each step of this part; list those at which another step was found."""
    swept = Sweep(worlds, SHIM[what])
    names = swept.count("watch" if "uplink" in what else "")
    points = at_steps([name.removesuffix(MARK) for name in names], "self")
    if "uplink" in what:
        # What comes before the end of the netns is the same with an uplink and without.
        first = next(n for n, name in enumerate(names) if name.startswith("os.rmdir"))
        last = max(n for n, name in enumerate(names) if name.endswith(MARK))
        points = points[first : last + 2]
    visited = part.take(points, kinds(points))
    assert visited

    reached, problems = swept.run([[point] for point in visited], was_killed)

    tell(f"{len(reached)} points of {len(points)}")
    others = [text for text in problems if OTHER_STEP in text]
    assert problems == others, "\n".join(problems)
    assert len(reached) == len(visited)
    return others


UPLINK = {
    "a cold ADD": Scenario("ADD", uplink="pasta"),
    "a warm ADD": Scenario("ADD", uplink="pasta", beside=True),
    "the last DEL": Scenario("DEL", uplink="pasta", attached=True),
}


def is_honest(scene: Scene, point: Point, done: subprocess.CompletedProcess[str]) -> Iterator[str]:
    """Say it where the call crashed, or an ADD failed for another reason, or a DEL at all."""
    if done.returncode < 0:
        yield f"has ended by a signal: {text_of(done)}"
    if done.returncode and f'"code":{errors.UPLINK_FAILED}' not in done.stdout.replace(" ", ""):
        yield f"fails: {text_of(done)}"


@pytest.mark.parametrize(
    ("what", "who"),
    [
        *((what, who) for what in UPLINK for who in ("uplink", "both")),
        ("a warm ADD", "guardian"),
    ],
)
def test_the_uplink_is_killed(
    worlds: list[bench.World], tell: Callable[[str], None], part: Part, what: str, who: str
) -> None:
    """Wherever it dies, the call succeeds or says so, and the next ADD connects everybody.

    So it is if its guardian dies, and if both die.
    """
    swept = Sweep(worlds, UPLINK[what])
    names = swept.count("watch")
    # Without an uplink there is nothing to kill.
    points = [point for point in at_steps(names, who) if point.name.endswith(MARK)]
    visited = part.take(points, kinds(points))
    assert visited

    reached, problems = swept.run([[point] for point in visited], is_honest)

    tell(f"{len(reached)} points of {len(points)}, and {len(names)} steps")
    assert not problems, "\n".join(problems)
    assert len(reached) == len(visited)


KILLABLE = "/opt/bench/killable"
# Which system calls of which program: those by which it changes something, and what starts and
# ends it. A kill comes on entry. Those of a series are counted in each thread by itself, children
# included, so the first that gets so far is killed.
TRACED = {
    "bridge": ("execve", "sendto", "sendmsg", "write", "clone", "setns"),
    "host-local": ("execve", "openat", "flock", "write", "unlinkat"),
}
# Before its transaction, or after it. It is called many times, so these are what is counted.
IPTABLES = ("sendmsg,exit_group", "exit_group")


def traced(verb: str, part: Part, *, too: str = "") -> list[Iterator[Point]]:
    """List series of points for plugins; `too` for the shim as well, whose child is bridge.

    How long a series is turns out when its last point does no harm any more.
    """

    def point(name: str, at: str, call: int, when: int) -> Point:
        environ = {"KILL_IN": f"{verb}/{name}", "KILL_AT": at, "KILL_TOO": too}
        environ |= {"KILL_CALL": str(call), "KILL_WHEN": str(when)}
        return Point(f"{name}, call {call}, {at} number {when}", environ)

    def series(name: str, at: str) -> Iterator[Point]:
        for n in itertools.count(1):
            yield point(name, at, *((n, 1) if name == "iptables" else (1, n)))

    wanted = [("bridge", at) for at in TRACED["bridge"]]
    if not too:
        wanted += [("host-local", at) for at in TRACED["host-local"]]
        wanted += [("iptables", at) for at in IPTABLES]
    return [part.thin(series(name, at), f"{name}, {at}") for name, at in wanted]


PLUGIN = {
    verb: Scenario(
        verb,
        beside=True,
        attached=verb == "DEL",
        strands=verb == "DEL",
        keys={"delegate": bridge(), "path": f"{KILLABLE}:{bench.World.plugin_dir}"},
    )
    for verb in ("ADD", "DEL")
}


def is_an_answer(
    scene: Scene, point: Point, done: subprocess.CompletedProcess[str]
) -> Iterator[str]:
    """Say it where a call crashed, or has failed without saying why."""
    if done.returncode not in (0, 1) or (done.returncode and '"code"' not in done.stdout):
        yield f"gives no answer: {text_of(done)}"


def died_with_it(
    scene: Scene, point: Point, done: subprocess.CompletedProcess[str]
) -> Iterator[str]:
    """Say it where the shim has survived what was to kill it."""
    if scene.was_traced_to_death() and done.returncode != -signal.SIGKILL:
        yield f"was not killed: {text_of(done)}"


@pytest.mark.parametrize("who", ["plugin", "plugin and shim"])
@pytest.mark.parametrize("verb", PLUGIN)
def test_a_plugin_is_killed(
    worlds: list[bench.World], tell: Callable[[str], None], part: Part, verb: str, who: str
) -> None:
    """Wherever a plugin, or a program that it runs, is killed, alone or with the shim."""
    text = (bench.INSIDE / "killable").read_text()
    sweep.install(worlds, KILLABLE, bridge=text, host_local=text, iptables=text)
    too = "1" if who != "plugin" else ""

    swept = Sweep(worlds, PLUGIN[verb])
    judge = died_with_it if too else is_an_answer
    reached, problems = swept.run(traced(verb, part, too=too), judge)

    count = Counter(name.partition(" number")[0] for name in reached)
    tell(f"{len(reached)} points, {part}: {dict(count)}")
    assert not problems, "\n".join(problems)
    assert len(count) >= part.share(6 if too else 12)

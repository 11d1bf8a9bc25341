# SPDX-License-Identifier: Apache-2.0
"""Harming a call at one point after the other, on as many machines as there are processors."""

from __future__ import annotations

import difflib
import os
import queue
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import bench
from kills import STEPWISE, Point, Scenario, Scene, text_of

# What says that something is wrong with how a call has ended.
Judge = Callable[[Scene, Point, subprocess.CompletedProcess[str]], Iterator[str]]


# How often a call is repeated that took other steps than it was counted to take.
TRIES = 5


class Missed(str):
    """What a judge says of a call that was harmed at another step, as a process ended sooner.

    Whether a call still finds a process that is ending is a matter of time.
    """


class Sweep:
    """One scenario, harmed at each of its steps, on as many machines as there are."""

    def __init__(self, worlds: list[bench.World], scenario: Scenario) -> None:
        self.worlds, self.scenario = worlds, scenario
        text = (bench.INSIDE / "stepwise").read_text()
        install(worlds, os.path.dirname(STEPWISE), stepwise=text)

    def count(self, act: str = "") -> list[str]:
        """Name the steps of an unharmed call, once two calls in a row have the same."""
        scene = Scene(self.worlds[0], self.scenario)
        try:
            found: list[list[str]] = []
            while len(found) < 2 or (len(found) < TRIES and bare(found[-1]) != bare(found[-2])):
                scene.prepare()
                done = scene.call({"STEPWISE_ACT": act})
                assert done.returncode == 0, text_of(done)
                found.append(scene.steps())
                problems = list(scene.recover(done))
                assert not problems, problems
        finally:
            scene.close()
        one, other = (bare(names) for names in found[-2:])
        assert one == other, "\n".join(difflib.ndiff(one, other))
        return [max(names) for names in zip(*found[-2:], strict=True)]

    def run(self, series: Sequence[Iterable[Point]], judge: Judge) -> tuple[list[str], list[str]]:
        """Harm the call at each point; list these, and all that is not well afterwards.

        A series goes on until a point of it does no harm any more.
        """
        todo: queue.SimpleQueue[tuple[int, Iterable[Point]]] = queue.SimpleQueue()
        for task in enumerate(series):
            todo.put(task)
        reached: list[str] = []
        problems: list[tuple[int, str]] = []

        def work(world: bench.World) -> None:
            scene = None
            with suppress(queue.Empty):
                while True:
                    position, points = todo.get_nowait()
                    for point in points:
                        scene = scene or Scene(world, self.scenario)
                        found, is_harmed = self._point(scene, point, judge)
                        problems.extend((position, f"{point.name}: {text}") for text in found)
                        if found:
                            scene.close()
                            scene = None
                        if not is_harmed:
                            break
                        reached.append(point.name)
            if scene:
                last = f"{point.name}, and when nobody is attached"
                problems.extend((position, f"{last}: {text}") for text in scene.finish())
                scene.close()

        with ThreadPoolExecutor(len(self.worlds)) as pool:
            list(pool.map(work, self.worlds))
        return reached, [text for _, text in sorted(problems, key=lambda problem: problem[0])]

    def _point(self, scene: Scene, point: Point, judge: Judge) -> tuple[list[str], bool]:
        """Harm one call; say what is not well, and whether it was harmed. Repeat one that missed.

        What is wrong after a call that missed is a problem as well.
        """
        for _ in range(TRIES):
            found, is_harmed = self._once(scene, point, judge)
            if not found or not all(isinstance(text, Missed) for text in found):
                break
        return found, is_harmed

    def _once(self, scene: Scene, point: Point, judge: Judge) -> tuple[list[str], bool]:
        found: list[str] = []
        is_harmed = True
        try:
            scene.prepare()
            done = scene.call(point.environ)
            is_harmed = "KILL_IN" not in point.environ or scene.was_traced_to_death()
            found += judge(scene, point, done)
            found += scene.recover(done)
        except (AssertionError, bench.BenchError, subprocess.TimeoutExpired, ValueError) as error:
            found.append(f"{type(error).__name__}: {error}")
        return found, is_harmed


def bare(names: list[str]) -> list[str]:
    """Leave out the marks of steps with an uplink."""
    return [name.removesuffix(" (uplink)") for name in names]


def worlds(first: bench.World, stack: ExitStack) -> list[bench.World]:
    """Make as many machines as there are processors: a point is mostly waiting for programs."""
    more = max(1, len(os.sched_getaffinity(0))) - 1
    return [first, *(stack.enter_context(bench.World()) for _ in range(more))]


def install(worlds: list[bench.World], directory: str, **programs: str) -> None:
    """Put scripts into every machine."""
    for world in worlds:
        world.path(directory).mkdir(exist_ok=True)
        for name, text in programs.items():
            path = world.path(f"{directory}/{name.replace('_', '-')}")
            path.write_text(text)
            path.chmod(0o755)

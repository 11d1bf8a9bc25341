# SPDX-License-Identifier: Apache-2.0
"""Where it is measured: the machine of the tests, with runners outside and inside a shared netns.

A runner starts plugins and takes the time itself, so that what is measured is the plugin alone and
not the way into the namespaces of the bench.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

import bench
import kinder
from runtime import PLUGIN

from netns_shim.shared.pasta import Pasta
from netns_shim.state import State

INSIDE = Path(__file__).resolve().parent / "inside"
TOOLS = "/opt/bench"
RUNNER = f"{TOOLS}/runner.py"
# In the machine, so that by hand it starts as the shim starts it.
PASTA = "/usr/bin/pasta"


# What a runner does for one call: see inside/runner.py.
Step = dict[str, Any]


class BenchmarkError(Exception):
    """Something that is measured does not work."""


class Sample(NamedTuple):
    """What something took, in milliseconds."""

    wall: float
    cpu: float

    # A sum, where two tuples would make a longer one.
    def __add__(self, other: tuple[float, float]) -> Sample:  # type: ignore[override]
        return Sample(self.wall + other[0], self.cpu + other[1])


class Runner:
    """A process that starts plugins where it is, and takes the time."""

    def __init__(self, place: bench.Place, before: Sequence[str] = (), *, python: str) -> None:
        argv = [*before, python, "-IS", RUNNER]
        pipe = subprocess.PIPE
        self._process = place.popen(argv, stdin=pipe, stdout=pipe, text=True)
        if self._process.stdout.readline() != "ready\n":
            raise BenchmarkError(f"does not start: {argv}")

    def run(self, *jobs: list[Step]) -> tuple[Sample, list[Any]]:
        """Run jobs at once, each a list of steps; give the sample and the last answers."""
        self._process.stdin.write(json.dumps(jobs) + "\n")
        self._process.stdin.flush()
        done = json.loads(self._process.stdout.readline())
        if done["problem"]:
            raise BenchmarkError(done["problem"])
        return Sample(done["wall"], done["cpu"]), done["answers"]

    def close(self) -> None:
        """End it, and wait for what it was started by."""
        self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stage:
    """The machine, a session, containers, and the two runners."""

    def __init__(self, containers: int) -> None:
        with ExitStack() as undo:
            self.world = undo.enter_context(bench.World())
            # As for most people whose containers there are, and as in all figures so far.
            undo.enter_context(kinder.log_in(self.world))
            self._provide()
            self.session = undo.enter_context(self.world.session())
            launcher = self.world.path(PLUGIN).read_text()
            self.python = launcher.split()[0].removeprefix("#!")
            self.pasta_usage = self.session.run([PASTA, "--help"]).stdout
            self.containers = [
                undo.enter_context(self.session.container()) for _ in range(containers)
            ]
            self.outside = undo.enter_context(Runner(self.session, python=self.python))
            inside = Runner(self.session, [PLUGIN, "run", "--"], python=self.python)
            self.inside = undo.enter_context(inside)
            self._undo = undo.pop_all()

    def _provide(self) -> None:
        """Put into the machine what is needed there, the do-nothing plugin among the others."""
        with tempfile.TemporaryDirectory() as directory:
            for name in ("nothing", "peak", "requests"):
                program = f"{directory}/{name}"
                source = str(INSIDE / f"{name}.c")
                subprocess.run(["cc", "-O2", "-o", program, source], check=True)
                where = bench.World.plugin_dir if name == "nothing" else TOOLS
                shutil.copy(program, self.world.path(where))
        shutil.copy(INSIDE / "runner.py", self.world.path(RUNNER))

    def step(
        self,
        verb: str,
        conf: dict[str, Any] | None,
        number: int = 0,
        *,
        argv: Sequence[str] = (PLUGIN,),
        **more: str,
    ) -> Step:
        """Give the step of a call for a container, by its number."""
        env = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": f"container{number}",
            "CNI_NETNS": self.containers[number].netns,
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": "",
            "CNI_PATH": bench.World.plugin_dir,
            "PATH": bench.ROOT_PATH,
            "XDG_RUNTIME_DIR": self.world.runtime_dir,
            **more,
        }
        return {"argv": list(argv), "env": env, "conf": conf}

    def state_dir(self, name: str) -> str:
        """Give the path of a state directory of its own."""
        return f"{self.world.runtime_dir}/{name}"

    def pasta(self, options: list[str], state: State) -> list[str]:
        """Give the command by which the shim starts pasta, with what this release knows."""
        uplink = Pasta(PASTA, options)
        uplink.maps_guest = "--map-guest-addr" in self.pasta_usage
        uplink.sends_bare_segments = not uplink.maps_guest
        uplink.names_host = "--dns-host" in self.pasta_usage
        return uplink.command(state)

    def close(self) -> None:
        """Remove everything."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ByHand:
    """An uplink started by hand, and a runner in its netns: what an ADD needs, without the shim.

    `sample` is what the uplink took to start; the rest is not counted.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._state = State(stage.state_dir("hand"), "hand")
        script = 'mkdir -p "$0"; : >"$0/netns"; unshare --net="$0/netns" ip link set lo up'
        stage.session.run(["sh", "-euc", script, self._state.dir], check=True)
        env = {"PATH": bench.ROOT_PATH, "XDG_RUNTIME_DIR": stage.world.runtime_dir}
        # By hand, it goes into the background once it is ready.
        argv = [each for each in stage.pasta([], self._state) if each != "--foreground"]
        self.sample, _ = stage.outside.run([{"argv": argv, "env": env, "conf": None}])
        # iptables needs a /run that it can write to, host-local its directory.
        mounts = 'mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/lib; exec "$@"'
        enter = [f"--net={self._state.pin}", "unshare", "--mount", "sh", "-euc", mounts, "sh"]
        self._runner = Runner(stage.session, ["nsenter", *enter], python=stage.python)

    def run(self, *jobs: list[Step]) -> tuple[Sample, list[Any]]:
        """Run jobs in its netns."""
        return self._runner.run(*jobs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()
        pid = int(self._stage.world.path(self._state.path("uplink.pid")).read_text())
        uplink = os.pidfd_open(pid)
        signal.pidfd_send_signal(uplink, signal.SIGTERM)
        select.select([uplink], [], [])
        os.close(uplink)
        script = 'umount "$0/netns"; rm -r "$0"'
        self._stage.session.run(["sh", "-euc", script, self._state.dir], check=True)

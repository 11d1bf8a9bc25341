# SPDX-License-Identifier: Apache-2.0
"""The figure `instructions`: what a call executes in user mode, counted by valgrind(1).

It is nearly the same however busy the machine is. What the kernel does is not in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from measure import Row, count
from networks import VERBS, shim, warmed
from runtime import PLUGIN
from stage import BenchmarkError, Stage

FIGURE = "instructions"
END = "posix._exit(0)"
# The steps of a start, each with those before it, as programs for the interpreter.
STEPS = {
    "bare interpreter": "pass",
    "the same, without tidying up at its end": f"import posix; {END}",
    "the same, with _json and _ctypes": f"import posix, _json, _ctypes; {END}",
    "the same, with os": f"import os, posix, _json, _ctypes; {END}",
    "the same, with the modules of a warm call": (
        "import sys, os, posix, _json, _ctypes; sys.path += {path}; "
        "from netns_shim import finder; finder.install(); "
        f"from netns_shim import main, as_cni, cni, skel, attaching; {END}"
    ),
}


def instructions(stage: Stage, _rounds: int) -> list[Row]:
    """Instructions of a warm call and of the steps of its start; not run unless named."""
    conf = shim("counted", delegate={"type": "nothing"})
    launcher = stage.world.path(PLUGIN).read_text()
    paths = re.search(r"^sys\.path \+= (.*)$", launcher, re.MULTILINE)
    if paths is None:
        raise BenchmarkError(f"{PLUGIN} does not say where the package is")
    found = {
        what: executed(stage, [stage.python, "-IS", "-c", code.replace("{path}", paths[1])])
        for what, code in STEPS.items()
    }
    if knows_pidfds(stage):
        with warmed(stage, conf):
            for verb in VERBS:
                found[f"warm {verb}"] = executed(stage, [PLUGIN], verb, conf)
    return [
        count(FIGURE, what, round(number / 1e6, 2), "million") for what, number in found.items()
    ]


def knows_pidfds(stage: Stage) -> bool:
    """Tell whether this valgrind knows pidfd_open(2), by which the shim waits for a plugin."""
    try:
        executed(stage, [stage.python, "-IS", "-c", "import os; os.pidfd_open(os.getpid())"])
    except BenchmarkError:
        return False
    return True


def executed(
    stage: Stage, argv: Sequence[str], verb: str = "", conf: dict[str, Any] | None = None
) -> int:
    """Count the instructions of a command, without those of its children."""
    step = stage.step(verb, conf, 1)
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *argv]
    text = json.dumps(conf) if conf else ""
    done = stage.session.run(command, env=step["env"], input=text)
    total = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or total is None:
        raise BenchmarkError(f"{command}: {done.stdout}{done.stderr}")
    return int(total[1])

# SPDX-License-Identifier: Apache-2.0
"""Starts plugins where it is and takes the time: one JSON document a line, in and out.

In: a list of jobs, started at once. A job is a list of steps, run one after the other, each with
`argv`, `env` and `conf`; the answer of an ADD goes into the configuration of the next step.
Out: `wall`, from the first start to the last end, and `cpu`, of all processes and what they have
waited for, in milliseconds; `answers`, the last one of each job; `problem`, if a step failed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any


class Job:
    """Steps that are run one after the other."""

    def __init__(self, steps: list[dict[str, Any]]) -> None:
        self.steps = steps
        self.answer = None
        self.stdin = os.memfd_create("stdin")
        self.stdout = os.memfd_create("stdout")

    def start(self) -> int:
        """Start the next step; give its process ID."""
        step = self.steps.pop(0)
        conf = step["conf"]
        if self.answer and step["env"].get("CNI_COMMAND") == "ADD":
            conf = {**conf, "prevResult": self.answer}
        self.argv = step["argv"]
        # What a command prints may be long, and is not for the next step.
        self.is_call = "CNI_COMMAND" in step["env"]
        for fd in (self.stdin, self.stdout):
            os.ftruncate(fd, 0)
        os.pwrite(self.stdin, json.dumps(conf).encode() if conf else b"", 0)
        # Opened once more, each has an offset of its own.
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, f"/proc/self/fd/{self.stdin}", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, f"/proc/self/fd/{self.stdout}", os.O_WRONLY, 0),
        ]
        # Python ignores SIGPIPE; pasta takes it for a failure where it is ignored.
        signals = [signal.SIGPIPE, signal.SIGXFSZ]
        return os.posix_spawn(
            self.argv[0], self.argv, step["env"], file_actions=actions, setsigdef=signals
        )

    def end(self, status: int) -> str:
        """Read the answer of a step; tell what is wrong."""
        text = os.pread(self.stdout, 1 << 20, 0).decode()
        if status:
            return f"{self.argv}: wait status {status}: {text}"
        if self.is_call and text.startswith("{"):
            self.answer = json.loads(text)
        return ""

    def close(self) -> None:
        """Let its files go."""
        os.close(self.stdin)
        os.close(self.stdout)


def run(jobs: list[Job]) -> dict[str, Any]:
    """Run jobs at once, to their end."""
    cpu, problem = 0.0, ""
    began = time.perf_counter()
    running = {job.start(): job for job in jobs}
    while running:
        pid, status, usage = os.wait4(-1, 0)
        job = running.pop(pid, None)
        if job is None:
            continue  # the child of a child that has ended
        cpu += usage.ru_utime + usage.ru_stime
        problem = problem or job.end(status)
        if job.steps and not status:
            running[job.start()] = job
    wall = time.perf_counter() - began
    answers = [job.answer for job in jobs]
    return {"wall": wall * 1000, "cpu": cpu * 1000, "answers": answers, "problem": problem}


print("ready", flush=True)
for line in sys.stdin:
    jobs = [Job(steps) for steps in json.loads(line)]
    print(json.dumps(run(jobs)), flush=True)
    for job in jobs:
        job.close()

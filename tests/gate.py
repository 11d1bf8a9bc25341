# SPDX-License-Identifier: Apache-2.0
"""A plugin that stops in the middle of a call until the test lets it go on."""

from __future__ import annotations

import os
import select
from pathlib import Path

import bench

# Told by FIFOs beside it. What it starts in the background is in its process group, or, as a
# daemon, in a session of its own.
PLUGIN = """#!/usr/bin/python3 -IS
import json, os, signal, sys

directory = os.path.dirname(sys.argv[0])
conf, verb = json.load(sys.stdin), os.environ["CNI_COMMAND"]
if verb != "VERSION":
    with open(directory + "/calls", "a") as log:
        log.write(verb + "\\n")
if os.path.exists(f"{directory}/{verb}"):
    kind = open(f"{directory}/{verb}").read()
    if kind and os.fork() == 0:
        if kind == "daemon":
            os.setsid()
        signal.pause()
    with open(directory + "/go") as go:
        with open(directory + "/begun", "w") as begun:
            begun.write(verb)
        go.read()
if verb == "VERSION":
    print('{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}')
if verb == "ADD":
    print(json.dumps(conf["prevResult"]))
"""


CONF = {"type": "gate"}


class Gate:
    """The plugin `gate` in a directory of its own, which stops in the verbs it is told to.

    To be the last of a chain: it gives the result of the one before it.
    """

    def __init__(self, place: bench.Place) -> None:
        self.directory = f"{place.env['HOME']}/gate"
        self._where = Path(place.path(self.directory))
        script = 'mkdir -p "$0"; cat >"$0/gate"; chmod +x "$0/gate"; mkfifo "$0/begun" "$0/go"'
        place.run(["sh", "-euc", script, self.directory], input=PLUGIN, check=True)
        # Both ends of each, so that neither we nor the plugin waits in open(2).
        self._begun = os.open(self._where / "begun", os.O_RDWR | os.O_NONBLOCK)
        self._go = -1

    @property
    def path(self) -> str:
        """CNI_PATH with the gate in it."""
        return f"{self.directory}:{bench.World.plugin_dir}"

    def shut(self, verb: str, child: str = "") -> None:
        """Make it stop in a verb; with a child in the background, `same` group or `daemon`."""
        (self._where / verb).write_text(child)
        if self._go < 0:
            self._go = os.open(self._where / "go", os.O_RDWR | os.O_NONBLOCK)

    def wait(self, seconds: float = 30) -> None:
        """Wait until it has stopped."""
        assert select.select([self._begun], [], [], seconds)[0], "the plugin was not called"
        os.read(self._begun, 64)

    def open(self) -> None:
        """Let the stopped processes go on, and stop no more."""
        for verb in ("ADD", "DEL", "GC", "CHECK", "VERSION"):
            (self._where / verb).unlink(missing_ok=True)
        if self._go >= 0:
            os.close(self._go)
            self._go = -1

    def calls(self) -> list[str]:
        """List the verbs it was called with, except VERSION."""
        log = self._where / "calls"
        return log.read_text().split() if log.exists() else []

    def close(self) -> None:
        """Let all of them go."""
        self.open()
        os.close(self._begun)

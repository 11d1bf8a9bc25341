# SPDX-License-Identifier: Apache-2.0
"""Killing at every step: what is harmed, at which step, and what must be well again afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import bench
from ports import listening
from runtime import PLUGIN, Runtime, bridge, ips, kill_for_good, page, reaches

GATEWAY = "10.89.0.1"
STEPWISE = "/opt/bench/stepwise"
ALREADY_ATTACHED = 104
# In the names of steps: what differs from one run to the next.
VARYING = re.compile(r"\b[0-9a-f]{8,24}\b|(?<=victim)\d+|\b\d+\b")


class Scenario(NamedTuple):
    """A call that is to be harmed, and what is there before it.

    The verb `revive` is what a guardian calls.

    `beside`: another container is attached throughout; `attached`: so is the call's own container;
    `dead`: the uplink has died; `forgotten`: no call for the call's container comes again;
    `released`: the next one is a DEL; `in_place`: plugins run where the caller is; `strands`: its
    `bridge` may be killed, and lose its rules; `keys`: of the configuration; `conf`: of this one
    call.
    """

    verb: str
    uplink: str = "none"
    beside: bool = False
    attached: bool = False
    dead: bool = False
    forgotten: bool = False
    released: bool = False
    in_place: bool = False
    strands: bool = False
    keys: dict[str, Any] = {}  # noqa: RUF012 (a default that is never changed)
    conf: dict[str, Any] = {}  # noqa: RUF012


class Point(NamedTuple):
    """Where a call is harmed: a name for people, and the environment that does it."""

    name: str
    environ: dict[str, str]


class Scene:
    """A session with containers, in the state from which a scenario begins."""

    def __init__(self, world: bench.World, scenario: Scenario) -> None:
        self.world, self.scenario = world, scenario
        self.points = 0
        self.log = f"{world.env['HOME']}/steps"
        with ExitStack() as stack:
            stack.callback(world.reset)
            self.session = stack.enter_context(world.session())
            self.victim, self.beside, self.third = (
                stack.enter_context(self.session.container()) for _ in range(3)
            )
            self.caller: bench.Place = self.session
            if scenario.in_place:
                self.caller = stack.enter_context(self.session.container())
            keys = scenario.keys or {"delegate": bridge()}
            self.runtime = Runtime(self.caller, uplink=scenario.uplink, **keys)
            if scenario.in_place:
                # A bridge, and what plugins share, stay in a netns that is not ours.
                self.runtime.add("victim", self.victim, conf=self.conf)
                self.runtime.delete("victim", self.victim)
            self.nothing = self.state()
            if scenario.beside:
                self.attach_beside()
                # Whatever is kept for the next call is there from now on.
                for conf in ({}, self.conf):
                    self.runtime.add("victim", self.victim, conf=conf)
                    self.runtime.delete("victim", self.victim)
            self.quiet = self.state()
            self._stack = stack.pop_all()

    def close(self) -> None:
        """End all of it, however broken it is."""
        self._stack.close()

    def finish(self) -> Iterator[str]:
        """Say what is left when no container is attached any more."""
        if self.scenario.beside:
            yield from self._failure("DEL", "beside", self.beside)
        yield from differences(self.nothing, self.state())

    def attach_beside(self) -> None:
        """Attach the container that is to notice nothing."""
        self.address = ips(self.runtime.add("beside", self.beside))

    def prepare(self) -> None:
        """Make what is there before the call; nothing if no container is attached."""
        with suppress(FileNotFoundError, OSError):
            self.world.path(self.world.state_dir).rmdir()
        self.points += 1
        if self.scenario.attached:
            self.runtime.add(self.id, self.victim, conf=self.conf)
        if self.scenario.dead:
            (netns,) = self.runtime.status()
            kill_for_good(netns["uplink"])

    @property
    def conf(self) -> dict[str, Any]:
        """What the runtime adds to a configuration for the call's own container."""
        return {k: v for k, v in self.scenario.conf.items() if k == "runtimeConfig"}

    @property
    def id(self) -> str:
        """The name of the call's container: another one at each point.

        A bridge that is killed after it has removed its link never finds its rules again, which
        another point is not to stumble over.
        """
        return f"victim{self.points}"

    def call(self, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Make the call of the scenario step by step."""
        runtime, scenario = self.runtime, self.scenario
        env = runtime.environment(scenario.verb, self.id, self.victim.netns)
        env |= {"STEPWISE_LOG": self.log, "KILL_LOG": f"{self.log}.traced", **environ}
        env["PATH"] = f"{runtime.path}:{bench.PATH}"
        text = json.dumps({**runtime.conf, **scenario.conf})
        for log in ("", ".traced", ".traced.calls"):
            self.world.path(self.log + log).unlink(missing_ok=True)
        argv = [interpreter(self.world), "-IS", STEPWISE, PLUGIN]
        if scenario.verb == "revive":
            argv += ["revive", f"{self.world.state_dir}/default/netns", "0"]
        return self.caller.run(argv, env=env, input=text)

    def was_traced_to_death(self) -> bool:
        """Tell whether `killable` has killed something in the last call."""
        try:
            return "killed by SIGKILL" in self.world.path(f"{self.log}.traced").read_text()
        except FileNotFoundError:
            return False

    def steps(self) -> list[str]:
        """List the steps that the last call has begun."""
        names = self.world.path(self.log).read_text().splitlines()
        return [VARYING.sub("*", name.replace(self.world.state_dir, "")) for name in names]

    def recover(self, done: subprocess.CompletedProcess[str]) -> Iterator[str]:
        """Say what is not well: the next ADD, who is attached, and what is left after the DEL."""
        attached = {"beside": self.beside} if self.scenario.beside else {}
        stranded = self._stranded()
        yield from self._cut_off(attached, "after the call", is_linked=not self._may_be_dead)
        if self.scenario.forgotten:
            yield from self._failure("DEL", "beside", self.beside)
            yield from differences(self.nothing, self.state())
            self.attach_beside()
            return
        name, container = self.id, self.victim
        if self.scenario.released:
            yield from self._failure("DEL", name, container)
            yield from differences(self.quiet, self.state())
        elif self.scenario.verb == "ADD" and done.returncode == 0:
            # The runtime knows of its success, so the next is another container's.
            attached[self.id] = self.victim
            name, container = "third", self.third
        added = self.runtime.call("ADD", name, container.netns)
        if added.returncode and json.loads(added.stdout)["code"] == ALREADY_ATTACHED:
            # It was killed when all was done, or before anything was undone: that must be true.
            yield from self._cut_off({name: container}, "where it says so")
            yield from self._failure("DEL", name, container)
            added = self.runtime.call("ADD", name, container.netns)
        if added.returncode:
            yield f"the next ADD fails: {text_of(added)}"
        attached[name] = container
        yield from self._cut_off(attached, "after the next ADD")
        attached.pop("beside", None)
        for name, container in attached.items():
            yield from self._failure("DEL", name, container)
        if self.scenario.beside:
            yield from self._cut_off({"beside": self.beside}, "after the DEL")
        if self._has_empty_lease():
            yield from self._collect()
        after = self.state()
        self.quiet += (after - self.quiet) & stranded
        yield from differences(self.quiet, after)

    def _stranded(self) -> Counter[str]:
        """List the rules of a `bridge` that was killed after it had removed its link.

        It goes by the addresses of the link, so no DEL removes the rules. They go with the netns.
        """
        if not self.scenario.strands:
            return Counter()
        if "eth0" in self.victim.run(["ip", "-o", "link"], check=True).stdout:
            return Counter()
        found = self.state() - self.quiet
        return Counter({name: n for name, n in found.items() if name.startswith("rule ")})

    def _has_empty_lease(self) -> bool:
        """Tell whether there is what a host-local leaves that is killed before it writes a name.

        No DEL can know whose it is.
        """
        state = self.world.path(f"{self.world.state_dir}/default")
        leases = state.glob("var/lib/cni/networks/*/*.*.*.*")
        return any(lease.stat().st_size == 0 for lease in leases)

    def _collect(self) -> Iterator[str]:
        valid = [{"containerID": "beside", "ifname": "eth0"}] if self.scenario.beside else []
        conf = {"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}
        done = self.runtime.call("GC", conf=conf)
        if done.returncode:
            yield f"GC fails: {text_of(done)}"

    @property
    def _may_be_dead(self) -> bool:
        return self.scenario.dead or self.scenario.uplink != "none"

    def _failure(self, verb: str, name: str, container: bench.Container) -> Iterator[str]:
        done = self.runtime.call(verb, name, container.netns)
        if done.returncode:
            yield f"{verb} of {name} fails: {text_of(done)}"

    def _cut_off(
        self, attached: dict[str, bench.Container], when: str, *, is_linked: bool = True
    ) -> Iterator[str]:
        """Say who is not connected; `is_linked` tells whether the uplink is to work."""
        is_linked = is_linked and self.scenario.uplink != "none"
        for name, container in attached.items():
            if not reaches(container, GATEWAY):
                yield f"{name} does not reach its gateway {when}"
            elif is_linked and not page(container, bench.PAGE_BEYOND):
                yield f"{name} does not reach the internet {when}"
        if "beside" in attached:
            shown = self.beside.run(["ip", "-br", "address", "show", "eth0"]).stdout
            if not all(f" {address}/" in shown for address in self.address):
                yield f"the address beside has changed {when}: {shown}"

    def state(self) -> Counter[str]:
        """List all that a call can leave behind, each with how often it is there."""
        top = self.world.state_dir
        # What holds a namespace of the bench becomes `cat` in its own time.
        holders = ("cat", os.path.basename(os.path.realpath(shutil.which("sh") or "")))
        names = self.world.programs()
        found = Counter(f"process {'cat' if name in holders else name}" for name in names)
        for line in self.world.leftovers():
            if not line.startswith(("process ", "guardian ")):
                found[line.replace(top, "")] += 1
        found.update(f"port {port}" for port in listening(self.world))
        with suppress(FileNotFoundError):
            found.update(f"directory {name}" for name in os.listdir(self.world.path(top)))
        if "directory default" in found:
            # The file of a lock waits for the next call that needs it, such as the last DEL.
            for line in ("directory .lock-default", "file /.lock-default"):
                del found[line]
        for place in ("victim", "third"):
            lines = getattr(self, place).run(["ip", "-o", "link"], check=True).stdout.splitlines()
            found.update(f"{line.split()[1]} in {place}" for line in lines)
        return found + self._in_netns(f"{top}/default/netns")

    def _in_netns(self, pin: str) -> Counter[str]:
        """List links and rules where plugins run; none if there is no such netns."""
        enter = [] if self.scenario.in_place else ["nsenter", f"--net={pin}"]
        lines = self.caller.run([*enter, "ip", "-o", "link"]).stdout.splitlines()
        links = [line.split()[1].split("@")[0] for line in lines]
        found = Counter("veth" if link.startswith("veth") else link for link in links)
        for program in ("iptables-save", "ip6tables-save"):
            rules = self.caller.run([*enter, f"/usr/sbin/{program}"]).stdout.splitlines()
            found.update(f"rule {VARYING.sub('*', r)}" for r in rules if r.startswith(("-A", ":")))
        return found


def interpreter(world: bench.World) -> str:
    """Tell by which interpreter the installed launcher runs."""
    return world.path(PLUGIN).read_text().split(maxsplit=1)[0].removeprefix("#!")


def text_of(done: subprocess.CompletedProcess[str]) -> str:
    """Put what a call has said into one line."""
    return f"{done.returncode} {' '.join((done.stdout + done.stderr).split())}"


def differences(before: Counter[str], after: Counter[str]) -> Iterator[str]:
    """Say what is there that was not, and what is not that was."""
    for what, counts in (("left", after - before), ("lost", before - after)):
        if counts:
            yield f"{what}: {', '.join(f'{name} ({n})' for name, n in sorted(counts.items()))}"

# SPDX-License-Identifier: Apache-2.0
"""Many containers come and go in random order, and nothing is lost, doubled or cut off.

Which calls are made follows from a seed, which is printed if the test fails and can be given in
NETNS_SHIM_SEED; which of them meet does not. Calls of one container come one after the other, as
the specification has it, but for the second ADD at the same time that is tried now and then.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

import bench
import pytest
from runtime import Runtime, bridge

from netns_shim import errors

CONTAINERS = 32
AT_ONCE = 8
OPERATIONS = 64
HANDOVERS = 8
# In CI, and of the long test: rounds of all kinds.
ROUNDS = 2
MANY_ROUNDS = 40


def configuration(name: str, netns: str, uplink: str, *subnets: str) -> dict[str, Any]:
    """Write a network. Default routes are left out, as a container is in several networks."""
    plugin = bridge(*subnets, name=f"cni-{name}")
    del plugin["ipam"]["routes"]
    keys = {"name": name, "netns": netns, "uplink": uplink}
    return {"cniVersion": "1.1.0", **keys, "delegate": plugin}


# Two share a netns and the uplink; the third is in another one.
NETWORKS = {
    "red": configuration("red", "one", "pasta", "10.89.1.0/24"),
    "green": configuration("green", "one", "pasta", "10.89.2.0/24", "fd00:89:2::/64"),
    "blue": configuration("blue", "two", "none", "10.89.3.0/24"),
}
INTERFACES = {"red": "eth0", "green": "eth1", "blue": "eth2"}
# The addresses of an interface, and whether the gateway answers; the first packet may be lost.
LOOK = 'ip -json addr show dev "$1"; ping -c1 -W2 "$2" >&2 || ping -c1 -W8 "$2" >&2'


class Step(NamedTuple):
    """One call of a container: `extra` is what is tried beside it."""

    verb: str
    network: str
    extra: str = ""


class Handover(NamedTuple):
    """A container that comes when the one before it has gone through this part of its DEL."""

    container: int
    network: str
    moment: float


Plan = dict[int, list[Step]]


class Stress:
    """The containers, what is attached, and what must be true of it.

    `attached` has the addresses by container and network.
    """

    def __init__(self, world: bench.World, session: bench.Session, containers: list[Any]) -> None:
        self.world = world
        self.session = session
        self.containers = containers
        self.attached: dict[tuple[int, str], list[str]] = {}
        self.runtimes = {name: Runtime(session, **keys) for name, keys in NETWORKS.items()}

    def call(self, verb: str, index: int, network: str) -> tuple[int, Any]:
        """Make a call for a container; give the code of its error, 0 for none, and its answer."""
        netns, ifname = self.containers[index].netns, INTERFACES[network]
        done = self.runtimes[network].call(verb, f"c{index}", netns, CNI_IFNAME=ifname)
        answer = json.loads(done.stdout) if done.stdout else {}
        code = answer.get("code", -1) if done.returncode else 0
        assert (code == 0) == (done.returncode == 0), done
        return code, answer or done.stderr

    def go(self, index: int, steps: list[Step]) -> None:
        """Make the calls of one container."""
        for step in steps:
            (self._add if step.verb == "ADD" else self._delete)(index, step.network, step.extra)

    def _add(self, index: int, network: str, extra: str) -> None:
        if extra == "twin":
            with ThreadPoolExecutor(2) as pool:
                twins = list(pool.map(lambda _: self.call("ADD", index, network), range(2)))
            twins.sort(key=lambda answer: answer[0])
            (code, answer), (refusal, why) = twins
            assert refusal in (errors.ALREADY_ATTACHED, errors.TRY_AGAIN_LATER), why
        else:
            code, answer = self.call("ADD", index, network)
        assert code == 0, (index, network, answer)
        self.attached[index, network] = [ip["address"] for ip in answer["ips"]]
        self.look(index, network)
        if extra == "again":
            code, answer = self.call("ADD", index, network)
            assert code == errors.ALREADY_ATTACHED, (index, network, answer)
            self.look(index, network)

    def _delete(self, index: int, network: str, extra: str) -> None:
        for _ in range(2 if extra == "again" else 1):
            code, answer = self.call("DEL", index, network)
            assert code == 0, (index, network, answer)
        self.attached.pop((index, network))
        self.look_for_nothing(index, network)

    def relay(self, handovers: list[Handover]) -> None:
        """Let one container go while the next one comes, so that a netns goes and comes."""
        leaving: Future[float] | None = None
        seconds = 0.3
        with ThreadPoolExecutor(1) as pool:
            for index, network, moment in handovers:
                # Not a wait for anything, but the choice of a moment.
                Event().wait(moment * seconds)
                self._add(index, network, "")
                seconds = leaving.result() if leaving else seconds
                leaving = pool.submit(self._time_delete, index, network)
            if leaving:
                leaving.result()

    def _time_delete(self, index: int, network: str) -> float:
        start = time.monotonic()
        self._delete(index, network, "")
        return time.monotonic() - start

    def look(self, index: int, network: str) -> None:
        """See that a container has its addresses, no others, and reaches its gateway."""
        expected = self.attached[index, network]
        gateway = expected[0].rpartition(".")[0] + ".1"
        arguments = ["sh", "-c", LOOK, "sh", INTERFACES[network], gateway]
        done = self.containers[index].run(arguments)
        assert done.returncode == 0, (index, network, done)
        found = [
            f"{entry['local']}/{entry['prefixlen']}"
            for link in json.loads(done.stdout)
            for entry in link["addr_info"]
            if entry["scope"] == "global"
        ]
        assert sorted(found) == sorted(expected), (index, network)

    def look_for_nothing(self, index: int, network: str) -> None:
        """See that a container has not got an interface any more."""
        done = self.containers[index].run(["ip", "link", "show", "dev", INTERFACES[network]])
        assert done.returncode == 1, (index, network, done)

    def check(self) -> None:
        """See that what is attached is what is recorded, leased and working, and nothing else."""
        status = self.runtimes["red"].status()
        found = sorted(
            (netns["name"], r["network"], r["containerID"], r["ifname"], r["phase"], *r["ips"])
            for netns in status
            for r in netns["references"]
        )
        expected = sorted(
            (NETWORKS[network]["netns"], network, f"c{index}", INTERFACES[network], "live", *ips)
            for (index, network), ips in self.attached.items()
        )
        assert found == expected
        assert all(netns["uplink"]["alive"] and not netns["commands"] for netns in status)
        for network in NETWORKS:
            mine = [a for (_, name), ips in self.attached.items() if name == network for a in ips]
            assert sorted(self._leases(network)) == sorted(a.partition("/")[0] for a in mine)
        if not self.attached:
            assert self.world.leftovers() == []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda key: self.look(*key), list(self.attached)))

    def _leases(self, network: str) -> list[str]:
        state = f"{self.world.state_dir}/{NETWORKS[network]['netns']}"
        directory = self.world.path(f"{state}/var/lib/cni/networks/{network}")
        with suppress(FileNotFoundError):
            return [n.replace("_", ":") for n in os.listdir(directory) if n[0] in "0123456789f"]
        return []

    def collect(self, network: str, stale: set[tuple[int, str]]) -> None:
        """GC with a list of all that may be valid, which is all but what is known to be stale."""
        valid = [
            {"containerID": f"c{index}", "ifname": INTERFACES[network]}
            for index in range(CONTAINERS)
            if (index, network) not in stale
        ]
        self.runtimes[network].succeed("GC", conf={"cni.dev/valid-attachments": valid})


def toggle(rng: random.Random, attached: set[tuple[int, str]]) -> Plan:
    """Plan a round in which containers come and go in random order."""
    plan: Plan = {}
    now = set(attached)
    for _ in range(OPERATIONS):
        key = index, network = rng.randrange(CONTAINERS), rng.choice(list(NETWORKS))
        verb = "DEL" if key in now else "ADD"
        extra = rng.choices(["", "again", "twin"], [80, 12, 8])[0]
        plan.setdefault(index, []).append(Step(verb, network, extra))
        now ^= {key}
    return plan


def relays(rng: random.Random) -> list[list[Handover]]:
    """Plan for each netns that one container comes when another one, the last of it, goes."""
    first, second, third, fourth = rng.sample(range(CONTAINERS), 4)
    return [
        [Handover(index, rng.choice(names), rng.uniform(0.3, 1.1)) for index in pair * HANDOVERS]
        for pair, names in (([first, second], ["red", "green"]), ([third, fourth], ["blue"]))
    ]


def clear(attached: set[tuple[int, str]]) -> Plan:
    """Plan a round in which all that is attached goes."""
    plan: Plan = {}
    for index, network in sorted(attached):
        plan.setdefault(index, []).append(Step("DEL", network))
    return plan


@contextmanager
def beside(step: Any) -> Iterator[None]:
    """Do something again and again, at least once, beside what is in the block."""
    over, failures = Event(), list[BaseException]()

    def repeat() -> None:
        try:
            step()
            while not over.is_set():
                step()
        except BaseException as error:
            failures.append(error)

    thread = Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    for failure in failures:
        raise failure


class Uplinks:
    """The uplinks that are running: of a netns there is one at most."""

    def __init__(self, world: bench.World) -> None:
        self._world = world
        self._before: set[tuple[int, str]] = set()
        self._pause = Event()
        self.seen: set[tuple[int, str]] = set()

    def look(self) -> None:
        """Fail if two uplinks of a netns are seen twice in a row.

        One that goes to the background is two processes for a moment, father and son.
        """
        found: dict[int, tuple[str, int]] = {}
        for pid in self._world._ids.processes():
            with suppress(OSError):  # it may end meanwhile
                if os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith(
                    ("pasta", "passt")
                ):
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    found[pid] = fields[19], int(fields[1])
        now = {(pid, since) for pid, (since, parent) in found.items() if parent not in found}
        self.seen |= now
        assert len(now & self._before) <= 1, f"several uplinks: {now & self._before}"
        self._before = now
        self._pause.wait(0.02)  # which leaves the processor to the calls


def run_round(stress: Stress, plan: Plan, rng: random.Random, stale: set[Any]) -> None:
    """Make the calls of a plan, several at once, with GC beside them; then check everything."""
    names = cycle([*{network for _, network in stale}, *rng.sample(list(NETWORKS), 2)])
    order = rng.sample(list(plan), len(plan))
    with (
        beside(lambda: stress.collect(next(names), stale)),
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        list(pool.map(lambda index: stress.go(index, plan[index]), order))
    for network in {network for _, network in stale}:
        stress.collect(network, stale)
    for key in stale:
        del stress.attached[key]
        stress.look_for_nothing(*key)
    stress.check()


def run(world: bench.World, session: bench.Session, rounds: int) -> None:
    """Let containers come and go for a number of rounds."""
    seed = os.environ.get("NETNS_SHIM_SEED") or str(random.SystemRandom().randrange(1 << 32))
    print(f"to make the same calls again: NETNS_SHIM_SEED={seed}")
    rng = random.Random(seed)
    uplinks = Uplinks(world)
    with ExitStack() as stack:
        containers = [stack.enter_context(session.container()) for _ in range(CONTAINERS)]
        stress = Stress(world, session, containers)
        stack.enter_context(beside(uplinks.look))
        for number in range(rounds):
            print(f"round {number}")
            attached = set(stress.attached)
            # These have been forgotten by the runtime, as after a crash.
            stale = set(rng.sample(sorted(attached), min(3, len(attached))))
            plan = toggle(rng, attached - stale)
            for index, _ in stale:
                plan.pop(index, None)
            run_round(stress, plan, rng, stale)
            if number % 2:
                run_round(stress, clear(set(stress.attached)), rng, set())
                assert world.leftovers() == []
                with ThreadPoolExecutor(2) as pool:
                    list(pool.map(stress.relay, relays(rng)))
                stress.check()
        run_round(stress, clear(set(stress.attached)), rng, set())
    assert uplinks.seen, "no uplink has been seen"
    assert world.leftovers() == []


def test_coming_and_going(world: bench.World, session: bench.Session) -> None:
    """Whatever comes and goes beside it, an attachment is whole, or it is not there at all."""
    run(world, session, ROUNDS)


@pytest.mark.long
def test_coming_and_going_for_long(world: bench.World, session: bench.Session) -> None:
    """The same for more rounds, as many as NETNS_SHIM_ROUNDS says."""
    run(world, session, int(os.environ.get("NETNS_SHIM_ROUNDS", MANY_ROUNDS)))

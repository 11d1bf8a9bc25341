# SPDX-License-Identifier: Apache-2.0
"""The guardian of an uplink: a dead uplink comes back without a call, and an ADD sees its end."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import bench
import ports
import pytest
from fakes import executable
from gate import Gate
from runtime import PLUGIN, Runtime, bridge, kill, kill_for_good, kill_publisher, page, until

from netns_shim import errors
from netns_shim.proc import start_time

# It takes 0.2 s where the machine has nothing else to do; the tests share it with others.
DEADLINE = 5.0


def record(world: bench.World) -> dict[str, Any]:
    """Read the record of the uplink."""
    path = world.path(f"{world.state_dir}/default/uplink.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def is_back(world: bench.World, before: dict[str, Any]) -> bool:
    """Wait for another uplink than that of a record; tell whether it came in time."""
    return until(lambda: record(world)["pid"] != before["pid"], DEADLINE)


def is_gone(pid: int) -> bool:
    """Wait for the end of a process; tell whether it came in time."""
    return until(lambda: not start_time(pid), DEADLINE)


def test_it_holds_the_state_directory(world: bench.World, session: bench.Session) -> None:
    """The directory is locked, so that systemd-tmpfiles(8) passes it over, after a revival too.

    pasta closes what it inherits, and in a session there is no pause process.
    """
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container:
        runtime.add("c", container)
        assert until(lambda: world.state_dir in descriptors(record(world)["guardian"]["pid"]))
        before = record(world)

        kill(before["pid"])

        assert is_back(world, before)
        assert until(lambda: world.state_dir in descriptors(record(world)["guardian"]["pid"]))
        runtime.delete("c", container)
    assert until(lambda: world.leftovers() == [])


def descriptors(pid: int) -> set[str]:
    """List what a process has open."""
    directory = f"/proc/{pid}/fd"
    return {os.readlink(f"{directory}/{number}") for number in os.listdir(directory)}


@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_a_dead_uplink_comes_back(world: bench.World, session: bench.Session, driver: str) -> None:
    """Without a call: in the same netns, with the same addresses, and with its ports open."""
    runtime = ports.runtime(session, uplink=driver)
    with session.container() as container, ports.answering(world, container):
        runtime.add("c", container, conf=ports.publishing(ports.mapping(8080)))
        before = record(world)

        for _ in range(2):
            last = record(world)
            kill(last["pid"])
            assert is_back(world, last)
            assert page(container, bench.PAGE_BEYOND)
            assert ports.ask(world.internet, bench.HOST, 8080)

        after = record(world)
        for key in ("netns", "addresses", "interface", "mtu", "dnsForwarders", "wanted"):
            assert after[key] == before[key]
        assert is_gone(before["guardian"]["pid"])
        runtime.delete("c", container)
    assert world.leftovers() == []


def publisher(runtime: Runtime) -> int:
    """Give the process ID of the publisher of the last attachment."""
    (netns,) = runtime.status()
    return int(netns["references"][-1]["publisher"]["pid"])


def has_other_publisher(runtime: Runtime, before: int) -> bool:
    """Wait for another publisher; tell whether it came in time."""
    return until(lambda: publisher(runtime) != before, DEADLINE)


def test_a_dead_publisher_comes_back(world: bench.World, session: bench.Session) -> None:
    """Without a call as well: a pasta of its own that opens the ports of one container."""
    runtime = ports.runtime(session, uplink="none")
    with session.container() as container, ports.answering(world, container):
        runtime.add("c", container, conf=ports.publishing(ports.mapping(8080)))

        for _ in range(2):
            before = publisher(runtime)
            kill(before)
            assert has_other_publisher(runtime, before)
            assert ports.ask(world.internet, bench.HOST, 8080)

        kill_publisher(publisher(runtime))
        with session.container() as other:
            runtime.add("o", other)
            assert ports.ask(world.internet, bench.HOST, 8080)
            runtime.delete("o", other)
        runtime.delete("c", container)
        assert until(lambda: world.leftovers() == [], DEADLINE)


def test_for_a_user_without_capabilities(world: bench.World) -> None:
    """So it does in the user's own user namespace, even if that has lost its pause process."""
    runtime = Runtime(world, delegate=bridge())
    with ExitStack() as stack:
        own = stack.enter_context(world.unshared())
        container = stack.enter_context(own.container())
        runtime.add("c", container)
        own.close()
        before = record(world)
        kill(json.loads(world.path(f"{world.state_dir}/.holder").read_text())["pid"])
        kill(before["pid"])

        assert is_back(world, before)

        assert page(container, bench.PAGE_BEYOND)
        assert runtime.call("ADD", "c", container.netns, CNI_IFNAME="eth1").returncode == 0
        assert record(world)["netns"] == before["netns"]
        runtime.delete("c", container, CNI_IFNAME="eth1")
        runtime.delete("c", container)
    assert until(lambda: world.leftovers() == [])


def test_beside_a_command(world: bench.World, session: bench.Session) -> None:
    """`netns-shim run` keeps its shared netns connected, too."""
    argv = [PLUGIN, "run", "--uplink", "pasta", "--", "sh", "-c", "echo; read line; fetch $0"]
    with session.popen([*argv, bench.PAGE], stdin=-1, stdout=-1, text=True) as command:
        assert command.stdout.readline() == "\n"
        before = record(world)
        kill(before["pid"])
        assert is_back(world, before)

        assert command.communicate("\n", timeout=30)[0]
    assert world.leftovers() == []


@pytest.mark.parametrize("how", ["ADD", "refresh"])
def test_a_guardian_is_killed(world: bench.World, session: bench.Session, how: str) -> None:
    """No connection is cut; `status` says it, and an ADD or `refresh` gives another guardian."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container, session.container() as other:
        runtime.add("c", container)
        before = record(world)
        kill(before["guardian"]["pid"])

        shown = session.run([PLUGIN, "status"], check=True).stdout
        assert "! it has no guardian to restart it" in shown
        assert page(container, bench.PAGE_BEYOND)
        if how == "ADD":
            assert "has been replaced" in runtime.call("ADD", "o", other.netns).stderr
            assert record(world)["pid"] == before["pid"]
            assert "replaced" not in runtime.call("ADD", "o2", other.netns).stderr
        else:
            session.run([PLUGIN, "refresh"], check=True)
        last = record(world)
        assert last["guardian"]["pid"] != before["guardian"]["pid"]
        kill(last["pid"])
        assert is_back(world, last)
        assert page(container, bench.PAGE_BEYOND)
        runtime.delete("c", container)
        for name in ("o", "o2") if how == "ADD" else ():
            runtime.delete(name, other)
    assert world.leftovers() == []


def test_a_guardian_is_stopped(world: bench.World, session: bench.Session) -> None:
    """One that is stopped starts nothing: `status` and `doctor` say so, `refresh` helps."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container:
        runtime.add("c", container)
        before = record(world)
        guardian = before["guardian"]["pid"]
        os.kill(guardian, signal.SIGSTOP)
        try:
            assert "! it has no guardian" in session.run([PLUGIN, "status"], check=True).stdout
            assert f"PID {guardian}, is stopped" in session.run([PLUGIN, "doctor"]).stdout
            kill(before["pid"])
            shown = session.run([PLUGIN, "status"], check=True).stdout
            assert "! the next ADD starts it again" in shown
            session.run([PLUGIN, "refresh"], check=True)
        finally:
            with suppress(ProcessLookupError):
                os.kill(guardian, signal.SIGCONT)

        assert is_gone(guardian)
        assert record(world)["guardian"]["pid"] != guardian
        assert page(container, bench.PAGE_BEYOND)
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_an_uplink_of_before(world: bench.World, session: bench.Session) -> None:
    """One that an earlier release has started works without; `doctor` says so, `refresh` helps."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container, session.container() as other:
        runtime.add("c", container)
        before = record(world)
        kill(before["guardian"]["pid"])
        path = world.path(f"{world.state_dir}/default/uplink.json")
        path.write_text(json.dumps({k: v for k, v in before.items() if k != "guardian"}))
        session.path(f"{world.state_dir}/default/lifeline").unlink()

        done = runtime.call("ADD", "o", other.netns)

        assert (done.returncode, done.stderr) == (0, "")
        told = session.run([PLUGIN, "doctor"]).stdout
        assert "its uplink has no guardian to restart it" in told
        session.run([PLUGIN, "refresh"], check=True)
        assert start_time(record(world)["guardian"]["pid"])
        runtime.delete("c", container)
        runtime.delete("o", other)
    assert world.leftovers() == []


def test_a_lifeline_that_is_gone(world: bench.World, session: bench.Session) -> None:
    """Without it no guardian can be given; that is said once, and nothing is cut off."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container, session.container() as other:
        runtime.add("c", container)
        kill(record(world)["guardian"]["pid"])
        session.path(f"{world.state_dir}/default/lifeline").unlink()

        first = runtime.call("ADD", "o", other.netns)
        second = runtime.call("ADD", "o", other.netns, CNI_IFNAME="eth1")

        assert "gets no other guardian" in first.stderr
        assert (second.returncode, second.stderr) == (0, "")
        assert page(container, bench.PAGE)
        runtime.delete("c", container)
        runtime.delete("o", other, CNI_IFNAME="eth1")
        runtime.delete("o", other)
    assert world.leftovers() == []


# pasta, unless this file is there.
MOODY = """#!/bin/sh
if [ -e "$0.broken" ]; then echo 'External interface not usable' >&2; exit 1; fi
exec pasta "$@"
"""


@pytest.fixture
def moody(world: bench.World, session: bench.Session) -> str:
    """The path of a pasta that fails while a file of that name and `.broken` is there."""
    program = f"{world.env['HOME']}/moody"
    executable(session.path(program), MOODY)
    return program


def problem(runtime: Runtime) -> str:
    """Give what `status` says that the guardian fails with."""
    (netns,) = runtime.status()
    return str(netns["uplink"]["guardian"]["problem"])


@pytest.mark.parametrize("how", ["comes back", "ends"])
def test_it_goes_on_trying(
    world: bench.World, session: bench.Session, moody: str, how: str
) -> None:
    """While the uplink cannot be started it tries, and says why; the last DEL ends it."""
    runtime = Runtime(session, delegate=bridge(), uplink={"driver": "pasta", "path": moody})
    log = f"{world.env['HOME']}/log"
    with session.container() as container:
        runtime.add("c", container, NETNS_SHIM_LOG=log)
        before = record(world)
        session.path(f"{moody}.broken").touch()
        kill(before["pid"])

        assert until(lambda: "External interface" in problem(runtime), DEADLINE)
        assert " error revive default " in session.path(log).read_text()
        shown = session.run([PLUGIN, "status"], check=True).stdout
        assert "! its guardian starts it again, but could not so far: " in shown
        if how == "comes back":
            session.path(f"{moody}.broken").unlink()
            assert is_back(world, before)
            assert page(container, bench.PAGE_BEYOND)
        runtime.delete("c", container)
        assert world.leftovers() == []
    assert is_gone(before["guardian"]["pid"])


def test_a_refresh_that_fails(world: bench.World, session: bench.Session, moody: str) -> None:
    """It leaves a guardian that goes on trying."""
    runtime = Runtime(session, delegate=bridge(), uplink={"driver": "pasta", "path": moody})
    with session.container() as container:
        runtime.add("c", container)
        before = record(world)
        session.path(f"{moody}.broken").touch()
        assert session.run([PLUGIN, "refresh"]).returncode == 1
        assert is_gone(before["guardian"]["pid"])
        session.path(f"{moody}.broken").unlink()

        assert is_back(world, before)

        assert page(container, bench.PAGE_BEYOND)
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize("order", [("guardian", "uplink"), ("uplink", "guardian")])
def test_all_at_once(world: bench.World, session: bench.Session, order: tuple[str, str]) -> None:
    """After a kill of uplink and guardian nothing comes back; the next ADD repairs."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container, session.container() as other:
        runtime.add("c", container)
        before = record(world)
        pids = {"uplink": before["pid"], "guardian": before["guardian"]["pid"]}
        for name in order:
            os.kill(pids[name], signal.SIGKILL)
        assert all(is_gone(pid) for pid in pids.values())
        assert [line for line in world.leftovers() if not line.startswith(("file", "mount"))] == []

        runtime.add("o", other)

        assert page(container, bench.PAGE_BEYOND)
        runtime.delete("c", container)
        runtime.delete("o", other)
    assert world.leftovers() == []


def test_an_add_right_after_the_kill(world: bench.World, session: bench.Session) -> None:
    """An uplink that has been killed, and takes a moment to be gone, is not taken for alive."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container, session.container() as other:
        runtime.add("o", other)
        for number in range(5):
            before = record(world)
            kill(before["guardian"]["pid"])
            os.kill(before["pid"], signal.SIGKILL)

            runtime.add(f"c{number}", container)

            assert page(container, bench.PAGE_BEYOND)
            runtime.delete(f"c{number}", container)
        runtime.delete("o", other)
    assert world.leftovers() == []


class Halfway:
    """An ADD that publishes a port, stopped before the last plugin of its chain ends."""

    def __init__(self, session: bench.Session, driver: str) -> None:
        self.gate = Gate(session)
        self.runtime = Runtime(
            session,
            path=self.gate.path,
            plugins=[bridge(), ports.PORTMAP, {"type": "gate"}],
            capabilities={"portMappings": True},
            uplink=driver,
        )
        self.session = session

    def end(self, container: bench.Container, meanwhile: Callable[[], None]) -> tuple[int, str]:
        """Begin it, do something, and let it end; give its exit status and answer."""
        self.gate.shut("ADD")
        env = self.runtime.environment("ADD", "c", container.netns)
        conf = {**self.runtime.conf, **ports.publishing(ports.mapping(8080))}
        with self.session.popen([PLUGIN], env=env, stdin=-1, stdout=-1, text=True) as call:
            call.stdin.write(json.dumps(conf))
            call.stdin.close()
            self.gate.wait()
            meanwhile()
            self.gate.open()
            answer = call.stdout.read()
            return call.wait(60), answer


@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_an_add_during_which_it_is_killed(
    world: bench.World, session: bench.Session, driver: str
) -> None:
    """An ADD that has found its uplink alive looks again at its end, and opens its ports then."""
    halfway = Halfway(session, driver)
    with session.container() as container, session.container() as other:
        halfway.runtime.add("o", other)
        before = record(world)

        with ports.answering(world, container):
            status, answer = halfway.end(container, lambda: os.kill(before["pid"], signal.SIGKILL))

            assert status == 0, answer
            assert record(world)["pid"] != before["pid"]
            assert page(container, bench.PAGE_BEYOND)
            assert ports.ask(world.internet, bench.HOST, 8080)
        halfway.runtime.delete("c", container)
        halfway.runtime.delete("o", other)
    assert world.leftovers() == []


def test_an_add_during_which_all_is_killed(world: bench.World, session: bench.Session) -> None:
    """It does not succeed without a network: it fails, and the next one repairs."""
    halfway = Halfway(session, "pasta")
    with session.container() as container, session.container() as other:
        halfway.runtime.add("o", other)

        status, answer = halfway.end(container, lambda: kill_for_good(record(world)))

        assert (status, json.loads(answer)["code"]) == (1, errors.UPLINK_FAILED)
        assert "has ended during this ADD" in answer
        halfway.runtime.add("c", container)
        assert page(container, bench.PAGE_BEYOND)
        assert page(other, bench.PAGE_BEYOND)
        halfway.runtime.delete("c", container)
        halfway.runtime.delete("o", other)
    assert world.leftovers() == []


def test_kills_at_random(world: bench.World, session: bench.Session) -> None:
    """Whatever dies while containers come and go: who stays is connected, and nothing is left."""
    seed = int(os.environ.get("NETNS_SHIM_SEED", "0")) or random.randrange(1 << 32)
    chance = random.Random(seed)
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container, session.container() as other:
        runtime.add("c", container)
        for _ in range(10):
            for _ in range(chance.randrange(1, 4)):
                last = record(world)
                pids = [last["pid"], last["guardian"]["pid"]]
                with suppress(ProcessLookupError):
                    os.kill(chance.choice([pids[0], *pids]), signal.SIGKILL)
                time.sleep(chance.random() / 4)  # at any moment of a revival
            runtime.add("o", other)

            assert until(lambda: page(container, bench.PAGE_BEYOND), DEADLINE), seed
            assert page(other, bench.PAGE_BEYOND), seed
            runtime.delete("o", other)
        runtime.delete("c", container)
        assert until(lambda: world.leftovers() == [], DEADLINE), (seed, world.leftovers())

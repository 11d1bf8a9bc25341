# SPDX-License-Identifier: Apache-2.0
"""A user without capabilities: the user namespace that calls give him, and who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import bench
import pytest
from kills import STEPWISE, VARYING, interpreter
from parts import Part
from runtime import PLUGIN, Runtime, bridge, kill, page, reaches, until
from sweep import install

from netns_shim import errors

WAIT = ["sh", "-c", "echo ready; exec cat"]
PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


def base(world: bench.World) -> str:
    """Name the state directory."""
    return world.state_dir


def record(world: bench.World) -> dict[str, Any]:
    """Read who holds the user namespace."""
    found: dict[str, Any] = json.loads(world.path(f"{base(world)}/.holder").read_text())
    return found


def is_empty(world: bench.World) -> bool:
    """Tell whether all that is left is an empty directory, if that."""
    path = world.path(base(world))
    return world.leftovers() == [] and (not path.exists() or os.listdir(path) == [])


def test_from_add_to_del(world: bench.World) -> None:
    """ADD, CHECK and DEL with real plugins work without capabilities, and leave nothing."""
    runtime = Runtime(world, delegate=bridge())
    with world.unshared() as own, own.container() as container:
        result = runtime.add("c", container)

        assert reaches(container, "10.89.0.1")
        assert page(container, bench.PAGE_BEYOND)
        runtime.succeed("CHECK", "c", container.netns, conf={"prevResult": result})
        runtime.delete("c", container)
    assert until(lambda: is_empty(world))


def test_a_pinned_container(world: bench.World) -> None:
    """A netns that is a mount in there, and an empty file out here, can be attached."""
    runtime = Runtime(world, delegate=bridge(), uplink="none")
    with world.unshared() as own:
        pinned = "/tmp/netns/c"
        with own.container(pinned=pinned) as container:
            assert world.run(["stat", "-f", "-c", "%T", pinned]).stdout != "nsfs\n"
            runtime.add("c", container)

            assert reaches(container, "10.89.0.1")
            runtime.delete("c", container)
    assert until(lambda: is_empty(world))


def test_what_is_attached_keeps_it(world: bench.World) -> None:
    """It stays after the command in it has ended, for as long as something is attached."""
    runtime = Runtime(world, delegate=bridge())
    with ExitStack() as stack:
        own = stack.enter_context(world.unshared())
        container = stack.enter_context(own.container())
        runtime.add("c", container)
        holder = record(world)["pid"]

        own.close()

        assert page(container, bench.PAGE)
        runtime.succeed("CHECK", "c", container.netns)
        assert record(world)["pid"] == holder
        runtime.delete("c", container)
        assert is_empty(world)


def test_who_is_inside_may_end_it(world: bench.World) -> None:
    """The last DEL ends it, whether it comes from the outside or from the inside."""
    runtime = Runtime(world, delegate=bridge(), uplink="none")
    with ExitStack() as stack:
        own = stack.enter_context(world.unshared())
        container = stack.enter_context(own.container())
        runtime.add("c", container)
        own.close()
        runtime.place = container

        runtime.conf["enter"] = "always"
        runtime.delete("c", container)
    assert is_empty(world)


@pytest.mark.parametrize(
    ("verb", "keys", "is_well"),
    [
        ("STATUS", {"cniVersion": "1.1.0"}, True),
        ("GC", {"cniVersion": "1.1.0", "cni.dev/valid-attachments": []}, True),
        ("DEL", {}, True),
        ("CHECK", {}, False),
        ("ADD", {"nonsense": 1}, False),
        ("ADD", {}, False),
    ],
)
def test_a_call_that_attaches_nothing_leaves_nothing(
    world: bench.World,
    verb: str,
    keys: dict[str, Any],
    is_well: bool,
) -> None:
    """Whatever is asked for, and however it ends: what was made for it goes with it."""
    done = Runtime(world, delegate=bridge()).call(verb, "c", "/nowhere", conf=keys)

    assert (done.returncode == 0) is is_well, done.stdout + done.stderr
    assert is_empty(world)


@pytest.mark.spread
@pytest.mark.parametrize("verb", ["ADD", "DEL", "GC"])
@pytest.mark.parametrize(
    "keys",
    [
        {"nonsense": 1},
        {"netns": "../up"},
        {"timeout": 0},
        {"runtimeConfig": []},
        {"delegate": {"type": "no-such-plugin"}},
    ],
)
def test_a_wrong_configuration_costs_nothing(
    world: bench.World,
    verb: str,
    keys: dict[str, Any],
) -> None:
    """What can be refused is refused before a user namespace is made, or anything is written."""
    error = Runtime(world, delegate=bridge(), cniVersion="1.1.0").fail(
        verb, "c", "/nowhere", conf=keys
    )

    assert error["code"] == errors.INVALID_NETWORK_CONFIG
    assert not world.path(base(world)).exists()
    assert world.leftovers() == []


def test_it_is_small(world: bench.World) -> None:
    """What is left running has less than 400 kB of memory of its own."""
    with world.unshared():
        with open(f"/proc/{record(world)['pid']}/smaps_rollup", encoding="ascii") as file:
            sizes = dict(re.findall(r"^(\w+): +(\d+) kB", file.read(), re.M))

        assert int(sizes["Private_Dirty"]) + int(sizes["Private_Clean"]) < 400
        assert int(sizes["Rss"]) < 4000


def test_it_holds_nothing_of_its_caller(world: bench.World) -> None:
    """Descriptors, environment and session are its own: no caller waits for it."""
    read, write = os.pipe()
    with world.unshared():
        pass
    env = {**world.env, "SECRET": "1"}
    child = world.popen([PLUGIN, "unshare", "--", *WAIT], env=env, pass_fds=[write], **PIPES)
    child.stdout.readline()
    os.close(write)
    holder = record(world)["pid"]

    with open(f"/proc/{holder}/environ", encoding="ascii") as file:
        assert file.read() == ""
    assert os.getsid(holder) == holder
    links = {os.readlink(f"/proc/{holder}/fd/{fd}") for fd in os.listdir(f"/proc/{holder}/fd")}
    assert len(links) == 3
    # The directory is locked, so that systemd-tmpfiles(8) passes it over.
    assert {"/dev/null", base(world)} < links
    assert not any(link.endswith(f"[{os.fstat(read).st_ino}]") for link in links)
    child.communicate()
    os.close(read)


def test_ids_are_mapped(world: bench.World) -> None:
    """Inside the user is root, and has all their subordinate IDs."""
    script = "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g"
    done = world.run([PLUGIN, "unshare", "--", "sh", "-c", script], check=True)

    lines = [line.split() for line in done.stdout.splitlines()]
    own = ["0", str(world.uid), "1"]
    rest = ["1", str(world.subid), "65536"]
    assert lines == [own, rest, own, rest, ["0"], ["0"]]
    assert done.stderr == ""


@pytest.fixture
def etc(world: bench.World) -> Iterator[None]:
    """Let a test change the files of subordinate IDs."""
    paths = [world.path("/etc/subuid"), world.path("/etc/subgid")]
    before = [path.read_text() for path in paths]
    yield
    for path, text in zip(paths, before, strict=True):
        path.write_text(text)


@pytest.mark.usefixtures("etc")
def test_without_subordinate_ids(world: bench.World) -> None:
    """There is one user then, a warning says what fails, and plugins work all the same."""
    for name in ("subuid", "subgid"):
        world.path(f"/etc/{name}").write_text("somebody:100000:65536\n")
    runtime = Runtime(world, delegate=bridge())

    done = world.run([PLUGIN, "unshare", "--", "cat", "/proc/self/uid_map"])

    assert done.stdout.split() == ["0", str(world.uid), "1"]
    assert "no subordinate uids, as /etc/subuid has none for this user" in done.stderr
    assert "changes to another one there" in done.stderr
    with world.unshared() as own, own.container() as container:
        runtime.add("c", container)
        assert page(container, bench.PAGE)
        runtime.delete("c", container)
    assert until(lambda: is_empty(world))


@pytest.mark.usefixtures("etc")
@pytest.mark.parametrize("twice", ["{uid}:{first}:65536", "{uid}:{uid}:1", "shim:{second}:65536"])
def test_doubled_subordinate_ids(world: bench.World, twice: str) -> None:
    """A range that is there twice, or has the user's own ID, or overlaps: the rest is mapped."""
    first = world.subid
    line = twice.format(uid=world.uid, first=first, second=first + 1000)
    for name in ("subuid", "subgid"):
        world.path(f"/etc/{name}").write_text(f"{world.user}:{first}:65536\n{line}\n")

    done = world.run([PLUGIN, "unshare", "--", "cat", "/proc/self/uid_map"])

    own, rest, *more = [list(map(int, text.split())) for text in done.stdout.splitlines()]
    assert (own, rest) == ([0, world.uid, 1], [1, first, 65536])
    assert more == ([[65537, first + 65536, 1000]] if "second" in twice else [])
    assert done.stderr == ""


@pytest.mark.usefixtures("etc")
def test_subordinate_ids_from_elsewhere(world: bench.World) -> None:
    """Where nsswitch.conf names another source, the IDs are those that getsubids lists."""
    nsswitch = world.path("/etc/nsswitch.conf")
    before = nsswitch.read_text()
    program = world.root.path(f"{bench.TYPED}/getsubids")
    program.write_text(f'#!/bin/sh\necho "0: {world.user} {world.subid} 1000"\n')
    program.chmod(0o755)
    nsswitch.write_text(f"{before}\nsubid: fake\n")
    try:
        env = {**world.env, "PATH": f"{bench.TYPED}:{bench.PATH}"}
        done = world.run([PLUGIN, "unshare", "--", "cat", "/proc/self/uid_map"], env=env)
        told = world.run([PLUGIN, "doctor"], env=env)
    finally:
        nsswitch.write_text(before)
        program.unlink()

    assert done.stdout.split()[-3:] == ["1", str(world.subid), "1000"], done.stderr
    assert "1000 from getsubids for uids" in told.stdout


def test_without_newuidmap(world: bench.World) -> None:
    """Where a program is missing, or refuses, it is the same, and the warning says so."""
    programs = {"/usr/bin/newuidmap": "/etc/passwd", "/usr/bin/newgidmap": "/bin/false"}
    for program, instead in programs.items():
        world.root.run(["mount", "--bind", instead, program], check=True)
    try:
        done = world.run([PLUGIN, "unshare", "--", "cat", "/proc/self/uid_map"])
    finally:
        for program in programs:
            world.root.run(["umount", program], check=True)

    assert done.stdout.split() == ["0", str(world.uid), "1"], done.stderr
    assert "newuidmap is not installed" in done.stderr
    assert "newgidmap has failed" in done.stderr


@pytest.mark.usefixtures("etc")
def test_other_subordinate_ids(world: bench.World) -> None:
    """Changed ranges are reported, and count from the next time on."""
    first = world.subid
    with world.unshared():
        for name in ("subuid", "subgid"):
            world.path(f"/etc/{name}").write_text(f"{world.user}:{first}:1000\n")
        done = world.run([PLUGIN, "unshare", "--", "cat", "/proc/self/uid_map"])

        assert done.stdout.split()[-1] == "65536"
        assert "/etc/subuid or /etc/subgid has changed" in done.stderr
    assert until(lambda: is_empty(world))
    done = world.run([PLUGIN, "unshare", "--", "cat", "/proc/self/uid_map"])
    assert done.stdout.split()[-1] == "1000"
    assert done.stderr == ""


def test_none_can_be_made(world: bench.World) -> None:
    """Where the kernel refuses, here because of chroot(2), the error says what it was."""
    runtime = Runtime(world, delegate=bridge())
    become = f"setpriv --reuid={world.uid} --regid={world.uid} --init-groups"
    change = f"exec /usr/sbin/chroot /home/root {become}"
    script = f'mkdir /home/root; mount --rbind / /home/root; {change} "$0"'
    argv = ["unshare", "--mount", "--propagation=slave", "sh", "-euc", script, PLUGIN]
    env = {**world.root.env, **world.env, **runtime.environment("ADD", "c", "/nowhere")}
    done = world.root.run(argv, env=env, input=json.dumps(runtime.conf))
    world.root.run(["rmdir", "/home/root"], check=True)

    error = json.loads(done.stdout)
    assert error["code"] == errors.CANNOT_ENTER, error
    assert error["msg"] == "no user namespace can be made"
    assert "not permitted" in error["details"]
    assert is_empty(world)


def test_many_at_once(world: bench.World) -> None:
    """While it is made and ended all the time, no process loses the mounts that it is in."""

    def come_and_go(_: int) -> None:
        for _ in range(3):
            argv = [PLUGIN, "run", "--uplink=none", "--", "cat", "/etc/resolv.conf"]
            done = world.run(argv)
            assert done.returncode == 0, done.stderr
            assert "nameserver" in done.stdout
            # By now other processes are inside, or none.
            done = Runtime(world, delegate=bridge()).call("STATUS", conf={"cniVersion": "1.1.0"})
            assert done.returncode == 0, done.stdout

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(come_and_go, range(5)))
    assert is_empty(world)


def test_killed_at_every_step(world: bench.World, tell: Callable[[str], None], part: Part) -> None:
    """Wherever a call is killed that makes it and ends it, the next one leaves nothing."""
    text = (bench.INSIDE / "stepwise").read_text()
    install([world], os.path.dirname(STEPWISE), stepwise=text)
    runtime = Runtime(world, delegate=bridge(), uplink="none", cniVersion="1.1.0")
    argv = [interpreter(world), "-IS", STEPWISE, PLUGIN]
    log = f"{world.env['HOME']}/steps"
    env = {**runtime.environment("STATUS", "", ""), "STEPWISE_LOG": log}

    def call(**more: str) -> int:
        done = world.run(argv, env={**env, **more}, input=json.dumps(runtime.conf))
        return done.returncode

    call()  # which makes the state directory
    assert call() == 0
    names = world.path(log).read_text().splitlines()
    assert {"libc.setns", "os.fork"} <= set(names)
    assert any(name.startswith("os.remove") and name.endswith(".holder") for name in names)
    visited = part.take([*enumerate(names, 1)], [VARYING.sub("*", name) for name in names])
    assert visited
    tell(f"{len(visited)} points of {len(names)}")
    for number, name in visited:
        assert call(STEPWISE_AT=str(number), STEPWISE_ACT="self") == -signal.SIGKILL, name
        runtime.succeed("STATUS")
        assert until(lambda: is_empty(world)), name


def test_the_holder_is_killed_beside_a_command(world: bench.World) -> None:
    """Another one takes its place in the same namespaces, and no container is cut off."""
    runtime = Runtime(world, delegate=bridge())
    with world.unshared() as own, own.container() as old, own.container() as new:
        runtime.add("old", old)
        before = record(world)
        kill(before["pid"])

        done = runtime.call("ADD", "new", new.netns)

        assert done.returncode == 0, done.stdout
        assert f"PID {before['pid']}, was gone: another process holds it now" in done.stderr
        after = record(world)
        assert after["pid"] != before["pid"]
        for kind in ("userNamespace", "mountNamespace"):
            assert after[kind] == before[kind]
        assert page(old, bench.PAGE)
        assert page(new, bench.PAGE)
        runtime.delete("old", old)
        runtime.delete("new", new)
    assert until(lambda: is_empty(world))


def test_the_holder_is_killed_and_only_the_uplink_is_left(world: bench.World) -> None:
    """The netns is found through its uplink and pinned again; no container is cut off."""
    runtime = Runtime(world, delegate=bridge(), uplink="pasta")
    with ExitStack() as stack:
        own = stack.enter_context(world.unshared())
        old, new = (stack.enter_context(own.container()) for _ in range(2))
        runtime.add("old", old)
        (netns,) = runtime.status()
        before = record(world)
        own.close()
        kill(before["pid"])

        done = runtime.call("ADD", "new", new.netns)

        assert done.returncode == 0, done.stdout
        assert "the pin of the shared netns 'default' was gone and is made again" in done.stderr
        assert record(world)["userNamespace"] == before["userNamespace"]
        assert runtime.status()[0]["uplink"] == netns["uplink"]
        assert page(old, bench.PAGE)
        assert reaches(new, "10.89.0.2")
        runtime.delete("old", old)
        runtime.delete("new", new)
        assert is_empty(world)


def test_the_holder_is_killed_and_nothing_is_left(world: bench.World) -> None:
    """Without an uplink the netns is lost with its holder: it is made again, and that is said."""
    runtime = Runtime(world, delegate=bridge(), uplink="none")
    with ExitStack() as stack:
        own = stack.enter_context(world.unshared())
        old = stack.enter_context(own.container())
        runtime.add("old", old)
        own.close()
        kill(record(world)["pid"])
        old.close()

        with world.unshared() as own, own.container() as new:
            done = runtime.call("ADD", "new", new.netns)

            assert done.returncode == 0, done.stdout
            assert "the shared netns 'default' was lost and has been made again" in done.stderr
            assert reaches(new, "10.89.0.1")
            runtime.delete("new", new)
            runtime.delete("old", old)
    assert until(lambda: is_empty(world))


def test_a_dead_holder_is_cleared_away(world: bench.World) -> None:
    """What is left of one that was killed is removed by the next command, even `status`."""
    with world.unshared():
        holder = record(world)["pid"]
        kill(holder)
    assert until(lambda: "python3.11" not in world.programs())

    world.run([PLUGIN, "status"], check=True)

    assert is_empty(world)


def test_a_lost_record(world: bench.World) -> None:
    """A pause process whose record was removed is found, and no second one is made."""
    runtime = Runtime(world, delegate=bridge())
    with ExitStack() as stack:
        own = stack.enter_context(world.unshared())
        container = stack.enter_context(own.container())
        runtime.add("c", container)
        before = record(world)
        own.close()
        world.path(f"{base(world)}/.holder").unlink()

        runtime.succeed("CHECK", "c", container.netns)

        assert record(world) == before
        runtime.delete("c", container)
        assert is_empty(world)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"pid": 1}', '{"pid": -1, "startTime": 1}', "\0" * 100, '{"pid": "x"}', "VICTIM"],
)
def test_a_record_that_lies(world: bench.World, text: str) -> None:
    """A damaged record is none, and no process is signalled that is not the one that is meant."""
    victim = world.popen(WAIT, **PIPES)
    victim.stdout.readline()
    if text == "VICTIM":
        with world.unshared():
            lie = {**record(world), "pid": victim.pid}
        assert until(lambda: is_empty(world))
        text = json.dumps(lie)
    world.run(["mkdir", "-p", "-m", "0700", base(world)], check=True)
    argv = ["sh", "-c", 'umask 077; cat >"$0"', f"{base(world)}/.holder"]
    world.run(argv, input=text, check=True)

    done = world.run([PLUGIN, "unshare", "--", "id", "-u"])

    assert done.stdout == "0\n", done.stderr
    assert victim.poll() is None
    victim.communicate()
    assert is_empty(world)


def test_waiting_is_bounded_by_signals(world: bench.World) -> None:
    """Who waits for another one that makes it can be stopped, and leaves nothing."""
    runtime = Runtime(world, delegate=bridge())
    world.run(["mkdir", "-m", "0700", base(world)], check=True)
    lock = world.path(f"{base(world)}/.holder.lock")
    with open(lock, "w") as file:
        os.chown(file.fileno(), world.uid, world.uid)
        fcntl.flock(file, fcntl.LOCK_EX)
        env = runtime.environment("ADD", "c", "/nowhere")
        child = world.popen([PLUGIN], env=env, stderr=subprocess.PIPE, **PIPES)
        child.stdin.write(json.dumps(runtime.conf))
        child.stdin.close()
        child.stdin = None  # type: ignore[assignment]  # which `communicate` would flush
        # It sleeps between two looks at this lock, and waits for nothing else in that way.
        assert until(lambda: is_sleeping(child.pid))
        os.kill(child.pid, signal.SIGTERM)
        out, _ = child.communicate(timeout=20)
        lock.unlink()

    error = json.loads(out)
    assert error["code"] == errors.INTERRUPTED
    assert "the user namespace is being made or ended by another process" in error["msg"]
    assert is_empty(world)


def is_sleeping(pid: int) -> bool:
    """Tell whether a process is in nanosleep(2), proc_pid_wchan(5)."""
    with open(f"/proc/{pid}/wchan", encoding="ascii") as file:
        return "nanosleep" in file.read()


def test_commands_from_the_outside(world: bench.World) -> None:
    """`status`, `run`, `refresh` and `gc` find what a call from the outside has made."""
    runtime = Runtime(world, delegate=bridge())
    with world.unshared() as own, own.container() as container:
        runtime.add("c", container)

        assert [r["containerID"] for r in runtime.status()[0]["references"]] == ["c"]
        assert "cni0" in world.run([PLUGIN, "run", "--", "ip", "-br", "link"], check=True).stdout
        world.run([PLUGIN, "refresh"], check=True)
        found = json.loads(world.run([PLUGIN, "gc", "--json"], check=True).stdout)
        assert [entry["containerID"] for entry in found["netns"][0]["live"]] == ["c"]
        assert page(container, bench.PAGE)

    def deleted() -> list[str]:
        found = json.loads(world.run([PLUGIN, "gc", "--json"], check=True).stdout)
        return [entry["containerID"] for netns in found["netns"] for entry in netns["deleted"]]

    # The kernel takes its time to remove the interfaces of a container that has ended.
    assert until(lambda: deleted() == ["c"])
    assert is_empty(world)


def test_a_container_from_elsewhere(world: bench.World, session: bench.Session) -> None:
    """One that belongs to another user namespace is refused, with the command that helps."""
    runtime = Runtime(world, delegate=bridge())
    with session.container() as container:
        error = runtime.fail("ADD", "c", container.netns)

    assert error["code"] == errors.INVALID_NETNS
    assert "it belongs to another user namespace" in error["details"]
    assert "netns-shim unshare -- RUNTIME" in error["details"]
    assert is_empty(world)


def test_a_netns_that_is_pinned_elsewhere(world: bench.World, session: bench.Session) -> None:
    """A shared netns in a session that was made by hand is left alone, and not kept company."""
    by_hand = Runtime(session, delegate=bridge())
    runtime = Runtime(world, delegate=bridge(), netns="default")
    with session.container() as container:
        by_hand.add("c", container)
        with world.unshared() as own, own.container() as other:
            error = runtime.fail("ADD", "other", other.netns)

        assert error["code"] == errors.CANNOT_ENTER
        assert "is pinned in another mount namespace" in error["msg"]
        assert until(lambda: not world.path(f"{base(world)}/.holder").exists())
        assert page(container, bench.PAGE)
        by_hand.delete("c", container)
    assert is_empty(world)

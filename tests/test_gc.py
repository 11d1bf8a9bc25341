# SPDX-License-Identifier: Apache-2.0
"""`netns-shim gc`: what it detaches, and above all what it does not. GC of CNI: test_collect."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import bench
import fakes
import pytest
from garbage import VALID, C, gc, leases, only, state
from runtime import PLUGIN, Runtime, bridge, reaches, until

from netns_shim.attachment import AttachmentRecord, ReferenceName
from netns_shim.cli import gc as command
from netns_shim.errors import ShimError
from netns_shim.gc import liveness, sweep
from netns_shim.gc.liveness import Liveness
from netns_shim.main import main
from netns_shim.request import Request
from netns_shim.shared import elsewhere, listing, ownership
from netns_shim.state import State
from netns_shim.target import Shared


@pytest.fixture
def runtime(session: bench.Session) -> Runtime:
    """A runtime with a bridge and no uplink, which knows GC."""
    return Runtime(session, delegate=bridge(), uplink="none", cniVersion="1.1.0")


def ids(entries: list[dict[str, Any]]) -> list[str]:
    """List the containers of some entries."""
    return [entry["containerID"] for entry in entries]


def end(runtime: Runtime, container: bench.Container) -> None:
    """End a container without a DEL, and wait until the kernel has taken its links away."""
    (netns,) = runtime.status()
    enter = ["nsenter", f"--net={netns['path']}", "ip", "-json", "link", "show", "type", "veth"]

    def count() -> int:
        return len(json.loads(runtime.place.run(enter, check=True).stdout))

    before = count()
    container.close()
    assert until(lambda: count() < before)


def test_a_container_that_is_gone(world: bench.World, session: bench.Session) -> None:
    """Who is gone without a DEL gets one; the other stays, and after it nothing is left."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as one, session.container() as two:
        runtime.add("one", one)
        runtime.add("two", two)
        end(runtime, one)

        found = only(gc(session))

        assert found["deleted"] == [
            {"network": "rootless", "containerID": "one", "ifname": "eth0"}
        ]
        (live,) = found.pop("live")
        assert live["containerID"] == "two"
        assert live["why"] == f"its network namespace is {two.netns}"
        assert set(found) == {"deleted"}
        assert runtime.attached() == ["two"]
        assert list(leases(world)) == ["10.89.0.3"]
        assert reaches(two, "10.89.0.1")
        end(runtime, two)
        done = session.run([PLUGIN, "gc"], check=True)
        assert done.stdout == (
            "default: detached rootless two eth0\n"
            "default: removed, because nothing is attached any more\n"
        )
    assert world.leftovers() == []


def test_the_rest_of_a_chain_goes_as_well(world: bench.World, session: bench.Session) -> None:
    """The DEL is that of the recorded configuration: published ports leave no rule."""
    chain = [bridge(), {"type": "portmap", "capabilities": {"portMappings": True}}]
    runtime = Runtime(session, plugins=chain, capabilities={"portMappings": True}, uplink="none")
    port = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    with session.container() as one, session.container() as two:
        runtime.add("one", one, conf={"runtimeConfig": {"portMappings": [port]}})
        runtime.add("two", two)
        rules = [PLUGIN, "run", "--", "iptables-save", "-t", "nat"]
        assert "8080" in session.run(rules, check=True).stdout
        end(runtime, one)

        assert ids(only(gc(session))["deleted"]) == ["one"]

        assert "8080" not in session.run(rules, check=True).stdout
        runtime.delete("two", two)
    assert world.leftovers() == []


@pytest.mark.parametrize(
    ("unshare", "why"),
    [
        (["unshare", "--mount"], "the process {pid} is in its network namespace"),
        (
            ["unshare", "--mount", "--pid", "--fork", "--mount-proc"],
            "its interface {veth} is in the netns of the plugins",
        ),
    ],
    ids=["by a process", "by its link"],
)
def test_a_container_whose_path_is_not_visible(
    world: bench.World, session: bench.Session, runtime: Runtime, unshare: list[str], why: str
) -> None:
    """A path that leads nowhere from here proves nothing: it may lead somewhere elsewhere."""
    path = "/run/netns/c"
    script = ["sh", "-euc", 'umount "$0"; exec "$@"', path]
    with session.container(pinned=path) as container:
        result = runtime.add("c", container)
        (veth,) = [i["name"] for i in result["interfaces"] if i["name"].startswith("veth")]

        found = only(gc(session, then=[*unshare, *script]))

        assert set(found) == {"live"}
        inner = os.stat(f"/proc/{container.pid}/ns/net").st_ino
        (entry,) = found["live"]
        pid = entry["why"].split()[2] if "process" in entry["why"] else container.pid
        assert os.stat(f"/proc/{pid}/ns/net").st_ino == inner
        assert entry["why"] == why.format(pid=pid, veth=veth)
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize("is_other_there", [False, True])
def test_a_result_without_interfaces(
    world: bench.World, session: bench.Session, is_other_there: bool
) -> None:
    """A result of CNI 0.2.0 names no link: where any link may be its, nothing is deleted."""
    runtime = Runtime(session, delegate=bridge(), uplink="none", cniVersion="0.2.0")
    blind = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]
    script = ["sh", "-euc", 'umount "$0"; exec "$@"', "/run/netns/c"]
    with session.container() as other, session.container(pinned="/run/netns/c") as container:
        if is_other_there:
            runtime.add("other", other)
        runtime.add("c", container)

        found = only(gc(session, then=[*blind, *script]))

        assert "c" in ids(found["skipped"])
        assert "the interface veth" in found["skipped"][0]["why"]
        assert "deleted" not in found
        assert only(gc(session))["live"][0]["containerID"] == "c"
        end(runtime, container)
        assert ids(only(gc(session))["deleted"]) == ["c"]
        if is_other_there:
            assert reaches(other, "10.89.0.1")
            runtime.delete("other", other)
    assert world.leftovers() == []


def test_a_number_that_is_given_again(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """The number of a namespace that is gone is no sign of life where another container has it."""
    with session.container() as one, session.container() as two:
        runtime.add("one", one)
        runtime.add("two", two)
        end(runtime, one)
        identity = os.stat(f"/proc/{two.pid}/ns/net")
        numbers = {"netnsID": [identity.st_dev, identity.st_ino]}
        with state(world, "refs/rootless:one:eth0:bridge").open("a") as file:
            file.write(json.dumps(numbers) + "\n")

        assert ids(only(gc(session))["deleted"]) == ["one"]

        assert runtime.attached() == ["two"]
        assert reaches(two, "10.89.0.1")
        runtime.delete("two", two)
    assert world.leftovers() == []


def test_a_netns_that_is_elsewhere(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """From another session, in whose mounts the shared netns is not pinned, nothing is judged."""
    with world.session() as sibling, session.container() as container:
        runtime.add("c", container)

        (entry,) = only(gc(sibling))["skipped"]

        assert "is pinned in another mount namespace" in entry["why"]
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize("uplink", ["pasta", "none"])
def test_a_netns_that_is_lost(world: bench.World, session: bench.Session, uplink: str) -> None:
    """Where the shared netns is lost, what was attached to it is deleted, and the rest of it."""
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    with world.session() as gone, gone.container() as container:
        Runtime(gone, delegate=bridge(), uplink=uplink).add("c", container)
        container.close()
        found = runtime.status()[0]["uplink"]
        if found["pid"]:
            pids = [str(found["guardian"]["pid"]), str(found["pid"])]
            session.run(["sh", "-c", 'kill "$0"; sleep 0.1; kill "$1"', *pids])
            assert until(lambda: not runtime.status()[0]["uplink"]["alive"])
        gone.close()

        assert until(lambda: "skipped" not in only(gc(session, "--dry-run")))
        found = only(gc(session))

    assert ids(found["deleted"]) == ["c"]
    assert found["isRemoved"]
    assert world.leftovers() == []


def test_leases_of_nobody(world: bench.World, session: bench.Session, runtime: Runtime) -> None:
    """Leases without an attachment are released, cut off or not; other files are none of them."""
    networks = state(world, "var/lib/cni/networks")
    with session.container() as one, session.container() as two:
        runtime.add("one", one)
        runtime.add("two", two, CNI_IFNAME="eth1")
        script = (
            'cd "$0"; printf "ghost\\r\\neth0" >10.89.0.77; : >10.89.0.78; printf gho >10.89.0.79;'
            'printf "on" >10.89.0.80; printf one >10.89.0.81; printf "one\\r\\neth7" >10.89.0.82;'
            "echo 10.89.0.3 >last_reserved_ip.1; echo mine >notes; mkdir ../other;"
            'printf "ghost\\r\\neth0" >../other/fd00::5; printf "two\\r\\nnet1" >../other/fd00::6;'
            "mkdir -p /var/lib/cni/networks/rootless || :"
        )
        session.run(
            [
                "sh",
                "-uc",
                script,
                f"{world.state_dir}/default/var/lib/cni/networks/rootless",
            ],
            check=True,
        )
        before = {path.name for path in (networks / "rootless").iterdir()}

        dry = only(gc(session, "--dry-run"))
        assert {path.name for path in (networks / "rootless").iterdir()} == before
        found = only(gc(session))

        assert found["released"] == dry["released"]
        assert found["released"] == [
            {"network": "other", "address": "fd00::5", "containerID": "ghost", "ifname": "eth0"},
            {
                "network": "rootless",
                "address": "10.89.0.77",
                "containerID": "ghost",
                "ifname": "eth0",
            },
            {"network": "rootless", "address": "10.89.0.78", "containerID": "", "ifname": ""},
            {"network": "rootless", "address": "10.89.0.79", "containerID": "gho", "ifname": ""},
        ]
        gone = {"10.89.0.77", "10.89.0.78", "10.89.0.79"}
        assert {path.name for path in (networks / "rootless").iterdir()} == before - gone
        assert [path.name for path in (networks / "other").glob("fd*")] == ["fd00::6"]
        runtime.delete("one", one)
        runtime.delete("two", two, CNI_IFNAME="eth1")
    assert world.leftovers() == []


def test_lease_of_a_call_in_place(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """What runs in place may do so inside of the shared netns, and have a lease there."""
    top = world.state_dir
    script = (
        'cd "$0"; umask 077; mkdir -p .in-place/refs; echo {} >.in-place/refs/net:inner:eth0:x;'
        'printf "inner\\r\\neth0" >default/var/lib/cni/networks/rootless/10.89.0.9'
    )
    with session.container() as container:
        runtime.add("c", container)
        session.run(["sh", "-euc", script, top], check=True)

        in_place, shared = gc(session)["netns"]

        assert [entry["containerID"] for entry in in_place["skipped"]] == ["inner"]
        assert (ids(shared["live"]), shared["released"]) == (["c"], [])
        assert (world.path(top) / ".in-place/refs/net:inner:eth0:x").exists()
        session.run(["rm", "-r", f"{top}/.in-place"], check=True)
        assert [entry["address"] for entry in only(gc(session))["released"]] == ["10.89.0.9"]
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_leases_of_a_command(world: bench.World, session: bench.Session, runtime: Runtime) -> None:
    """While a command runs in the netns its leases are left, as it may be a runtime itself."""
    argv = [PLUGIN, "run", "--uplink", "none", "--", "sh", "-c"]
    script = (
        "cd /var/lib/cni && mkdir -p networks/rootless && cd networks/rootless &&"
        'printf "inner\\r\\neth0" >10.89.0.9 && echo ready && exec cat'
    )
    with session.container() as container:
        runtime.add("c", container)
        pipe = subprocess.PIPE
        child = session.popen([*argv, script], stdin=pipe, stdout=pipe, text=True)
        assert child.stdout.readline() == "ready\n"

        found = only(gc(session))

        assert [entry["address"] for entry in found["skipped"]] == ["10.89.0.9"]
        assert "a command is running" in found["skipped"][0]["why"]
        assert "released" not in found
        child.communicate()
        assert [entry["address"] for entry in only(gc(session))["released"]] == ["10.89.0.9"]
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_host_local_waits_for_the_same_lock(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """The lock under which leases are released is the one that host-local takes."""
    lock = state(world, "var/lib/cni/networks/rootless/lock")
    with session.container() as one, session.container() as two, ThreadPoolExecutor() as pool:
        runtime.add("one", one)
        inode = str(lock.stat().st_ino)
        inside = f"{world.state_dir}/default/var/lib/cni/networks/rootless/lock"
        holder = session.popen(
            ["flock", inside, "sh", "-c", "echo ready; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout.readline() == "ready\n"

        waiting = pool.submit(runtime.add, "two", two)

        def is_waiting() -> bool:
            with open("/proc/locks") as file:
                lines = [line for line in file if f":{inode} " in line]
            return any("-> FLOCK" in line for line in lines)

        try:
            assert until(is_waiting)
        finally:
            holder.communicate()
        waiting.result()
        runtime.delete("one", one)
        runtime.delete("two", two)
    assert world.leftovers() == []


def test_dry_run(world: bench.World, session: bench.Session, runtime: Runtime) -> None:
    """A dry run says the same and changes nothing."""
    with session.container() as one, session.container() as two:
        runtime.add("one", one)
        runtime.add("two", two)
        session.run(["touch", f"{world.state_dir}/default/refs/:run:7-x"], check=True)
        end(runtime, one)
        end(runtime, two)
        files = {str(p): p.stat().st_mtime_ns for p in state(world).rglob("*")}

        dry = gc(session, "--dry-run")
        text = session.run([PLUGIN, "gc", "--dry-run"], check=True).stdout

        assert {str(p): p.stat().st_mtime_ns for p in state(world).rglob("*")} == files
        assert text == (
            "default: would detach rootless one eth0\n"
            "default: would detach rootless two eth0\n"
            "default: would drop :run:7-x\n"
            "default: would be removed, because nothing is attached any more\n"
        )
        assert dry.pop("dryRun")
        found = gc(session)
        assert not found.pop("dryRun")
        assert found == dry
    assert world.leftovers() == []


def test_nothing_to_do(world: bench.World, session: bench.Session, runtime: Runtime) -> None:
    """With nothing up, and with no container gone, there is nothing to do."""
    where = world.state_dir
    nothing = f"nothing to do ({where})\n"
    assert session.run([PLUGIN, "gc"], check=True).stdout == nothing
    assert gc(session) == {"stateDir": where, "dryRun": False, "netns": []}
    assert not session.path(where).exists()
    with session.container() as container:
        runtime.add("c", container)

        assert session.run([PLUGIN, "gc"], check=True).stdout == nothing

        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_a_failing_plugin(
    world: bench.World, session: bench.Session, runtime: Runtime, plugins: Path
) -> None:
    """A DEL that fails is reported and kept; the others are deleted all the same."""
    fakes.strict_plugin(plugins, "failing", failing=["DEL"])
    path = f"{world.plugin_dir}:{world.env['HOME']}/plugins"
    failing = Runtime(session, path=path, delegate={"type": "failing"}, uplink="none", name="f")
    with ExitStack() as stack:
        one, two, three = (stack.enter_context(session.container()) for _ in range(3))
        failing.add("a", one)
        runtime.add("b", two)
        failing.add("c", three)
        end(runtime, two)

    found = only(gc(session, status=1))

    assert ids(found["deleted"]) == ["b"]
    assert ids(found["failed"]) == ["a", "c"]
    assert [entry["why"] for entry in found["failed"]] == ["failing fails DEL"] * 2
    done = session.run([PLUGIN, "gc"])
    assert done.returncode == 1
    assert "default: failed f a eth0: failing fails DEL\n" in done.stdout
    (plugins / "failing").unlink()
    assert "failed to find plugin 'failing'" in only(gc(session, status=1))["failed"][0]["why"]
    fakes.strict_plugin(plugins, "failing")
    assert ids(only(gc(session))["deleted"]) == ["a", "c"]
    assert world.leftovers() == []


def test_what_killed_processes_left(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """References of calls that were killed before they began are dropped; locked ones are not."""
    refs = f"{world.state_dir}/default/refs"
    names = [
        ":gc:7",
        ":run:8-x",
        "rootless:dead:eth0:bridge",
        "rootless:held:eth0:bridge",
        ":gc:9",
    ]
    with session.container() as container:
        runtime.add("c", container)
        session.run(["sh", "-euc", 'cd "$0"; touch "$@"', refs, *names], check=True)
        holders = [
            session.popen(
                ["flock", f"{refs}/{name}", "sh", "-c", "echo ready; exec cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in names[3:]
        ]
        assert [holder.stdout.readline() for holder in holders] == ["ready\n"] * 2

        found = only(gc(session))

        assert [entry["file"] for entry in found["dropped"]] == names[:3]
        assert ids(found["skipped"]) == ["held"]
        assert found["skipped"][0]["why"] == (
            "another operation on this attachment is running: "
            f"waited for {refs}/rootless:held:eth0:bridge; call again when it has ended"
        )
        assert sorted(os.listdir(state(world, "refs"))) == [
            ":gc:9",
            "rootless:c:eth0:bridge",
            "rootless:held:eth0:bridge",
        ]
        runtime.delete("c", container)
        for holder in holders:
            holder.communicate()
        assert only(gc(session))["isRemoved"]
    assert world.leftovers() == []


CONF = {"cniVersion": "1.0.0", "delegate": {"type": "bridge"}}
RECORD = {"network": "rootless", "ifname": "eth0", "netns": "/proc/0/ns/net", "netnsID": [4, 9]}
WHOLE = {**RECORD, "conf": CONF, "args": "", "path": "/"}
# Those that say in which namespace a container was come last: that namespace is gone.
DAMAGED: list[str | dict[str, Any]] = [
    "x",
    "{}\n",
    "[]\n7\n",
    "\0\0\0\0",
    '{"phase":"add',
    '{"conf":{}}\n',
    '{"conf":7,"netns":[]}\n',
    {**WHOLE, "netnsID": None},
    {**WHOLE, "netnsID": ["4", True]},
    {**RECORD, "conf": CONF, "containerID": 7},
    {**RECORD, "conf": CONF, "containerID": ["x"], "args": {}, "path": None},
    {**WHOLE, "conf": {**CONF, "cniVersion": 9}},
    {**WHOLE, "conf": {**CONF, "delegate": {"type": "a:b"}}},
    {**WHOLE, "conf": {**CONF, "delegate": {"type": "x" * 300}}},
    {**WHOLE, "conf": {**CONF, "delegate": {"driver": "bridge"}, "plugins": 7}},
    {**WHOLE, "conf": {"cniVersion": "1.0.0", "plugins": [7]}},
    {**WHOLE, "conf": {**CONF, "delegate": {"type": "bridge"}, "netns": "../x"}},
    {**WHOLE, "containerID": "other"},
    {**WHOLE, "ifname": "eth1"},
    {**WHOLE, "netns": 7},
]
UNKNOWN = 9


def test_damaged_references(world: bench.World, session: bench.Session, runtime: Runtime) -> None:
    """What cannot be judged is reported with its file and a cure; what is of no use is dropped.

    That is a reference that is damaged, but says in which namespace its container was, which is
    gone.
    """
    refs = f"{world.state_dir}/default/refs"
    contents: dict[str, str] = {}
    for number, content in enumerate(DAMAGED):
        if isinstance(content, dict):
            content = json.dumps({"containerID": f"x{number}", **content}) + "\n"
        contents[f"rootless:x{number}:eth0:bridge"] = content
    names = list(contents)
    with session.container() as container:
        runtime.add("c", container)
        script = ["sh", "-euc", 'cat >"$0"; touch -d "2 days ago" "$0"']
        for name, content in contents.items():
            session.run([*script, f"{refs}/{name}"], input=content, check=True)

        before = only(gc(session, "--dry-run"))
        assert all((state(world, "refs") / name).exists() for name in names)
        found = only(gc(session))

        assert found == before
        assert set(found) == {"live", "skipped", "dropped"}
        assert {e["containerID"]: e["why"] for e in found["skipped"]} == {
            name.split(":")[1]: (
                f"{refs}/{name} {'is damaged' if number < UNKNOWN - 2 else WITHOUT_NETNS}: "
                "once the container is gone, call DEL for it, or remove this file"
            )
            for number, name in enumerate(names[:UNKNOWN])
        }
        assert sorted(e["file"] for e in found["dropped"]) == sorted(names[UNKNOWN:])
        assert {e["why"] for e in found["dropped"]} == {sweep.DAMAGED}
        for name in names[:UNKNOWN]:
            assert (state(world, "refs") / name).read_text() == contents[name]
        for container_id in runtime.attached():
            runtime.delete(container_id, container)
    assert world.leftovers() == []


WITHOUT_NETNS = "does not say what was attached"


@pytest.mark.parametrize("damage", [{"type": "a:b"}, {"type": "missing"}, {"driver": "mock"}, 7])
def test_damaged_references_of_who_is_there(
    world: bench.World, session: bench.Session, runtime: Runtime, damage: object
) -> None:
    """A container that lives keeps its reference, and one that is gone gives all back."""
    with session.container() as container, session.container() as other:
        runtime.add("c", container)
        runtime.add("d", other)
        for name in "cd":
            path = state(world, "refs", f"rootless:{name}:eth0:bridge")
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            lines[0]["conf"]["delegate"] = damage
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        end(runtime, other)

        found = only(gc(session))

        assert ids(found["live"]) == ["c"]
        assert found["dropped"] == [{"file": "rootless:d:eth0:bridge", "why": sweep.DAMAGED}]
        assert ids(found["released"]) == ["d"]
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_a_damaged_reference_may_be_of_somebody_who_lives(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """A link that no other reference names keeps a damaged one, whatever that says."""
    with session.container() as container:
        runtime.add("c", container)
        path = state(world, "refs", "rootless:c:eth0:bridge")
        damaged = {**WHOLE, "containerID": "c", "conf": 7, "result": {"ips": []}}
        path.write_text(json.dumps(damaged) + "\n")

        for arguments in ([], ["--idle"]):
            (entry,) = only(gc(session, *arguments))["skipped"]

            assert entry["why"].startswith("the interface veth")
            assert "may lead to this container" in entry["why"]
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_what_is_no_reference(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """What is among the references and is none keeps the netns, so `gc` names it, with a cure."""
    with session.container() as container:
        runtime.add("c", container)
        refs = state(world, "refs")
        (refs / "notes").write_text("x")
        (refs / "rootless:d:eth0:bridge").mkdir()
        (refs / ":run:7").mkdir()
        (refs / "rootless:e:eth0:bridge").symlink_to("nowhere")

        for arguments in (["--dry-run"], []):
            found = only(gc(session, *arguments))

            there = f"{world.state_dir}/default/refs"
            assert sorted(entry["why"] for entry in found["skipped"]) == [
                f"{there}/:run:7 is no file: remove it",
                f"{there}/notes is no reference: remove it",
                *(
                    f"{there}/rootless:{name}:eth0:bridge is no file: "
                    "once its container is gone, remove it"
                    for name in "de"
                ),
            ]
        runtime.delete("c", container)
        for path in refs.iterdir():
            path.rmdir() if path.is_dir() else path.unlink()
        gc(session)
    assert world.leftovers() == []


def test_one_that_cannot_be_opened(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """A reference that cannot be opened keeps no other one, and neither does an odd lease."""
    with session.container() as container, session.container() as other:
        runtime.add("c", container)
        runtime.add("d", other)
        path = state(world, "refs", "rootless:a:eth0:bridge")
        path.write_text("x")  # it is root's
        directory = f"{world.state_dir}/default/var/lib/cni/networks/rootless/10.89.0.99"
        session.run(["mkdir", directory], check=True)
        end(runtime, other)

        found = only(gc(session))

        assert [entry["why"] for entry in found["skipped"]] == [
            f"{world.state_dir}/default/refs/{path.name} cannot be opened: Permission denied: "
            "once its container is gone, remove it"
        ]
        assert ids(found["deleted"]) == ["d"]
        path.unlink()
        runtime.delete("c", container)
    assert world.leftovers() == []


class NoSigns(Liveness):
    """Sees no container alive."""

    def __init__(self) -> None:
        """Look at no process and no link."""

    def of(self, record: AttachmentRecord) -> str:
        """See nothing."""
        return ""

    def doubt(self, record: AttachmentRecord, *, is_damaged: bool = False) -> str:
        """Know of no link that might lead to it."""
        return ""


def test_two_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One `netns-shim gc` waits for another, a dry run for none; the lock leaves no file."""
    monkeypatch.setattr(command, "LOCK_SECONDS", 0.05)
    words = ["netns-shim", "gc", "--state-dir", str(tmp_path)]
    tmp_path.chmod(0o700)
    with open(tmp_path / ".gc.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        assert main(words) == 1
        message = f"another `netns-shim gc` is running: waited for {tmp_path}/.gc.lock"
        assert message in capsys.readouterr().err
        assert main([*words, "--dry-run"]) == 0

    assert main(words) == 0
    assert os.listdir(tmp_path) == []


def _is_not_called(request: Request) -> NoReturn:
    pytest.fail(f"{request.container_id} is detached")


def test_a_reference_that_has_changed(tmp_path: Path) -> None:
    """What was attached again after it was judged is left: the judgement was about another one."""
    where = State(str(tmp_path), "default")
    os.makedirs(where.refs)
    record = {**WHOLE, "containerID": "c", "conf": CONF, "args": ""}
    path = tmp_path / "default/refs/rootless:c:eth0:bridge"
    path.write_text(json.dumps({**record, "netnsID": [4, 10]}) + "\n")
    one = sweep.Sweep(Shared(where, {}, {}), {}, _is_not_called, dry_run=False)

    one._judge(AttachmentRecord(ReferenceName(path.name), record), NoSigns())

    assert ids(one._found["skipped"]) == ["c"]
    assert one._found["skipped"][0]["why"] == "it has just been changed: call again"
    assert path.exists()


def test_gc_of_netavarks_own(world: bench.World, session: bench.Session, runtime: Runtime) -> None:
    """GC leaves attachments of the stand-in for netavark, because only that can undo them."""
    record = {**RECORD, "phase": "live", "containerID": "x", "since": "then", "result": None}
    refs = f"{world.state_dir}/default/refs"
    with session.container() as container:
        runtime.add("c", container)
        script = ["sh", "-euc", 'cat >"$0"; touch -d "2 days ago" "$0"']
        name = f"{refs}/rootless:x:eth0:netavark"
        session.run([*script, name], input=json.dumps(record) + "\n", check=True)

        runtime.succeed("GC", conf={VALID: [C]})
        found = only(gc(session))

        assert [entry["containerID"] for entry in found["skipped"]] == ["x"]
        assert "it is netavark's own" in found["skipped"][0]["why"]
        session.run(["rm", name], check=True)
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_outside_of_the_user_namespace(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """What is pinned in a user namespace made by hand cannot be judged from another one."""
    with session.container() as container:
        runtime.add("c", container)

        done = world.run([PLUGIN, "gc"])

        assert done.returncode == 0, done.stderr
        assert "is pinned in another mount namespace" in done.stdout
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_a_dry_run_beside_the_last_delete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a dry run has found of a netns that goes meanwhile, it is no failure."""
    tmp_path.chmod(0o700)
    for gone in ("names", "records", "ghosts"):
        where = State(str(tmp_path), "default")
        ownership.claim(where)
        Path(where.refs).mkdir()
        real = getattr(listing, gone)

        def remove_first(*arguments: Any, real: Any = real, where: State = where) -> Any:
            shutil.rmtree(where.dir, ignore_errors=True)
            return real(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(listing, gone, remove_first)
            one = sweep.Sweep(Shared(where, {}, {}), {}, None, dry_run=True)

            found = one.run()

        kinds = ("deleted", "released", "dropped", "live", "skipped", "failed")
        assert found == {"name": "default", **{kind: [] for kind in kinds}, "isRemoved": False}


def test_private_mounts_of_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the pin in a call's own mounts is no other place, when the netns is removed."""
    tmp_path.chmod(0o700)
    where = State(str(tmp_path), "default")
    ownership.claim(where)
    Path(where.pin).touch()

    def see_once(seen: State) -> int:
        os.unlink(where.pin)  # the process that removes the netns goes on
        return os.getpid()

    monkeypatch.setattr(elsewhere, "pinned_in", see_once)

    liveness.refuse_if_elsewhere(where)
    assert not Path(where.lock).exists()
    Path(where.pin).touch()
    monkeypatch.setattr(elsewhere, "pinned_in", lambda seen: os.getpid())
    with pytest.raises(ShimError, match="pinned in another mount namespace"):
        liveness.refuse_if_elsewhere(where)


def test_dry_runs_beside_a_container_that_comes_and_goes(
    session: bench.Session, runtime: Runtime
) -> None:
    """A dry run sees what is there, or that nothing is, and never fails."""
    with session.container() as container, ThreadPoolExecutor(1) as pool:

        def come_and_go() -> None:
            for number in range(8):
                runtime.add(f"c{number}", container)
                runtime.delete(f"c{number}", container)

        coming = pool.submit(come_and_go)
        while not coming.done():
            found = gc(session, "--dry-run")
            assert not any(netns["failed"] for netns in found["netns"])
            skipped = [entry["why"] for netns in found["netns"] for entry in netns["skipped"]]
            assert not any("mount namespace" in why for why in skipped)
        coming.result()

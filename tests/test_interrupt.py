# SPDX-License-Identifier: Apache-2.0
"""Signals, killed calls and lost answers: what was begun is undone, by us or by the next call."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import termios
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import bench
import pytest
from gate import CONF, Gate
from runtime import PLUGIN, Runtime, bridge, reaches, until

from netns_shim import errors, interrupt, locks
from netns_shim.errors import Stopped
from netns_shim.shared import processes


@pytest.fixture
def runtime(session: bench.Session, gate: Gate) -> Runtime:
    """A runtime whose network has a bridge and the gate."""
    plugins = [bridge(), CONF]
    return Runtime(session, path=gate.path, plugins=plugins, uplink="none", cniVersion="1.1.0")


def start(runtime: Runtime, verb: str, container: bench.Container, **options: Any) -> bench.Child:
    """Start a call and leave it running."""
    env = runtime.environment(verb, "c", container.netns)
    pipe = subprocess.PIPE
    argv = options.pop("argv", [PLUGIN])
    options = {"stdin": pipe, "stdout": pipe, "stderr": pipe, "text": True, **options}
    child = runtime.place.popen(argv, env=env, **options)
    child.stdin.write(json.dumps(runtime.conf))
    child.stdin.close()
    child.stdin = None  # type: ignore[assignment]  # which `communicate` would flush
    return child


def leases(world: bench.World, session: bench.Session) -> list[str]:
    """List the addresses that host-local has given away."""
    top = session.path(f"{world.state_dir}/default/var/lib/cni/networks/rootless")
    return sorted(path.name for path in top.glob("10.*"))


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_a_signal_in_the_middle_of_add(
    world: bench.World, session: bench.Session, runtime: Runtime, gate: Gate, number: int
) -> None:
    """What was begun is undone, the plugin's process group ends, and the error says why."""
    gate.shut("ADD", child="same")
    with session.container() as container:
        call = start(runtime, "ADD", container)
        gate.wait()
        assert leases(world, session) == ["10.89.0.2"]

        call.send_signal(number)
        stdout, _ = call.communicate(timeout=30)

        assert call.returncode == 1
        error = json.loads(stdout)
        assert error["code"] == errors.INTERRUPTED
        assert error["msg"] == f"plugin 'gate' (ADD) was stopped by {interrupt.name_of(number)}"
        assert gate.calls() == ["ADD", "DEL"]
        assert world.leftovers() == []
        assert until(lambda: not running(world, session, "gate"))
        gate.open()
        runtime.add("c", container)  # nothing is in the way
        runtime.delete("c", container)
    assert world.leftovers() == []


def running(world: bench.World, session: bench.Session, name: str) -> list[str]:
    """List the user's processes by what is in their command lines."""
    done = session.run(["pgrep", "-u", "0", "-f", f"/{name}/{name}"])
    return done.stdout.split()


def test_a_signal_beside_others(
    world: bench.World, session: bench.Session, runtime: Runtime, gate: Gate
) -> None:
    """An ADD that is stopped takes nothing from those who are attached."""
    with session.container() as container, session.container() as other:
        address = runtime.add("other", other)["ips"][0]["address"]
        gate.shut("ADD")
        call = start(runtime, "ADD", container)
        gate.wait()
        call.terminate()
        call.communicate(timeout=30)

        assert leases(world, session) == [address.split("/")[0]]
        assert reaches(other, "10.89.0.1")
        gate.open()
        runtime.delete("other", other)
    assert world.leftovers() == []


def test_undoing_is_not_stopped(
    world: bench.World, session: bench.Session, runtime: Runtime, gate: Gate
) -> None:
    """A second signal does not cut off the undoing of what the first one has stopped."""
    gate.shut("ADD")
    gate.shut("DEL")
    with session.container() as container:
        call = start(runtime, "ADD", container)
        gate.wait()
        call.terminate()
        gate.wait()  # in its DEL
        call.terminate()
        call.send_signal(signal.SIGINT)
        gate.open()
        stdout, _ = call.communicate(timeout=30)

        assert json.loads(stdout)["code"] == errors.INTERRUPTED
        assert call.returncode == 1
    assert world.leftovers() == []


def test_a_signal_in_the_middle_of_delete(
    world: bench.World, session: bench.Session, runtime: Runtime, gate: Gate
) -> None:
    """A DEL that is stopped says so, and the next one does all of it."""
    with session.container() as container:
        runtime.add("c", container)
        gate.shut("DEL")
        call = start(runtime, "DEL", container)
        gate.wait()
        call.terminate()
        stdout, _ = call.communicate(timeout=30)
        assert json.loads(stdout)["code"] == errors.INTERRUPTED
        (attachment,) = runtime.status()[0]["references"]
        assert attachment["phase"] == "deleting"

        gate.open()
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_ignored_signals_stay_ignored(
    world: bench.World, session: bench.Session, runtime: Runtime, gate: Gate
) -> None:
    """What the caller ignores, as netavark does in a teardown, does not stop the call.

    The plugin has the signal as from a shell all the same.
    """
    gate.shut("ADD")
    with session.container() as container:
        argv = ["sh", "-c", "trap '' TERM INT; exec \"$0\"", PLUGIN]
        call = start(runtime, "ADD", container, argv=argv)
        gate.wait()
        call.terminate()
        call.send_signal(signal.SIGINT)
        gate.open()
        stdout, stderr = call.communicate(timeout=30)

        assert call.returncode == 0, stdout + stderr
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_stopped_while_waiting_for_a_lock(world: bench.World, session: bench.Session) -> None:
    """No call has to wait for the one that makes the netns, however long that takes."""
    runtime = Runtime(session, delegate=bridge(), uplink="none")
    base = session.path(world.state_dir)
    session.run(["mkdir", "-m", "0700", world.state_dir], check=True)
    with session.container() as container, open(base / ".lock-default", "w") as file:
        os.fchown(file.fileno(), world.uid, world.uid)
        fcntl.flock(file, fcntl.LOCK_EX)
        call = start(runtime, "ADD", container)
        # It sleeps between one look at a lock and the next, and nowhere else.
        assert until(lambda: "nanosleep" in Path(f"/proc/{call.pid}/wchan").read_text())
        call.terminate()
        stdout, _ = call.communicate(timeout=30)

        error = json.loads(stdout)
        assert error["code"] == errors.INTERRUPTED
        assert "'default' is being made or removed" in error["msg"]
    os.unlink(base / ".lock-default")
    assert world.leftovers() == []


@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_stopped_while_the_uplink_starts(
    world: bench.World, session: bench.Session, driver: str
) -> None:
    """An uplink that does not get ready is ended, and nothing is left of the netns."""
    directory = f"{world.env['HOME']}/uplink"
    # Says that it runs, in a FIFO, and hangs.
    program = (
        f"#!/bin/sh\n[ $1 = --help ] && exit\necho on >{directory}/begun\nexec tail -f /dev/null\n"
    )
    script = 'mkdir "$0"; cat >"$0/fake"; chmod +x "$0/fake"; mkfifo "$0/begun"'
    session.run(["sh", "-euc", script, directory], input=program, check=True)
    uplink = {"driver": driver, "path": f"{directory}/fake"}
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    begun = os.open(session.path(f"{directory}/begun"), os.O_RDWR | os.O_NONBLOCK)
    with session.container() as container:
        call = start(runtime, "ADD", container)
        assert select.select([begun], [], [], 30)[0]
        call.terminate()
        stdout, _ = call.communicate(timeout=30)

        assert json.loads(stdout)["msg"] == "starting the uplink was stopped by SIGTERM"
        assert not session.run(["pgrep", "-u", "0", "-x", "tail"]).stdout
    os.close(begun)
    assert world.leftovers() == []


STDOUTS = {
    "closed": 'exec "$0" >&-',
    "full": 'exec "$0" >/dev/full',
}


@pytest.mark.parametrize("name", STDOUTS)
def test_a_result_that_cannot_be_written(
    world: bench.World, session: bench.Session, runtime: Runtime, name: str
) -> None:
    """If the caller cannot get the result, the attachment is undone; stderr says why."""
    with session.container() as container, session.container() as other:
        runtime.add("other", other)
        call = start(runtime, "ADD", container, argv=["sh", "-c", STDOUTS[name], PLUGIN])
        _, stderr = call.communicate(timeout=30)

        assert call.returncode == 1
        assert "netns-shim: the answer cannot be written" in stderr
        assert "Traceback" not in stderr
        assert leases(world, session) == ["10.89.0.2"]
        assert [r["containerID"] for r in runtime.status()[0]["references"]] == ["other"]
        assert reaches(other, "10.89.0.1")
        runtime.delete("other", other)
    assert world.leftovers() == []


def test_a_result_that_nobody_reads(
    world: bench.World, session: bench.Session, runtime: Runtime, gate: Gate
) -> None:
    """A runtime that is gone before it gets the result leaves nothing attached."""
    gate.shut("ADD")
    with session.container() as container:
        call = start(runtime, "ADD", container)
        gate.wait()
        call.stdout.close()
        call.stdout = None  # type: ignore[assignment]  # which `communicate` would read
        gate.open()
        _, stderr = call.communicate(timeout=30)

        assert call.returncode == 1
        assert "the answer cannot be written: Broken pipe" in stderr
    assert world.leftovers() == []


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_the_plugin_of_a_killed_call_is_waited_for(
    world: bench.World, session: bench.Session, runtime: Runtime, gate: Gate, verb: str
) -> None:
    """After kill -9 of the shim its plugin goes on; the next DEL waits, and finds all it did."""
    with session.container() as container:
        if verb == "DEL":
            runtime.add("c", container)
        gate.shut(verb)
        call = start(runtime, verb, container)
        gate.wait()
        call.kill()
        call.communicate(timeout=30)

        following = start(runtime, "DEL", container)
        # It looks at processes by now, the plugin among them, and so has not called it.
        assert until(lambda: "anon_inode:[pidfd]" in descriptors(following.pid))
        before = gate.calls()
        gate.open()
        stdout, stderr = following.communicate(timeout=30)

        assert before == gate.calls()[: len(before)]
        assert before[-1] == verb
        assert following.returncode == 0, stdout + stderr
        assert gate.calls()[-1] == "DEL"
        assert not running(world, session, "gate")
    assert world.leftovers() == []


def descriptors(pid: int) -> list[str]:
    """List what a process has open."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def test_the_plugin_of_a_killed_call_that_does_not_end(
    world: bench.World, session: bench.Session, runtime: Runtime, gate: Gate
) -> None:
    """A plugin of a killed call that goes on and on is ended, and what it began undone by ADD.

    What it has started for good, in a session of its own, stays.
    """
    gate.shut("ADD", child="daemon")
    with session.container() as container:
        call = start(runtime, "ADD", container)
        gate.wait()
        call.kill()
        call.communicate(timeout=30)
        (gate._where / "ADD").unlink()

        done = runtime.call("ADD", "c", container.netns)

        assert done.returncode == 0, done.stdout
        assert "a killed call has left processes that do not end" in done.stderr
        assert gate.calls() == ["ADD", "DEL", "ADD"]
        assert len(running(world, session, "gate")) == 1
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_ghosts_do_not_keep_the_netns(
    world: bench.World, session: bench.Session, runtime: Runtime, gate: Gate
) -> None:
    """A DEL too many that was killed has left a reference; the netns goes without it."""
    with session.container() as container, session.container() as other:
        runtime.add("other", other)
        gate.shut("DEL")
        call = start(runtime, "DEL", container)
        gate.wait()
        call.kill()
        call.communicate(timeout=30)
        assert len(runtime.status()[0]["references"]) == 2

        gate.open()
        runtime.delete("other", other)
    assert world.leftovers() == []


def test_gc_that_is_stopped(
    world: bench.World, session: bench.Session, runtime: Runtime, gate: Gate
) -> None:
    """A signal ends the whole of a garbage collection, in one line; the next one does the rest."""
    for container_id in ("a", "b", "c"):
        with session.container() as container:
            runtime.add(container_id, container)
    gate.shut("DEL")
    with session.popen([PLUGIN, "gc"], stdout=-1, stderr=-1, text=True) as collecting:
        gate.wait()
        collecting.send_signal(signal.SIGINT)
        stdout, stderr = collecting.communicate(timeout=30)

    assert collecting.returncode == 1
    assert stdout == ""
    assert stderr == "netns-shim: plugin 'gate' (DEL) was stopped by SIGINT\n"
    assert gate.calls() == ["ADD"] * 3 + ["DEL"]
    gate.open()
    session.run([PLUGIN, "gc"], check=True)
    assert world.leftovers() == []


def test_a_destruction_that_was_cut_off(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """A DEL too many goes on with a removal that was killed after its first step."""
    state = f"{world.state_dir}/default"
    with session.container() as container:
        runtime.add("c", container)
        session.run(["sh", "-c", 'echo >"$0"', f"{state}/refs/one-more"], check=True)
        runtime.delete("c", container)
        session.run(["rm", "-r", f"{state}/refs"], check=True)

        runtime.delete("c", container)
    assert world.leftovers() == []
    assert not list(session.path(world.state_dir).iterdir())


def test_a_lock_that_nobody_holds(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """The file of a lock whose holder was killed blocks no call, and goes with the netns."""
    with session.container() as container:
        runtime.add("c", container)
        lock = f"{world.state_dir}/.lock-default"
        session.run(["sh", "-c", '>"$0"', lock], check=True)

        runtime.delete("c", container)
        assert not list(session.path(world.state_dir).iterdir())
        session.run(["sh", "-c", '>"$0"', lock], check=True)
        runtime.delete("c", container)
    assert not list(session.path(world.state_dir).iterdir())


def test_a_wait_ends_with_the_signal() -> None:
    """What waits for a descriptor or for its turn is stopped by a signal, and only once."""
    hear, tell = os.pipe()
    interrupt.heed()
    os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match=r"^waiting was stopped by SIGTERM$"):
        interrupt.wait(hear, 30, "waiting")

    assert not interrupt.wait(hear, 0, "waiting")
    os.write(tell, b"1")
    assert interrupt.wait(hear, 30, "waiting")
    os.close(hear)
    os.close(tell)


def test_a_turn_ends_with_the_signal(tmp_path: Path) -> None:
    """A signal stops a process that waits for a lock."""
    fd = locks.take(str(tmp_path / "lock"), "another")
    interrupt.heed()
    os.kill(os.getpid(), signal.SIGHUP)

    with (
        pytest.raises(Stopped, match="stopped by SIGHUP"),
        locks.Lock(str(tmp_path / "lock"), 30, "somebody"),
    ):
        pass
    os.close(fd)


def test_orphans_are_those_with_the_mark() -> None:
    """Processes of other calls, and those in a session of their own, are not looked at."""
    mark = f"{os.getsid(0)}:/some/reference"
    argv = ["/bin/sh", "-c", "echo; exec cat"]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(argv, stdin=pipe, stdout=pipe, env={"NETNS_SHIM_CALL": mark}) as orphan,
        subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, env={"NETNS_SHIM_CALL": mark}, start_new_session=True
        ) as daemon,
        subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, env={"NETNS_SHIM_CALL": mark + "2"}
        ) as other,
    ):
        for child in (orphan, daemon, other):
            assert child.stdout
            assert child.stdout.readline() == b"\n"
        found = processes._marked("/some/reference")
        for pidfd in found.values():
            os.close(pidfd)

        assert list(found) == [orphan.pid]
        for child in (orphan, daemon, other):
            assert child.stdin
            child.stdin.close()


def test_a_reader_that_is_slow() -> None:
    """Writing waits for it, and a signal ends the wait, but not what needs none."""
    hear, tell = os.pipe()
    interrupt.heed()
    os.kill(os.getpid(), signal.SIGTERM)
    interrupt.write(tell, b"x" * 4096, "writing")
    assert os.read(hear, 8192) == b"x" * 4096

    with pytest.raises(Stopped, match=r"^writing was stopped by SIGTERM$"):
        interrupt.write(tell, bytes(1 << 20), "writing")

    assert 0 < len(os.read(hear, 1 << 20)) < 1 << 20
    os.close(hear)
    with pytest.raises(BrokenPipeError):
        interrupt.write(tell, b"x", "writing")
    os.close(tell)
    with pytest.raises(OSError, match="Bad file descriptor"):
        interrupt.write(tell, b"x", "writing")


def test_signals_after_the_undoing() -> None:
    """They are heeded again, but not those that the caller ignores."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupt.heed()
    interrupt.disregard()
    os.kill(os.getpid(), signal.SIGTERM)
    interrupt.check("anything")

    interrupt.heed_again()

    os.kill(os.getpid(), signal.SIGHUP)
    interrupt.check("anything")
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped):
        interrupt.check("anything")


# A plugin whose answer, error or log does not fit into a pipe.
LONG = """#!/bin/sh
long() { head -c 200000 /dev/zero | tr '\\0' x; }
case $CNI_COMMAND in
VERSION) echo '{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}' ;;
ADD)
    case $CNI_ARGS in
    log) long >&2; echo '{"cniVersion": "1.0.0"}' ;;
    error) echo "{\\"code\\": 42, \\"msg\\": \\"$(long)\\"}"; exit 1 ;;
    *) echo "{\\"cniVersion\\": \\"1.0.0\\", \\"dns\\": {\\"domain\\": \\"$(long)\\"}}" ;;
    esac
esac
"""


@pytest.mark.parametrize("what", ["answer", "error", "log"])
def test_a_caller_that_does_not_read(
    world: bench.World, session: bench.Session, what: str
) -> None:
    """A signal ends a call whose answer is not read, and nothing stays attached."""
    directory = f"{world.env['HOME']}/plugins"
    script = 'mkdir "$0"; cat >"$0/long"; chmod +x "$0/long"'
    session.run(["sh", "-euc", script, directory], input=LONG, check=True)
    runtime = Runtime(session, path=directory, delegate={"type": "long"}, uplink="none")
    with session.container() as container:
        pipe = subprocess.PIPE
        env = runtime.environment("ADD", "c", container.netns, CNI_ARGS=what)
        call = session.popen([PLUGIN], env=env, stdin=pipe, stdout=pipe, stderr=pipe)
        call.stdin.write(json.dumps(runtime.conf))
        call.stdin.close()
        full = call.stderr if what == "log" else call.stdout
        assert until(lambda: _fill(full) >= 60000)

        call.terminate()

        assert call.wait(timeout=20) == 1
    assert world.leftovers() == []


def _fill(pipe: IO[str]) -> int:
    """Tell how many bytes are in a pipe."""
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])

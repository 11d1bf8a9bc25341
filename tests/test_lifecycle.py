# SPDX-License-Identifier: Apache-2.0
"""The shared netns through its life: made by many at once, mended, found in odd states."""

from __future__ import annotations

import json
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge, kill_for_good, page

from netns_shim import errors


def uplinks(world: bench.World) -> list[str]:
    """List the processes of uplinks."""
    return [line for line in world.leftovers() if line.startswith("process ")]


def given(addresses: list[str]) -> list[str]:
    """Leave out what the kernel makes of a router advertisement, which comes in its own time."""
    return [address for address in addresses if "ff:fe" not in address]


def test_many_in_and_out_at_once(world: bench.World, session: bench.Session) -> None:
    """While the count crosses zero all the time, an ADD that succeeds is one that works."""
    runtime = Runtime(session, delegate=bridge())

    def in_and_out(number: int) -> None:
        for _ in range(3):
            runtime.add(f"c{number}", containers[number])
            assert page(containers[number], bench.PAGE)
            assert len(uplinks(world)) == 1
            runtime.delete(f"c{number}", containers[number])

    with ExitStack() as stack, ThreadPoolExecutor(6) as pool:
        containers = [stack.enter_context(session.container()) for _ in range(6)]
        list(pool.map(in_and_out, random.sample(range(6), 6)))
    assert world.leftovers() == []


@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_a_dead_uplink_is_started_again(
    world: bench.World, session: bench.Session, driver: str
) -> None:
    """The next ADD starts a new uplink in the same netns; who was attached is connected again."""
    runtime = Runtime(session, delegate=bridge("10.89.0.0/24", "fd00:89::/64"), uplink=driver)
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        (before,) = runtime.status()
        kill_for_good(before["uplink"])
        assert page(old, bench.PAGE) == ""

        done = runtime.call("ADD", "new", new.netns)

        assert done.returncode == 0, done.stdout
        assert "was gone and is started again" in done.stderr
        (after,) = runtime.status()
        assert after["uplink"]["alive"]
        assert given(after["addresses"]) == given(before["addresses"])
        assert page(old, bench.PAGE)
        assert page(new, bench.PAGE6)
        runtime.delete("old", old)
        runtime.delete("new", new)
    assert world.leftovers() == []


def test_a_forgotten_uplink_is_found(world: bench.World, session: bench.Session) -> None:
    """A live uplink whose record is lost is ended before a second one is started."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        session.run(["rm", f"{world.state_dir}/default/uplink.json"], check=True)

        runtime.add("new", new)

        assert len(uplinks(world)) == 1
        assert page(old, bench.PAGE)
        runtime.delete("old", old)
        runtime.delete("new", new)
    assert world.leftovers() == []


def test_a_process_id_that_is_somebody_elses(world: bench.World, session: bench.Session) -> None:
    """A process that has the recorded ID, but another start time, is not touched."""
    runtime = Runtime(session, delegate=bridge())
    record = session.path(f"{world.state_dir}/default/uplink.json")
    with session.container() as container:
        runtime.add("c", container)
        stranger = session.popen(["cat"], stdin=subprocess.PIPE)
        content = json.loads(record.read_text())
        kill_for_good(content)
        record.write_text(json.dumps({**content, "pid": stranger.pid}))
        assert runtime.status()[0]["uplink"]["alive"] is False

        runtime.delete("c", container)

        assert stranger.poll() is None
    assert world.leftovers() == []


def test_a_lost_pin(world: bench.World, session: bench.Session) -> None:
    """When the netns itself is lost, an ADD makes it again and says that others are cut off."""
    runtime = Runtime(session, delegate=bridge())
    pin = f"{world.state_dir}/default/netns"
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        session.run(["umount", "--lazy", pin], check=True)
        (before,) = runtime.status()
        kill_for_good(before["uplink"])

        done = runtime.call("ADD", "new", new.netns)

        assert done.returncode == 0, done.stdout
        assert "was lost and has been made again" in done.stderr
        assert page(new, bench.PAGE)
        runtime.delete("old", old)
        runtime.delete("new", new)
    assert world.leftovers() == []


def test_delete_after_the_pin_is_lost(world: bench.World, session: bench.Session) -> None:
    """A DEL makes no netns: it releases what there is, and the last one removes the rest."""
    runtime = Runtime(session, delegate=bridge())
    pin = f"{world.state_dir}/default/netns"
    with session.container() as container:
        runtime.add("c", container)
        session.run(["umount", "--lazy", pin], check=True)
        (before,) = runtime.status()
        kill_for_good(before["uplink"])

        runtime.delete("c", container)
    assert world.leftovers() == []


def test_pinned_in_another_mount_namespace(world: bench.World, session: bench.Session) -> None:
    """A netns that lives elsewhere is left alone, and the error says where it is.

    A DEL of what is not attached there succeeds, as the clean-up after the failed ADD.
    """
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container, world.session() as sibling:
        runtime.add("c", container)
        elsewhere = Runtime(sibling, delegate=bridge(), netns="default")
        with sibling.container() as other:
            error = elsewhere.fail("ADD", "other", other.netns)
            elsewhere.delete("other", other)
            assert error["code"] == errors.CANNOT_ENTER
            assert "pinned in another mount namespace" in error["msg"]
            assert "mnt:[" in error["details"]

        assert page(container, bench.PAGE)
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_what_a_killed_creation_left_is_cleared(
    world: bench.World, session: bench.Session
) -> None:
    """Files and a live uplink without `refs/` are removed by the next ADD, and it succeeds."""
    runtime = Runtime(session, delegate=bridge())
    state = f"{world.state_dir}/default"
    with session.container() as container:
        runtime.add("c", container)
        session.run(["rm", "-r", f"{state}/refs", f"{state}/uplink.json"], check=True)

        runtime.add("c", container, CNI_IFNAME="eth1")

        assert len(uplinks(world)) == 1
        assert page(container, bench.PAGE)
        runtime.delete("c", container, CNI_IFNAME="eth1")
    assert world.leftovers() == []


def test_an_uplink_that_fails(world: bench.World, session: bench.Session) -> None:
    """Its own words are in the error, and nothing is left."""
    uplink = {"driver": "pasta", "options": ["--no-such-option"]}
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    with session.container() as container:
        error = runtime.fail("ADD", "c", container.netns)

    assert error["code"] == errors.UPLINK_FAILED
    assert "no-such-option" in error["details"]
    assert world.leftovers() == []


@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_an_uplink_holds_no_pipe_of_the_runtime(
    world: bench.World, session: bench.Session, driver: str
) -> None:
    """The uplink does not keep a caller waiting for the end of the plugin's output."""
    runtime = Runtime(session, delegate=bridge(), uplink=driver)
    with session.container() as container:
        env = runtime.environment("ADD", "c", container.netns)
        # As in a runtime that passes more descriptors than it means to.
        script = 'exec 9>&1; exec "$0"'
        argv = ["sh", "-c", script, PLUGIN]
        done = session.run(argv, env=env, input=json.dumps(runtime.conf), timeout=30)

        assert done.returncode == 0, done.stdout
        state = session.path(f"{world.state_dir}/default")
        assert (state / "uplink.log").exists()
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_options_of_pasta(world: bench.World, session: bench.Session) -> None:
    """Options are pasta's own; they replace the defaults that they contradict."""
    options = ["-4", "--dns-forward", "10.9.8.7", "--ns-ifname", "out0"]
    runtime = Runtime(session, delegate=bridge(), uplink={"driver": "pasta", "options": options})
    with session.container() as container:
        runtime.add("c", container)

        state = session.path(f"{world.state_dir}/default")
        assert "nameserver 10.9.8.7\n" in (state / "resolv.conf").read_text()
        assert json.loads((state / "uplink.json").read_text())["interface"] == "out0"
        assert runtime.status()[0]["addresses"] == ["198.19.110.114"]
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("mkdir -m 0755 $0", "its mode is 0755, not 0700"),
        ("mkdir -m 0770 $0", "its mode is 0770, not 0700"),
        ("mkdir -m 0700 $0; chown 1:1 $0", "it belongs to user 1"),
        ("ln -s /tmp $0", "it is not a directory"),
        ("touch $0", "it is not a directory"),
    ],
)
def test_an_odd_state_directory_is_refused(
    world: bench.World, session: bench.Session, script: str, problem: str
) -> None:
    """A directory that others can write to, or that is none, is refused with the reason."""
    base = f"{world.env['HOME']}/state"
    runtime = Runtime(session, delegate=bridge(), stateDir=base)
    session.run(["sh", "-euc", script, base], check=True)
    with session.container() as container:
        for verb in ("ADD", "DEL"):
            error = runtime.fail(verb, "c", container.netns)
            assert error["code"] == errors.IO_FAILURE
            assert problem in error["details"]
    assert uplinks(world) == []


def test_state_elsewhere(world: bench.World, session: bench.Session) -> None:
    """`stateDir` and a missing XDG_RUNTIME_DIR move the state, and nothing is left there."""
    base = f"{world.env['HOME']}/state"
    runtime = Runtime(session, delegate=bridge(), stateDir=base)
    with session.container() as container:
        runtime.add("c", container)

        done = session.run([PLUGIN, "status", "--state-dir", base, "--json"], check=True)
        assert json.loads(done.stdout)["netns"][0]["path"] == f"{base}/default/netns"
        assert page(container, bench.PAGE)
        runtime.delete("c", container)
    assert list(session.path(base).iterdir()) == []
    assert uplinks(world) == []

# SPDX-License-Identifier: Apache-2.0
"""References: what every order of ADD and DEL leads to, with the real programs."""

from __future__ import annotations

import json
import os
import signal

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge, kill_for_good, reaches, until

from netns_shim import errors
from netns_shim.proc import start_time


@pytest.fixture
def runtime(session: bench.Session) -> Runtime:
    """A runtime with a bridge and no uplink."""
    return Runtime(session, delegate=bridge(), uplink="none")


def references(runtime: Runtime) -> list[str]:
    """List who is attached."""
    return [r["containerID"] for netns in runtime.status() for r in netns["references"]]


def leases(runtime: Runtime, world: bench.World) -> list[str]:
    """List the addresses that host-local has given away in the default netns."""
    state = f"{world.state_dir}/default"
    networks = runtime.place.path(f"{state}/var/lib/cni/networks/rootless")
    return sorted(p.name for p in networks.glob("10.*"))


def test_a_second_add_is_refused(world: bench.World, runtime: Runtime) -> None:
    """The same attachment cannot be added twice; the first stays as it was."""
    with runtime.place.container() as container:
        runtime.add("c", container)
        before = leases(runtime, world)

        error = runtime.fail("ADD", "c", container.netns)

        assert error["code"] == errors.ALREADY_ATTACHED
        assert "'c' is already attached" in error["msg"]
        assert references(runtime) == ["c"]
        assert leases(runtime, world) == before
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_delete_twice_and_without_add(world: bench.World, runtime: Runtime) -> None:
    """A DEL too many succeeds and takes nothing away from others."""
    with runtime.place.container() as container, runtime.place.container() as other:
        runtime.delete("c", container)
        runtime.add("c", container)
        runtime.add("other", other)

        runtime.delete("c", container)
        runtime.delete("c", container)
        runtime.delete("never", container)

        assert references(runtime) == ["other"]
        assert reaches(other, "10.89.0.1")
        runtime.delete("other", other)
        runtime.delete("other", other)
    assert world.leftovers() == []


@pytest.mark.parametrize("netns", ["", "/proc/0/ns/net", "/run/netns/gone", "/etc/passwd"])
def test_delete_without_the_container(world: bench.World, runtime: Runtime, netns: str) -> None:
    """DEL with CNI_NETNS empty, dead or something else releases what was given."""
    with runtime.place.container() as container, runtime.place.container() as other:
        runtime.add("c", container)
        runtime.add("other", other)
        container.close()

        runtime.succeed("DEL", "c", netns)

        assert references(runtime) == ["other"]
        assert leases(runtime, world) == ["10.89.0.3"]
        runtime.delete("other", other)
    assert world.leftovers() == []


def test_delete_of_a_container_that_is_not_reaped(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """Where the container's process has ended, and its parent does not look, DEL is as ever."""
    # What becomes of the shell, `cat`, never waits for its child.
    script = "unshare --net sh -c 'echo ready; read line' <&3 & echo $!; exec cat"
    argv = ["sh", "-c", f"exec 3<&0; {script}"]
    with session.popen(argv, stdin=-1, stdout=-1, text=True) as parent:
        lines = {parent.stdout.readline(), parent.stdout.readline()} - {"ready\n"}
        pid = int(lines.pop())
        netns = f"/proc/{pid}/ns/net"
        runtime.succeed("ADD", "c", netns)
        os.kill(pid, signal.SIGKILL)
        assert until(lambda: start_time(pid) == 0)
        assert os.path.lexists(netns)

        assert runtime.succeed("DEL", "c", netns) is None
        parent.kill()
    assert world.leftovers() == []


def test_delete_spares_who_has_the_path_now(world: bench.World, runtime: Runtime) -> None:
    """Where CNI_NETNS leads to another container by now, that one keeps its interface."""
    path = "/run/netns/reused"
    with runtime.place.container(pinned=path) as container:
        runtime.add("first", container)
        # Which keeps its number from being given to the second one.
        held = os.open(f"/proc/{container.pid}/ns/net", os.O_RDONLY)
    with runtime.place.container(pinned=path) as second:
        runtime.add("second", second)

        runtime.delete("first", second)

        assert until(lambda: reaches(second, "10.89.0.1"))
        assert references(runtime) == ["second"]
        runtime.delete("second", second)
    os.close(held)
    assert world.leftovers() == []


def test_delete_when_the_netns_is_gone(
    world: bench.World, runtime: Runtime, session: bench.Session
) -> None:
    """DEL with no shared netns releases a lease kept elsewhere, succeeds and makes nothing."""
    delegate = bridge()
    delegate["ipam"]["dataDir"] = f"{world.env['HOME']}/leases"
    runtime = Runtime(session, delegate=delegate, uplink="none")
    directory = session.path(f"{world.env['HOME']}/leases/rootless")
    with session.container() as container:
        runtime.add("c", container)
        state = f"{world.state_dir}/default"
        script = 'umount "$0/netns"; rm -r "$0"'
        session.run(["sh", "-euc", script, state], check=True)
        assert (directory / "10.89.0.2").exists()

        runtime.delete("c", container)

        assert not (directory / "10.89.0.2").exists()
        assert runtime.status() == []
    assert world.leftovers() == []


def test_an_add_after_the_container_died_takes_its_place(
    world: bench.World, session: bench.Session
) -> None:
    """A container ID whose container is gone without DEL can be attached again at once."""
    # Without ipMasq: the bridge plugin forgets the rules of a container whose netns is gone, and
    # then fails to remove the chain that it named after the same container ID.
    runtime = Runtime(session, delegate={**bridge(), "ipMasq": False}, uplink="none")
    with runtime.place.container() as container:
        runtime.add("c", container)
    with runtime.place.container() as container:
        runtime.add("c", container)

        assert references(runtime) == ["c"]
        assert len(leases(runtime, world)) == 1
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_a_failed_add_leaves_nothing(world: bench.World, runtime: Runtime) -> None:
    """When a real plugin fails in the middle of a chain, all is undone, the netns too."""
    # This kernel or that: a sysctl that does not exist fails on every one.
    tuning = {"type": "tuning", "sysctl": {"net.core.no_such_thing": "1"}}
    chain = Runtime(runtime.place, plugins=[bridge(), tuning], uplink="pasta")
    with runtime.place.container() as container:
        error = chain.fail("ADD", "c", container.netns)

        assert "no_such_thing" in error["msg"]
        assert world.leftovers() == []
        links = container.run(["ip", "-br", "link"], check=True).stdout
        assert "eth0" not in links
        runtime.add("c", container)
        assert leases(runtime, world) == ["10.89.0.2"]
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_a_failed_add_beside_others(world: bench.World, runtime: Runtime) -> None:
    """A failed ADD gives back its own reference and address, and no others."""
    tuning = {"type": "tuning", "sysctl": {"net.core.no_such_thing": "1"}}
    with runtime.place.container() as container, runtime.place.container() as other:
        runtime.add("other", other)

        failing = Runtime(runtime.place, uplink="none", plugins=[bridge(), tuning])
        failing.fail("ADD", "c", container.netns)

        assert references(runtime) == ["other"]
        assert leases(runtime, world) == ["10.89.0.2"]
        assert reaches(other, "10.89.0.1")
        runtime.delete("other", other)
    assert world.leftovers() == []


def test_check(world: bench.World, runtime: Runtime) -> None:
    """CHECK wants the attachment, then asks the plugin; it makes nothing."""
    with runtime.place.container() as container:
        error = runtime.fail("CHECK", "c", container.netns)
        assert error["code"] == errors.UNKNOWN_CONTAINER
        assert runtime.status() == []

        runtime.add("c", container)
        runtime.succeed("CHECK", "c", container.netns)
        container.run(["ip", "link", "set", "eth0", "name", "eth7"], check=True)
        error = runtime.fail("CHECK", "c", container.netns)
        assert "eth0" in error["msg"]
        container.run(["ip", "link", "set", "eth7", "name", "eth0"], check=True)
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_check_wants_a_live_uplink(world: bench.World, session: bench.Session) -> None:
    """CHECK says that the uplink is gone, and does not start it; the next ADD does."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as container, session.container() as other:
        runtime.add("c", container)
        (netns,) = runtime.status()
        kill_for_good(netns["uplink"])

        error = runtime.fail("CHECK", "c", container.netns)
        assert error["code"] == errors.UPLINK_FAILED
        assert runtime.status()[0]["uplink"]["alive"] is False

        runtime.add("other", other)
        runtime.succeed("CHECK", "c", container.netns)
        runtime.delete("c", container)
        runtime.delete("other", other)
    assert world.leftovers() == []


def test_gc_deletes_what_is_not_valid(world: bench.World, session: bench.Session) -> None:
    """GC detaches, with a real DEL, what the runtime does not name; others and networks stay."""
    runtime = Runtime(session, delegate=bridge(), uplink="none", cniVersion="1.1.0")
    other = Runtime(session, delegate=bridge(), uplink="none", cniVersion="1.1.0", name="other")
    with session.container() as one, session.container() as two, session.container() as three:
        runtime.add("one", one)
        runtime.add("two", two)
        other.add("three", three)

        valid = [{"containerID": "one", "ifname": "eth0"}]
        runtime.succeed("GC", conf={"cni.dev/valid-attachments": valid})

        assert references(runtime) == ["three", "one"]
        assert "eth0" not in two.run(["ip", "-br", "link"], check=True).stdout
        assert reaches(one, "10.89.0.1")
        runtime.succeed("GC")
        assert references(runtime) == ["three", "one"]
        runtime.succeed("GC", conf={"cni.dev/attachments": None})
        other.succeed("GC", conf={"cni.dev/valid-attachments": []})
    assert world.leftovers() == []


def test_status_verb(world: bench.World, session: bench.Session) -> None:
    """STATUS makes nothing; it succeeds where an ADD would, else it has the code 50."""
    runtime = Runtime(session, delegate=bridge(), cniVersion="1.1.0")
    runtime.succeed("STATUS")

    missing = {"delegate": {"type": "no-such-plugin"}}
    error = runtime.fail("STATUS", conf=missing)
    assert error["code"] == errors.NOT_AVAILABLE
    uplink = {"uplink": {"driver": "pasta", "path": "/nowhere/pasta"}}
    assert runtime.fail("STATUS", conf=uplink)["code"] == errors.NOT_AVAILABLE
    assert not session.path(world.state_dir).exists()


def test_status_of_a_lost_uplink(world: bench.World, session: bench.Session) -> None:
    """STATUS gives the code 51 where what is attached has lost its uplink."""
    runtime = Runtime(session, delegate=bridge(), cniVersion="1.1.0")
    with session.container() as container:
        runtime.add("c", container)
        (netns,) = runtime.status()
        kill_for_good(netns["uplink"])

        assert runtime.fail("STATUS")["code"] == errors.LIMITED_CONNECTIVITY
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_version_makes_nothing(world: bench.World, session: bench.Session) -> None:
    """VERSION with a runtime's dummy values answers before there is anything."""
    env = {"CNI_COMMAND": "VERSION", "CNI_NETNS": "dummy", "CNI_PATH": "dummy"}
    done = session.run([PLUGIN], env=env, input='{"cniVersion":"1.0.0"}')

    assert done.returncode == 0
    assert json.loads(done.stdout)["supportedVersions"][0] == "0.1.0"
    assert not session.path(world.state_dir).exists()


def test_the_shared_netns_is_no_container(world: bench.World, runtime: Runtime) -> None:
    """A CNI_NETNS that is the shared netns itself is refused before a plugin runs."""
    with runtime.place.container() as container:
        runtime.add("c", container)
        pin = runtime.status()[0]["path"]

        error = runtime.fail("ADD", "self", pin)

        assert error["code"] == errors.INVALID_NETNS
        assert "should not be the same" in error["msg"]
        assert references(runtime) == ["c"]
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_plugins_wrapped_one_by_one(world: bench.World, session: bench.Session) -> None:
    """Entries of one list that are wrapped each for themselves share the attachment."""
    first = Runtime(session, delegate=bridge(), uplink="none")
    second = Runtime(session, delegate={"type": "tuning", "mtu": 1400}, uplink="none")
    with session.container() as container:
        result = first.add("c", container)
        conf = {"prevResult": result}
        assert second.add("c", container, conf=conf)["ips"] == result["ips"]

        assert "mtu 1400" in container.run(["ip", "link", "show", "eth0"], check=True).stdout
        (netns,) = first.status()
        assert [r["ips"] for r in netns["references"]] == [["10.89.0.2/24"]]
        second.delete("c", container, conf=conf)
        assert references(first) == ["c"]
        first.delete("c", container, conf=conf)
    assert world.leftovers() == []

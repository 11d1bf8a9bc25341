# SPDX-License-Identifier: Apache-2.0
"""What is broken is mended with one line on stderr, or is a clear error, and never gets worse."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge, kill, kill_for_good, page, reaches

from netns_shim import errors
from netns_shim.proc import start_time

BEYOND = "203.0.113.8"  # a name server that the machine may have one day


@pytest.fixture
def runtime(session: bench.Session) -> Runtime:
    """A runtime with a bridge and pasta."""
    return Runtime(session, delegate=bridge(), uplink="pasta")


@pytest.fixture
def state(world: bench.World) -> str:
    """The directory of the default netns, as it is called in the machine."""
    return f"{world.state_dir}/default"


def lines(stderr: str) -> list[str]:
    """List the lines that the shim has written."""
    return [line for line in stderr.splitlines() if line.startswith("netns-shim: ")]


def add_with_a_line(
    runtime: Runtime, container_id: str, container: bench.Container, text: str
) -> None:
    """Attach; what is said on stderr is one line with a text in it."""
    done = runtime.call("ADD", container_id, container.netns)
    assert done.returncode == 0, done.stdout
    (line,) = lines(done.stderr)
    assert text in line
    # The second time there is nothing left to mend. (`bridge` needs another ID for it.)
    quiet = runtime.call("ADD", "once-more", container.netns, CNI_IFNAME="eth1")
    assert quiet.returncode == 0, quiet.stdout
    assert lines(quiet.stderr) == []
    runtime.delete("once-more", container, CNI_IFNAME="eth1")


RECORDS = {
    "gone": None,
    "empty": "",
    "cut off": '{"driver": "pasta", "pid": 1',
    "null": "null",
    "a list": "[1, 2]",
    "of wrong types": '{"driver": 5, "pid": "x", "netns": [], "addresses": 7, "host": []}',
    "binary": "\x00\xff",
}


@pytest.mark.spread
@pytest.mark.parametrize("name", RECORDS)
def test_a_damaged_record_of_the_uplink(
    world: bench.World, session: bench.Session, runtime: Runtime, state: str, name: str
) -> None:
    """An uplink without a record is found and replaced; attached containers stay connected."""
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        pid = runtime.status()[0]["uplink"]["pid"]
        record = session.path(f"{state}/uplink.json")
        record.unlink()
        if (text := RECORDS[name]) is not None:
            record.write_text(text, encoding="latin-1")
            os.chown(record, world.uid, world.uid)

        add_with_a_line(runtime, "new", new, "is started again")

        assert start_time(pid) == 0
        assert page(old, bench.PAGE)
        assert page(new, bench.PAGE)
        runtime.delete("old", old)
        runtime.delete("new", new)
    assert world.leftovers() == []


@pytest.mark.spread
@pytest.mark.parametrize("name", RECORDS)
def test_delete_with_a_damaged_record(
    world: bench.World, session: bench.Session, runtime: Runtime, state: str, name: str
) -> None:
    """A DEL needs no record of the uplink, and the last one leaves none of it."""
    with session.container() as container:
        runtime.add("c", container)
        record = session.path(f"{state}/uplink.json")
        record.unlink()
        if (text := RECORDS[name]) is not None:
            record.write_text(text, encoding="latin-1")
            os.chown(record, world.uid, world.uid)

        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize("part", ["resolv.conf", "run", "started", "var"])
def test_a_part_of_the_state_is_gone(
    world: bench.World, session: bench.Session, runtime: Runtime, state: str, part: str
) -> None:
    """What a cleaner has removed is made again; who was attached stays connected."""
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        session.run(["rm", "-r", f"{state}/{part}"], check=True)

        # Leases that are gone are taken twice: the network of the second is another one.
        other = {**bridge("10.90.0.0/24", name="cni1")}
        add_with_a_line(
            Runtime(session, name="other", delegate=other, uplink="pasta"), "new", new, part
        )

        assert page(old, bench.PAGE)
        assert page(new, bench.PAGE)
        names = session.run([PLUGIN, "run", "--", "cat", "/etc/resolv.conf"], check=True).stdout
        assert "nameserver 169.254.1.1" in names
        runtime.delete("old", old)
        Runtime(session, name="other", delegate=other, uplink="pasta").delete("new", new)
    assert world.leftovers() == []


# How the file is before a repair, and the step in which that is cut off.
CUTS = [
    (before, f"{step}:{how}")
    for before in ("rm $0", ": >$0")
    for step in ("pwrite64", "ftruncate", "fchmod")
    for how in ("signal=KILL", "error=ENOSPC")
    if (step, how) != ("ftruncate", "error=ENOSPC")  # the first is that of a lock, and may fail
]


@pytest.mark.spread
@pytest.mark.parametrize(("before", "cut"), CUTS)
def test_a_repair_that_is_cut_off(
    session: bench.Session, runtime: Runtime, state: str, before: str, cut: str
) -> None:
    """Whichever step of it was the last, after the next ADD resolv.conf is as it was."""
    file = session.path(f"{state}/resolv.conf")
    strace = ["strace", "-qqq", "-o", "/dev/null", "-e", f"inject={cut}:when=1"]
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        text = file.read_text()
        session.run(["sh", "-euc", before, f"{state}/resolv.conf"], check=True)
        env = runtime.environment("ADD", "new", new.netns)
        conf = json.dumps(runtime.conf)

        assert session.run([*strace, PLUGIN], env=env, input=conf).returncode

        runtime.add("new", new)
        assert file.read_text() == text
        runtime.delete("new", new)
        runtime.delete("old", old)


def test_a_pin_that_is_gone(
    world: bench.World, session: bench.Session, runtime: Runtime, state: str
) -> None:
    """While pasta holds on to the netns it is pinned again, and no container is cut off."""
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        (before,) = runtime.status()
        session.run(["umount", "--lazy", f"{state}/netns"], check=True)

        done = runtime.call("ADD", "new", new.netns)

        assert done.returncode == 0, done.stdout
        assert "pin of the shared netns 'default' was gone" in lines(done.stderr)[0]
        assert page(old, bench.PAGE)
        assert reaches(new, "10.89.0.2")
        assert page(new, bench.PAGE)
        assert len(runtime.status()[0]["references"]) == 2
        assert before["addresses"] == runtime.status()[0]["addresses"]
        runtime.delete("old", old)
        runtime.delete("new", new)
    assert world.leftovers() == []


@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_an_interface_that_is_gone(
    world: bench.World, session: bench.Session, state: str, driver: str
) -> None:
    """An uplink that lives on without its interface is no uplink; it is started again."""
    runtime = Runtime(session, delegate=bridge(), uplink=driver)
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        kill(runtime.status()[0]["uplink"]["guardian"]["pid"])  # pasta ends
        pin = f"--net={state}/netns"
        session.run(["nsenter", pin, "ip", "link", "del", "tap0"], check=True)
        assert not runtime.status()[0]["uplink"]["alive"]

        add_with_a_line(runtime, "new", new, "is started again")

        assert page(old, bench.PAGE)
        assert page(new, bench.PAGE)
        runtime.delete("old", old)
        runtime.delete("new", new)
    assert world.leftovers() == []


def test_state_of_another_boot(
    world: bench.World, session: bench.Session, runtime: Runtime, state: str
) -> None:
    """After a restart of the machine nothing of before counts, and no process is touched."""
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        record = session.path(f"{state}/uplink.json")
        before = json.loads(record.read_text())
        kill_for_good(before)
        # Another user's process has the ID now, even with the same start time.
        stranger = session.popen(["cat"], stdin=-1)
        start = start_time(stranger.pid)
        facts = {"bootID": "another", "pid": stranger.pid, "startTime": start}
        record.write_text(json.dumps({**before, **facts}))
        session.run(["umount", "-l", f"{state}/netns"], check=True)

        add_with_a_line(runtime, "new", new, "was lost and has been made again")

        assert stranger.poll() is None
        assert [r["containerID"] for r in runtime.status()[0]["references"]] == ["new"]
        assert page(new, bench.PAGE)
        runtime.delete("old", old)  # nothing of it is left, so there is nothing to do
        runtime.delete("new", new)
    assert world.leftovers() == []


def test_elsewhere_without_an_uplink(world: bench.World, session: bench.Session) -> None:
    """A netns without uplink that is pinned elsewhere is left alone while anybody lives there."""
    runtime = Runtime(session, delegate=bridge(), uplink="none")
    private = ["unshare", "--mount", "--propagation", "private"]
    with session.container() as container, session.container() as other:
        env = runtime.environment("ADD", "other", other.netns)
        argv = [*private, "sh", "-c", 'echo; read line; exec "$0"', PLUGIN]
        with session.popen(argv, env=env, stdin=-1, stdout=-1, text=True) as elsewhere:
            assert elsewhere.stdout.readline() == "\n"
            runtime.add("c", container)  # after which it is too late to see the pin from there
            answer, _ = elsewhere.communicate(f"\n{json.dumps(runtime.conf)}", timeout=30)

        error = json.loads(answer)
        assert error["code"] == errors.CANNOT_ENTER
        assert "pinned in another mount namespace" in error["msg"]
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_elsewhere_in_another_user_namespace(world: bench.World, session: bench.Session) -> None:
    """So it is if the other mount namespace belongs to another user namespace."""
    runtime = Runtime(session, delegate=bridge(), uplink="none")
    with session.container() as container, world.session() as sibling:
        runtime.add("c", container)
        elsewhere = Runtime(sibling, delegate=bridge(), uplink="none", netns="default")
        with sibling.container() as other:
            error = elsewhere.fail("ADD", "other", other.netns)
            elsewhere.delete("other", other)
            assert error["code"] == errors.CANNOT_ENTER
            assert "pinned in another mount namespace" in error["msg"]

        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.fixture
def small(world: bench.World, session: bench.Session) -> Iterator[str]:
    """A state directory on a file system with room for nothing, which can be given some."""
    directory = f"{world.env['HOME']}/small"
    mount = 'mkdir -p "$0"; mount -t tmpfs -o size=64k,nr_inodes=2,mode=0700 tmpfs "$0"'
    session.run(["sh", "-euc", mount, directory], check=True)
    yield directory
    session.run(["umount", "-l", directory])


def test_no_room(world: bench.World, session: bench.Session, small: str) -> None:
    """Wherever the file system is full, an ADD fails with that error and leaves nothing.

    With one more file each time it fails at every place at which one is made.
    """
    runtime = Runtime(session, delegate=bridge(), uplink="pasta", stateDir=f"{small}/state")
    failures = 0
    with session.container() as container:
        for inodes in range(2, 60):
            session.run(["mount", "-o", f"remount,nr_inodes={inodes}", small], check=True)
            done = runtime.call("ADD", "c", container.netns)
            assert "Traceback" not in done.stderr
            if done.returncode:
                error = json.loads(done.stdout)
                assert "no space left" in done.stdout.lower(), error
                failures += 1
                runtime.delete("c", container)
            else:
                assert page(container, bench.PAGE)
                runtime.delete("c", container)
            kept = session.run(["find", f"{small}/state", "-mindepth", "1"]).stdout
            assert kept == "", inodes
            assert world.leftovers() == []
            if not done.returncode:
                break
    assert failures > 10
    assert done.returncode == 0


def test_a_read_only_state_directory(
    world: bench.World, session: bench.Session, small: str
) -> None:
    """A state directory that cannot be written is one clear error, and who is attached stays."""
    runtime = Runtime(session, delegate=bridge(), uplink="none", stateDir=f"{small}/state")
    session.run(["mount", "-o", "remount,nr_inodes=200,size=4m", small], check=True)
    with session.container() as container, session.container() as other:
        runtime.add("c", container)
        session.run(["mount", "-o", "remount,ro", small], check=True)

        error = runtime.fail("ADD", "other", other.netns)
        assert error["code"] == errors.IO_FAILURE
        assert "Read-only file system" in error["msg"]
        assert runtime.fail("DEL", "c", container.netns)["code"] == errors.IO_FAILURE
        assert reaches(container, "10.89.0.1")

        session.run(["mount", "-o", "remount,rw", small], check=True)
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.fixture
def resolv_conf(world: bench.World) -> Iterator[Path]:
    """The machine's resolv.conf, to be written to."""
    path = world.path("/etc/resolv.conf")
    before = path.read_text()
    yield path
    path.write_text(before)


def test_new_name_servers(
    world: bench.World, session: bench.Session, runtime: Runtime, resolv_conf: Path
) -> None:
    """New name servers of the host are in the netns, also for who has the file open."""
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        argv = [PLUGIN, "run", "--", "sh", "-c", "echo; read line; cat /etc/resolv.conf"]
        with session.popen(argv, stdin=-1, stdout=-1, text=True) as reader:
            assert reader.stdout.readline() == "\n"
            resolv_conf.write_text(f"search new.test\nnameserver {BEYOND}\n")

            runtime.add("new", new)

            text, _ = reader.communicate("\n", timeout=30)
        assert "search new.test" in text
        assert f"nameserver {BEYOND}" in text
        runtime.delete("old", old)
        runtime.delete("new", new)
    assert world.leftovers() == []


@pytest.fixture
def routes(world: bench.World) -> Iterator[None]:
    """The machine's default routes and address, to be changed."""
    yield
    world.root.run(["ip", "address", "del", "198.51.100.9/24", "dev", "eth0"])
    for command in (
        ["ip", "address", "replace", "198.51.100.2/24", "dev", "eth0"],
        ["ip", "route", "replace", "default", "via", "198.51.100.1"],
        ["ip", "-6", "route", "replace", "default", "via", "2001:db8:100::1"],
    ):
        world.root.run(command, check=True)


def move(world: bench.World) -> None:
    """Give the machine another address, as when a laptop has been carried elsewhere."""
    for command in (
        ["ip", "address", "del", "198.51.100.2/24", "dev", "eth0"],
        ["ip", "address", "add", "198.51.100.9/24", "dev", "eth0"],
        ["ip", "route", "add", "default", "via", "198.51.100.1"],
    ):
        world.root.run(command, check=True)


# An option of pasta that has it take the addresses of the host, as it does by itself.
COPYING = {"uplink": {"driver": "pasta", "options": ["-i", "eth0"]}}


def test_the_host_has_moved(
    world: bench.World, session: bench.Session, runtime: Runtime, routes: None
) -> None:
    """With the host's addresses inside, each ADD reports new ones until `refresh`."""
    runtime.conf |= COPYING
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        assert page(old, bench.PAGE)
        move(world)

        for container_id, ifname in (("one", "eth0"), ("two", "eth1")):
            done = runtime.call("ADD", container_id, new.netns, CNI_IFNAME=ifname)
            assert done.returncode == 0
            (line,) = lines(done.stderr)
            assert "addresses have changed since the uplink" in line
            assert "`netns-shim refresh`" in line
        answer = session.run([PLUGIN, "refresh"], check=True).stdout

        assert "198.51.100.9" in answer
        assert runtime.status()[0]["addresses"][0] == "198.51.100.9"
        assert page(old, bench.PAGE)
        assert page(new, bench.PAGE_BEYOND)
        assert lines(runtime.call("ADD", "three", old.netns, CNI_IFNAME="eth1").stderr) == []
        runtime.delete("old", old)
        runtime.delete("three", old, CNI_IFNAME="eth1")
        runtime.delete("one", new)
        runtime.delete("two", new, CNI_IFNAME="eth1")
    assert world.leftovers() == []


def test_refresh_without_a_network(
    world: bench.World, session: bench.Session, runtime: Runtime, routes: None
) -> None:
    """With the host's addresses inside, the old uplink stays where there are none to be had."""
    runtime.conf |= COPYING
    with session.container() as container:
        runtime.add("c", container)
        before = runtime.status()[0]["uplink"]
        world.root.run(["ip", "route", "del", "default"], check=True)
        world.root.run(["ip", "-6", "route", "del", "default"], check=True)

        done = session.run([PLUGIN, "refresh"])

        assert done.returncode == 1
        assert "no default route now, so the uplink is left as it is" in done.stderr
        assert before["alive"]
        assert runtime.status()[0]["uplink"] == {**before, "changes": ["routes"]}
        assert page(container, bench.PAGE)  # next door
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_a_network_that_comes_late(
    world: bench.World, session: bench.Session, runtime: Runtime, state: str
) -> None:
    """An uplink of 0.1.0 from before there was a network is started again by the first ADD."""
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        record = session.path(f"{state}/uplink.json")
        content = json.loads(record.read_text())
        content["host"].update(routes=[], addresses=[])  # as it would have found the machine then
        del content["copiesAddresses"]
        record.write_text(json.dumps(content))

        add_with_a_line(runtime, "new", new, "has a network now")

        assert runtime.status()[0]["uplink"]["pid"] != content["pid"]
        assert page(old, bench.PAGE_BEYOND)
        runtime.delete("old", old)
        runtime.delete("new", new)
    assert world.leftovers() == []


def test_refresh_of_nothing(session: bench.Session) -> None:
    """Where nothing is up, that is said."""
    done = session.run([PLUGIN, "refresh", "--netns", "none"])

    assert done.returncode == 1
    assert done.stderr.startswith(
        "netns-shim: no shared network namespace 'none' is up: `netns-shim status`"
    )
    assert session.run([PLUGIN, "refresh", "--netns", "../x"]).returncode == 1


def test_refresh_from_another_user_namespace(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """What is pinned in a user namespace made by hand is not renewed from another one."""
    with session.container() as container:
        runtime.add("c", container)

        done = world.run([PLUGIN, "refresh"])

        assert done.returncode == 1
        assert "is pinned in another mount namespace" in done.stderr
        assert page(container, bench.PAGE)
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_ipv6_after_refresh_of_slirp4netns(world: bench.World, session: bench.Session) -> None:
    """A new slirp4netns in a netns that is up leads to IPv6 as the first one did."""
    runtime = Runtime(
        session, uplink={"driver": "slirp4netns"}, delegate=bridge("10.89.0.0/24", "fd00:89::/64")
    )
    with session.container() as container:
        runtime.add("c", container)
        before = page(container, bench.PAGE6)
        session.run([PLUGIN, "refresh"], check=True)
        after = page(container, bench.PAGE6)
        runtime.delete("c", container)

    assert before
    assert after == before
    assert world.leftovers() == []

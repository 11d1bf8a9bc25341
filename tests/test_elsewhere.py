# SPDX-License-Identifier: Apache-2.0
"""Calls from other namespaces of the same user: they see a part, and take nothing for dead."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import bench
import pytest
from places import HOLD
from runtime import PLUGIN, Runtime, bridge, kill_for_good, page, reaches, until

from netns_shim import errors

GATEWAY = "10.89.0.1"


@pytest.fixture
def elsewhere(session: bench.Session) -> Iterator[bench.Place]:
    """A mount namespace of the session's user namespace in which no pin will ever be seen."""
    unshare = ("unshare", "--mount", "--propagation=private", "sh", "-euc", HOLD)
    with bench.Place(
        [*session._enter, *unshare], flags=session.flags, env=session.env
    ) as elsewhere:
        yield elsewhere


# How the runtime directory is spelled, below the user's directory, and what makes that.
SPELLINGS = {
    "with space": "",
    "with\\backslash": "",
    "with\nnewline": "",
    "umlaut-ä": "",
    "link/run": "mkdir real; ln -s real link",
    "up/../run": "mkdir up",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_path_in_any_spelling(
    world: bench.World, session: bench.Session, elsewhere: bench.Place, spelling: str
) -> None:
    """An ADD, a DEL and `gc` from another mount namespace leave a living netns alone.

    The DEL succeeds, because what was never attached is detached.
    """
    home = world.env["HOME"]
    place = {"XDG_RUNTIME_DIR": f"{home}/{spelling}"}
    script = f'cd {home}; {SPELLINGS[spelling]}\nmkdir -m 0700 "$0"'
    session.run(["sh", "-euc", script, place["XDG_RUNTIME_DIR"]], check=True)
    runtime = Runtime(session, delegate=bridge(), uplink="none")
    other = Runtime(elsewhere, delegate=bridge(), uplink="none")
    pinned = f"{home}/container"
    with session.container(pinned=pinned) as container, session.container() as second:
        runtime.add("c", container, **place)

        assert other.fail("ADD", "o", second.netns, **place)["code"] == errors.CANNOT_ENTER
        other.delete("o", second, **place)
        assert other.fail("DEL", "c", container.netns, **place)["code"] == errors.CANNOT_ENTER
        gc = elsewhere.run([PLUGIN, "gc"], env={**elsewhere.env, **place})

        assert "pinned in another mount namespace" in gc.stdout
        assert reaches(container, GATEWAY)
        runtime.delete("c", container, **place)
    state = session.path(os.path.normpath(f"{home}/{spelling}/netns-shim"))
    assert list(state.iterdir()) == []


@pytest.mark.parametrize("damage", ["rm $0", "echo '{' >$0"])
def test_without_a_record(
    world: bench.World, session: bench.Session, elsewhere: bench.Place, damage: str
) -> None:
    """Also where the record of the uplink is damaged, an ADD from elsewhere makes nothing new."""
    runtime = Runtime(session, delegate=bridge(), uplink="none")
    with session.container() as container, session.container() as second:
        runtime.add("c", container)
        record = f"{world.state_dir}/default/uplink.json"
        session.run(["sh", "-euc", damage, record], check=True)

        error = Runtime(elsewhere, delegate=bridge(), uplink="none").fail("ADD", "o", second.netns)

        assert error["code"] == errors.CANNOT_ENTER
        assert reaches(container, GATEWAY)
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_a_place_that_is_covered(
    world: bench.World, session: bench.Session, elsewhere: bench.Place
) -> None:
    """A pin that another mount has covered is found by the number of its netns."""
    home = world.env["HOME"]
    keys: dict[str, Any] = {"delegate": bridge(), "uplink": "none", "stateDir": f"{home}/state"}
    runtime, other = Runtime(session, **keys), Runtime(elsewhere, **keys)
    with session.container() as container, session.container() as second:
        runtime.add("c", container)
        session.run(["mount", "-t", "tmpfs", "tmpfs", f"{home}/state"], check=True)

        error = other.fail("ADD", "o", second.netns)

        session.run(["umount", f"{home}/state"], check=True)
        assert error["code"] == errors.CANNOT_ENTER
        assert reaches(container, GATEWAY)
        runtime.delete("c", container)


def test_a_netns_elsewhere_with_the_same_name(
    world: bench.World, session: bench.Session, elsewhere: bench.Place
) -> None:
    """The pin of another state directory, which has the same path there, is not ours."""
    runtime = Runtime(session, delegate=bridge(), uplink="none", stateDir="/run/netns/state")
    other = Runtime(elsewhere, delegate=bridge(), uplink="none", stateDir="/run/netns/state")
    elsewhere.run(["mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", "/run/netns"], check=True)
    with session.container() as container, elsewhere.container() as second:
        other.add("o", second)
        runtime.add("c", container)
        session.run(["umount", "--lazy", "/run/netns/state/default/netns"], check=True)

        done = runtime.call("ADD", "d", container.netns, CNI_IFNAME="eth1")

        assert done.returncode == 0, done.stdout
        assert "has been made again" in done.stderr
        assert reaches(second, GATEWAY)
        other.delete("o", second)
        runtime.delete("d", container, CNI_IFNAME="eth1")
        runtime.delete("c", container)


def test_a_netns_elsewhere_with_our_number(
    world: bench.World, session: bench.Session, elsewhere: bench.Place
) -> None:
    """Nor is it ours if the kernel has given it the number of our netns, which is gone."""
    place, record = "/run/netns/state", "/run/netns/state/default/uplink.json"
    keys: dict[str, Any] = {"delegate": bridge(), "uplink": "none", "stateDir": place}
    runtime, other = Runtime(session, **keys), Runtime(elsewhere, **keys)
    elsewhere.run(["mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", "/run/netns"], check=True)
    with session.container() as container, elsewhere.container() as second:
        other.add("o", second)
        runtime.add("c", container)
        session.run(["umount", "--lazy", f"{place}/default/netns"], check=True)
        theirs = json.loads(elsewhere.run(["cat", record], check=True).stdout)["netns"]
        text = session.run(["cat", record], check=True).stdout
        text = re.sub(r'"netns": ?\d+', f'"netns": {theirs}', text)
        session.run(["sh", "-euc", 'cat >"$0"', record], input=text, check=True)

        done = session.run([PLUGIN, "stop", "--force", "--state-dir", place])

        assert (done.returncode, done.stderr) == (0, "")
        assert reaches(second, GATEWAY)
        other.delete("o", second)


# Pin a new netns as the shim does, where another user may not look; print its number.
PIN_PRIVATELY = """
mount -t tmpfs -o mode=0700 tmpfs /run/netns
mkdir /run/netns/default
: >/run/netns/default/netns
unshare --net mount --bind /proc/self/ns/net /run/netns/default/netns
stat --dereference --format=%i /run/netns/default/netns
"""


def test_another_users_netns_with_our_number(world: bench.World, session: bench.Session) -> None:
    """Nor if it is another user's, whose processes we may not look into: ours is made again."""
    runtime, state = Runtime(session, delegate=bridge()), f"{world.state_dir}/default"
    command = [*world.root._enter, "unshare", "--mount", "sh", "-euc", HOLD]
    flags = ("--mount", "--net")
    with bench.Place(command, flags=flags, env=world.root.env) as theirs:
        number = theirs.run(["sh", "-euc", PIN_PRIVATELY], check=True).stdout.strip()
        with world.session() as gone, gone.container() as container:
            Runtime(gone, delegate=bridge(), netns="default").add("c", container)
        kill_for_good(runtime.status()[0]["uplink"])
        edit = ["sed", "-E", "-i", f's/("netns": ?)[0-9]+/\\1{number}/', f"{state}/uplink.json"]
        session.run(edit, check=True)
        with session.container() as container:
            done = runtime.call("ADD", "d", container.netns)

            assert done.returncode == 0, done.stdout
            assert "has been made again" in done.stderr
            runtime.delete("d", container)
        runtime.succeed("DEL", "c", "")
    assert world.leftovers() == []


def test_what_killed_calls_have_left_in_any_spelling(
    world: bench.World, session: bench.Session
) -> None:
    """An uplink without a record is ended by a call that spells its path in another way."""
    home = world.env["HOME"]
    session.run(["sh", "-euc", f"cd {home}; mkdir real; ln -s real link"], check=True)
    runtime = Runtime(
        session, delegate=bridge(), uplink="slirp4netns", stateDir=f"{home}/link/state"
    )
    other = Runtime(
        session, delegate=bridge(), uplink="slirp4netns", stateDir=f"{home}/real/state"
    )
    with session.container() as container:
        runtime.add("c", container)
        session.run(["rm", f"{home}/real/state/default/uplink.json"], check=True)

        other.delete("c", container)

        assert "slirp4netns" not in "".join(world.programs())


# A PID namespace of its own, as a sandbox has one; and one without a /proc that goes with it, in
# which plugins of the Go library fail.
SANDBOX = ["unshare", "--pid", "--fork", "--mount-proc"]
HALF = ["unshare", "--pid", "--fork"]


def call(
    runtime: Runtime, before: list[str], verb: str, container_id: str, netns: str
) -> dict[str, Any]:
    """Make a call by way of another program; give its answer, empty for a success without one."""
    env = runtime.environment(verb, container_id, netns)
    done = runtime.place.run([*before, PLUGIN], env=env, input=json.dumps(runtime.conf))
    assert done.stdout or done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout or "{}")
    return answer


@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_another_pid_namespace(world: bench.World, session: bench.Session, driver: str) -> None:
    """The living uplink is seen from there, and only what would have to end it is refused."""
    runtime = Runtime(session, delegate=bridge(), uplink=driver, cniVersion="1.1.0")
    home = world.env["HOME"]
    with (
        session.container(pinned=f"{home}/c") as container,
        session.container(pinned=f"{home}/d") as other,
    ):
        runtime.add("c", container)
        (up,) = runtime.status()

        assert call(runtime, SANDBOX, "STATUS", "", "") == {}
        assert call(runtime, SANDBOX, "CHECK", "c", container.netns) == {}
        assert call(runtime, SANDBOX, "ADD", "d", other.netns)["ips"]
        assert page(other, bench.PAGE)
        assert call(runtime, SANDBOX, "DEL", "d", other.netns) == {}
        for _ in range(2):
            error = call(runtime, SANDBOX, "DEL", "c", container.netns)
            assert error["code"] == errors.CANNOT_ENTER
            assert "in another PID namespace" in error["msg"]
        for command in (
            [*SANDBOX, PLUGIN, "refresh"],
            [*SANDBOX, PLUGIN, "stop", "--force"],
            [*HALF, PLUGIN, "refresh"],
        ):
            done = session.run(command)
            assert done.returncode == 1
            assert "in another PID namespace" in done.stderr

        (now,) = runtime.status()
        assert (now["uplink"]["pid"], now["uplink"]["alive"]) == (up["uplink"]["pid"], True)
        runtime.add("c", container, CNI_IFNAME="eth1")
        assert page(container, bench.PAGE)
        runtime.delete("c", container, CNI_IFNAME="eth1")
    assert world.leftovers() == []


def test_an_uplink_that_has_died_in_another_pid_namespace(
    world: bench.World, session: bench.Session
) -> None:
    """Its interface is gone, so that an ADD from anywhere starts a new one."""
    runtime = Runtime(session, delegate=bridge(), uplink="pasta")
    home = world.env["HOME"]
    with session.container(pinned=f"{home}/c") as container, session.container() as other:
        answer = call(runtime, SANDBOX, "ADD", "c", container.netns)
        assert answer["ips"]
        assert until(lambda: "pasta" not in "".join(world.programs()))

        runtime.add("d", other)

        assert page(other, bench.PAGE)
        runtime.delete("d", other)
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_a_proc_of_another_pid_namespace(world: bench.World, session: bench.Session) -> None:
    """Where no process can be looked up, an ADD that needs that is refused, and leaves nothing."""
    home = world.env["HOME"]
    with session.container(pinned=f"{home}/c") as container:
        runtime = Runtime(session, delegate=bridge(), uplink="pasta")
        error = call(runtime, HALF, "ADD", "c", container.netns)

        assert error["code"] == errors.CANNOT_ENTER
        assert error["msg"] == "/proc is that of another PID namespace"
    assert world.leftovers() == []


def test_a_user_namespace_in_another_pid_namespace(world: bench.World) -> None:
    """A user without capabilities makes no second one: it would cut off what is in the first."""
    runtime = Runtime(world, delegate=bridge(), uplink="none")
    sandbox = ["unshare", "--user", "--map-current-user", "--pid", "--fork", "--mount-proc", "--"]
    with world.unshared() as own, own.container() as container:
        runtime.add("c", container)

        error = call(runtime, sandbox, "ADD", "d", container.netns)

        assert error["code"] == errors.CANNOT_ENTER
        assert "held in another PID namespace" in error["msg"]
        assert reaches(container, GATEWAY)
        runtime.delete("c", container)
    assert until(lambda: world.leftovers() == [])

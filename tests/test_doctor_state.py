# SPDX-License-Identifier: Apache-2.0
"""`netns-shim doctor`: where state is, what is stale in it, and a host that has changed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import bench
import kinder
import pytest
from diagnosis import ask, ask_in, results
from runtime import PLUGIN, Runtime, bridge, kill_for_good, until


@pytest.mark.usefixtures("log_in")
def test_runtime_directory(world: bench.World, session: bench.Session) -> None:
    """After a log-in all state is in memory, where the user is alone."""
    for place in (world, session):
        found = ask(place)["runtime directory"]
        assert (found["result"], found["message"]) == ("ok", f"{world.state_dir}, on tmpfs")
    root = ask(world.root)["runtime directory"]
    assert root["message"] == "/run/netns-shim, on tmpfs; XDG_RUNTIME_DIR is not set"


@pytest.mark.usefixtures("log_in")
def test_no_variable(world: bench.World) -> None:
    """Without the variable the usual directory is used, if there is one; else it is /tmp."""
    env = {key: value for key, value in world.env.items() if key != "XDG_RUNTIME_DIR"}
    hidden = "mount -t tmpfs -o mode=755 tmpfs /run/user"

    usual = results(world.run([PLUGIN, "doctor", "--json"], env=env))["runtime directory"]
    none = ask_in(world, hidden, XDG_RUNTIME_DIR="")["runtime directory"]

    assert usual["result"] == "ok"
    assert usual["message"] == f"{world.state_dir}, on tmpfs; XDG_RUNTIME_DIR is not set"
    assert none["result"] == "warning"
    assert none["message"].endswith(f": /tmp/netns-shim-{world.uid} is used")
    assert "enable-linger shim" in none["advice"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("/run/user/none", "cannot be used (No such file or directory)"),
        ("/etc", "belongs to user 0"),
        ("/etc/passwd", "is not a directory"),
        ("run", "is not an absolute path"),
    ],
)
def test_variable_that_is_no_use(world: bench.World, value: str, why: str) -> None:
    """One that leads elsewhere, as after su, is not used, and why is said."""
    found = ask(world, XDG_RUNTIME_DIR=value)["runtime directory"]

    used = world.state_dir
    assert found["result"] == "warning"
    assert found["message"] == f"XDG_RUNTIME_DIR is {value}, which {why}: {used} is used"


@pytest.mark.usefixtures("log_in")
def test_mode_of_the_directory(world: bench.World) -> None:
    """A directory that is open to others is a warning."""
    directory = world.path(world.runtime_dir)
    directory.chmod(0o755)
    try:
        found = ask(world)["runtime directory"]
    finally:
        directory.chmod(0o700)

    assert found["result"] == "warning"
    assert "has the mode 0755" in found["message"]
    assert found["advice"] == f"chmod 0700 {world.runtime_dir}"


def test_mode_of_the_state(world: bench.World, session: bench.Session) -> None:
    """State that others could have written into is a problem, as every call refuses it."""
    session.run(["mkdir", "-m", "0755", world.state_dir], check=True)

    found = ask(session)

    for name in ("runtime directory", "state"):
        assert found[name]["result"] == "problem"
        assert "its mode is 0755, not 0700" in found[name]["message"]
    assert found["host's network"]["result"] == "skipped"


def test_state_that_cannot_be_reached(world: bench.World) -> None:
    """State in a directory that is closed to the user is a problem, and no bug."""
    closed = world.path("/opt/closed")  # /root may be open, or be hidden
    closed.mkdir(mode=0o700)
    try:
        found = ask(world, "--state-dir", "/opt/closed/state")
    finally:
        closed.rmdir()

    for name in ("runtime directory", "state"):
        assert found[name]["result"] == "problem"
        assert "Permission denied: '/opt/closed/state'" in found[name]["message"]
    assert found["host's network"]["result"] == "skipped"


@pytest.mark.usefixtures("log_in")
def test_state_on_disk(world: bench.World) -> None:
    """State that outlives a boot is a warning."""
    disk = f"""
        mount -t tmpfs tmpfs /mnt
        mkdir /mnt/lower /mnt/upper /mnt/work
        chmod 0700 /mnt/upper
        chown {world.uid}:{world.uid} /mnt/upper
        options=lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work
        mount -t overlay -o $options overlay {world.runtime_dir}
    """

    found = ask_in(world, disk)["runtime directory"]

    assert found["result"] == "warning"
    assert found["message"].startswith(f"{world.runtime_dir} is on overlay: ")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("size=64k", "/mnt has room for only 64 KiB"),
        ("nr_inodes=20", "/mnt has room for only 19 files"),
        ("size=64k,nr_inodes=20", "/mnt has room for only 64 KiB and 19 files"),
    ],
)
def test_no_room(world: bench.World, option: str, message: str) -> None:
    """A file system that is nearly full is a problem, of bytes or of files."""
    mounted = f"mount -t tmpfs -o mode=1777,{option} tmpfs /mnt"

    found = ask_in(world, mounted, "--state-dir", "/mnt/state")["runtime directory"]

    assert (found["result"], found["message"]) == ("problem", message)
    assert found["advice"] == "make room there"


def test_state_above_a_hidden_mount(world: bench.World) -> None:
    """A mount that another one hides says nothing of where state is."""
    hidden = """
        mount -t tmpfs tmpfs /mnt
        mkdir /mnt/place
        mount -t proc proc /mnt/place
        mount -t tmpfs -o mode=1777 tmpfs /mnt
    """

    found = ask_in(world, hidden, "--state-dir", "/mnt/place/state")["runtime directory"]

    assert (found["result"], found["message"]) == ("ok", "/mnt/place/state, on tmpfs")


def test_state_elsewhere(world: bench.World, session: bench.Session) -> None:
    """With --state-dir that is where state is looked for, whatever the environment says."""
    other = f"{world.env['HOME']}/state"

    found = results(
        session.run([PLUGIN, "doctor", "--json", "--state-dir", other], env={"PATH": bench.PATH})
    )

    assert found["runtime directory"]["message"] == f"{other}, on tmpfs"


@pytest.fixture
def systemd(world: bench.World) -> Iterator[None]:
    """Make it look as if systemd were running."""
    world.path("/run/systemd/system").mkdir(parents=True)
    yield
    shutil.rmtree(world.path("/run/systemd"))


def test_no_systemd(world: bench.World) -> None:
    """Where systemd does not run there is nothing to look at."""
    assert ask(world)["systemd session"]["result"] == "skipped"


@pytest.mark.usefixtures("log_in", "systemd", "session")
def test_systemd_session(world: bench.World) -> None:
    """A session that lingers is well; one that does not, or none, is a warning."""
    none = ask(world)["systemd session"]
    private = world.path(f"{world.runtime_dir}/systemd/private")
    private.parent.mkdir()
    private.touch()
    brief = ask(world)["systemd session"]
    linger = world.path("/var/lib/systemd/linger/shim")
    linger.parent.mkdir(parents=True)
    linger.touch()
    lasting = ask(world)["systemd session"]

    assert none["result"] == brief["result"] == "warning"
    assert "shim has none" in none["message"]
    assert "the last log-out of shim removes the runtime directory" in brief["message"]
    assert "loginctl enable-linger shim" in none["advice"]
    assert brief["advice"] == "loginctl enable-linger shim (as root)"
    assert lasting["result"] == "ok"
    assert ask(world.root)["systemd session"]["result"] == "skipped"


@pytest.fixture
def runtime(session: bench.Session) -> Runtime:
    """A runtime with a bridge and pasta."""
    return Runtime(session, delegate=bridge(), uplink="pasta")


@pytest.fixture
def container(session: bench.Session, runtime: Runtime) -> Iterator[bench.Container]:
    """A container that is attached."""
    with session.container() as container:
        runtime.add("c", container)
        yield container


def directory(world: bench.World) -> Path:
    """Give the directory of the default netns, as the bench knows it."""
    return world.path(f"{world.state_dir}/default")


def reference(world: bench.World) -> Path:
    """Give the only reference."""
    (path,) = (directory(world) / "refs").iterdir()
    return path


def picture(world: bench.World) -> dict[str, bytes | None]:
    """Read all that is in the state but locks, to see that nothing of it is changed."""
    base = world.path(world.state_dir)
    return {
        str(path.relative_to(base)): path.read_bytes() if path.is_file() else None
        for path in base.rglob("*")
        if path.name not in ("netns", "lock")
    }


def amiss(world: bench.World, place: bench.Place) -> list[str]:
    """Ask about the state, which is not well; give what is said."""
    before = picture(world)

    found = ask(place)["state"]

    assert picture(world) == before
    assert found["result"] == "warning"
    assert "netns-shim gc" in found["advice"]
    assert f" in {world.state_dir} to repair" in found["message"]
    details: list[str] = found["details"]
    return details


@pytest.mark.usefixtures("container")
def test_all_is_well(world: bench.World, session: bench.Session) -> None:
    """What is up and well is named; from outside of the session less is seen of it."""
    inside, outside = ask(session), ask(world)

    assert inside["state"]["message"] == "default: up, and nothing is left over"
    assert inside["host's network"]["result"] == "ok"
    assert outside["state"]["result"] == "ok"
    assert outside["state"]["message"] == (
        "default: up, but what is attached cannot be seen from here"
    )
    assert "podman unshare" in outside["state"]["advice"]


def test_a_user_without_capabilities(world: bench.World) -> None:
    """What calls of a bare user have attached is seen without any detour, as `status` sees it."""
    runtime = Runtime(world, delegate=bridge())
    with world.unshared() as own, own.container() as container:
        runtime.add("c", container)
        well = ask(world)
        container.close()
        assert until(lambda: ask(world)["state"]["result"] == "warning")
        gone = ask(world)["state"]
        runtime.delete("c", container)

    assert well["state"]["message"] == "default: up, and nothing is left over"
    assert well["uplinks"]["result"] == "ok"
    assert not [found for found in well.values() if "unshare" in found["advice"]]
    assert gone["details"] == ["default: rootless c eth0: its container is gone"]
    assert until(lambda: world.leftovers() == [])


def test_nothing_is_up(session: bench.Session) -> None:
    """Where nothing is up, nothing is wrong with it."""
    found = ask(session)

    assert found["state"]["message"] == "no shared network namespace is up"
    assert found["host's network"]["result"] == "skipped"


@pytest.mark.usefixtures("container")
def test_dead_uplink(world: bench.World, session: bench.Session, runtime: Runtime) -> None:
    """An uplink that has ended is found, from inside and from outside of the session."""
    kill_for_good(runtime.status()[0]["uplink"])

    for place in (session, world):
        assert amiss(world, place) == ["default: has lost its uplink pasta"]


@pytest.mark.usefixtures("container")
def test_lost_record(world: bench.World, session: bench.Session) -> None:
    """A record that cannot be read, and a part that is missing, are found."""
    (directory(world) / "uplink.json").write_text("{")
    (directory(world) / "resolv.conf").unlink()

    assert amiss(world, session) == [
        "default: the record of its uplink cannot be read",
        "default: resolv.conf is missing",
    ]


@pytest.mark.usefixtures("container")
def test_another_boot(world: bench.World, session: bench.Session) -> None:
    """What an earlier boot has left is told as such, with those that were attached."""
    record = directory(world) / "uplink.json"
    text = json.loads(record.read_text())
    record.write_text(json.dumps({**text, "bootID": "another"}))

    found = amiss(world, session)

    assert "default: is of an earlier boot" in found
    assert "default: rootless c eth0: its container is gone" in found


@pytest.mark.usefixtures("container")
@pytest.mark.parametrize("phase", ["adding", "deleting"])
def test_cut_off(world: bench.World, session: bench.Session, phase: str) -> None:
    """An attachment whose call was cut off is found, and one that is worked on is left alone."""
    path = reference(world)
    with path.open("a") as file:
        file.write(json.dumps({"phase": phase}) + "\n")

    assert amiss(world, session) == [f"default: {path.name} was cut off ({phase})"]
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert ask(session)["state"]["result"] == "ok"


def test_container_that_is_gone(
    world: bench.World, session: bench.Session, container: bench.Container
) -> None:
    """An attachment without a container is found from inside of the session."""
    container.close()

    assert amiss(world, session) == ["default: rootless c eth0: its container is gone"]
    assert ask(world)["state"]["result"] == "ok"


@pytest.mark.usefixtures("container")
def test_ghost_and_address(world: bench.World, session: bench.Session) -> None:
    """What a killed call has left in files is found: a reference, an address."""
    (directory(world) / "refs" / ":gc:1").touch()
    (directory(world) / "var/lib/cni/networks/rootless/10.89.0.9").write_text("dead\r\neth0")
    for path in directory(world).rglob("*"):
        os.lchown(path, world.uid, world.uid)

    assert sorted(amiss(world, session)) == [
        "default: :gc:1: left by a killed call",
        "default: rootless 10.89.0.9 dead eth0: an address without a container",
    ]


@pytest.mark.usefixtures("container")
def test_unfinished(world: bench.World, session: bench.Session) -> None:
    """A namespace whose making was cut off is found, and one that is being made is not."""
    session.run(["mkdir", "-m", "0700", f"{world.state_dir}/half"], check=True)

    assert amiss(world, session) == ["half: its making or removal was cut off"]
    lock = world.path(f"{world.state_dir}/.lock-half")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert ask(session)["state"]["result"] == "ok"


@pytest.mark.usefixtures("container")
def test_odd_one(world: bench.World, session: bench.Session) -> None:
    """A directory that others can write into is told, and hides no other."""
    session.run(["mkdir", "-m", "0777", f"{world.state_dir}/odd"], check=True)
    session.run(["chmod", "0777", f"{world.state_dir}/odd"], check=True)

    found = ask(session)["state"]

    assert found["result"] == "warning"
    assert any("odd: its mode is 0777" in line for line in found["details"])


@pytest.mark.usefixtures("container")
def test_elsewhere(world: bench.World) -> None:
    """A second session is told that the namespace is pinned in the first one."""
    with world.session() as other:
        (line,) = amiss(world, other)

    assert "is pinned in another mount namespace" in line


def test_host_has_changed(world: bench.World, session: bench.Session) -> None:
    """Other routes than the uplink has copied are told, with the command."""
    uplink = {"driver": "pasta", "options": ["-i", "eth0"]}
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    with session.container() as container:
        runtime.add("c", container)
        world.root.run(["ip", "route", "add", "0.0.0.0/1", "via", bench.PAGE], check=True)
        try:
            routes = ask(world)["host's network"]
        finally:
            world.root.run(["ip", "route", "del", "0.0.0.0/1"], check=True)
        runtime.delete("c", container)

    assert routes["result"] == "warning"
    assert "default: other routes" in routes["message"]
    assert routes["advice"] == "netns-shim refresh --netns default"


def test_state_that_is_elsewhere(world: bench.World) -> None:
    """What is attached in /tmp keeps state there after a log-in, and that is no problem."""
    base = f"/tmp/netns-shim-{world.uid}"
    world.run(["mkdir", "-m", "0700", base, f"{base}/default", f"{base}/default/refs"], check=True)

    with kinder.log_in(world):
        found = ask(world)["runtime directory"]
    world.reset()

    assert found["result"] == "ok"
    note = f"; {world.runtime_dir} is used once nothing is attached there"
    assert found["message"] == f"{base}, on tmpfs{note}"


def test_no_place_for_state(world: bench.World) -> None:
    """Where others could replace the state, that is a problem, with a remedy."""
    world.root.run(["chmod", "0777", "/tmp"], check=True)
    try:
        found = ask(world)["runtime directory"]
        version = world.run([PLUGIN, "version", "--json"], check=True)
    finally:
        world.root.run(["chmod", "1777", "/tmp"], check=True)

    assert found["result"] == "problem"
    assert "/tmp has the mode 0777, so others can replace what is in it" in found["message"]
    assert "there is no place" in json.loads(version.stdout)["stateDir"]

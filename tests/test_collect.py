# SPDX-License-Identifier: Apache-2.0
"""The verb GC: a runtime says which attachments are valid, and the others are detached."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bench
import fakes
import pytest
from garbage import MISSPELLED, VALID, A, B, C, gc, leases, only, state
from gate import CONF, Gate
from runtime import Runtime, bridge, reaches

from netns_shim import errors
from netns_shim.gc import collect


@pytest.fixture
def runtime(session: bench.Session) -> Runtime:
    """A runtime with a bridge and no uplink, which knows GC."""
    return Runtime(session, delegate=bridge(), uplink="none", cniVersion="1.1.0")


def test_a_damaged_reference_does_not_stop_gc(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """GC, the verb, undoes such an attachment as its network is now: its runtime knows of none."""
    with session.container() as container, session.container() as other:
        runtime.add("c", container)
        runtime.add("other", other)
        path = state(world, "refs", "rootless:c:eth0:bridge")
        path.write_text("x")
        os.utime(path, (0, 0))

        valid = [{**A, "containerID": "other"}]
        runtime.succeed("GC", conf={"cni.dev/valid-attachments": valid})

        assert runtime.attached() == ["other"]
        assert list(leases(world).values()) == ["other\r\neth0"]
        runtime.delete("other", other)
    assert world.leftovers() == []


@pytest.mark.parametrize(
    ("keys", "valid"),
    [
        ({}, None),
        ({VALID: [A, C]}, "ac"),
        ({MISSPELLED: [B]}, "b"),
        ({VALID: [A], MISSPELLED: [A]}, "a"),
        ({VALID: [A], MISSPELLED: [C]}, "ac"),
        ({VALID: None, MISSPELLED: [C]}, "c"),
        ({VALID: [B], MISSPELLED: None}, "b"),
        ({VALID: [], MISSPELLED: []}, ""),
        ({VALID: None}, ""),
        ({MISSPELLED: None}, ""),
        ({VALID: [B, {**B, "more": 1}]}, "b"),
    ],
    ids=str,
)
def test_forms_of_valid_attachments(keys: dict[str, Any], valid: str | None) -> None:
    """A list names who stays, in either spelling; null is Go's empty list; no key says nothing."""
    expected = None if valid is None else {(name, "eth0") for name in valid}

    assert collect.valid_attachments(keys) == expected


@pytest.mark.parametrize("key", [VALID, MISSPELLED])
@pytest.mark.parametrize(
    "value",
    [
        *({}, "", 0, False, "a", 7, [None], ["a"], [[]], [{}], [{"containerID": "a"}], [A, 7]),
        *([{**A, "ifname": 0}], [{**A, "containerID": ["a"]}]),
    ],
    ids=str,
)
def test_what_is_no_list_of_attachments(key: str, value: object) -> None:
    """What is malformed says nothing of who is valid: it is an error, even beside a good list."""
    with pytest.raises(errors.ShimError) as caught:
        collect.valid_attachments({VALID: [A], MISSPELLED: [A], key: value})

    assert caught.value.code == errors.INVALID_NETWORK_CONFIG
    assert caught.value.message.startswith(f"$['{key}']: must be a list")


def test_gc_where_nothing_is_up(world: bench.World, runtime: Runtime) -> None:
    """GC of nothing succeeds and makes nothing; what is malformed is an error there too."""
    runtime.succeed("GC", conf={VALID: [A]})
    error = runtime.fail("GC", conf={VALID: {}})

    assert error["code"] == errors.INVALID_NETWORK_CONFIG
    assert not world.path(world.state_dir).exists()


@pytest.mark.parametrize(
    ("keys", "left"),
    [
        ({}, "abc"),
        ({VALID: [A], MISSPELLED: [C]}, "ac"),
        ({VALID: None, MISSPELLED: None}, ""),
        ({VALID: [{**A, "ifname": "eth1"}, B]}, "b"),
        ({VALID: False}, "abc"),
    ],
    ids=str,
)
def test_gc(
    world: bench.World, session: bench.Session, runtime: Runtime, keys: dict[str, Any], left: str
) -> None:
    """GC detaches containers that a valid list does not name; a malformed list detaches none."""
    with ExitStack() as stack:
        containers = {name: stack.enter_context(session.container()) for name in "abc"}
        for name, container in containers.items():
            runtime.add(name, container)

        status = runtime.call("GC", conf=keys).returncode

        assert status == (1 if keys == {VALID: False} else 0)
        assert "".join(runtime.attached()) == left
        for name, container in containers.items():
            assert ("eth0" in container.run(["ip", "link"]).stdout) is (name in left)
            runtime.delete(name, container)
    assert world.leftovers() == []


def test_plugins_that_have_moved(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """GC finds plugins where its caller has them, if they are not where the ADD found them."""
    with session.container() as container:
        runtime.add("c", container)
        path = state(world, "refs", "rootless:c:eth0:bridge")
        first, *others = path.read_text().splitlines(keepends=True)
        moved = {**json.loads(first), "path": "/nowhere"}
        path.write_text("".join([json.dumps(moved) + "\n", *others]))
        os.utime(path, (0, 0))

        runtime.succeed("GC", conf={VALID: []})

        assert "eth0" not in container.run(["ip", "link"], check=True).stdout
    assert world.leftovers() == []


def test_gc_in_place(world: bench.World, session: bench.Session, runtime: Runtime) -> None:
    """In place, GC detaches what was attached in the netns of its caller, and no other's."""
    with ExitStack() as stack:
        outer, elsewhere, container, other = (
            stack.enter_context(session.container()) for _ in range(4)
        )
        for place, name in ((outer, "c"), (elsewhere, "other")):
            runtime.place = place
            runtime.add(name, container if name == "c" else other)
        refs = world.path(f"{world.state_dir}/.in-place/refs")
        for path in refs.iterdir():
            os.utime(path, (0, 0))
        runtime.place = outer

        runtime.succeed("GC", conf={VALID: []})

        assert [path.name for path in refs.iterdir()] == ["rootless:other:eth0:bridge"]
        assert "eth0" not in container.run(["ip", "link"]).stdout
        assert "CNI-" not in outer.run(["/usr/sbin/iptables-save"]).stdout
        assert reaches(other, "10.89.0.1")
        runtime.place = elsewhere
        runtime.delete("other", other)
    session.run(["rm", "-r", f"{world.state_dir}/.in-place"], check=True)


def test_gc_releases_leases_of_nobody(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """GC releases the leases of its network that neither we nor the runtime can explain."""
    networks = f"{world.state_dir}/default/var/lib/cni/networks"
    script = (
        'cd "$0"; mkdir other; : >rootless/10.89.0.78; printf "ghost\\r\\neth0" >other/10.9.0.77;'
        'printf "ghost\\r\\neth0" >rootless/10.89.0.77; printf "b\\r\\neth0" >rootless/10.89.0.79'
    )
    with session.container() as container:
        runtime.add("a", container)
        session.run(["sh", "-euc", script, networks], check=True)

        runtime.succeed("GC", conf={VALID: [A, B]})

        assert list(leases(world)) == ["10.89.0.2", "10.89.0.79"]
        assert list(leases(world, "other")) == ["10.9.0.77"]
        assert reaches(container, "10.89.0.1")
        runtime.succeed("GC")
        assert list(leases(world)) == ["10.89.0.2"]
        runtime.delete("a", container)
    assert world.leftovers() == []


def test_gc_reports_all_failures(
    world: bench.World, session: bench.Session, runtime: Runtime, plugins: Path
) -> None:
    """Two DELs that fail are in one answer, and what can be deleted is."""
    path = f"{world.plugin_dir}:{world.env['HOME']}/plugins"
    fakes.strict_plugin(plugins, "failing", failing=["DEL"])
    failing = Runtime(
        session, path=path, delegate={"type": "failing"}, uplink="none", cniVersion="1.1.0"
    )
    with session.container() as container:
        failing.add("a", container)
        runtime.add("b", container)
        failing.add("c", container, CNI_IFNAME="eth1")

        error = failing.fail("GC", conf={VALID: []})

        assert error["code"] == errors.INTERNAL
        assert error["msg"] == "garbage collection: 2 failures"
        assert error["details"].splitlines() == [
            "rootless:a:eth0:failing: failing fails DEL",
            "rootless:c:eth1:failing: failing fails DEL",
        ]
        assert runtime.attached() == ["a", "c"]
        fakes.strict_plugin(plugins, "failing")
        failing.succeed("GC", conf={VALID: []})
    assert world.leftovers() == []


@pytest.mark.parametrize("by", ["GC", "command"])
def test_gc_beside_an_add(world: bench.World, session: bench.Session, gate: Gate, by: str) -> None:
    """An ADD of the same network that is going on keeps its reference and its lease."""
    chain = [bridge(), CONF]
    runtime = Runtime(session, path=gate.path, plugins=chain, uplink="none", cniVersion="1.1.0")
    gate.shut("ADD")
    with session.container() as container, ThreadPoolExecutor() as pool:
        adding = pool.submit(runtime.add, "c", container)
        try:
            gate.wait()
            if by == "GC":
                runtime.succeed("GC", conf={VALID: []})
            else:
                assert set(only(gc(session))) == {"live"}
            assert list(leases(world)) == ["10.89.0.2"]
            assert runtime.attached() == ["c"]
        finally:
            gate.open()
        assert adding.result()["ips"][0]["address"] == "10.89.0.2/24"
        assert leases(world) == {"10.89.0.2": "c\r\neth0"}
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_gc_knows_nothing_of_what_came_later(
    world: bench.World, session: bench.Session, runtime: Runtime, gate: Gate
) -> None:
    """An ADD that ends between the start of GC and its look at the references is left alone."""
    collecting = {"delegate": CONF, "uplink": "none", "cniVersion": "1.1.0"}
    gate.shut("VERSION")
    with (
        session.container() as old,
        session.container() as new,
        ThreadPoolExecutor() as pool,
    ):
        runtime.add("old", old)
        collector = Runtime(session, path=gate.path, **collecting)
        collection = pool.submit(collector.succeed, "GC", conf={VALID: []})
        try:
            gate.wait()  # it asks the plugin for its version, before it looks at anything
            runtime.add("new", new)
        finally:
            gate.open()
        collection.result()

        assert runtime.attached() == ["new"]
        assert leases(world) == {"10.89.0.3": "new\r\neth0"}
        assert reaches(new, "10.89.0.1")
        runtime.delete("new", new)
    assert world.leftovers() == []

# SPDX-License-Identifier: Apache-2.0
"""What is attached in place, in a caller's own netns: seen from outside, and found when gone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench
import pytest
from looks import LIVE, NOW, attachment, facts, make, plain
from runtime import PLUGIN, Runtime, bridge

from netns_shim.cli import picture, tree
from netns_shim.gc.callers import Callers
from netns_shim.netavark import configs
from netns_shim.state import State


class Outer:
    """A caller with a netns of its own, in which plugins work in place."""

    def __init__(self, world: bench.World, session: bench.Session) -> None:
        self.world = world
        self.session = session
        self.place = session.container()
        self.runtime = Runtime(session, delegate=bridge())
        self.runtime.place = self.place

    @property
    def leases(self) -> list[str]:
        """The addresses that host-local has given."""
        directory = self.world.path(f"{self.world.state_dir}/.in-place/var/lib/cni/networks")
        return sorted(path.name for path in directory.glob("rootless/10.*"))

    @property
    def references(self) -> list[str]:
        """The containers that have a reference."""
        directory = self.world.path(f"{self.world.state_dir}/.in-place/refs")
        return sorted(name.split(":")[1] for name in os.listdir(directory))

    def links(self) -> str:
        """The veths of the plugins."""
        return self.place.run(["ip", "-brief", "link", "show", "type", "veth"], check=True).stdout


@pytest.fixture
def outer(world: bench.World, session: bench.Session) -> Iterator[Outer]:
    """A caller whose netns is up."""
    made = Outer(world, session)
    with made.place:
        yield made


def said(place: bench.Place, *words: str) -> str:
    """Give what a command of ours prints, and what it says on stderr."""
    done = place.run([PLUGIN, *words])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("who", ["world", "session", "caller"])
def test_gc_of_a_container_that_is_gone(outer: Outer, who: str) -> None:
    """`gc` detaches it where its plugins have worked, from there and from outside of it."""
    place = {"world": outer.world, "session": outer.session, "caller": outer.place}[who]
    one, two = outer.session.container(), outer.session.container()
    with one, two:
        outer.runtime.add("one", one)
        outer.runtime.add("two", two)
        assert outer.leases == ["10.89.0.2", "10.89.0.3"]
        one.close()

        assert said(place, "gc", "--dry-run") == "in place: would detach rootless one eth0\n"
        assert outer.references == ["one", "two"]
        assert said(place, "gc") == "in place: detached rootless one eth0\n"

        assert (outer.references, outer.leases) == (["two"], ["10.89.0.3"])
        rules = outer.place.run(["/usr/sbin/iptables", "-t", "nat", "-S"]).stdout
        assert "10.89.0.3/32" in rules
        assert said(place, "gc").startswith("nothing to do")
        outer.runtime.delete("two", two)


def test_gc_when_the_callers_netns_is_gone(outer: Outer) -> None:
    """With the caller's netns everything in it is gone; its files and addresses are given up."""
    with outer.session.container() as one:
        outer.runtime.add("one", one)
    outer.place.close()

    assert said(outer.world, "gc") == (
        "in place: detached rootless one eth0\nin place: released rootless 10.89.0.2 one eth0\n"
    )
    assert (outer.references, outer.leases) == ([], [])


def test_gc_of_a_container_without_a_process(outer: Outer) -> None:
    """A runtime that is killed leaves a netns that is only mounted: `gc --idle` detaches it."""
    with outer.session.container(pinned="/run/netns/idle") as one:
        outer.runtime.add("one", one)
        bench.Place.close(one)
        listed = json.loads(said(outer.place, "status", "--json"))["inPlace"]
        assert listed[0]["references"][0]["sign"] == (
            "its network namespace is /run/netns/idle, without a process in it"
        )
        assert said(outer.session, "gc").startswith("nothing to do")
        assert outer.leases == ["10.89.0.2"]

        assert said(outer.session, "gc", "--idle") == "in place: detached rootless one eth0\n"

    assert (outer.references, outer.leases) == ([], [])


def test_a_sibling_judges_nothing(outer: Outer) -> None:
    """From a user namespace that has no power over the caller's, nothing is taken for gone."""
    with outer.session.container() as one, outer.world.session() as sibling:
        outer.runtime.add("one", one)

        text = said(sibling, "gc")

        assert text.startswith("in place: skipped rootless one eth0: it is not known whether")
        assert outer.references == ["one"]
        assert json.loads(said(sibling, "status", "--json"))["inPlace"][0]["alive"] is not False
        outer.runtime.delete("one", one)


def test_what_is_shown(outer: Outer) -> None:
    """`status`, `show` and `graph` have what is attached in place, wherever they are called."""
    with outer.session.container() as one:
        outer.runtime.add("one", one)
        inode = os.stat(outer.place.netns).st_ino

        for place, word in ((outer.world, ""), (outer.session, ""), (outer.place, "  here")):
            lines = said(place, "status").splitlines()
            assert lines[0] == f"in place  net:[{inode}]{word}"
            assert lines[1] == "└── bridge cni0"
            assert lines[2].startswith("    └── ● one  eth0  10.89.0.2/24  rootless")
            assert "shared netns  none: in place\n" in said(place, "show", "one")
            assert f'subgraph g1["in place net:#91;{inode}' in said(
                place, "graph", "--format", "mermaid"
            )
        outer.runtime.delete("one", one)
        assert "nothing" in said(outer.world, "gc")


def test_looks() -> None:
    """A netns of a caller is drawn with what is known of it."""
    there = {
        "inode": 7,
        "here": False,
        "alive": False,
        "names": {"pid": None, "alive": False, "guardian": None, "addresses": ["10.0.0.1"]},
        "references": [attachment("c", "10.0.0.2/24", alive=False, sign="")],
    }
    unknown: dict[str, Any] = {"inode": None, "here": False, "alive": None}
    unknown |= {"references": [], "names": None}
    found = facts(in_place=[there, unknown])

    lines = plain(tree.draw(found, NOW))

    assert lines[0] == "in place  net:[7]  gone"
    assert lines[1].startswith("├── ✗ names  10.0.0.1  gone")
    assert lines[5] == "└── ! 1 container is gone: netns-shim gc detaches what is left"
    assert lines[6] == "in place  unknown  not seen"
    drawn = picture.Picture(found)
    assert drawn.groups == ["host", "in place net:[7]", "in place"]


def test_what_netavark_leaves(tmp_path: Path) -> None:
    """The directory of netavark for a netns of a caller goes with the last attachment there."""
    tmp_path.chmod(0o700)
    here = Callers().here
    place = [*here, 1, 1]
    directory = make(tmp_path, ".in-place", **{"net:c:eth0:bridge": {**LIVE, "place": place}})
    for name in (f"config-{here[1]}", "config-8"):
        (directory / "netavark" / name / "aardvark-dns").mkdir(parents=True)
    where = State(str(tmp_path), ".in-place")

    configs.remove_unused(where)

    assert sorted(os.listdir(directory / "netavark")) == [f"config-{here[1]}", "lock"]
    (directory / "refs" / "net:old:eth0:bridge").write_text(json.dumps(LIVE) + "\n")
    (directory / "refs" / "net:c:eth0:bridge").unlink()
    configs.remove_unused(where)
    assert (directory / "netavark" / f"config-{here[1]}").exists()  # it may be that of `old`
    (directory / "refs" / "net:old:eth0:bridge").unlink()
    configs.remove_unused(where)
    assert os.listdir(directory / "netavark") == ["lock"]


def record(**keys: Any) -> Any:
    """Make the record of an attachment in place."""
    from netns_shim.attachment import AttachmentRecord, ReferenceName

    return AttachmentRecord(ReferenceName("net:c:eth0:bridge"), {**LIVE, **keys})


def test_only_what_can_be_seen_is_gone() -> None:
    """A netns that is not seen is gone only if its caller had no more namespaces than we have."""
    callers = Callers()
    pids, users = (os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("pid", "user"))
    device, inode = callers.here

    assert callers.is_there(record(place=[device, inode, pids, users])) is True
    assert callers.is_there(record(place=[device, 5, pids, users])) is False
    assert callers.is_there(record(place=[device, 5, 6, users])) is None
    assert callers.is_there(record(place=[device, 5])) is None
    assert callers.is_there(record()) is None
    assert callers.is_there(record(bootID="another")) is False

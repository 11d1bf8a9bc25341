# SPDX-License-Identifier: Apache-2.0
"""A network that was edited, renamed or moved: what ADD was given is undone."""

from __future__ import annotations

from typing import Any

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge, ips, reaches, until

from netns_shim import errors, recall
from netns_shim.attachment import AttachmentRecord, ReferenceName

NAME = ReferenceName.of("net", "c", "eth0", ["bridge", "portmap"])
WHOLE = {
    "network": "net",
    "containerID": "c",
    "ifname": "eth0",
    "netns": "/run/netns/c",
    "args": "",
    "path": "/opt/cni/bin",
    "conf": {"cniVersion": "1.0.0", "prevResult": {}, "more": 1},
}


def test_request() -> None:
    """The DEL of an attachment is what its ADD was given, without what only the ADD had."""
    request = recall.request_of(AttachmentRecord(NAME, {**WHOLE, "phase": "live"}), {"A": "b"})

    assert request is not None
    assert (request.verb, request.network, request.container_id) == ("DEL", "net", "c")
    assert request.conf == {"cniVersion": "1.0.0", "more": 1}
    assert request.environ == {
        "A": "b",
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": "/run/netns/c",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "",
        "CNI_PATH": "/opt/cni/bin",
    }


@pytest.mark.parametrize(
    "odd",
    [
        {"conf": None},
        {"conf": {"cniVersion": "7"}},
        {"network": "../up"},
        {"containerID": "a:b"},
        {"ifname": "a/b"},
        {"path": "a\0b"},
        {"args": None},
    ],
)
def test_request_of_a_damaged_record(odd: dict[str, Any]) -> None:
    """What cannot be relied on is not acted on."""
    assert recall.request_of(AttachmentRecord(NAME, {**WHOLE, **odd}), {}) is None


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"netns": "a"}, {}, ['$.netns was "a" and is missing']),
        ({"x": {"y": 1}}, {"x": {"y": 2}}, ["$.x.y was 1 and is 2"]),
        ({"x": [{"y": 1}]}, {"x": [{"y": 2}]}, ["$.x[0].y was 1 and is 2"]),
        ({"x": [1]}, {"x": [1, 2]}, ["$.x was a list of 1 and is a list of 2"]),
        ({"\n": "\x1b[2J"}, {"\n": 1}, [r'$.\n was "\u001b[2J" and is 1']),
        ({"x": "y" * 99}, {"x": 1}, [f'$.x was "{"y" * 38}… and is 1']),
    ],
)
def test_changes(before: dict[str, Any], now: dict[str, Any], expected: list[str]) -> None:
    """What has changed is named by paths, with values that are short and move no cursor."""
    assert recall.changes(before, now) == expected


TUNING = {"type": "tuning", "mtu": 1400}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
FIREWALL = {"type": "firewall", "backend": "iptables"}
# What a network was at the ADD, and what of it was edited by the DEL.
EDITS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a plugin more": ({"plugins": [bridge()]}, {"plugins": [bridge(), TUNING]}),
    "a plugin less": ({"plugins": [bridge(), FIREWALL]}, {"plugins": [bridge()]}),
    "a plugin that is not installed": ({}, {"plugins": [bridge(), {"type": "missing"}]}),
    "portmap": ({"plugins": [bridge()]}, {"plugins": [bridge(), PORTMAP]}),
    "another order": (
        {"plugins": [bridge(), TUNING, FIREWALL]},
        {"plugins": [bridge(), FIREWALL]},
    ),
    "another plugin": ({}, {"delegate": {"type": "ptp", "ipam": bridge()["ipam"]}}),
    "another name of the bridge": ({}, {"delegate": bridge(name="cni1")}),
    "another subnet": ({}, {"delegate": bridge("10.90.0.0/24")}),
    "another netns": ({}, {"netns": "other"}),
    "another stateDir": ({}, {"stateDir": "/home/shim/state"}),
    "in place": ({"enter": "always"}, {"enter": "never"}),
    "another name": ({}, {"name": "renamed"}),
    "another version": ({}, {"cniVersion": "0.4.0"}),
    "no longer valid": ({}, {"timeout": "soon"}),
    "all at once": (
        {"plugins": [bridge(), TUNING]},
        {"plugins": [bridge("10.90.0.0/24"), FIREWALL], "netns": "other", "mtu": 1300},
    ),
}


class Edited:
    """A runtime that sends a network as it is now."""

    def __init__(self, session: bench.Place, edit: str) -> None:
        before, now = EDITS[edit]
        first = before if "plugins" in before else {"delegate": bridge(), **before}
        kept = {k: v for k, v in first.items() if "plugins" not in now or k != "delegate"}
        self.before = Runtime(session, uplink="none", **first)
        self.now = Runtime(session, **{"uplink": "none", **kept, **now})


@pytest.fixture(params=EDITS)
def edited(request: pytest.FixtureRequest, session: bench.Session) -> Edited:
    """A network before and after each of the edits."""
    return Edited(session, request.param)


def attaches_nothing(runtime: Runtime) -> bool:
    """Tell whether an ADD to a network fails by itself."""
    return runtime.conf.get("timeout") == "soon" or "missing" in str(runtime.conf)


@pytest.mark.parametrize("has_result", [True, False])
def test_delete_undoes_what_was_added(
    world: bench.World, edited: Edited, *, has_result: bool
) -> None:
    """Whatever was edited meanwhile, nothing is left after the DEL, and the container is free."""
    with edited.before.place.container() as container:
        result = edited.before.add("c", container)

        conf = {"prevResult": result} if has_result else {}
        done = edited.now.call("DEL", "c", container.netns, conf=conf)

        assert (done.returncode, done.stdout) == (0, "")
        assert "the network has been edited since container 'c' was attached" in done.stderr
        assert "eth0" not in container.run(["ip", "link"], check=True).stdout
    assert world.leftovers() == []


def test_delete_beside_others(session: bench.Session) -> None:
    """What was edited is undone with the lease and the rules of its ADD, and no other's."""
    edited = Edited(session, "a plugin less")
    with session.container() as first, session.container() as second:
        edited.before.add("c", first)
        edited.before.add("other", second)
        assert rules(session, "10.89.0.2")

        edited.now.delete("c", first)

        assert rules(session, "10.89.0.2") == []
        assert rules(session, "10.89.0.3")
        assert reaches(second, "10.89.0.1")
        assert ips(edited.now.add("c", first)) == ["10.89.0.4"]
        edited.now.delete("c", first)
        edited.now.delete("other", second)
        assert edited.now.status() == []


def rules(place: bench.Place, address: str) -> list[str]:
    """List the rules in the shared netns that name an address."""
    done = place.run([PLUGIN, "run", "--", "iptables-save"], check=True)
    return [line for line in done.stdout.splitlines() if f"{address}/32" in line]


def test_second_add(world: bench.World, edited: Edited) -> None:
    """A second ADD is refused, whatever was edited, and changes nothing."""
    if attaches_nothing(edited.now):
        pytest.skip("this network attaches nothing")
    with edited.before.place.container() as container:
        edited.before.add("c", container)
        before = edited.before.status()

        error = edited.now.fail("ADD", "c", container.netns)

        assert error["code"] == errors.ALREADY_ATTACHED
        assert "'c' is already attached to network 'rootless' as 'eth0'" in error["msg"]
        assert edited.before.status() == before
        assert reaches(container, "10.89.0.1")
        edited.before.delete("c", container)
    assert world.leftovers() == []


def test_check(world: bench.World, edited: Edited) -> None:
    """CHECK looks at what was attached, and says what has been edited."""
    with edited.before.place.container() as container:
        conf = {"prevResult": edited.before.add("c", container)}

        done = edited.now.call("CHECK", "c", container.netns, conf=conf)

        assert (done.returncode, done.stdout) == (0, "")
        assert "CHECK goes by what it was: $." in done.stderr
        container.run(["ip", "link", "delete", "eth0"], check=True)
        edited.now.fail("CHECK", "c", container.netns, conf=conf)
        edited.now.delete("c", container)
    assert world.leftovers() == []


def test_add_after_the_container_died(world: bench.World, edited: Edited) -> None:
    """A container that died comes again in the edited network; what it had is undone."""
    if attaches_nothing(edited.now) or edited.now.conf.get("enter") == "never":
        pytest.skip("this network attaches nothing")
    if edited.now.conf.get("delegate") == bridge("10.90.0.0/24"):
        pytest.skip("bridge refuses another subnet while there is a bridge")
    place = edited.before.place
    with place.container() as container:
        edited.before.add("c", container)
    with place.container() as container:
        edited.now.add("c", container)
        edited.now.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize("edit", ["another name", "another netns", "another stateDir"])
def test_user_without_capabilities(world: bench.World, edit: str) -> None:
    """It is the same for a user who is nobody, whose user namespace goes as well."""
    with world.unshared() as own, own.container() as container:
        edited = Edited(world, edit)
        edited.before.add("c", container)

        assert edited.now.fail("ADD", "c", container.netns)["code"] == errors.ALREADY_ATTACHED
        edited.now.delete("c", container)

        assert "eth0" not in container.run(["ip", "link"], check=True).stdout
    assert until(lambda: world.leftovers() == [])
    world.reset()


def test_another_network_is_not_a_renamed_one(session: bench.Session) -> None:
    """A DEL for a namespace that was never attached leaves what has the same names alone."""
    runtime = Runtime(session, uplink="none", delegate=bridge())
    with session.container() as container, session.container() as other:
        runtime.add("c", container)

        runtime.succeed("DEL", "c", other.netns, conf={"name": "second"})
        runtime.succeed("DEL", "c", "", conf={"name": "second"})

        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)

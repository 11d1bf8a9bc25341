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
WHOLE: dict[str, Any] = {
    "network": "net",
    "containerID": "c",
    "ifname": "eth0",
    "netns": "/run/netns/c",
    "args": "",
    "path": "/opt/cni/bin",
    "conf": {
        "cniVersion": "1.0.0",
        "prevResult": {},
        "plugins": [{"type": "bridge"}, {"type": "portmap"}],
    },
}


def test_request() -> None:
    """The DEL of an attachment is what its ADD was given, without what only the ADD had."""
    request = recall.request_of(AttachmentRecord(NAME, {**WHOLE, "phase": "live"}), {"A": "b"})

    assert request is not None
    assert (request.verb, request.network, request.container_id) == ("DEL", "net", "c")
    assert request.conf == {"cniVersion": "1.0.0", "plugins": WHOLE["conf"]["plugins"]}
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
        {"network": "other"},
        {"containerID": "other"},
        {"ifname": "eth1"},
        *(
            {"conf": {"cniVersion": "1.0.0", **plugins}}
            for plugins in (
                {},
                {"plugins": 7},
                {"plugins": [7]},
                {"plugins": [{"type": "bridge"}]},
                {"plugins": [{"type": "bridge"}, {"type": ["portmap"]}]},
                {"plugins": [{"type": "bridge"}, {"type": "a:b"}]},
                {"delegate": {"type": "../x"}},
                {"plugins": [{"type": "bridge"}, {"type": "portmap"}], "netns": "../x"},
            )
        ),
    ],
)
def test_request_of_a_damaged_record(odd: dict[str, Any]) -> None:
    """What cannot be relied on is not acted on."""
    assert recall.request_of(AttachmentRecord(NAME, {**WHOLE, **odd}), {}) is None


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ({"parallel": False, "timeout": 9}, {"parallel": False, "timeout": 9}),
        ({}, {}),
        ({"timeout": "soon"}, {"timeout": 5}),
    ],
)
def test_how_a_call_waits(now: dict[str, Any], expected: dict[str, Any]) -> None:
    """A call waits as its network says by now, but as it said at the ADD if that is not valid."""
    network = {"cniVersion": "1.0.0", "name": "net", "type": "netns-shim", "delegate": bridge()}
    name = ReferenceName.of("net", "c", "eth0", ["bridge"])
    record = AttachmentRecord(name, {**WHOLE, "conf": {**network, "timeout": 5}})
    request = recall.request_of(record, {})
    assert request is not None
    request.conf = {**network, **now}

    assert recall.call_of(request, record).conf == {**network, **expected}


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
    "a netns that is none": ({}, {"netns": "../x"}),
    "a stateDir that is none": ({}, {"stateDir": "relative"}),
    "an enter that is none": ({"enter": "always"}, {"enter": "soon"}),
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
    return any(odd in str(runtime.conf) for odd in ("soon", "missing", "../x", "relative"))


@pytest.mark.spread
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


@pytest.mark.parametrize("path", ["/nowhere", "/nowhere:/opt"])
def test_delete_with_another_path(world: bench.World, session: bench.Session, path: str) -> None:
    """Plugins are found where the ADD has found them, too."""
    runtime = Runtime(session, uplink="none", delegate=bridge())
    with session.container() as container:
        runtime.add("c", container)

        runtime.delete("c", container, CNI_PATH=path)

        assert "eth0" not in container.run(["ip", "link"], check=True).stdout
    assert world.leftovers() == []


def test_delete_of_what_is_not_valid(session: bench.Session) -> None:
    """Where nothing is attached, the error says what is wrong with the network."""
    runtime = Runtime(session, uplink="none", delegate=bridge(), netns="../x")
    with session.container() as container:
        for verb in ("DEL", "CHECK"):
            error = runtime.fail(verb, "c", container.netns)

            assert error["code"] == errors.INVALID_NETWORK_CONFIG
            assert "$.netns" in error["msg"]


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


@pytest.mark.spread
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


@pytest.mark.spread
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


@pytest.mark.spread
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


@pytest.mark.parametrize("edit", ["a plugin more", "another netns", "another name"])
def test_delete_of_what_0_1_0_attached(
    world: bench.World, session: bench.Session, edit: str
) -> None:
    """That release made no index; what it has attached is found all the same."""
    edited = Edited(session, edit)
    with session.container() as container:
        edited.before.add("c", container)
        session.run(["rm", f"{world.state_dir}/default/started/:c:eth0"], check=True)

        edited.now.delete("c", container)

        assert "eth0" not in container.run(["ip", "link"], check=True).stdout
    assert world.leftovers() == []


def test_another_network_is_not_a_renamed_one(session: bench.Session) -> None:
    """A DEL for a namespace that was never attached leaves what has the same names alone."""
    runtime = Runtime(session, uplink="none", delegate=bridge())
    with session.container() as container, session.container() as other:
        runtime.add("c", container)

        runtime.succeed("DEL", "c", other.netns, conf={"name": "second"})
        runtime.succeed("DEL", "c", "", conf={"name": "second"})

        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)


class Chained:
    """A network whose entries are wrapped one by one, as libcni calls them."""

    def __init__(self, place: bench.Place, **entries: dict[str, Any]) -> None:
        self.place = place
        self.entries = {
            name: Runtime(place, uplink="none", delegate=plugin)
            for name, plugin in entries.items()
        }
        self.result: dict[str, Any] = {}

    def add(self, container: bench.Container) -> None:
        """Add all entries, each with the result of the one before."""
        for number, runtime in enumerate(self.entries.values()):
            conf = {"prevResult": self.result} if number else {}
            self.result = runtime.add("c", container, conf=conf)

    def delete(self, container: bench.Container, *names: str) -> None:
        """Delete entries, the last one first, each with the result of all."""
        for name in reversed(names):
            self.entries[name].delete("c", container, conf={"prevResult": self.result})

    def plugins(self) -> list[list[str]]:
        """List the types of the plugins of each attachment."""
        any_of = next(iter(self.entries.values()))
        return [r["plugins"] for netns in any_of.status() for r in netns["references"]]


def test_entries_of_the_same_type(world: bench.World, session: bench.Session) -> None:
    """Two entries of one type that are wrapped one by one are two attachments."""
    other = {"type": "tuning", "promisc": True}
    network = Chained(session, bridge=bridge(), mtu=TUNING, promisc=other)
    with session.container() as container:
        network.add(container)
        assert network.plugins() == [["bridge", "tuning", "tuning"]]
        shown = container.run(["ip", "-d", "link", "show", "eth0"], check=True).stdout
        assert "mtu 1400" in shown
        assert "promiscuity 1" in shown

        for name, runtime in network.entries.items():
            conf = {"prevResult": network.result} if name != "bridge" else {}
            error = runtime.fail("ADD", "c", container.netns, conf=conf)
            assert error["code"] == errors.ALREADY_ATTACHED, name

        for name in ("bridge", "promisc"):  # tuning wants what it was not told of as it was
            conf = {"prevResult": network.result}
            network.entries[name].succeed("CHECK", "c", container.netns, conf=conf)
        network.delete(container, "promisc")
        shown = container.run(["ip", "-d", "link", "show", "eth0"], check=True).stdout
        assert ("promiscuity 0" in shown, "mtu 1400" in shown) == (True, True)
        network.delete(container, "bridge", "mtu")
    assert world.leftovers() == []


@pytest.mark.spread
@pytest.mark.parametrize(
    "left",
    [
        ("bridge", "mtu", "fire"),
        ("bridge", "fire"),
        ("bridge", "mtu"),
        ("bridge",),
        ("fire", "bridge"),
        ("bridge", "edited", "fire"),
        ("bridge", "mtu", "fire", "new"),
    ],
)
def test_entries_that_were_removed(
    world: bench.World, session: bench.Session, left: tuple[str, ...]
) -> None:
    """The DELs of what is left of a list, or is new in it, undo what the old one had added."""
    plugins = {"bridge": bridge(), "mtu": TUNING, "fire": FIREWALL}
    before = Chained(session, **plugins)
    new = {"type": "bandwidth", "ingressRate": 1000, "ingressBurst": 1000}
    now = Chained(session, **plugins, edited={**TUNING, "mtu": 1300}, new=new)
    with session.container() as container, session.container() as other:
        before.add(container)
        Runtime(session, uplink="none", delegate=bridge()).add("other", other)

        now.result = before.result
        now.delete(container, *left)

        assert rules(session, "10.89.0.2") == []
        assert "eth0" not in container.run(["ip", "link"], check=True).stdout
        assert reaches(other, "10.89.0.1")
        assert before.plugins() == [["bridge"]]
        Runtime(session, uplink="none", delegate=bridge()).delete("other", other)
    assert world.leftovers() == []


def test_entry_that_was_cut_off(world: bench.World, session: bench.Session) -> None:
    """An entry that is killed is undone with the result that it was given, without a runtime's."""
    network = Chained(session, bridge=bridge(), fire=FIREWALL)
    refs = session.path(f"{world.state_dir}/default/refs")
    with session.container() as container:
        network.add(container)
        (reference,) = refs.glob("*:firewall")
        first, *_ = reference.read_text().splitlines()
        reference.write_text(f"{first}\n")
        assert rules(session, "10.89.0.2")

        network.entries["fire"].delete("c", container)

        assert [line for line in rules(session, "10.89.0.2") if "CNI-FORWARD" in line] == []
        network.delete(container, "bridge")
    assert world.leftovers() == []


def test_delete_without_what_the_runtime_asked_for(session: bench.Session) -> None:
    """A DEL that brings no ports removes the rules for those of its ADD."""
    capabilities = {"portMappings": True}
    runtime = Runtime(
        session, uplink="none", plugins=[bridge(), PORTMAP], capabilities=capabilities
    )
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    with session.container() as container, session.container() as other:
        runtime.add("other", other)
        runtime.add("c", container, conf={"runtimeConfig": {"portMappings": ports}})
        assert rules(session, "10.89.0.3")

        done = runtime.call("DEL", "c", container.netns)

        assert (done.returncode, done.stderr) == (0, "")
        assert rules(session, "10.89.0.3") == []
        runtime.delete("other", other)

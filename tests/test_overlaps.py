# SPDX-License-Identifier: Apache-2.0
"""Networks that overlap or share a bridge: what `validate`, `doctor` and an ADD say of them."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench
import pytest
from diagnosis import FAKES, Fakes, ask
from hypothesis import given
from hypothesis import strategies as st
from runtime import Runtime, bridge, page

from netns_shim.main import main
from netns_shim.shared import overlaps

LAN = "10.89.0.0/24"


@given(
    *[
        st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).flatmap(
            lambda ip: st.integers(0, ip.max_prefixlen).map(lambda length: f"{ip}/{length}")
        )
        for _ in "ab"
    ]
)
def test_networks(one: str, other: str) -> None:
    """Networks are read, written and compared as by the standard library."""
    a, b = (ipaddress.ip_network(text, strict=False) for text in (one, other))
    read = [overlaps.read(text) for text in (one, other)]

    assert read[0] is not None
    assert read[1] is not None
    assert ipaddress.ip_network(overlaps.show(read[0])) == a
    is_so = a.version == b.version and a.overlaps(b)
    assert overlaps.do_overlap(read[0], read[1]) == is_so


@pytest.mark.parametrize("text", ["", "10.0.0.0", "10.0.0.0/33", "::/129", "x/8", "1.2.3/8"])
def test_no_networks(text: str) -> None:
    """What is no network is none."""
    assert overlaps.read(text) is None


def network(name: str, subnet: str, *, bridge_name: str = "", **keys: Any) -> dict[str, Any]:
    """Write a network of the plugin `bridge`."""
    named = {"bridge": bridge_name} if bridge_name else {}
    ipam = {"type": "host-local", "subnet": subnet}
    entry = {"type": "netns-shim", "delegate": {"type": "bridge", **named, "ipam": ipam}, **keys}
    return {"cniVersion": "1.0.0", "name": name, "plugins": [entry]}


PAIRS = [
    # The default name of the bridge, in both.
    (network("a", LAN), network("b", "10.90.0.0/24"), "one bridge, 'cni0'"),
    (network("a", LAN), network("b", LAN), "give the same addresses of 10.89.0.0/24"),
    (network("a", LAN), network("b", "10.89.0.0/16", bridge_name="br1"), "overlap in the shared"),
    (network("a", LAN), network("b", "10.90.0.0/24", netns="other"), ""),
    (network("a", LAN), network("b", LAN, netns="other"), ""),
    (network("a", LAN), network("b", "10.90.0.0/24", bridge_name="br1"), ""),
    (network("a", LAN), network("b", "fd00:89::/64"), ""),
    (network("a", LAN), network("a", "10.90.0.0/24"), ""),  # as edited
]


@pytest.mark.parametrize(("one", "other", "said"), PAIRS)
def test_two_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], one: Any, other: Any, said: str
) -> None:
    """`validate` compares the networks of all files that it is given."""
    files = [tmp_path / "a.conflist", tmp_path / "b.conflist"]
    for file, conf in zip(files, (one, other), strict=True):
        file.write_text(json.dumps(conf))

    status = main(["netns-shim", "validate", *map(str, files)])

    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{file}: valid" for file in files]
    assert status == (1 if said else 0)
    assert len(lines) == 2 + status
    assert not said or (lines[2].startswith(str(files[1])) and said in lines[2])


@pytest.mark.parametrize(
    ("keys", "subnet", "said"),
    [
        ({"uplink": "slirp4netns"}, "10.0.2.0/25", "overlaps with 10.0.2.0/24 of the uplink"),
        ({"uplink": "pasta"}, "198.19.0.0/16", "overlaps with 198.19.110.112/30 of the uplink"),
        ({"bridge_name": "tap0"}, LAN, "the interface of the uplink is called tap0"),
        ({"uplink": {"driver": "slirp4netns", "options": ["--cidr=10.7.0.0/24"]}}, LAN, ""),
        ({"uplink": {"driver": "slirp4netns", "options": ["--cidr", LAN]}}, LAN, "of the uplink"),
        ({"uplink": "none", "bridge_name": "tap0"}, "10.0.2.0/24", ""),
        ({"uplink": {"driver": "pasta", "options": ["-i", "eth0"]}}, "198.19.110.0/24", ""),
    ],
)
def test_own_uplink(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: Any, subnet: str, said: str
) -> None:
    """`validate` knows the addresses and the name of the interface that the uplink will have."""
    file = tmp_path / "a.conflist"
    file.write_text(json.dumps(network("a", subnet, **keys)))

    status = main(["netns-shim", "validate", str(file)])

    assert (status, said in capsys.readouterr().out) == (1 if said else 0, True)


@pytest.fixture
def lan(world: bench.World) -> Iterator[None]:
    """Give the host a LAN with the subnet that the networks of these tests have."""
    world.root.run(["ip", "link", "add", "br0", "type", "bridge"], check=True)
    world.root.run(["ip", "address", "add", "10.89.0.7/24", "dev", "br0"], check=True)
    world.root.run(["ip", "link", "set", "br0", "up"], check=True)
    yield
    world.root.run(["ip", "link", "delete", "br0"], check=True)


@pytest.mark.usefixtures("lan")
def test_the_hosts_lan(world: bench.World, session: bench.Session) -> None:
    """The first ADD of a configuration warns of a LAN that it hides; `doctor` goes on to do so."""
    runtime = Runtime(session, delegate=bridge(LAN, name="br1"))
    said = "containers do not reach 10.89.0.0/24, to which br0 of the host leads: br1 has"
    with session.container() as container:
        first = runtime.call("ADD", "c", container.netns)
        again = runtime.call("ADD", "d", container.netns, CNI_IFNAME="eth1")
        found = ask(session)["subnets"]
        runtime.delete("d", container, CNI_IFNAME="eth1")
        runtime.delete("c", container)

    assert (first.returncode, again.returncode) == (0, 0)
    assert said in first.stderr
    assert said not in again.stderr
    assert found["result"] == "warning"
    assert said in " ".join(found["details"])
    assert world.leftovers() == ["interface br0"]


@pytest.fixture
def fakes(world: bench.World) -> Iterator[Fakes]:
    """A place for files of networks."""
    fakes = Fakes(world)
    yield fakes
    fakes.remove()


def ask_about(session: bench.Place, fakes: Fakes, conf: Any) -> Any:
    """Ask what a configuration clashes with."""
    fakes.add("conf.json", json.dumps(conf), mode=0o644)
    return ask(session, "--conf", f"{FAKES}/conf.json")["its subnets"]


@pytest.mark.usefixtures("lan")
@pytest.mark.parametrize(
    ("conf", "result", "said"),
    [
        (network("a", LAN), "warning", "containers do not reach 10.89.0.0/24, to which br0"),
        (network("a", "10.90.0.0/24", bridge_name="br0"), "warning", "br0 is an interface of the"),
        (network("a", LAN, uplink="none"), "ok", ""),
        (network("a", "10.0.2.0/24", uplink="slirp4netns"), "problem", "of the uplink"),
        (network("a", "10.90.0.0/24"), "ok", ""),
    ],
)
def test_configuration(
    session: bench.Session, fakes: Fakes, conf: Any, result: str, said: str
) -> None:
    """`doctor --conf` compares a network with the host's, before anything is attached."""
    found = ask_about(session, fakes, conf)

    assert found["result"] == result, found
    assert said in " ".join(found["details"])


def test_slirp4netns_and_a_lan(world: bench.World, session: bench.Session) -> None:
    """The network of QEMU and VirtualBox is that of slirp4netns: the warning has the option."""
    world.root.run(["ip", "address", "add", "10.0.2.15/24", "dev", "eth0"], check=True)
    runtime = Runtime(session, delegate=bridge(LAN), uplink="slirp4netns")
    try:
        with session.container() as container:
            done = runtime.call("ADD", "c", container.netns)
            runtime.delete("c", container)
    finally:
        world.root.run(["ip", "address", "delete", "10.0.2.15/24", "dev", "eth0"], check=True)

    assert done.returncode == 0
    assert "containers do not reach 10.0.2.0/24" in done.stderr
    assert "--cidr=" in done.stderr


def test_one_bridge_for_two_networks(
    world: bench.World, session: bench.Session, fakes: Fakes
) -> None:
    """A second network on cni0 is refused by the plugin, and the error says what to name."""
    runtime = Runtime(session, delegate=bridge(LAN))
    conf = {"name": "other", "delegate": bridge("10.90.0.0/24")}
    with session.container() as one, session.container() as two:
        runtime.add("one", one)
        error = runtime.fail("ADD", "two", two.netns, conf=conf)
        found = ask_about(session, fakes, network("other", "10.90.0.0/24"))
        mine = ask_about(session, fakes, network("net", LAN))
        assert page(one, "198.51.100.1")
        runtime.delete("one", one)

    assert "already has an IP address different" in error["msg"]
    assert "give this one another `bridge`, or another `netns`" in error["details"]
    assert found["result"] == "problem"
    assert "has 10.89.0.0/24 from another network" in found["details"][0]
    assert mine["result"] == "ok"
    assert world.leftovers() == []


def test_overlapping_bridges(world: bench.World, session: bench.Session) -> None:
    """Two bridges with one subnet attach, and the second ADD says that they overlap."""
    runtime = Runtime(session, delegate=bridge(LAN))
    conf = {"name": "other", "delegate": bridge(LAN, name="cni1")}
    with session.container() as one, session.container() as two:
        runtime.add("one", one)
        done = runtime.call("ADD", "two", two.netns, conf=conf)
        runtime.delete("two", two, conf=conf)
        runtime.delete("one", one)

    assert done.returncode == 0
    assert "10.89.0.0/24 of cni1 overlap" in done.stderr
    assert world.leftovers() == []


def test_a_network_that_was_renamed(world: bench.World, session: bench.Session) -> None:
    """Its first ADD tells of an address that a container of the old name has as well."""
    runtime = Runtime(session, delegate=bridge())
    with session.container() as one, session.container() as other:
        runtime.add("c", one)

        done = runtime.call("ADD", "o", other.netns, conf={"name": "renamed"})

        assert done.returncode == 0, done.stdout
        address = json.loads(done.stdout)["ips"][0]["address"].partition("/")[0]
        assert f"{address} is the address of a container in network" in done.stderr
        runtime.delete("o", other, conf={"name": "renamed"})
        runtime.delete("c", one)
    assert world.leftovers() == []


def test_bridge_with_the_name_of_the_uplink(session: bench.Session, world: bench.World) -> None:
    """The uplink's interface cannot be a bridge as well; the error says to choose another name."""
    runtime = Runtime(session, delegate=bridge(LAN, name="tap0"))
    with session.container() as container:
        error = runtime.fail("ADD", "c", container.netns)

    assert "give the bridge another name" in error["details"]
    assert world.leftovers() == []


@pytest.mark.parametrize("kind", ["macvlan", "ipvlan"])
def test_master_of_the_host(session: bench.Session, world: bench.World, kind: str) -> None:
    """An interface of the host is no master for plugins; the error says which one is."""
    ipam = {"type": "host-local", "subnet": LAN}
    runtime = Runtime(session, delegate={"type": kind, "master": "eth0", "ipam": ipam})
    with session.container() as container:
        error = runtime.fail("ADD", "c", container.netns)

    assert "such as the uplink's tap0" in error.get("details", ""), error
    assert world.leftovers() == []

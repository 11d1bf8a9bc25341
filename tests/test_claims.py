# SPDX-License-Identifier: Apache-2.0
"""claims: no two attachments have the same port of the shared netns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ports import attached, shared

from netns_shim.attachment import ReferenceName
from netns_shim.errors import PORT_UNAVAILABLE, ShimError
from netns_shim.ports import claims, mappings
from netns_shim.ports.claims import Claims
from netns_shim.state import State


@pytest.fixture
def state(tmp_path: Path) -> State:
    """Make the directory of a shared netns with references."""
    return shared(tmp_path)


def claim(state: State, name: ReferenceName, address: str = "", port: int = 8080) -> int:
    """Claim a port; give the one of the shared netns."""
    ports = mappings.read([{"hostPort": port, "containerPort": 80, "hostIP": address}])
    with Claims(state) as claimed:
        claimed.take(name, ports)
    return ports[0].inside


def test_port_is_its_own_inside(state: State) -> None:
    """A port that no other attachment has is the same one inside."""
    assert claim(state, attached(state, "a")) == 8080


def test_other_address_gets_another_port(state: State) -> None:
    """The same port of another address of the host is another one inside."""
    first = claim(state, attached(state, "a"), "192.0.2.1")
    second = claim(state, attached(state, "b"), "192.0.2.2")
    third = claim(state, attached(state, "c"), "::1")

    assert (first, len({first, second, third})) == (8080, 3)


def test_same_port_names_who_has_it(state: State) -> None:
    """A port of the host that another attachment publishes is refused with its name."""
    claim(state, attached(state, "first"))

    with pytest.raises(ShimError, match="8080/tcp is published already") as raised:
        claim(state, attached(state, "second"), "127.0.0.1")

    assert raised.value.code == PORT_UNAVAILABLE
    assert "'first'" in raised.value.details


def test_other_attachment_of_the_container(state: State) -> None:
    """A port that the same container publishes by another network is left to that one."""
    first = attached(state, "web")
    other = ReferenceName.of("second", "web", "eth1", ["bridge"])
    Path(state.refs, other.file).touch()
    ports = mappings.read([{"hostPort": n, "containerPort": 80} for n in (8080, 8081)])
    claim(state, first)

    with Claims(state) as claimed:
        taken = claimed.take(other, ports)

    assert [port.host_port for port in taken] == [8081]
    assert [claims.is_siblings(state, other, port) for port in ports] == [True, False]
    assert [claims.is_siblings(state, first, port) for port in ports] == [False, True]


def test_own_claim_is_taken_again(state: State) -> None:
    """An ADD that repeats one that was cut off gets the port that this one had."""
    name = attached(state, "a")
    claim(state, name)

    assert claim(state, name) == 8080


def test_port_that_was_given_inside_is_free_on_the_host(state: State) -> None:
    """A port that another attachment has only inside can be published, from another one inside."""
    claim(state, attached(state, "a"), "192.0.2.1")
    moved = claim(state, attached(state, "b"), "192.0.2.2")

    assert claim(state, attached(state, "c"), port=moved) == moved - 1


def test_two_ports_of_one_container_have_two_inside(state: State) -> None:
    """One port of two addresses that leads to two ports of a container is two ports inside."""
    wanted = [
        {"hostPort": 8080, "containerPort": to, "hostIP": address}
        for to, address in ((80, "192.0.2.1"), (81, "192.0.2.2"), (80, "::1"))
    ]
    ports = mappings.read(wanted)

    with Claims(state) as claimed:
        claimed.take(attached(state, "a"), ports)

    assert [port.inside for port in ports] == [8080, claims.HIGHEST, 8080]


def test_claim_of_a_killed_call_is_free(state: State) -> None:
    """A claim whose reference is gone is no claim."""
    name = attached(state, "killed")
    claim(state, name)
    os.unlink(f"{state.refs}/{name}")

    assert claim(state, attached(state, "next")) == 8080


def test_drop_leaves_those_of_others(state: State) -> None:
    """A reference gives up its own claims only, all of them, and none twice."""
    one, other = attached(state, "one"), attached(state, "other")
    claim(state, one)
    claim(state, one, port=8081)
    claim(state, other, port=9090)

    for _ in range(2):
        claims.drop(state, one)

    assert os.listdir(state.path("ports")) == ["tcp-9090"]


def test_nothing_is_dropped_where_nothing_was_claimed(state: State) -> None:
    """In a netns in which nothing was ever published there is nothing to drop or to count."""
    claims.drop(state, attached(state, "one"))

    assert claims.count(state) == 0


def test_numbers_differ(state: State) -> None:
    """Each publisher has a number of its own, and a number that was given up is given again."""
    one, other = attached(state, "one"), attached(state, "other")
    with Claims(state) as claimed:
        assert [claimed.number(one), claimed.number(other)] == [1, 2]
    assert claims.count(state) == 2
    claims.drop(state, one)
    with Claims(state) as claimed:
        assert claimed.number(one) == 1


def test_target_cannot_lead_out(state: State) -> None:
    """A damaged claim with a path in it is no claim."""
    os.makedirs(state.path("ports"), 0o700)
    os.symlink("* ../uplink.json", state.path("ports/tcp-8080"))
    Path(state.path("uplink.json")).touch()

    assert claim(state, attached(state, "a")) == 8080

# SPDX-License-Identifier: Apache-2.0
"""mappings: which ports an attachment wants, and what has to be open for them."""

from __future__ import annotations

from typing import Any

import pytest

from netns_shim.errors import PORT_UNAVAILABLE, ShimError
from netns_shim.ports import mappings
from netns_shim.ports.mappings import Port


def entry(host: Any = 8080, to: int = 80, **more: Any) -> dict[str, Any]:
    """Write a port mapping as a runtime does."""
    return {"hostPort": host, "containerPort": to, "protocol": "tcp", **more}


def specs(*entries: dict[str, Any], has: tuple[int, ...] = (4, 6)) -> list[tuple[str, str]]:
    """Give the options of pasta for port mappings of a container with these families."""
    return mappings.ranges(mappings.bindings(mappings.read(list(entries)), set(has)))


def test_protocol_is_tcp_in_small_letters() -> None:
    """Without a protocol it is TCP, and the case of the letters does not matter."""
    ports = mappings.read([{"hostPort": 1, "containerPort": 2}, entry(protocol="UDP")])

    assert [port.protocol for port in ports] == ["tcp", "udp"]


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "8080:80",
        entry(0),
        entry(65536),
        entry(True),
        entry("8080"),
        entry(to=0),
        entry(hostIP="no address"),
        entry(hostIP=3),
        entry(protocol=6),
        entry(protocol="sctp"),
    ],
)
def test_wrong_mapping_is_left_to_the_plugin(wrong: Any) -> None:
    """What cannot be opened on a host is no port here: the plugin says what is wrong with it."""
    assert mappings.read([wrong]) == []


def test_no_list_is_no_port() -> None:
    """A value that is no list has no ports."""
    assert mappings.read({"hostPort": 1}) == []


def test_family_is_that_of_the_container() -> None:
    """A port is open only in the families that the container has."""
    assert specs(entry()) == [("tcp", "8080")]
    assert specs(entry(), has=(4,)) == [("tcp", "0.0.0.0/8080")]
    assert specs(entry(), has=(6,)) == [("tcp", "::/8080")]
    assert specs(entry(), has=()) == []


def test_address_of_the_other_family_is_not_open() -> None:
    """A port on an address of a family that the container lacks is not opened."""
    assert specs(entry(hostIP="::1"), has=(4,)) == []
    assert specs(entry(hostIP="127.0.0.1"), has=(4,)) == [("tcp", "127.0.0.1/8080")]


def test_neighbours_are_one_range() -> None:
    """Ports in a row are one option, if they lead to ports in a row."""
    row = [entry(8000 + n, 80 + n) for n in range(5)]

    assert specs(*row, entry(8006), entry(8005, protocol="udp")) == [
        ("tcp", "8000-8004"),
        ("tcp", "8006"),
        ("udp", "8005"),
    ]


def test_moved_port_is_in_the_option() -> None:
    """A port that is another one inside is written with both; a row keeps its order."""
    ports = mappings.read([entry(8000, hostIP="127.0.0.1"), entry(8001, hostIP="127.0.0.1")])
    ports[0].inside, ports[1].inside = 65001, 65002

    assert mappings.ranges(mappings.bindings(ports, {4})) == [
        ("tcp", "127.0.0.1/8000-8001:65001-65002")
    ]


def test_plugins_make_a_mapping_for_all_addresses() -> None:
    """Packets from the publisher have an address of the netns: a mapping for one is for all."""
    wanted = [entry(hostIP="127.0.0.1"), entry(53, hostIP="0.0.0.0"), entry(25)]

    made = mappings.for_plugins(wanted, mappings.read(wanted))

    assert made == [entry(), entry(53, hostIP="0.0.0.0"), entry(25)]


def test_plugins_get_a_second_mapping_for_a_moved_port() -> None:
    """A port that another attachment has inside gets one of its own, beside the one asked for."""
    wanted = [entry(hostIP="192.0.2.1")]
    ports = mappings.read(wanted)
    ports[0].inside = 65000

    assert mappings.for_plugins(wanted, ports) == [entry(hostIP="192.0.2.1"), entry(65000)]
    assert mappings.recall(wanted, [port.fields for port in ports]) == mappings.for_plugins(
        wanted, ports
    )


def test_record_is_read_as_it_was_written() -> None:
    """What is written for a record gives the same port, and a damaged one gives none."""
    port = mappings.read([entry(hostIP="2001:DB8::0:1")])[0]
    port.inside = 60000

    again = Port.recall(port.fields)

    assert again is not None
    assert again.fields == port.fields
    assert again.host_ip == "2001:db8::1"
    assert Port.recall({**port.fields, "insidePort": "60000"}) is None
    assert Port.recall("8080/tcp") is None


def test_port_that_is_given_twice_is_one() -> None:
    """The same mapping a second time adds nothing."""
    assert specs(entry(), entry(protocol="TCP"), entry(hostIP="")) == [("tcp", "8080")]


def test_ipv4_in_the_form_of_ipv6_is_ipv4() -> None:
    """An address such as ::ffff:127.0.0.1 is one of IPv4, as for the plugins."""
    assert specs(entry(hostIP="::ffff:127.0.0.1")) == [("tcp", "127.0.0.1/8080")]
    assert specs(entry(hostIP="::ffff:7f00:1"), has=(6,)) == []


def test_both_families_can_be_written_as_one() -> None:
    """A port of all addresses of each family is one of both, if it leads to the same port."""
    both = [entry(hostIP="0.0.0.0"), entry(hostIP="::"), entry(53, hostIP="::")]
    ports = mappings.read(both)

    assert mappings.ranges(mappings.joined(mappings.bindings(ports, {4, 6}))) == [
        ("tcp", "8080"),
        ("tcp", "::/53"),
    ]
    ports[0].inside = 65000
    assert len(mappings.joined(mappings.bindings(ports, {4, 6}))) == 3


@pytest.mark.parametrize("address", ["foo", "[::1]", "fe80::1%eth0"])
def test_what_is_no_address_is_refused(address: str) -> None:
    """What is no address is refused here: for a container with IPv4 only no plugin does so."""
    wanted = [entry(hostIP=address)]

    with pytest.raises(ShimError, match="port 8080 of the host") as raised:
        mappings.check(wanted, mappings.read(wanted))

    assert (raised.value.code, address in raised.value.details) == (PORT_UNAVAILABLE, True)


@pytest.mark.parametrize(
    "other", [entry(to=81), entry(hostIP="127.0.0.1"), entry(to=81, hostIP="::")]
)
def test_two_ports_of_one_address_are_refused(other: dict[str, Any]) -> None:
    """Two ports of one container that are in each other's way are named."""
    wanted = [entry(), other]

    with pytest.raises(ShimError, match=r"ports 8080/tcp and .*8080/tcp") as raised:
        mappings.check(wanted, mappings.read(wanted))

    assert raised.value.code == PORT_UNAVAILABLE


def test_what_is_not_opened_is_named() -> None:
    """A port of a protocol that no publisher opens is named; those that can be open are not."""
    wanted = [entry(protocol="SCTP"), entry(), entry(protocol="udp"), None, entry(0)]

    assert mappings.check(wanted, mappings.read(wanted)) == ["8080/sctp"]


@pytest.mark.parametrize(
    ("result", "has"),
    [
        ({"ips": [{"address": "10.0.0.2/24"}]}, {4}),
        ({"ips": [{"address": "10.0.0.2/24"}, {"address": "fd00::2/64"}]}, {4, 6}),
        ({"ip6": {"ip": "fd00::2/64"}}, {6}),
        ({"ips": [{}, "x", {"address": 4}]}, set()),
        ({}, set()),
    ],
)
def test_families_of_a_result(result: Any, has: set[int]) -> None:
    """The families of a container are those of the addresses in the result of any version."""
    assert mappings.families(result) == has


@pytest.mark.parametrize(
    ("one", "other", "do"),
    [
        ("", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "::1", False),
        ("::", "::1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("::1", "::1", True),
    ],
)
def test_overlap(one: str, other: str, do: bool) -> None:
    """Two ports clash if one address is that of the other, or stands for all of its family."""
    assert mappings.overlap(one, other) is do
    assert mappings.overlap(other, one) is do


@pytest.mark.parametrize(
    ("address", "text"),
    [("", "53/udp"), ("127.0.0.1", "127.0.0.1:53/udp"), ("::1", "[::1]:53/udp")],
)
def test_name(address: str, text: str) -> None:
    """A port is written as people know it."""
    assert mappings.name("udp", address, 53) == text

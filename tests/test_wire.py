# SPDX-License-Identifier: Apache-2.0
"""netavark's wire: what is read in all its styles, and what is written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import examples
from podman import NETWORK

from netns_shim import __version__, errors
from netns_shim.errors import ShimError
from netns_shim.netavark import wire
from netns_shim.netavark.shapes import StatusBlock

# As netavark up to 1.17 writes what is absent.
NULLS = ("network_interface", "subnets", "routes", "options", "ipam_options")
PORT = {"container_port": 80, "host_port": 8080, "host_ip": "", "protocol": "tcp", "range": 1}


def asked(**changes: Any) -> dict[str, Any]:
    """Write what a plugin is given for a container."""
    value = {
        "container_id": "c1",
        "container_name": "web",
        "network": NETWORK,
        "network_options": {"interface_name": "eth0"},
    }
    return {**value, **changes}


def read(value: Any) -> wire.Exec:
    """Read it from its text."""
    return wire.decode_exec(json.dumps(value).encode())


def problems(value: Any) -> list[str]:
    """List what is wrong with it."""
    with pytest.raises(ShimError) as caught:
        read(value)
    assert caught.value.code == errors.INVALID_NETWORK_CONFIG
    if caught.value.details:
        lines = caught.value.details.splitlines()
        assert caught.value.message == f"invalid request: {len(lines)} problems"
        return lines
    return [caught.value.message.removeprefix("invalid request: ")]


def test_both_styles_are_the_same() -> None:
    """A key that is null counts as absent, in every document."""
    options = {"interface_name": "eth0"}
    nulls = asked(
        port_mappings=None,
        network={**NETWORK, **dict.fromkeys(NULLS)},
        network_options={**options, "static_ips": None, "static_mac": None, "aliases": None},
    )

    one, other = read(asked()), read(nulls)

    assert one.network == other.network
    assert one.options == other.options == options
    assert one.ports == other.ports == []


def test_unknown_keys_are_kept() -> None:
    """Keys of later releases are no problem, and a network keeps them."""
    network = wire.decode_network(json.dumps({**NETWORK, "labels": {"a": "b"}}).encode())

    assert {**network}["labels"] == {"a": "b"}


def test_all_that_is_missing() -> None:
    """Each key that must be there and is not is named with its place, all at once."""
    assert problems({"network": {"name": "net"}, "network_options": {}}) == [
        "container_id: is missing",
        "container_name: is missing",
        "network.dns_enabled: is missing",
        "network.driver: is missing",
        "network.id: is missing",
        "network.internal: is missing",
        "network.ipv6_enabled: is missing",
        "network_options.interface_name: is missing",
    ]


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        ({"options": {"mtu": 1400}}, "network.options.mtu: must be a string, is 1400"),
        ({"options": []}, "network.options: must be an object, is a list"),
        ({"internal": "yes"}, 'network.internal: must be true or false, is "yes"'),
        ({"subnets": {}}, "network.subnets: must be a list, is an object"),
        ({"subnets": [{}]}, "network.subnets[0].subnet: is missing"),
        (
            {"subnets": [{"subnet": "10.0.0.0"}]},
            'network.subnets[0].subnet: must be a subnet with its prefix length, is "10.0.0.0"',
        ),
        (
            {"subnets": [{"subnet": "10.0.0.0/8", "gateway": ""}]},
            'network.subnets[0].gateway: must be an IP address, is ""',
        ),
        (
            {"routes": [{"destination": "10.0.0.0/8", "metric": -1}]},
            "network.routes[0].metric: must be at least 0, is -1",
        ),
        (
            {"ipam_options": {"driver": "\ud800"}},
            'network.ipam_options.driver: "\\ud800" does not fit: Text that can be an argument, a '
            "variable or a path: without NUL, in UTF-8.",
        ),
    ],
)
def test_wrong_values(network: dict[str, Any], problem: str) -> None:
    """A value of a wrong kind is named with its place and what it is."""
    assert problems(asked(network={**NETWORK, **network})) == [problem]


@pytest.mark.parametrize(
    ("port", "problem"),
    [
        ({"host_port": 65536}, "host_port: must be at most 65535, is 65536"),
        ({"protocol": "tcp,icmp"}, "does not fit: tcp, udp or sctp, or several with commas"),
        ({"host_ip": "localhost"}, "host_ip: must be an IP address, is "),
        ({"range": 60000}, ": the last port would be 68079"),
        ({"range": True}, "range: must be an integer, is true"),
        ({"container_port": None}, "container_port: is missing"),
    ],
)
def test_wrong_ports(port: dict[str, Any], problem: str) -> None:
    """A port mapping that no plugin could carry out is refused."""
    (found,) = problems(asked(port_mappings=[{**PORT, **port}]))

    assert found.startswith("port_mappings[0]")
    assert problem in found


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"container_id": "../x"}, "container_id"),
        ({"container_id": "a\n"}, "container_id"),
        ({"container_id": ""}, "container_id"),
        ({"network": {**NETWORK, "name": "a/b"}}, "network.name"),
        ({"network_options": {"interface_name": ".."}}, "network_options.interface_name"),
        ({"network_options": {"interface_name": ""}}, "network_options.interface_name"),
        ({"network_options": {"interface_name": "x" * 16}}, "network_options.interface_name"),
    ],
)
def test_names_become_no_paths(change: dict[str, Any], place: str) -> None:
    """A name that could leave the directory of references is refused."""
    (problem,) = problems(asked(**change))

    assert problem.startswith(f"{place}: ")
    assert "CNI_" not in problem


def test_names_that_are_too_long() -> None:
    """Names that make no file name together are refused."""
    with pytest.raises(ShimError, match="too long to be a file name"):
        read(asked(container_id="c" * 300))


@pytest.mark.parametrize("text", [b"", b"x", b"[]", b"{}{}", b'{"a": NaN}', b"\xff", b"[" * 99999])
def test_what_is_not_json(text: bytes) -> None:
    """What is not one JSON object has the code of that."""
    for decode in (wire.decode_exec, wire.decode_network, wire.decode_options):
        with pytest.raises(ShimError) as caught:
            decode(text)

        assert caught.value.code == errors.DECODING_FAILURE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.binary() | st.builds(lambda value: json.dumps(value).encode(), JSON))
def test_anything_at_all(text: bytes) -> None:
    """Whatever comes in, the only error is one with a code."""
    for decode in (wire.decode_exec, wire.decode_network, wire.decode_options):
        try:
            decode(text)
        except ShimError:
            continue


KEYS = ("container_id", "container_name", "network", "network_options", "port_mappings")


@given(st.sampled_from(KEYS), JSON, st.sampled_from([*NETWORK, "subnets", "options"]), JSON)
def test_anything_in_one_place(key: str, value: Any, inner: str, other: Any) -> None:
    """Whatever stands in the place of one value, the only error is one with a code."""
    for changed in (asked(**{key: value}), asked(network={**NETWORK, inner: other})):
        try:
            read(changed)
        except ShimError:
            continue


@pytest.mark.parametrize("style", ["map", "list"])
def test_options_of_the_binary(style: str) -> None:
    """Networks are a map, or since 2.0 a list; ports are there in any case."""
    networks: Any = {"one": {"interface_name": "eth0"}, "two": {"interface_name": "eth1"}}
    if style == "list":
        networks = [{"name": name, **network} for name, network in networks.items()]
    given = {"container_id": "c", "networks": networks}

    found = wire.decode_options(json.dumps(given).encode())
    with_ports = wire.decode_options(json.dumps({**given, "port_mappings": [PORT]}).encode())

    assert found == {
        "container_id": "c",
        "networks": {"one": "eth0", "two": "eth1"},
        "port_mappings": [],
    }
    assert with_ports == {**found, "port_mappings": [PORT]}


RESULT: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "interfaces": [
        {"name": "br0", "mac": "02:00:00:00:00:01"},
        {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/n"},
        {"name": "eth1", "mac": "02:00:00:00:00:03", "sandbox": "/n"},
    ],
    "ips": [
        {"interface": 1, "address": "10.0.0.2/24", "gateway": "10.0.0.1"},
        {"interface": 2, "address": "10.1.0.2/24"},
    ],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {
        "nameservers": ["10.0.0.1"],
        "domain": "a.b",
        "search": ["c", "a.b"],
        "options": ["x"],
    },
}


def status(**changes: Any) -> dict[str, Any]:
    """Write a result, with changes, as a StatusBlock."""
    written: dict[str, Any] = json.loads(wire.format_status({**RESULT, **changes}, "/n", "eth0"))
    return written


def test_status() -> None:
    """A result becomes one interface with its own addresses, and the name servers."""
    assert status() == {
        "interfaces": {
            "eth0": {
                "mac_address": "02:00:00:00:00:02",
                "subnets": [{"ipnet": "10.0.0.2/24", "gateway": "10.0.0.1"}],
            }
        },
        "dns_server_ips": ["10.0.0.1"],
        "dns_search_domains": ["a.b", "c"],
    }


@pytest.mark.parametrize("interface", [{}, {"interface": -1}])
def test_addresses_of_no_interface(interface: dict[str, int]) -> None:
    """An address that names no interface is that of the one that was asked for."""
    found = status(ips=[{"address": "10.0.0.2/24", **interface}])

    assert found["interfaces"]["eth0"]["subnets"] == [{"ipnet": "10.0.0.2/24"}]


def test_result_without_interfaces() -> None:
    """A result of an old plugin has no MAC; Go reads an empty one."""
    found = status(interfaces=[], dns=None)

    assert found["interfaces"]["eth0"]["mac_address"] == ""
    assert found["dns_server_ips"] == found["dns_search_domains"] == []


def test_error() -> None:
    """An error has one key, with all that is known."""
    error = ShimError(7, "it is wrong", "here")

    assert json.loads(wire.format_error(error)) == {"error": "it is wrong: here (code 7)"}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b'{"error": "no"}', "no"),
        (b'{"error": "no", "more": 1}\n', "no"),
        (b'{"error": 1}', ""),
        (b"[]", ""),
        (b"", ""),
        (b"\xff", ""),
        (b"[" * 99999, ""),
    ],
)
def test_errors_of_others(text: bytes, error: str) -> None:
    """What is no error of netavark's shape is none."""
    assert wire.parse_error(text) == error


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b'{"interfaces": []}',
        b'{"interfaces": {"eth0": {}}}',
        b'{"interfaces": {"eth0": {"mac_address": "", "subnets": [{"ipnet": "10.0.0.1"}]}}}',
        b'{"interfaces": {"eth0": {"mac_address": "", "subnets": [{"ipnet": "x/1"}]}}}',
        b'{"dns_server_ips": ["localhost"]}',
    ],
)
def test_broken_status(text: bytes) -> None:
    """An answer that is no StatusBlock is refused with the name of its writer."""
    with pytest.raises(ShimError, match="answer of driver 'x'") as caught:
        wire.decode_status(text, "driver 'x'")

    assert caught.value.code == errors.DECODING_FAILURE


def test_addresses_of_an_answer() -> None:
    """The addresses in an answer of the binary are found; of anything else there are none."""
    block = {"mac_address": "", "subnets": [{"ipnet": "10.0.0.2/24"}]}
    text = json.dumps(
        {
            "net": {"interfaces": {"eth0": block}},
            "none": {},
            "l2": {"interfaces": {"eth0": {"mac_address": ""}}},
        }
    ).encode()

    found = wire.addresses(text)

    assert found["net"]["ips"] == [{"address": "10.0.0.2/24"}]
    assert found["none"]["ips"] == []
    assert wire.addresses(b"x") == {}


def options_problems(value: Any) -> list[str]:
    """List what is wrong with what the binary is given."""
    with pytest.raises(ShimError) as caught:
        wire.decode_options(json.dumps(value).encode())
    assert caught.value.code == errors.INVALID_NETWORK_CONFIG
    message = caught.value.message.removeprefix("invalid request: ")
    return caught.value.details.splitlines() or [message]


@pytest.mark.parametrize(
    ("value", "places"),
    [
        ({}, ["container_id", "networks"]),
        ({"container_id": None, "networks": None}, ["container_id", "networks"]),
        ({"container_id": 1, "networks": 1}, ["container_id", "networks"]),
        ({"container_id": "c", "networks": {"a": {}}}, ["networks.a.interface_name"]),
        ({"container_id": "c", "networks": {"a": []}}, ["networks.a"]),
        (
            {"container_id": "c", "networks": [{}, 1]},
            ["networks[0].interface_name", "networks[0].name", "networks[1]"],
        ),
        (
            {"container_id": "../x", "networks": {"a/b": {"interface_name": "e"}}},
            ["container_id", "networks"],
        ),
        (
            {"container_id": "c", "networks": {"a": {"interface_name": ".."}}},
            ["networks.a"],
        ),
    ],
)
def test_problems_of_the_options(value: Any, places: list[str]) -> None:
    """What is wrong with the options of the binary is said at once, with its place."""
    assert [line.partition(": ")[0] for line in options_problems(value)] == places


def test_a_network_twice() -> None:
    """Of a network that is listed twice neither is dropped in silence."""
    networks = [{"name": "a", "interface_name": "e0"}, {"name": "a", "interface_name": "e1"}]

    (problem,) = options_problems({"container_id": "c", "networks": networks})

    assert "'a'" in problem


@pytest.mark.parametrize(("first", "fits"), [(65534, True), (65535, False)])
@pytest.mark.parametrize("key", ["host_port", "container_port"])
def test_the_last_port(key: str, first: int, fits: bool) -> None:
    """A range may end at port 65535 and not after it, on either side."""
    port = {"container_port": 1, "host_port": 1, "host_ip": "::1", "protocol": "tcp,udp"}
    value = {
        "container_id": "c",
        "container_name": "c",
        "network": NETWORK,
        "network_options": {"interface_name": "eth0"},
        "port_mappings": [{**port, "range": 2, key: first}],
    }
    text = json.dumps(value).encode()
    if fits:
        assert wire.decode_exec(text).ports == value["port_mappings"]
        return

    with pytest.raises(ShimError, match=r"port_mappings\[0\]: the last port would be 65536"):
        wire.decode_exec(text)


def block(**changes: Any) -> StatusBlock:
    """Write a result as a StatusBlock, and read it as netavark does."""
    result = {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/n"}], **changes}
    text = wire.format_status(result, "/n", "eth0")
    return wire.decode_status(text.encode(), "the shim")


def test_same_name_on_the_host() -> None:
    """Of two interfaces of one name, the one in the container counts."""
    interfaces = [
        {"name": "eth0", "mac": "02::1", "sandbox": "/other"},
        {"name": "eth0", "mac": "02::2", "sandbox": "/n"},
    ]
    ips = [{"interface": index, "address": f"10.0.0.{index}/8"} for index in (0, 1)]

    found = block(interfaces=interfaces, ips=ips)

    assert found["interfaces"] == {
        "eth0": {"mac_address": "02::2", "subnets": [{"ipnet": "10.0.0.1/8"}]}
    }


def test_no_mac() -> None:
    """An interface whose MAC is null has an empty one, as netavark demands a text."""
    found = block(interfaces=[{"name": "eth0", "sandbox": "/n", "mac": None}])

    assert found["interfaces"]["eth0"]["mac_address"] == ""


@pytest.mark.parametrize("dns", [{"search": 5}, {"search": [{}]}, {"nameservers": ["x"]}])
def test_name_servers_that_are_none(dns: dict[str, Any]) -> None:
    """DNS of a plugin that netavark could not read is its error, not a crash."""
    with pytest.raises(ShimError):
        wire.format_status({"cniVersion": "1.0.0", "dns": dns}, "/n", "eth0")


def test_info() -> None:
    """`info` is one line with the versions of the shim and of the interface."""
    text = wire.format_info()

    assert text.count("\n") == 1
    assert json.loads(text)["version"] == __version__
    assert json.loads(text)["api_version"] == "1.0.0"


NAMES = st.sampled_from(["a", "", "..", "a/b", "a\n", "\ud800", "x" * 300]) | st.text(max_size=9)
ONE = st.fixed_dictionaries({"interface_name": NAMES | JSON}, optional={"name": NAMES | JSON})
OPTIONS = st.fixed_dictionaries(
    {"container_id": NAMES},
    optional={"networks": st.lists(ONE, max_size=3) | st.dictionaries(NAMES, ONE) | JSON},
)


@settings(max_examples=examples(150))
@given(OPTIONS)
def test_options_nearly_right(value: Any) -> None:
    """Options of nearly the right shape are safe file names, or an error with a code."""
    try:
        found = wire.decode_options(json.dumps(value).encode())
    except ShimError as error:
        json.loads(wire.format_error(error).encode())
        return

    for name, ifname in found["networks"].items():
        file = f"{name}:{found['container_id']}:{ifname}"
        assert "/" not in file
        assert "\n" not in file

# SPDX-License-Identifier: Apache-2.0
"""What a driver is asked, and what its answer becomes."""

from __future__ import annotations

from typing import Any

import pytest

from netns_shim import errors
from netns_shim.errors import ShimError
from netns_shim.netavark import document, translate
from netns_shim.netavark.shapes import Asked, NetInterface, StatusBlock

ENTRY: dict[str, Any] = {
    "driver": "bridge",
    "network_interface": "nv0",
    "subnets": [{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}],
}
EXTERNAL = {**ENTRY, "driver": "theirs"}
ENVIRON = {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/n"}
IPS = [
    {"address": "fd00::2/64", "gateway": "fd00::1"},
    {"address": "10.0.0.2/24", "gateway": "10.0.0.1"},
]
MAC = "02:00:00:00:00:02"


def ask(entry: dict[str, Any] = ENTRY, *, cni_args: str = "", **conf: Any) -> Asked:
    """Write what a driver is given."""
    environ = {**ENVIRON, "CNI_ARGS": cni_args} if cni_args else ENVIRON
    return translate.request(entry, environ, {"name": "net", **conf}, conf.pop("ips", IPS))


def status(**changes: Any) -> StatusBlock:
    """Write what a driver answers."""
    subnets = [
        {"ipnet": "10.0.0.2/24", "gateway": "10.0.0.1"},
        {"ipnet": "fd00::2/64", "gateway": "fd00::1"},
    ]
    block = {"mac_address": MAC, "subnets": subnets, **changes}
    found: StatusBlock = document.settled({"interfaces": {"eth0": block}})
    return found


def test_request() -> None:
    """A driver gets all keys that it needs, and an address for each subnet in their order."""
    asked = ask()

    assert asked == {
        "container_id": "c1",
        "container_name": "c1",
        "port_mappings": [],
        "network": {
            "name": "net",
            "id": asked["network"]["id"],
            "driver": "bridge",
            "dns_enabled": False,
            "internal": False,
            "ipv6_enabled": True,
            "ipam_options": {"driver": "host-local"},
            "network_interface": "nv0",
            "subnets": [
                {"subnet": "10.0.0.0/24", "gateway": "10.0.0.1"},
                {"subnet": "fd00::/64", "gateway": "fd00::1"},
            ],
        },
        "network_options": {"interface_name": "eth0", "static_ips": ["10.0.0.2", "fd00::2"]},
    }
    assert len(bytes.fromhex(asked["network"]["id"])) == 32


def test_gateway_that_is_configured() -> None:
    """The gateway of the configuration counts for more than that of the IPAM plugin."""
    entry = {"driver": "macvlan", "subnets": [{"subnet": "10.0.0.0/24", "gateway": "10.0.0.9"}]}

    asked = ask(entry, ips=IPS[1:])

    assert asked["network"]["subnets"] == entry["subnets"]
    assert "network_interface" not in asked["network"]


def test_subnets_of_the_ipam_plugin() -> None:
    """Where no subnets are configured they are those of the addresses."""
    asked = ask({"driver": "bridge", "ipam": {"type": "static"}}, ips=IPS[1:])

    assert asked["network"]["subnets"] == [{"subnet": "10.0.0.0/24", "gateway": "10.0.0.1"}]
    assert asked["network"]["network_interface"].startswith("nv-")
    assert len(asked["network"]["network_interface"]) <= 15


def test_no_addresses() -> None:
    """Without any addresses a driver is told that none are allocated."""
    asked = ask({"driver": "theirs"}, ips=[])

    assert asked["network"]["ipam_options"] == {"driver": "none"}
    assert asked["network_options"] == {"interface_name": "eth0"}


@pytest.mark.parametrize(
    "ips",
    [
        IPS[:1],
        [*IPS, {"address": "10.0.0.3/24"}],
        [*IPS, {"address": "10.9.0.3/24"}],
    ],
    ids=["one is missing", "one too many", "one in no subnet"],
)
def test_addresses_that_do_not_fit(ips: list[dict[str, str]]) -> None:
    """Exactly one address of each subnet, or netavark would pair the wrong ones."""
    with pytest.raises(ShimError, match="exactly one address of each subnet") as caught:
        ask(ips=ips)

    assert caught.value.code == errors.INVALID_NETWORK_CONFIG


@pytest.mark.parametrize("aliases", [["a", "b"], {"net": ["a", "b"], "other": ["x"]}])
def test_aliases(aliases: Any) -> None:
    """Aliases are read in both shapes that exist."""
    assert ask(runtimeConfig={"aliases": aliases})["network_options"]["aliases"] == ["a", "b"]


@pytest.mark.parametrize(
    ("runtime", "args", "text", "mac"),
    [
        ("02::1", "02::2", "MAC=02::3", "02::1"),
        ("", "02::2", "MAC=02::3", "02::2"),
        ("", "", "IgnoreUnknown=1;MAC=02::3", "02::3"),
    ],
)
def test_mac(runtime: str, args: str, text: str, mac: str) -> None:
    """A MAC is taken from where `bridge` takes it, in the same order."""
    asked = ask(runtimeConfig={"mac": runtime}, cni_args=text)
    if args:
        environ = {**ENVIRON, "CNI_ARGS": text}
        conf = {"name": "net", "runtimeConfig": {"mac": runtime}, "args": {"cni": {"mac": args}}}
        asked = translate.request(ENTRY, environ, conf, IPS)

    assert asked["network_options"]["static_mac"] == mac


def test_names_ports_and_options() -> None:
    """The name of the pod, ports, name servers and options find their places."""
    asked = translate.request(
        {**ENTRY, "options": {"mtu": "1400"}, "routes": [{"destination": "10.5.0.0/16"}]},
        {**ENVIRON, "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web"},
        {
            "name": "net",
            "args": {"netavark": {"options": {"vlan": "7"}}},
            "runtimeConfig": {
                "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "TCP"}],
                "dns": {"servers": ["10.0.0.53"]},
            },
        },
        IPS,
    )

    assert asked["container_name"] == "web"
    assert asked["port_mappings"] == [
        {"host_ip": "", "host_port": 8080, "container_port": 80, "protocol": "tcp", "range": 1}
    ]
    assert asked["network"]["options"] == {"mtu": "1400"}
    assert asked["network"]["routes"] == [{"destination": "10.5.0.0/16"}]
    assert asked["network_options"]["options"] == {"vlan": "7"}
    assert translate.network_options(asked)["dns_servers"] == ["10.0.0.53"]


def test_options_of_the_binary() -> None:
    """The binary is given networks as a map, which every release reads."""
    asked = ask()

    options = translate.network_options(asked)

    assert options["networks"] == {"net": asked["network_options"]}
    assert options["network_info"] == {"net": asked["network"]}
    assert (options["container_id"], options["container_name"]) == ("c1", "c1")


@pytest.mark.parametrize(
    ("entry", "offered"),
    [
        (ENTRY, {"bandwidth": {"ingressRate": 1}}),
        (ENTRY, {"ipRanges": [[{"subnet": "10.0.0.0/8"}]]}),
        (ENTRY, {"dns": {"servers": ["10.0.0.53"], "searches": ["a"]}}),
        (EXTERNAL, {"dns": {"servers": ["10.0.0.53"]}}),
        (EXTERNAL, {"somethingNew": True}),
    ],
)
def test_what_cannot_be_passed_on(entry: dict[str, Any], offered: dict[str, Any]) -> None:
    """What was asked for and netavark has no word for is an error with key and value."""
    with pytest.raises(ShimError, match="unsupported field") as caught:
        translate.check_supported(entry, offered)

    ((key, value),) = offered.items()
    assert caught.value.code == errors.UNSUPPORTED_FIELD
    assert key in caught.value.message
    assert str(value) in caught.value.details


@pytest.mark.parametrize(
    ("entry", "offered"),
    [
        (ENTRY, {"bandwidth": None, "dns": {"servers": ["10.0.0.53"]}, "mac": MAC}),
        (EXTERNAL, {"dns": {}, "ips": ["10.0.0.2"], "aliases": ["a"], "portMappings": [{}]}),
    ],
)
def test_what_can_be_passed_on(entry: dict[str, Any], offered: dict[str, Any]) -> None:
    """What netavark has a word for is no error, nor is what was not asked for."""
    translate.check_supported(entry, offered)


def test_ipam() -> None:
    """Without a word on it, host-local hands out the addresses of the subnets."""
    lease = {"start_ip": "10.0.0.5", "end_ip": "10.0.0.9"}
    subnet = {"subnet": "10.0.0.0/24", "gateway": "10.0.0.1", "lease_range": lease}

    found = translate.ipam_of({"driver": "bridge", "subnets": [subnet, {"subnet": "fd00::/64"}]})

    assert found == {
        "type": "host-local",
        "ranges": [
            [
                {
                    "subnet": "10.0.0.0/24",
                    "gateway": "10.0.0.1",
                    "rangeStart": "10.0.0.5",
                    "rangeEnd": "10.0.0.9",
                }
            ],
            [{"subnet": "fd00::/64"}],
        ],
    }
    assert translate.ipam_of({"driver": "bridge"}) == {}
    assert translate.ipam_of({**ENTRY, "ipam": {"type": "x"}}) == {"type": "x"}


def test_result() -> None:
    """An answer becomes a result, with the routes that netavark makes without a word."""
    answer: StatusBlock = {
        **status(),
        "dns_server_ips": ["10.0.0.1"],
        "dns_search_domains": ["dns.podman"],
    }

    result = translate.result_of(ask(), answer, "/n")

    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "nv0"}, {"name": "eth0", "mac": MAC, "sandbox": "/n"}],
        "ips": [
            {"interface": 1, "address": "10.0.0.2/24", "gateway": "10.0.0.1"},
            {"interface": 1, "address": "fd00::2/64", "gateway": "fd00::1"},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}, {"dst": "::/0", "gw": "fd00::1"}],
        "dns": {"nameservers": ["10.0.0.1"], "search": ["dns.podman"]},
    }


@pytest.mark.parametrize("change", [{"internal": True}, {"options": {"no_default_route": "true"}}])
def test_no_default_route(change: dict[str, Any]) -> None:
    """A network without a way out has only the routes that it was given."""
    routes = [{"destination": "10.5.0.0/16", "gateway": "10.0.0.9", "metric": 7}]

    result = translate.result_of(ask({**ENTRY, **change, "routes": routes}), status(), "/n")

    assert result["routes"] == [{"dst": "10.5.0.0/16", "gw": "10.0.0.9", "priority": 7}]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({}, "the interface 'eth0'"),
        ({"interfaces": {"eth1": {"mac_address": MAC}}}, "the interface 'eth0'"),
        (status(subnets=None), "the address 10.0.0.2"),
        (status(subnets=[{"ipnet": "10.0.0.3/24"}]), "the address 10.0.0.2"),
        (status(mac_address="02:00:00:00:00:99"), "the MAC 02:"),
    ],
)
def test_requests_that_are_ignored(answer: StatusBlock, problem: str) -> None:
    """An answer without what was asked for is an error that names it."""
    asked = ask(runtimeConfig={"mac": MAC.upper()})

    with pytest.raises(ShimError, match=problem) as caught:
        translate.result_of(asked, answer, "/n")

    assert caught.value.code == errors.PLUGIN_MISBEHAVED


def test_aliases_of_another_network() -> None:
    """Aliases for other networks only are none."""
    assert "aliases" not in ask(runtimeConfig={"aliases": {"other": ["x"]}})["network_options"]


def test_gateway_that_is_null() -> None:
    """A gateway that is null is as good as absent: the IPAM plugin's takes its place."""
    entry = {"driver": "bridge", "subnets": [{"subnet": "10.0.0.0/24", "gateway": None}]}

    asked = ask(entry, ips=IPS[1:])

    assert asked["network"]["subnets"] == [{"subnet": "10.0.0.0/24", "gateway": "10.0.0.1"}]


@pytest.mark.parametrize(
    "conf",
    [
        {"runtimeConfig": {"portMappings": [{"hostPort": 1}]}},
        {"runtimeConfig": {"portMappings": "80"}},
        {"runtimeConfig": {"aliases": "web"}},
        {"args": {"cni": ["x"]}},
        {"args": {"netavark": ["x"]}},
    ],
    ids=str,
)
def test_wrong_kinds_of_the_runtime(conf: dict[str, Any]) -> None:
    """What a runtime sends in a wrong kind is its error, not a crash and not passed on."""
    with pytest.raises(ShimError):
        ask(**conf)


@pytest.mark.parametrize("dns", [["10.0.0.53"], "10.0.0.53"])
def test_dns_of_a_wrong_kind(dns: Any) -> None:
    """Name servers of a wrong kind are an unsupported value, with key and value."""
    with pytest.raises(ShimError, match=r"runtimeConfig\.dns") as caught:
        translate.check_supported(ENTRY, {"dns": dns})

    assert "10.0.0.53" in caught.value.details


def test_another_interface_beside() -> None:
    """A driver that makes more than the one interface has ignored the request."""
    made: dict[str, NetInterface] = {name: {"mac_address": ""} for name in ("eth0", "eth1")}

    with pytest.raises(ShimError, match="interface 'eth0'"):
        translate.result_of(ask(), {"interfaces": made}, "/n")


@pytest.mark.parametrize("ipam", [True, 3, "10.0.0.1", ["10.0.0.1"]])
def test_addresses_of_the_caller_are_an_object(ipam: object) -> None:
    """What a caller has allocated must be an object; anything else is refused."""
    with pytest.raises(ShimError, match=r"runtimeConfig\.ipam: must be an object") as raised:
        translate.ips_of_caller(ipam)

    assert raised.value.code == errors.INVALID_NETWORK_CONFIG

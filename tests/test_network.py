# SPDX-License-Identifier: Apache-2.0
"""Networks of netavark become configurations of the shim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from podman import NETWORK

from netns_shim import conf, errors
from netns_shim.errors import ShimError
from netns_shim.netavark import document, network
from netns_shim.netavark.shapes import Network

SUBNETS = [{"subnet": "10.0.0.0/24", "gateway": "10.0.0.1"}]


def net(options: dict[str, str] | None = None, **changes: Any) -> Network:
    """Write a network, as the wire gives it."""
    found: Network = document.settled({**NETWORK, "options": options, **changes})
    return found


def made(options: dict[str, str], **changes: Any) -> dict[str, Any]:
    """Make a configuration, which is one that the schema accepts."""
    configuration = network.configuration(net(options, **changes), {})
    conf.check(configuration, None)
    return configuration


def problems(wanted: Network) -> list[str]:
    """List what is wrong with a network."""
    with pytest.raises(ShimError) as caught:
        network.configuration(wanted, {})
    assert caught.value.code == errors.INVALID_NETWORK_CONFIG
    assert caught.value.message.startswith("invalid network 'net': ")
    return caught.value.details.splitlines() or [caught.value.message.partition("': ")[2]]


def test_bridge() -> None:
    """A bridge is a gateway and masquerades, and its texts become numbers and truths."""
    found = made({"type": "bridge", "mtu": "1400", "hairpinMode": "true"}, network_interface="b0")

    bridge, portmap = found["plugins"]
    assert bridge.pop("capabilities")["ipam"] is True
    assert bridge == {
        "type": "bridge",
        "bridge": "b0",
        "isGateway": True,
        "ipMasq": True,
        "mtu": 1400,
        "hairpinMode": True,
    }
    assert portmap == {"type": "portmap", "capabilities": {"portMappings": True}}
    assert (found["name"], found["cniVersion"]) == ("net", "1.0.0")


def test_mac_of_a_ptp() -> None:
    """`ptp` takes no MAC, which Podman asks for when it reloads a network: `tuning` does."""
    ptp, tuning, portmap = made({"type": "ptp"})["plugins"]

    assert ptp["type"] == "ptp"
    assert "mac" not in ptp["capabilities"]
    assert tuning == {"type": "tuning", "capabilities": {"mac": True}}
    assert portmap["type"] == "portmap"


def test_internal() -> None:
    """An internal bridge is neither, unless an option says so."""
    bridge, _ = made({"type": "bridge", "isGateway": "true"}, internal=True)["plugins"]

    assert (bridge["isGateway"], bridge["ipMasq"]) == (True, False)


@pytest.mark.parametrize(
    ("options", "interface", "entry"),
    [
        ({"type": "macvlan", "mode": "bridge"}, "eth1", {"master": "eth1", "mode": "bridge"}),
        ({"type": "ipvlan", "mtu": "9000"}, "eth1", {"master": "eth1", "mtu": 9000}),
        ({"type": "vlan", "vlanId": "7"}, "eth1", {"master": "eth1", "vlanId": 7}),
        ({"type": "host-device"}, "eth1", {"device": "eth1"}),
        ({"type": "ptp"}, "", {"ipMasq": True}),
        ({"type": "mine"}, "", {}),
    ],
)
def test_plugins(options: dict[str, str], interface: str, entry: dict[str, Any]) -> None:
    """Each plugin has its own keys, one of them for the interface."""
    found = made(options, network_interface=interface)["plugins"][0]

    assert found.pop("capabilities")
    assert found == {"type": options["type"], **entry}


@pytest.mark.parametrize(
    ("options", "ipam_options", "subnets", "by_caller", "ipam"),
    [
        ({}, None, SUBNETS, True, None),
        ({}, {"driver": "host-local"}, SUBNETS, True, None),
        ({}, {"driver": "none"}, None, False, None),
        ({}, {"driver": "dhcp"}, None, False, {"type": "dhcp"}),
        ({"ipam": "dhcp"}, {"driver": "none"}, None, False, {"type": "dhcp"}),
        ({}, None, None, False, None),
    ],
)
def test_who_allocates(
    options: dict[str, str], ipam_options: Any, subnets: Any, by_caller: bool, ipam: Any
) -> None:
    """Exactly one side allocates addresses: the caller where there are subnets, or nobody else."""
    changes = {"ipam_options": ipam_options, "subnets": subnets}

    found = made({"type": "macvlan", **options}, **changes)

    assert network.is_by_caller(net(None, **changes)) is by_caller
    assert found["plugins"][0].get("ipam") == ipam


def test_conf(tmp_path: Path) -> None:
    """A file is taken as it is; with subnets its IPAM plugin makes way for the caller's."""
    path = tmp_path / "x.conflist"
    plugins = [{"type": "tuning"}, {"type": "bridge", "ipam": {"type": "host-local"}}]
    path.write_text(json.dumps({"cniVersion": "0.4.0", "name": "theirs", "plugins": plugins}))

    as_it_is = made({"conf": str(path)})
    with_subnets = made({"conf": str(path)}, subnets=SUBNETS)

    assert (as_it_is["name"], as_it_is["cniVersion"]) == ("theirs", "0.4.0")
    assert as_it_is["plugins"] == plugins
    assert with_subnets["plugins"][0] == plugins[0]
    assert with_subnets["plugins"][1]["capabilities"] == {"ipam": True}


def test_name_servers(tmp_path: Path) -> None:
    """What `--dns` of the network names is in the result of the plugin that has the addresses."""
    path = tmp_path / "x.conflist"
    plugins = [{"type": "tuning"}, {"type": "bridge", "ipam": {}, "dns": {"domain": "x.test"}}]
    path.write_text(json.dumps({"cniVersion": "0.4.0", "name": "theirs", "plugins": plugins}))
    servers = ["192.0.2.53"]

    own, portmap = made({"type": "bridge"}, network_dns_servers=servers)["plugins"]
    tuning, bridge = made({"conf": str(path)}, network_dns_servers=servers)["plugins"]

    assert own["dns"] == {"nameservers": servers}
    assert bridge["dns"] == {"domain": "x.test", "nameservers": servers}
    assert "dns" not in portmap
    assert "dns" not in tuning


def test_driver() -> None:
    """Another driver gets the rest of the options, and what the network says, without nulls."""
    changes = {"subnets": SUBNETS[:1], "internal": True}

    found = made({"driver": "bridge", "mtu": "1400", "no_default_route": "true"}, **changes)

    (entry,) = found["plugins"]
    assert entry.pop("capabilities")
    assert entry == {
        "driver": "bridge",
        "options": {"mtu": "1400", "no_default_route": "true"},
        "internal": True,
        "subnets": SUBNETS,
        "ipam": {},
    }


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"driver": "bridge"}, True),
        ({"driver": "bridge", "names": "false"}, False),
        ({"driver": "macvlan"}, None),
    ],
)
def test_names_of_drivers(options: dict[str, str], names: bool | None) -> None:
    """netavark's own bridge has names as a CNI plugin has them, not by a server of netavark."""
    found = made(options, dns_enabled=True)

    assert found.get("names") is names
    assert "dns_enabled" not in found["plugins"][0]


def test_keys_of_the_shim() -> None:
    """Keys of the shim itself stand beside any way, as texts."""
    options = {
        "type": "ptp",
        "enter": "never",
        "netns": "n",
        "parallel": "false",
        "pluginDirs": "/a:/b",
        "publish": "false",
        "stateDir": "/s",
        "timeout": "1.5",
        "uplink": "none",
    }

    found = made(options)

    assert found["pluginDirs"] == ["/a", "/b"]
    assert found["parallel"] is False
    assert found["publish"] is False
    assert found["timeout"] == 1.5
    assert {key: found[key] for key in ("enter", "netns", "stateDir", "uplink")} == {
        "enter": "never",
        "netns": "n",
        "stateDir": "/s",
        "uplink": "none",
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("8080", ["8080"]), ("[::1]:53:53/udp,80-81", ["[::1]:53:53/udp", "80-81"])],
)
def test_ports_to_publish(text: str, value: object) -> None:
    """The option `publish` is true, false or a list with commas."""
    assert made({"type": "ptp", "publish": text})["publish"] == value


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (net(), ["one of conf"]),
        (net({"type": "ptp", "conf": "x"}), ["there is conf and type"]),
        (
            net({"type": "bridge", "mtu": "x", "vlan": "-1", "ipMasq": "yes", "typo": ""}),
            [
                "options.mtu: must",
                "options.vlan: must",
                "options.ipMasq: must",
                "options.typo: un",
            ],
        ),
        (net({"type": "mine", "mtu": "1400"}), ["those of 'mine' are not known"]),
        (net({"type": "ptp"}, network_interface="x"), ["'ptp' has no key for it"]),
        (net({"type": "ptp", "timeout": "soon"}), ["options.timeout: must be a number of"]),
        (net({"type": "ptp", "parallel": "no"}), ["options.parallel: must be true or false"]),
        (net({"conf": "/gone", "mtu": "1", "ipam": "x"}), ["mtu: is", "ipam: is", "cannot read"]),
        (net({"driver": "cni"}), ["cannot wrap itself"]),
        (
            net({"type": "ptp"}, routes=[{"destination": "10.5.0.0/16"}]),
            ["routes: cannot be passed"],
        ),
        (
            net({"conf": "/gone"}, network_interface="x"),
            ["network_interface: is not", "cannot read"],
        ),
    ],
)
def test_problems(wanted: Network, expected: list[str]) -> None:
    """All that is wrong with the options is said at once."""
    found = problems(wanted)

    assert len(found) == len(expected)
    for line, part in zip(found, expected, strict=True):
        assert part in line


@pytest.mark.parametrize(
    ("change", "ipam", "expected"),
    [
        ({}, None, [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}, {"dst": "::/0", "gw": "fd00::1"}]),
        ({"internal": True}, None, []),
        ({"options": {"no_default_route": "true"}}, None, []),
        ({}, {"routes": [{"dst": "10.9.0.0/16"}]}, [{"dst": "10.9.0.0/16"}]),
        (
            {
                "internal": True,
                "routes": [{"destination": "10.5.0.0/16", "gateway": None, "metric": 7}],
            },
            None,
            [{"dst": "10.5.0.0/16", "priority": 7}],
        ),
    ],
)
def test_routes(change: dict[str, Any], ipam: Any, expected: list[Any]) -> None:
    """Default routes, unless the file or the network says otherwise, and the network's own."""
    plugins = [{"type": "x"}, {"type": "bridge", "ipam": ipam} if ipam else {"type": "y"}]
    gateways = ["10.0.0.1", "fd00::1", "10.0.1.1"]

    assert network.routes(net(**change), {"plugins": plugins}, gateways) == expected


def test_routes_that_cni_has_not() -> None:
    """A blackhole has no word in CNI, which is an error with its destination."""
    wanted = net(routes=[{"destination": "10.5.0.0/16", "route_type": "blackhole"}])

    with pytest.raises(ShimError, match="no route of the type 'blackhole'") as caught:
        network.routes(wanted, {"plugins": []}, [])

    assert (caught.value.code, caught.value.details) == (errors.UNSUPPORTED_FIELD, "10.5.0.0/16")


def test_plugins_are_looked_for() -> None:
    """The option counts for more than the variable, and that for more than the usual places."""
    assert network.cni_path(net({"cniPath": "/a"}), {"CNI_PATH": "/b"}) == "/a"
    assert network.cni_path(net(), {"CNI_PATH": "/b"}) == "/b"
    assert "/opt/cni/bin" in network.cni_path(net(), {}).split(":")


@pytest.mark.parametrize(
    ("options", "changes", "problem"),
    [
        ({"type": "ptp"}, {"subnets": SUBNETS, "ipam_options": {"driver": "none"}}, "'none'"),
        ({"type": "ptp"}, {"subnets": SUBNETS, "ipam_options": {"driver": "dhcp"}}, "'dhcp'"),
        ({"driver": "bridge"}, {"ipam_options": {"driver": "dhcp"}}, "beside conf and driver"),
        (
            {"type": "ptp"},
            {"subnets": [{"subnet": "10.0.0.0/24", "gateway": "10.0.1.1"}]},
            "subnets[0].gateway: 10.0.1.1 is not in 10.0.0.0/24",
        ),
        (
            {"type": "ptp"},
            {"subnets": [*SUBNETS, {"subnet": "fd00::/64", "gateway": "10.0.0.1"}]},
            "subnets[1].gateway: 10.0.0.1 is not in fd00::/64",
        ),
        (
            {"type": "ptp"},
            {"subnets": [{**SUBNETS[0], "lease_range": {"end_ip": "10.0.1.9"}}]},
            "subnets[0].lease_range.end_ip: 10.0.1.9 is not in 10.0.0.0/24",
        ),
    ],
)
def test_addresses_that_contradict(
    options: dict[str, str], changes: dict[str, Any], problem: str
) -> None:
    """Addresses that cannot be allocated, or that are in no subnet, are refused."""
    with pytest.raises(ShimError) as caught:
        network.configuration(net(options, **changes), {})

    assert caught.value.code == errors.INVALID_NETWORK_CONFIG
    assert problem in str(caught.value)


def test_keys_in_file_and_option(tmp_path: Path) -> None:
    """A key of the shim that is in the file as well as in an option is refused."""
    entry = {"type": "netns-shim", "netns": "n", "delegate": {"type": "a"}}
    path = tmp_path / "x"
    path.write_text(json.dumps({"name": "theirs", "plugins": [entry]}))

    with pytest.raises(ShimError, match=r"options\.netns: is in the file"):
        network.configuration(net({"conf": str(path), "netns": "m"}), {})


@pytest.mark.parametrize("conf_option", ["/", "/a\0b"])
def test_unreadable_file_is_one_problem_of_many(conf_option: str) -> None:
    """Whatever is wrong with the file, the other problems are told beside it."""
    with pytest.raises(ShimError) as caught:
        network.configuration(net({"conf": conf_option, "mtu": "1"}), {})

    lines = caught.value.details.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["options.mtu", "options.conf"]


def test_capabilities_of_the_file_are_no_object(tmp_path: Path) -> None:
    """Capabilities of the wrong kind in a file are refused, not a crash."""
    path = tmp_path / "x"
    plugins = [{"type": "a", "capabilities": ["ips"]}]
    path.write_text(json.dumps({"name": "theirs", "plugins": plugins}))

    with pytest.raises(ShimError) as caught:
        conf.check(network.configuration(net({"conf": str(path)}, subnets=SUBNETS), {}), None)

    assert caught.value.code == errors.INVALID_NETWORK_CONFIG


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "0", "soon", ""])
def test_time_limits_that_are_none(text: str) -> None:
    """A time limit is a finite number above zero."""
    with pytest.raises(ShimError) as caught:
        conf.check(network.configuration(net({"type": "ptp", "timeout": text}), {}), None)

    assert caught.value.code == errors.INVALID_NETWORK_CONFIG

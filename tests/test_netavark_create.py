# SPDX-License-Identifier: Apache-2.0
"""Making a network of netavark: what is completed, and what is refused."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import fakes
import pytest
from fake_netavark import netavark
from podman import conflist, serve

from netns_shim import errors, hostnet, invoke, netns
from netns_shim.cli import install
from netns_shim.errors import ShimError
from netns_shim.faces import netavark_create
from netns_shim.netavark import pool, wire

Json = dict[str, Any]

ID = "0123456789" * 6 + "abcd"
SUBNET = {"subnet": "10.89.8.0/24"}


def network(directory: Path, options: Json, **changes: Any) -> Json:
    """Return a network as Podman asks for it, whose plugins are in one directory."""
    places = {"cniPath": str(directory)}
    if "driver" in options:
        places["pluginDirs"] = str(directory)
    return {
        "name": "net",
        "id": ID,
        "driver": "cni",
        "created": "0001-01-01T00:00:00Z",
        "dns_enabled": False,
        "internal": False,
        "ipv6_enabled": False,
        "options": {**places, **options},
        **changes,
    }


def complete(wanted: Json, **environ: str) -> Json:
    """Return a network as it is made."""
    made: Json = json.loads(
        netavark_create.complete(wire.decode_network(json.dumps(wanted).encode()), environ)
    )
    return made


def failure(wanted: Json, **environ: str) -> ShimError:
    """Return the error that making a network must end in."""
    with pytest.raises(ShimError) as caught:
        netavark_create.complete(wire.decode_network(json.dumps(wanted).encode()), environ)
    assert caught.value.code == errors.INVALID_NETWORK_CONFIG
    return caught.value


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with some plugins of CNI and one of netavark."""
    for name in ("bridge", "dhcp", "fake", "macvlan", "portmap", "ptp", "static", "tuning"):
        fakes.strict_plugin(tmp_path, name)
    netavark(tmp_path)
    return tmp_path


@pytest.mark.parametrize("options", [{"type": "fake"}, {"type": "bridge"}, {"driver": "mock"}])
def test_identity_is_kept(directory: Path, options: Json) -> None:
    """Name, ID and driver are what they were, and so are unknown options and keys."""
    wanted = network(directory, options, subnets=[SUBNET], labels={"a": "b"}, unknown=[None])

    made = complete(wanted)

    for key in ("name", "id", "driver", "created", "options", "labels", "unknown"):
        assert made[key] == wanted[key]


def test_create_is_a_command(directory: Path) -> None:
    """`create` answers with one network."""
    wanted = network(directory, {"type": "fake"})

    answer = serve(["create"], wanted)

    assert answer.value["name"] == "net"


def test_nothing_is_run_and_nothing_is_written(directory: Path) -> None:
    """Making a network of CNI plugins runs none of them and leaves nothing behind."""
    before = sorted(directory.iterdir())
    options = {"type": "fake", "stateDir": str(directory / "state")}

    complete(network(directory, options, subnets=[SUBNET]))

    assert sorted(directory.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "changes", "expected"),
    [
        ({"type": "fake"}, {"subnets": [SUBNET]}, "host-local"),
        ({"type": "fake"}, {"subnets": [SUBNET], "ipam_options": None}, "host-local"),
        (
            {"type": "fake"},
            {"subnets": [SUBNET], "ipam_options": {"driver": "host-local"}},
            "host-local",
        ),
        ({"driver": "mock"}, {"subnets": [SUBNET]}, "host-local"),
        ({"type": "fake"}, {}, "none"),
        ({"type": "fake"}, {"subnets": None}, "none"),
        ({"type": "fake"}, {"subnets": []}, "none"),
        ({"type": "fake"}, {"ipam_options": {"driver": "none"}}, "none"),
        ({"type": "macvlan", "ipam": "dhcp"}, {}, "none"),
        ({"type": "macvlan"}, {"ipam_options": {"driver": "dhcp"}}, "none"),
        ({"driver": "mock"}, {}, "none"),
    ],
)
def test_who_allocates(directory: Path, options: Json, changes: Json, expected: str) -> None:
    """The caller allocates where there are subnets, and nothing that it knows elsewhere."""
    made = complete(network(directory, options, **changes))

    assert made["ipam_options"]["driver"] == expected


def test_who_allocates_with_conf(directory: Path) -> None:
    """The IPAM plugin of a file allocates, unless the network has subnets."""
    path = conflist(directory / "x.conflist", {"type": "fake", "ipam": {"type": "dhcp"}})

    by_plugin = complete(network(directory, {"conf": path}))
    by_caller = complete(network(directory, {"conf": path}, subnets=[SUBNET]))

    assert by_plugin["ipam_options"] == {"driver": "none"}
    assert by_caller["ipam_options"] == {"driver": "host-local"}


def test_ipam_driver_is_remembered(directory: Path) -> None:
    """An IPAM plugin that was named as netavark names it becomes an option, for every setup."""
    made = complete(network(directory, {"type": "macvlan"}, ipam_options={"driver": "dhcp"}))

    assert made["options"]["ipam"] == "dhcp"
    assert complete(made) == made


@pytest.mark.parametrize("options", [{"type": "bridge"}, {"type": "fake"}, {"driver": "mock"}])
def test_what_was_made_can_be_made_again(directory: Path, options: Json) -> None:
    """A network that is complete stays as it is."""
    made = complete(network(directory, options, subnets=[SUBNET], dns_enabled=True))

    assert complete(made) == made


@pytest.mark.parametrize(
    ("subnet", "expected"),
    [
        ({"subnet": "10.89.8.0/24"}, "10.89.8.1"),
        ({"subnet": "10.89.8.0/24", "gateway": None}, "10.89.8.1"),
        ({"subnet": "10.89.8.0/24", "gateway": "10.89.8.254"}, "10.89.8.254"),
        ({"subnet": "10.89.8.77/24"}, "10.89.8.1"),
        ({"subnet": "fd00::/64"}, "fd00::1"),
    ],
)
def test_gateways(directory: Path, subnet: Json, expected: str) -> None:
    """A subnet without a gateway gets its first address as one."""
    made = complete(network(directory, {"type": "fake"}, subnets=[subnet]))

    assert made["subnets"][0]["gateway"] == expected
    assert made["ipv6_enabled"] is (":" in expected)


def test_subnets_of_a_bridge(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """netavark's bridge gets subnets if none was named: others for another network."""
    netavark(directory, "netavark")
    wanted = network(directory, {"driver": "bridge"}, ipv6_enabled=True)

    first = complete(wanted, PATH=str(directory))
    again = complete(wanted, PATH=str(directory))
    other = complete({**wanted, "id": ID[::-1]}, PATH=str(directory))
    gateway = first["subnets"][0]["gateway"]
    monkeypatch.setattr(hostnet, "own_addresses", lambda: [gateway])
    beside = complete(wanted, PATH=str(directory))

    four, six = (ipaddress.ip_network(subnet["subnet"]) for subnet in first["subnets"])
    assert four.network_address in pool.POOL
    assert (four.prefixlen, six.prefixlen, six.is_private) == (24, 64, True)
    assert gateway == str(four[1])
    assert first["ipam_options"]["driver"] == "host-local"
    assert again == first
    assert not {s["subnet"] for s in other["subnets"]} & {str(four), str(six)}
    assert ipaddress.ip_address(gateway) not in ipaddress.ip_network(
        beside["subnets"][0]["subnet"]
    )
    for options in ({"ipam_options": {"driver": "none"}}, {"subnets": [SUBNET]}):
        kept = complete({**wanted, "ipv6_enabled": False, **options}, PATH=str(directory))
        assert [s["subnet"] for s in kept.get("subnets") or []] in ([], [SUBNET["subnet"]])


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
def test_subnets_of_a_plugin(directory: Path, kind: str) -> None:
    """So do plugins of CNI that Podman's users take for such, unless something else allocates."""
    made = complete(network(directory, {"type": kind}))

    (subnet,) = made["subnets"]
    assert ipaddress.IPv4Network(subnet["subnet"]).subnet_of(pool.POOL)
    assert made["ipam_options"]["driver"] == "host-local"
    assert complete(made) == made
    assert len(complete(network(directory, {"type": kind}, ipv6_enabled=True))["subnets"]) == 2
    for options, changes in (
        ({"ipam": "dhcp"}, {}),
        ({}, {"ipam_options": {"driver": "dhcp"}}),
        ({}, {"ipam_options": {"driver": "none"}}),
    ):
        wanted = network(directory, {"type": kind, **options}, **changes)
        assert not complete(wanted).get("subnets")
    wanted = network(directory, {"type": "macvlan"})
    assert not complete(wanted).get("subnets")


def test_subnets_that_others_have(directory: Path) -> None:
    """None is chosen that overlaps with one of Podman's networks, or of CNI's."""
    wanted = network(directory, {"type": "bridge"})
    environ = {"HOME": str(directory)}
    (first,) = complete(wanted, **environ)["subnets"]
    podman = directory / ".local/share/containers/storage/networks"
    podman.mkdir(parents=True)
    (podman / "other.json").write_text(json.dumps({"subnets": [first]}))
    (podman / "odd.json").write_text("[" * 100000)
    (podman / "pipe.json").symlink_to("/dev/zero")

    (second,) = complete(wanted, **environ)["subnets"]

    assert second["subnet"] != first["subnet"]
    cni = directory / ".config/cni/net.d"
    cni.mkdir(parents=True)
    half = ipaddress.ip_network(second["subnet"]).supernet(4)
    ranges = [[{"subnet": str(half)}]]
    conflist(cni / "x.conflist", {"type": "bridge", "ipam": {"ranges": ranges}})
    (third,) = complete(wanted, **environ)["subnets"]
    assert not ipaddress.ip_network(third["subnet"]).overlaps(half)


def test_no_room(directory: Path) -> None:
    """Where others have all of it, one is chosen all the same, and Podman decides."""
    podman = directory / ".local/share/containers/storage/networks"
    podman.mkdir(parents=True)
    (podman / "all.json").write_text(json.dumps({"subnets": [{"subnet": "10.0.0.0/8"}]}))

    (subnet,) = complete(network(directory, {"type": "bridge"}), HOME=str(directory))["subnets"]

    assert ipaddress.IPv4Network(subnet["subnet"]).subnet_of(pool.POOL)


def test_entering_for_a_rootless_podman(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """enter=always is warned of where each call comes from another mount namespace."""
    for is_root in (True, False):
        monkeypatch.setattr(netns, "is_initial_userns", lambda is_root=is_root: is_root)
        complete(network(directory, {"type": "fake", "enter": "always"}))

        assert ("enter=always" in capsys.readouterr().err) is not is_root


def test_internal_network_gets_no_gateway(directory: Path) -> None:
    """An internal network gets no gateway."""
    made = complete(network(directory, {"type": "fake"}, subnets=[SUBNET], internal=True))

    assert not made["subnets"][0].get("gateway")


@pytest.mark.parametrize("options", [{"type": "bridge"}, {"driver": "bridge"}])
def test_name_of_a_bridge(directory: Path, options: Json) -> None:
    """A bridge gets a name of its own, one that was given stays."""
    netavark(directory, "netavark")
    wanted = network(directory, options, subnets=[SUBNET])

    made = complete(wanted, PATH=str(directory))
    other = complete({**wanted, "id": ID[::-1]}, PATH=str(directory))
    named = complete({**wanted, "network_interface": "br7"}, PATH=str(directory))

    assert 0 < len(made["network_interface"]) < 16
    assert made["network_interface"] != other["network_interface"]
    assert named["network_interface"] == "br7"


def test_other_plugins_get_no_bridge(directory: Path) -> None:
    """What is no bridge gets no name of one, nor does a bridge that a file names."""
    path = conflist(directory / "x.conflist", {"type": "bridge", "bridge": "br0"})

    for options in ({"type": "macvlan"}, {"conf": path}, {"driver": "mock"}):
        assert not complete(network(directory, options)).get("network_interface")


@pytest.mark.parametrize("options", [{"type": "bridge"}, {"driver": "mock"}, {"driver": "bridge"}])
def test_names_that_do_not_resolve(
    directory: Path, options: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dns_enabled` becomes false where no server would resolve a name."""
    # A machine may have aardvark-dns.
    monkeypatch.setattr(invoke, "HELPER_DIRECTORIES", ())
    netavark(directory, "netavark")

    made = complete(
        network(directory, options, subnets=[SUBNET], dns_enabled=True), PATH=str(directory)
    )

    assert made["dns_enabled"] is False


@pytest.mark.parametrize(
    ("options", "asked", "names"),
    [
        ({"type": "bridge"}, True, True),
        ({"type": "bridge"}, False, False),
        ({"type": "bridge", "names": "true"}, False, True),
        ({"type": "bridge", "names": "false"}, True, False),
        ({"type": "bridge", "isGateway": "false"}, True, False),
        ({"type": "macvlan"}, True, False),
    ],
)
def test_names_of_plugins(directory: Path, options: Json, asked: bool, names: bool) -> None:
    """A plugin with a gateway has names if the network has, or the option says so."""
    fakes.executable(directory / "aardvark-dns", "#!/bin/sh\n")
    wanted = network(directory, options, subnets=[SUBNET], dns_enabled=asked)

    assert complete(wanted, PATH=str(directory))["dns_enabled"] is names


def test_internal_network_with_names(directory: Path) -> None:
    """It has a gateway, on which the server listens, and no other internal network has."""
    fakes.executable(directory / "aardvark-dns", "#!/bin/sh\n")
    gateways = [
        complete(
            network(
                directory,
                {"type": "bridge"},
                subnets=[{**SUBNET}],
                dns_enabled=asked,
                internal=True,
            ),
            PATH=str(directory),
        )["subnets"][0].get("gateway")
        for asked in (True, False)
    ]

    assert [bool(gateway) for gateway in gateways] == [True, False]


def test_names_that_resolve(directory: Path) -> None:
    """`dns_enabled` stays for netavark's own bridge where aardvark-dns is installed."""
    netavark(directory, "netavark")
    fakes.executable(directory / "aardvark-dns", "#!/bin/sh\n")
    wanted = network(directory, {"driver": "bridge"}, subnets=[SUBNET], dns_enabled=True)

    made = complete(wanted, PATH=str(directory))

    assert made["dns_enabled"] is True


@pytest.mark.parametrize(
    ("options", "changes", "problem"),
    [
        ({}, {}, "one of conf (a CNI network), type"),
        ({"type": "fake", "conf": "x"}, {}, "there is conf and type"),
        ({"type": "fake", "mtu": "1"}, {}, "options: those of 'fake' are not known here"),
        ({"type": "bridge", "mtv": "1"}, {}, "options.mtv: unknown option"),
        ({"type": "bridge", "mtu": "x"}, {}, "options.mtu: must be a number, is 'x'"),
        ({"type": "bridge", "ipMasq": "yes"}, {}, "options.ipMasq: must be true or false"),
        ({"type": "fake", "timeout": "soon"}, {}, "options.timeout: must be a number of seconds"),
        ({"type": "fake", "timeout": "-1"}, {}, "timeout"),
        ({"type": "fake", "enter": "perhaps"}, {}, "enter"),
        ({"type": "fake", "stateDir": "relative"}, {}, "stateDir"),
        ({"type": "../fake"}, {}, "../fake"),
        ({"type": "none"}, {}, "failed to find plugin 'none'"),
        ({"type": "macvlan", "ipam": "none-such"}, {}, "failed to find plugin 'none-such'"),
        ({"type": "fake"}, {"network_interface": "x"}, "network_interface: the plugin 'fake'"),
        ({"conf": "/no/such/file"}, {}, "cannot read '/no/such/file'"),
        ({"conf": "no-such-network"}, {}, "no CNI network 'no-such-network'"),
        ({"conf": "x", "mtu": "1"}, {}, "options.mtu: is not known beside conf"),
        ({"driver": "none"}, {}, "failed to find driver 'none'"),
        ({"driver": "mock", "ipam": "dhcp"}, {}, "options.ipam: is not known beside driver"),
        (
            {"type": "fake"},
            {"subnets": [{**SUBNET, "gateway": "10.1.0.1"}]},
            "subnets[0].gateway: 10.1.0.1 is not in 10.89.8.0/24",
        ),
        (
            {"type": "fake"},
            {"subnets": [SUBNET], "ipam_options": {"driver": "dhcp"}},
            "ipam_options.driver: 'dhcp' allocates nothing",
        ),
    ],
)
def test_what_is_refused(directory: Path, options: Json, changes: Json, problem: str) -> None:
    """What could not work is refused when the network is made."""
    error = failure(network(directory, options, **changes), HOME=str(directory))

    assert problem in str(error)


def test_plugin_for_the_addresses_of_the_caller(directory: Path) -> None:
    """In a network with subnets the plugin `static` is needed, and only there."""
    (directory / "static").unlink()
    wanted = network(directory, {"type": "bridge"})

    complete(wanted)
    error = failure({**wanted, "subnets": [SUBNET]})

    assert "failed to find plugin 'static'" in str(error)


def test_all_problems_at_once(directory: Path) -> None:
    """All that is wrong is one error: options, plugins and addresses."""
    options = {"type": "bridge", "mtv": "1", "vlan": "x", "timeout": "soon"}
    (directory / "portmap").unlink()
    subnets = [SUBNET, {**SUBNET, "gateway": "10.1.0.1"}]

    error = failure(network(directory, options, subnets=subnets))

    for problem in (
        "options.mtv",
        "options.vlan",
        "options.timeout",
        "failed to find plugin 'portmap'",
        "subnets[1].gateway",
    ):
        assert problem in error.details
    assert error.message == "invalid network 'net': 5 problems"


def test_all_that_is_missing(directory: Path) -> None:
    """Each plugin that is not installed is named, and each address that does not fit."""
    for name in ("bridge", "portmap", "static"):
        (directory / name).unlink()
    subnets = [{**SUBNET, "gateway": "10.1.0.1"}]

    error = failure(network(directory, {"type": "bridge"}, subnets=subnets))

    assert error.message == "invalid network 'net': 4 problems"
    assert "'bridge'" in error.details
    assert "'portmap'" in error.details
    assert "'static'" in error.details
    assert "10.1.0.1" in error.details


def test_all_options_that_are_wrong(directory: Path) -> None:
    """Each option that is wrong is named."""
    options = {"type": "bridge", "mtv": "1", "vlan": "x", "timeout": "soon"}

    error = failure(network(directory, options))

    assert [line.partition(":")[0] for line in sorted(error.details.splitlines())] == [
        "options.mtv",
        "options.timeout",
        "options.vlan",
    ]


@pytest.mark.parametrize("value", [1400, True, ["1400"], {}])
def test_options_are_texts(directory: Path, value: Any) -> None:
    """An option that is no text is refused, as netavark refuses it."""
    answer = serve(["create"], network(directory, {"type": "bridge", "mtu": value}))

    assert "options.mtu: must be a string" in answer.error


def test_create_of_the_wrapped(directory: Path) -> None:
    """A wrapped plugin of netavark completes the network by its own options, under its name."""
    script = """
if verb == "create":
    answer({
        **asked,
        "driver": "mock",
        "name": "other",
        "network_interface": "mock0",
        "options": {**asked["options"], "own": "changed", "more": "x"},
    })
    sys.exit()
"""
    netavark(directory, script=script)
    options = {"driver": "mock", "own": "x", "timeout": "7"}

    made = complete(network(directory, options), CNI_COMMAND="ADD", OTHER="kept")

    (call,) = fakes.calls(directory)
    assert call.conf["argv"] == ["create"]
    asked = call.conf["stdin"]
    assert (asked["name"], asked["id"], asked["driver"]) == ("net", ID, "mock")
    assert asked["options"] == {"own": "x"}
    assert call.environ["OTHER"] == "kept"
    assert "CNI_COMMAND" not in call.environ
    assert (made["name"], made["id"], made["driver"]) == ("net", ID, "cni")
    assert made["network_interface"] == "mock0"
    assert made["options"] == {
        "cniPath": str(directory),
        "pluginDirs": str(directory),
        "driver": "mock",
        "timeout": "7",
        "own": "changed",
        "more": "x",
    }


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("fail('no such mode')", "no such mode"),
        ("print('thread panicked', file=sys.stderr); sys.exit(101)", "thread panicked"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("print('oh no'); sys.exit()", "decode"),
        ("sys.exit()", "it is empty"),
        ("answer({}); sys.exit()", "is missing"),
        ("answer({**asked, 'options': {'mtu': 1}}); sys.exit()", "options.mtu"),
    ],
)
def test_failed_create_of_the_wrapped(directory: Path, script: str, expected: str) -> None:
    """A failure of a wrapped plugin, or an answer that is no network, is our failure."""
    netavark(directory, script=script + "\n")

    answer = serve(["create"], network(directory, {"driver": "mock"}))

    assert expected in answer.error
    assert "bug" not in answer.error


def test_a_driver_does_not_wrap_itself(directory: Path) -> None:
    """A network whose driver is to wrap itself would never come to an end, and is refused."""
    netavark(directory, "cni")

    error = failure(network(directory, {"driver": "cni"}))

    assert "cannot wrap itself" in str(error)
    assert fakes.calls(directory) == []


def test_a_driver_does_not_wrap_another_launcher(directory: Path) -> None:
    """A launcher of netns-shim under another name is no driver to wrap."""
    install.install(str(directory), "other", force=False)
    (directory / "link").symlink_to(directory / "other")

    for name in ("other", "link"):
        error = failure(network(directory, {"driver": name}))

        assert f"failed to find driver '{name}'" in str(error)


def test_wrapped_that_allocates_by_itself(directory: Path) -> None:
    """A driver that hands out addresses itself says so, and Podman is told."""
    script = """
if verb == "create":
    answer({**asked, "ipam_options": {"driver": "none"}})
    sys.exit()
"""
    netavark(directory, "mock", script)

    made = complete(network(directory, {"driver": "mock"}, subnets=[dict(SUBNET)]))

    assert made["ipam_options"] == {"driver": "none"}
    assert made["subnets"] == [SUBNET]  # no gateway is added either


def test_ports_to_publish(directory: Path) -> None:
    """The option `publish` is refused where it is no list of ports, and kept as it is."""
    error = failure(network(directory, {"type": "fake", "publish": "8080,nonsense"}))
    made = complete(network(directory, {"type": "fake", "publish": "false"}))

    assert "publish[1]" in f"{error.message} {error.details}"
    assert made["options"]["publish"] == "false"

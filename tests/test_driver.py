# SPDX-License-Identifier: Apache-2.0
"""A driver of netavark in a chain: what it is asked, who allocates, what its failures become."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import fakes
import pytest
from fake_netavark import MAC, NETNS, SUBNET, ipam, netavark

from netns_shim import errors, locks
from netns_shim.chain import Chain
from netns_shim.cli import install
from netns_shim.conf import Configuration
from netns_shim.errors import ShimError
from netns_shim.netavark import driver, program
from netns_shim.netavark.shapes import Network
from netns_shim.request import Request
from netns_shim.versions import Versions

ENTRY: dict[str, Any] = {"driver": "mock", "subnets": [SUBNET]}


def chain(
    directory: Path,
    *entries: dict[str, Any],
    environ: dict[str, str] | None = None,
    dirs: list[Path] | None = None,
    **conf: Any,
) -> Chain:
    """Return the chain of entries, whose programs are all in one directory."""
    variables = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": NETNS,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(directory),
    }
    plugins = list(entries or [ENTRY])
    request = Request(
        "ADD",
        network="net",
        cni_version="1.1.0",
        conf={"cniVersion": "1.1.0", "name": "net", "plugins": plugins, **conf},
        environ={**variables, **(environ or {})},
        path=str(directory),
    )
    plugin_dirs = [str(path) for path in dirs or [directory]]
    configuration = Configuration(
        plugins=plugins,
        timeout=conf.get("timeout", 60),
        plugin_dirs=plugin_dirs,
        parallel=conf.get("parallel"),
    )
    return Chain(configuration, request, request.environ, Versions(None), str(directory / "state"))


def failure(call: Any, *arguments: Any) -> ShimError:
    """Return the error that a call must end in."""
    with pytest.raises(ShimError) as caught:
        call(*arguments)
    return caught.value


def only(directory: Path, verb: str, name: str = "mock") -> fakes.Call:
    """Return the only call of a verb of one fake."""
    (call,) = (c for c in fakes.calls(directory) if (c.name, c.verb) == (name, verb))
    return call


def remembered(directory: Path) -> list[Path]:
    """Return the files of requests that are kept for a teardown."""
    return list((directory / "state/attachments").glob("*"))


def test_result(tmp_path: Path) -> None:
    """The answer of a driver becomes a result: interface, addresses, and a default route."""
    netavark(tmp_path)
    ipam(tmp_path)

    result = chain(tmp_path).add()

    assert result == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mac": MAC, "sandbox": NETNS}],
        "ips": [{"interface": 0, "address": "10.89.8.2/24", "gateway": "10.89.8.1"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.89.8.1"}],
    }


def test_driver_is_asked_as_by_netavark(tmp_path: Path) -> None:
    """A driver gets all that netavark gives, and no key that netavark would not."""
    netavark(tmp_path)
    ipam(tmp_path)
    entry = {
        **ENTRY,
        "options": {"mtu": "1400"},
        "capabilities": {"portMappings": True, "mac": True, "aliases": True},
    }
    offered = {
        "portMappings": [{"hostPort": 8080, "containerPort": 80}],
        "mac": "02:00:00:00:00:07",
        "aliases": ["web"],
    }

    chain(
        tmp_path,
        entry,
        environ={"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=pod"},
        runtimeConfig=offered,
    ).add()

    call = only(tmp_path, "setup")
    assert call.conf["argv"] == ["setup", NETNS]
    asked = call.conf["stdin"]
    assert (asked["container_id"], asked["container_name"]) == ("c", "pod")
    assert asked["port_mappings"] == [
        {"host_ip": "", "host_port": 8080, "container_port": 80, "protocol": "tcp", "range": 1}
    ]
    assert asked["network_options"] == {
        "interface_name": "eth0",
        "static_ips": ["10.89.8.2"],
        "static_mac": "02:00:00:00:00:07",
        "aliases": ["web"],
    }
    network = asked["network"]
    assert (network["name"], network["driver"]) == ("net", "mock")
    assert network["options"] == {"mtu": "1400"}
    assert network["subnets"] == [SUBNET]
    assert len(bytes.fromhex(network["id"])) == 32


def test_teardown_is_asked_the_same(tmp_path: Path) -> None:
    """The teardown gets what the setup got, whatever the configuration has become."""
    netavark(tmp_path)
    ipam(tmp_path)
    chain(tmp_path).add()
    changed = {**ENTRY, "options": {"mtu": "1400"}}

    chain(tmp_path, changed).delete(None)

    setup, teardown = only(tmp_path, "setup"), only(tmp_path, "teardown")
    assert teardown.conf["argv"] == ["teardown", NETNS]
    assert teardown.conf["stdin"] == setup.conf["stdin"]
    assert remembered(tmp_path) == []


def test_addresses_are_allocated_and_released(tmp_path: Path) -> None:
    """The IPAM plugin goes first and last, with a range for each subnet."""
    netavark(tmp_path)
    ipam(tmp_path)
    lease = {"start_ip": "10.89.8.2", "end_ip": "10.89.8.9"}
    entry = {**ENTRY, "subnets": [{**SUBNET, "lease_range": lease}]}

    bound = chain(tmp_path, entry)
    bound.add()
    bound.delete(None)

    assert fakes.verbs(tmp_path) == [
        ("host-local", "ADD"),
        ("mock", "setup"),
        ("mock", "teardown"),
        ("host-local", "DEL"),
    ]
    added, released = (only(tmp_path, verb, "host-local") for verb in ("ADD", "DEL"))
    wanted = {
        "subnet": "10.89.8.0/24",
        "gateway": "10.89.8.1",
        "rangeStart": "10.89.8.2",
        "rangeEnd": "10.89.8.9",
    }
    assert added.conf["ipam"] == {"type": "host-local", "ranges": [[wanted]]}
    assert released.conf["ipam"] == added.conf["ipam"]
    assert added.environ["CNI_COMMAND"] == "ADD"
    assert released.environ["CNI_CONTAINERID"] == "c"


def test_ipam_plugin_can_be_chosen(tmp_path: Path) -> None:
    """The IPAM plugin in `ipam` takes the place of host-local; its gateway is the subnet's."""
    netavark(tmp_path)
    ips = [{"address": "10.1.0.2/16", "gateway": "10.1.0.1"}]
    fakes.fake_plugin(tmp_path, "own", f"answer({{'cniVersion': '1.1.0', 'ips': {ips}}})")

    chain(tmp_path, {"driver": "mock", "ipam": {"type": "own", "key": 1}}).add()

    assert only(tmp_path, "ADD", "own").conf["ipam"] == {"type": "own", "key": 1}
    network = only(tmp_path, "setup").conf["stdin"]["network"]
    assert network["subnets"] == [{"subnet": "10.1.0.0/16", "gateway": "10.1.0.1"}]


def test_driver_without_addresses(tmp_path: Path) -> None:
    """Without subnets no addresses are allocated, and the driver is told so."""
    netavark(tmp_path)

    result = chain(tmp_path, {"driver": "mock"}).add()

    asked = only(tmp_path, "setup").conf["stdin"]
    assert asked["network"]["ipam_options"] == {"driver": "none"}
    assert "static_ips" not in asked["network_options"]
    assert "ips" not in result


def test_address_outside_the_subnets(tmp_path: Path) -> None:
    """An address that was allocated elsewhere is an error before the driver runs, and released."""
    netavark(tmp_path)
    ipam(tmp_path, address="10.0.0.1/24")

    error = failure(chain(tmp_path).add)

    assert error.code == errors.INVALID_NETWORK_CONFIG
    assert "10.0.0.1" in error.details
    assert fakes.verbs(tmp_path) == [("host-local", "ADD"), ("host-local", "DEL")]


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["fd00::2/64", "10.89.8.2/24"], ["10.89.8.2", "fd00::2"]),
        (["10.89.8.2/24"], None),
        (["10.89.8.2/24", "10.89.8.3/24", "fd00::2/64"], None),
    ],
)
def test_one_address_of_each_subnet(
    tmp_path: Path, addresses: list[str], expected: list[str] | None
) -> None:
    """Addresses are given in the order of the subnets, and must be exactly one of each."""
    netavark(tmp_path)
    ips = [{"address": address} for address in addresses]
    script = f"if verb != 'VERSION': answer({{'cniVersion': '1.1.0', 'ips': {ips}}})\n"
    fakes.fake_plugin(tmp_path, "host-local", script)
    bound = chain(tmp_path, {**ENTRY, "subnets": [SUBNET, {"subnet": "fd00::/64"}]})

    if expected is None:
        error = failure(bound.add)

        assert "exactly one address of each subnet" in error.message
        assert fakes.verbs(tmp_path) == [("host-local", "ADD"), ("host-local", "DEL")]
    else:
        bound.add()

        asked = only(tmp_path, "setup").conf["stdin"]
        assert asked["network_options"]["static_ips"] == expected
        assert [subnet["subnet"] for subnet in asked["network"]["subnets"]] == [
            "10.89.8.0/24",
            "fd00::/64",
        ]


MISBEHAVIOURS = {
    "error": ("fail('no carrier')", errors.INTERNAL, "failed: no carrier"),
    "panic": ("sys.exit(101)", errors.PLUGIN_MISBEHAVED, "failed with exit status 101"),
    "signal": (
        "os.kill(os.getpid(), signal.SIGKILL)",
        errors.PLUGIN_MISBEHAVED,
        "was ended by SIGKILL",
    ),
    "garbage": ("print('oh no'); sys.exit()", errors.DECODING_FAILURE, "'mock'"),
    "nothing": ("sys.exit()", errors.DECODING_FAILURE, "'mock'"),
    "wrong types": (
        "answer({'interfaces': []}); sys.exit()",
        errors.DECODING_FAILURE,
        "interfaces: must be an object",
    ),
    "failing garbage": ("print('oh no'); sys.exit(1)", errors.PLUGIN_MISBEHAVED, "status 1"),
    "other interface": (
        "answer(status(asked['network_options'], asked['network'], ifname='x')); sys.exit()",
        errors.PLUGIN_MISBEHAVED,
        "ignored the request for the interface 'eth0'",
    ),
    "no interface": ("answer({}); sys.exit()", errors.PLUGIN_MISBEHAVED, "the interface 'eth0'"),
    "other address": (
        "asked['network_options']['static_ips'] = ['10.89.8.77']",
        errors.PLUGIN_MISBEHAVED,
        "ignored the request for the address 10.89.8.2",
    ),
    "other MAC": (
        "asked['network_options'].pop('static_mac')",
        errors.PLUGIN_MISBEHAVED,
        "ignored the request for the MAC 02:00:00:00:00:07",
    ),
}


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_failed_setup(tmp_path: Path, name: str) -> None:
    """Whatever goes wrong is one error; what was half made is torn down and released."""
    script, code, message = MISBEHAVIOURS[name]
    netavark(tmp_path, script=f"if verb == 'setup':\n    {script}\n")
    ipam(tmp_path)
    entry = {**ENTRY, "capabilities": {"mac": True}}

    error = failure(chain(tmp_path, entry, runtimeConfig={"mac": "02:00:00:00:00:07"}).add)

    assert error.code == code
    assert message in str(error)
    assert [verb for _, verb in fakes.verbs(tmp_path)] == ["ADD", "setup", "teardown", "DEL"]
    assert remembered(tmp_path) == []


def test_log_of_a_driver(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What a driver says on stderr is passed on where it succeeds."""
    netavark(tmp_path, script="print('all is well', file=sys.stderr)\n")
    ipam(tmp_path)

    chain(tmp_path).add()

    assert capfd.readouterr().err == "all is well\n"


@pytest.mark.parametrize("end", ["fail('no')", "sys.exit(101)"])
def test_log_of_a_failure(tmp_path: Path, end: str) -> None:
    """What a driver says on stderr is in the details where it fails."""
    script = f"if verb == 'setup':\n    print('thread panicked', file=sys.stderr)\n    {end}\n"
    netavark(tmp_path, script=script)
    ipam(tmp_path)

    error = failure(chain(tmp_path).add)

    assert "thread panicked" in error.details


def test_what_cannot_be_passed_on(tmp_path: Path) -> None:
    """What netavark has no word for is refused with the code 2; nothing is allocated or set up."""
    netavark(tmp_path)
    ipam(tmp_path)
    entry = {**ENTRY, "capabilities": {"bandwidth": True}}

    error = failure(chain(tmp_path, entry, runtimeConfig={"bandwidth": {"ingressRate": 1}}).add)

    assert error.code == errors.UNSUPPORTED_FIELD
    assert "runtimeConfig.bandwidth" in error.message
    assert set(fakes.verbs(tmp_path)) <= {("host-local", "DEL")}


def test_delete_twice(tmp_path: Path) -> None:
    """The second DEL releases the addresses again, and does not call the driver."""
    netavark(tmp_path)
    ipam(tmp_path)
    bound = chain(tmp_path)
    bound.add()

    for _ in range(2):
        bound.delete(None)

    assert fakes.verbs(tmp_path)[2:] == [
        ("mock", "teardown"),
        ("host-local", "DEL"),
        ("host-local", "DEL"),
    ]


def test_delete_without_add(tmp_path: Path) -> None:
    """A DEL of what was never attached calls the IPAM plugin alone."""
    netavark(tmp_path)
    ipam(tmp_path)

    chain(tmp_path).delete(None)

    assert fakes.verbs(tmp_path) == [("host-local", "DEL")]


@pytest.mark.parametrize("end", ["fail('No such device')", "sys.exit(101)"])
def test_teardown_of_what_is_gone(
    tmp_path: Path, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A teardown that fails because there is nothing left is a warning, and all is released."""
    netavark(tmp_path, script=f"if verb == 'teardown':\n    {end}\n")
    ipam(tmp_path)
    bound = chain(tmp_path)
    bound.add()

    bound.delete(None)

    assert "gone already" in capsys.readouterr().err
    assert fakes.verbs(tmp_path)[-1] == ("host-local", "DEL")
    assert remembered(tmp_path) == []


def test_interfaces_are_told_apart(tmp_path: Path) -> None:
    """Two interfaces of a container are torn down each by its own request."""
    netavark(tmp_path)
    entry = {"driver": "mock"}
    first, second = (chain(tmp_path, entry, environ={"CNI_IFNAME": n}) for n in ("eth0", "eth1"))
    first.add()
    second.add()

    first.delete(None)

    asked = only(tmp_path, "teardown").conf["stdin"]
    assert asked["network_options"]["interface_name"] == "eth0"
    assert len(remembered(tmp_path)) == 1


def test_environment(tmp_path: Path) -> None:
    """A driver gets the environment of the call, but for the variables of CNI."""
    netavark(tmp_path)
    environ = {"TRACEPARENT": "00-1", "CNI_ARGS": "A=1", "CNI_NETNS_OVERRIDE": "1", "PATH": "/x"}

    chain(tmp_path, {"driver": "mock"}, environ=environ).add()

    given = only(tmp_path, "setup").environ
    assert [name for name in given if name.startswith("CNI_")] == []
    assert given["TRACEPARENT"] == "00-1"
    assert given["PATH"].startswith("/x:")
    assert "/usr/sbin" in given["PATH"].split(":")


def test_order_of_directories(tmp_path: Path) -> None:
    """The first of `pluginDirs` counts, where a file is executable and no launcher of ours."""
    names = ("empty", "plain", "launcher", "first", "second")
    empty, plain, launcher, first, second = dirs = [tmp_path / name for name in names]
    for directory in dirs:
        directory.mkdir()
    (plain / "mock").write_text("")
    install.install(str(launcher), "mock", force=False)
    netavark(first)
    netavark(second)

    chain(tmp_path, {"driver": "mock"}, dirs=[empty, plain, launcher, first, second]).add()

    assert fakes.verbs(first) == [("mock", "setup")]
    assert fakes.verbs(second) == []


def test_path_of_a_driver(tmp_path: Path) -> None:
    """The key `path` names the program, whatever there is elsewhere."""
    (tmp_path / "own").mkdir()
    own = netavark(tmp_path / "own", "program")
    netavark(tmp_path)

    chain(tmp_path, {"driver": "mock", "path": str(own)}).add()

    assert fakes.verbs(tmp_path / "own") == [("program", "setup")]
    assert fakes.verbs(tmp_path) == []


@pytest.mark.parametrize("entry", [{}, {"path": "/no/such/program"}])
def test_missing_driver(tmp_path: Path, entry: dict[str, Any]) -> None:
    """A driver that is not there is found out before anything is called."""
    ipam(tmp_path)

    error = failure(chain, tmp_path, {**ENTRY, **entry})

    assert error.code == errors.INVALID_NETWORK_CONFIG
    assert "failed to find driver 'mock'" in error.message
    assert fakes.calls(tmp_path) == []


def test_missing_ipam_plugin(tmp_path: Path) -> None:
    """An IPAM plugin that is not there is found out before the driver is called."""
    netavark(tmp_path)

    error = failure(chain, tmp_path)

    assert "'host-local'" in error.message
    assert fakes.calls(tmp_path) == []


def test_status(tmp_path: Path) -> None:
    """STATUS asks a plugin who it is."""
    netavark(tmp_path)

    chain(tmp_path, {"driver": "mock"}).forward("STATUS")

    assert only(tmp_path, "info").conf["argv"] == ["info"]


def test_status_of_a_plugin_without_info(tmp_path: Path) -> None:
    """A plugin that knows no `info` is there all the same."""
    netavark(tmp_path, script="fail('unknown subcommand')\n")

    chain(tmp_path, {"driver": "mock"}).forward("STATUS")

    assert fakes.verbs(tmp_path) == [("mock", "info")]


def test_status_of_a_broken_binary(tmp_path: Path) -> None:
    """A netavark that does not work is code 50, with what it said."""
    path = netavark(tmp_path, "netavark", "sys.exit('no such library')\n")

    error = failure(chain(tmp_path, {"driver": "bridge", "path": str(path)}).forward, "STATUS")

    assert error.code == errors.NOT_AVAILABLE
    assert "no such library" in error.details


def test_binary(tmp_path: Path) -> None:
    """A built-in driver is asked through the binary, in the form that all its releases read."""
    fakes.executable(tmp_path / "aardvark-dns", "#!/bin/sh\n")
    path = netavark(tmp_path, "netavark")
    ipam(tmp_path)
    entry = {**ENTRY, "driver": "bridge", "path": str(path), "dns_enabled": True}

    result = chain(
        tmp_path,
        {**entry, "network_interface": "nv0", "capabilities": {"dns": True}},
        runtimeConfig={"dns": {"servers": ["192.0.2.1"]}},
    ).add()

    call = only(tmp_path, "setup", "netavark")
    argv, asked = call.conf["argv"], call.conf["stdin"]
    assert argv[-2:] == ["setup", NETNS]
    assert argv[argv.index("--config") + 1].startswith(str(tmp_path / "state/config"))
    assert f"--aardvark-binary={tmp_path}/aardvark-dns" in argv
    assert [word for word in argv if word.startswith("--rootless=")]
    assert asked["networks"] == {
        "net": {"interface_name": "eth0", "static_ips": ["10.89.8.2"]},
    }
    assert asked["network_info"]["net"]["network_interface"] == "nv0"
    assert asked["dns_servers"] == ["192.0.2.1"]
    assert [interface["name"] for interface in result["interfaces"]] == ["nv0", "eth0"]
    assert result["ips"][0]["interface"] == 1


@pytest.mark.parametrize("dns", [{"searches": ["example"]}, {"options": ["ndots:1"]}])
def test_dns_that_netavark_cannot_be_told(tmp_path: Path, dns: dict[str, Any]) -> None:
    """Of name resolution netavark is told the servers, and all else is refused."""
    path = netavark(tmp_path, "netavark")
    ipam(tmp_path)
    entry = {**ENTRY, "driver": "bridge", "path": str(path), "capabilities": {"dns": True}}

    error = failure(chain(tmp_path, entry, runtimeConfig={"dns": dns}).add)

    assert error.code == errors.UNSUPPORTED_FIELD


@pytest.mark.parametrize(
    ("internal", "options", "expected"),
    [
        (False, {}, ["0.0.0.0/0", "192.0.2.0/24"]),
        (True, {}, ["192.0.2.0/24"]),
        (False, {"no_default_route": "true"}, ["192.0.2.0/24"]),
    ],
)
def test_routes(
    tmp_path: Path, internal: bool, options: dict[str, str], expected: list[str]
) -> None:
    """The result has the routes that netavark makes by itself and does not tell."""
    netavark(tmp_path)
    ipam(tmp_path)
    route = {"destination": "192.0.2.0/24", "gateway": "10.89.8.9", "metric": 5}

    result = chain(
        tmp_path, {**ENTRY, "internal": internal, "options": options, "routes": [route]}
    ).add()

    assert [route["dst"] for route in result["routes"]] == expected
    assert result["routes"][-1] == {"dst": "192.0.2.0/24", "gw": "10.89.8.9", "priority": 5}


def test_create(tmp_path: Path) -> None:
    """A plugin of netavark is asked to complete a network, with no variable of CNI."""
    netavark(tmp_path)
    configuration = Configuration(plugins=[ENTRY], plugin_dirs=[str(tmp_path)])
    network: Network = {
        "name": "net",
        "id": "x",
        "driver": "mock",
        "dns_enabled": False,
        "internal": False,
        "ipv6_enabled": False,
    }

    text = driver.create(ENTRY, configuration, {"CNI_COMMAND": "ADD"}, network)

    assert json.loads(text) == network
    call = only(tmp_path, "create")
    assert call.conf["argv"] == ["create"]
    assert "CNI_COMMAND" not in call.environ


def test_launchers_are_recognised(tmp_path: Path) -> None:
    """A launcher of netns-shim is told apart from every other program."""
    launcher = install.install(str(tmp_path), "cni", force=False)

    assert program.is_shim(launcher)
    assert not program.is_shim(str(netavark(tmp_path)))
    assert not program.is_shim("/bin/sh")
    assert not program.is_shim("/no/such/file")


def test_request_that_was_lost(tmp_path: Path) -> None:
    """A request that cannot be read any more is no obstacle to DEL, nor to the release."""
    netavark(tmp_path)
    ipam(tmp_path)
    chain(tmp_path).add()
    (path,) = remembered(tmp_path)
    path.write_text("")

    chain(tmp_path).delete(None)

    assert remembered(tmp_path) == []
    assert fakes.verbs(tmp_path)[-1] == ("host-local", "DEL")
    assert ("mock", "teardown") not in fakes.verbs(tmp_path)


def test_driver_that_allocates_by_itself(tmp_path: Path) -> None:
    """A driver is told if no addresses are allocated; those that it gives are the result."""
    subnets = [{"ipnet": "10.89.8.44/24"}]
    answer = {"interfaces": {"eth0": {"mac_address": MAC, "subnets": subnets}}}
    netavark(tmp_path, script=f"if verb == 'setup': answer({answer!r}); sys.exit()")

    result = chain(tmp_path, {**ENTRY, "ipam": {}}).add()

    asked = only(tmp_path, "setup").conf["stdin"]
    assert asked["network"]["ipam_options"] == {"driver": "none"}
    assert asked["network"]["subnets"] == [SUBNET]
    assert "static_ips" not in asked["network_options"]
    assert [ip["address"] for ip in result["ips"]] == ["10.89.8.44/24"]


def hold_turn(directory: Path) -> int:
    """Have the turn that drivers wait for, until the descriptor is closed."""
    (directory / "state").mkdir()
    return locks.take(str(directory / "state/lock"), "driver 'other' (setup)")


@pytest.mark.parametrize("parallel", [None, False])
def test_one_at_a_time(tmp_path: Path, parallel: bool | None) -> None:
    """A program waits until another one has ended, for `timeout`, and says for which."""
    netavark(tmp_path)
    ipam(tmp_path)
    fd = hold_turn(tmp_path)

    error = failure(chain(tmp_path, timeout=2, parallel=parallel).add)

    os.close(fd)
    assert error.code == errors.TRY_AGAIN_LATER
    assert error.message == (
        "driver 'mock' (setup) for container 'c' waits for another one to end"
    )
    assert error.details is not None
    assert f"held by driver 'other' (setup) (PID {os.getpid()})" in error.details
    assert [call.verb for call in fakes.calls(tmp_path) if call.name == "mock"] == []
    assert chain(tmp_path, parallel=parallel).add()


def test_parallel(tmp_path: Path) -> None:
    """Told so, a program waits for no other."""
    netavark(tmp_path)
    ipam(tmp_path)
    fd = hold_turn(tmp_path)

    assert chain(tmp_path, timeout=20, parallel=True).add()

    os.close(fd)

# SPDX-License-Identifier: Apache-2.0
"""Being a plugin of netavark: a setup is an ADD, a teardown is a DEL, and the answer fits."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import fakes
import pytest
from fake_netavark import MAC, NETNS, SUBNET, netavark
from podman import Answer, conflist, serve

from netns_shim import __version__
from netns_shim.cli import install
from netns_shim.netavark.empty import EmptyNetns

Json = dict[str, Any]

ID = "a" * 64
# A plugin of CNI that gives the addresses that it is told, like one that calls `static`, or one of
# its own, and the MAC that it is told. It has a link of two ends, of which one is the host's.
PLUGIN = f"""
if verb == "VERSION":
    answer({{"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}})
elif verb == "ADD":
    offered = conf.get("runtimeConfig", {{}})
    ips = conf.get("ipam", {{}}).get("addresses")
    if ips is None:
        ips = [{{"address": ip.split("/")[0] + "/24"}} for ip in offered.get("ips", [])]
    answer({{
        "cniVersion": conf["cniVersion"],
        "interfaces": [
            {{"name": "veth0", "mac": "02:00:00:00:00:99"}},
            {{
                "name": environ["CNI_IFNAME"],
                "mac": offered.get("mac", "{MAC}"),
                "sandbox": environ["CNI_NETNS"],
            }},
        ],
        "ips": [{{**ip, "interface": 1}} for ip in ips or [{{"address": "10.9.0.9/24"}}]],
        "routes": [{{"dst": "0.0.0.0/0"}}],
        "dns": {{"nameservers": ["192.0.2.53"], "domain": "a.example", "search": ["b.example"]}},
    }})
"""


def setup(given: Json, **environ: str) -> Answer:
    """Serve a setup."""
    return serve(["setup", NETNS], given, environ)


def teardown(given: Json, **environ: str) -> Answer:
    """Serve a teardown."""
    return serve(["teardown", NETNS], given, environ)


def exec_of(directory: Path, options: Json | None = None, **changes: Any) -> Json:
    """Return what a plugin is given; `ips`, `mac`, `aliases` and `ports` are the container's.

    All other changes are the network's.
    """
    asked = {
        "interface_name": "eth0",
        "static_ips": changes.pop("ips", None),
        "static_mac": changes.pop("mac", None),
        "aliases": changes.pop("aliases", None),
    }
    ports = changes.pop("ports", None)
    places = {"enter": "never", "stateDir": str(directory / "state"), "cniPath": str(directory)}
    network = {
        "name": "net",
        "id": ID,
        "driver": "cni",
        "dns_enabled": False,
        "internal": False,
        "ipv6_enabled": False,
        "options": {**places, **(options or {"type": "fake"})},
        **changes,
    }
    return {
        "container_id": "c",
        "container_name": "web",
        "port_mappings": ports,
        "network": network,
        "network_options": {key: value for key, value in asked.items() if value is not None},
    }


def with_nulls(value: Json) -> Json:
    """Return what netavark up to 1.17 gives: every absent key is null."""
    subnets = [
        {"gateway": None, "lease_range": None, **subnet}
        for subnet in value["network"].get("subnets") or []
    ]
    network: Json = dict.fromkeys(
        ["network_interface", "routes", "ipam_options", "network_dns_servers"]
    )
    options: Json = dict.fromkeys(["static_ips", "static_mac", "aliases", "options"])
    return {
        **value,
        "network": {**network, **value["network"], "subnets": subnets or None},
        "network_options": {**options, **value["network_options"]},
    }


def without_nulls(value: Json) -> Json:
    """Return what netavark from 2.0 on may give: an absent key is absent."""
    return {key: item for key, item in value.items() if item is not None}


def only(directory: Path, verb: str, name: str = "fake") -> fakes.Call:
    """Return the only call of a verb of one fake."""
    (call,) = (c for c in fakes.calls(directory) if (c.name, c.verb) == (name, verb))
    return call


def references(directory: Path) -> list[Path]:
    """Return what is attached in place."""
    return list((directory / "state/.in-place/refs").glob("*"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the plugin `fake`."""
    fakes.fake_plugin(tmp_path, "fake", PLUGIN)
    return tmp_path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin as it is installed, with its libraries."""
    directory = tmp_path_factory.mktemp("bin")
    return Path(install.install(str(directory), "cni", force=False))


def run(words: list[str | Path], given: Any = None, environ: dict[str, str] | None = None) -> Any:
    """Run the launcher with nothing but these variables."""
    text = b"" if given is None else json.dumps(given).encode()
    return subprocess.run(words, env=environ or {}, input=text, capture_output=True, check=False)


def test_info(installed: Path) -> None:
    """`info` tells the versions of the plugin and of its interface."""
    done = run([installed, "info"])

    answer = json.loads(done.stdout)
    assert (answer["version"], answer["api_version"]) == (__version__, "1.0.0")
    assert all(isinstance(value, str) for value in answer.values())
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "words",
    [
        ["setup"],
        ["setup", ""],
        ["setup", "/a", "/b"],
        ["teardown"],
        ["teardown", ""],
        ["create", "/a"],
        ["info", "x"],
    ],
)
def test_wrong_number_of_arguments(directory: Path, words: list[str]) -> None:
    """A command with too many or too few arguments is an error, and nothing is called."""
    answer = serve(words, exec_of(directory))

    assert answer.error.startswith(f"{words[0]} takes ")
    assert fakes.calls(directory) == []


@pytest.mark.parametrize(
    "text", [b"", b"null", b"{", b"{}", b"\xff", b"{}{}", b'{"container_id": 7}']
)
@pytest.mark.parametrize("command", ["setup", "teardown", "create"])
def test_bad_input(command: str, text: bytes) -> None:
    """Whatever is on stdin is one error."""
    answer = serve([command, NETNS][: 1 if command == "create" else 2], text)

    assert "(code " in answer.error
    assert "bug" not in answer.error


def test_variables_of_cni_make_no_difference(installed: Path, directory: Path) -> None:
    """Variables of CNI that were inherited are neither obeyed nor passed on."""
    environ = {
        "CNI_COMMAND": "VERSION",
        "CNI_CONTAINERID": "x",
        "CNI_NETNS": "/x",
        "CNI_NETNS_OVERRIDE": "1",
        "CNI_IFNAME": "x",
        "CNI_ARGS": "X=1",
        "OTHER": "kept",
    }

    done = run([installed, "setup", NETNS], exec_of(directory), environ)

    assert list(json.loads(done.stdout)["interfaces"]) == ["eth0"]
    given = only(directory, "ADD").environ
    assert "CNI_NETNS_OVERRIDE" not in given
    assert "X=1" not in given["CNI_ARGS"]
    assert (given["CNI_CONTAINERID"], given["CNI_NETNS"]) == ("c", NETNS)


def test_setup_with_type(directory: Path) -> None:
    """A setup answers with one interface and nothing else, and teardown says nothing."""
    answer = setup(exec_of(directory))
    gone = teardown(exec_of(directory))

    assert answer.value == {
        "dns_search_domains": ["a.example", "b.example"],
        "dns_server_ips": ["192.0.2.53"],
        "interfaces": {"eth0": {"mac_address": MAC, "subnets": [{"ipnet": "10.9.0.9/24"}]}},
    }
    assert (gone.status, gone.stdout) == (0, "")
    assert fakes.verbs(directory) == [("fake", "ADD"), ("fake", "DEL")]
    assert references(directory) == []


def test_environment_of_the_plugin(directory: Path) -> None:
    """A plugin of CNI gets the variables that a runtime would set."""
    setup(exec_of(directory, mac="02:00:00:00:00:07", ips=["10.9.0.9"]))

    assert only(directory, "ADD").environ == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": NETNS,
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web;MAC=02:00:00:00:00:07;IP=10.9.0.9",
        "CNI_PATH": str(directory),
    }


def test_arguments_that_cannot_be_written(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that would be more than one of CNI_ARGS is left out with a warning."""
    setup({**exec_of(directory), "container_name": "a;IP=10.0.0.1"})

    assert only(directory, "ADD").environ["CNI_ARGS"] == "IgnoreUnknown=1"
    assert "K8S_POD_NAME" in capsys.readouterr().err


def test_what_is_offered(directory: Path) -> None:
    """What is asked for a container reaches the plugin as runtimeConfig."""
    port = {"host_ip": "", "host_port": 80, "container_port": 8080, "protocol": "tcp", "range": 1}
    several = {**port, "host_ip": "192.0.2.1", "host_port": 90, "protocol": "tcp,UDP", "range": 2}

    setup(
        exec_of(
            directory,
            mac="02:00:00:00:00:07",
            ips=["10.9.0.9"],
            aliases=["a", "b"],
            ports=[port, several],
        )
    )

    offered = only(directory, "ADD").conf["runtimeConfig"]
    assert offered["mac"] == "02:00:00:00:00:07"
    assert offered["ips"] == ["10.9.0.9"]
    assert offered["aliases"] == {"net": ["a", "b"]}
    first, *others = offered["portMappings"]
    assert first == {"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}
    assert [(p["hostPort"], p["containerPort"], p["protocol"]) for p in others] == [
        (90, 8080, "tcp"),
        (91, 8081, "tcp"),
        (90, 8080, "udp"),
        (91, 8081, "udp"),
    ]
    assert {p["hostIP"] for p in others} == {"192.0.2.1"}


def test_nothing_is_offered_that_was_not_asked_for(directory: Path) -> None:
    """A key of runtimeConfig is there only if there is something in it."""
    setup(exec_of(directory))

    assert "runtimeConfig" not in only(directory, "ADD").conf


def test_addresses_of_the_caller(directory: Path) -> None:
    """In a network with subnets the plugin `static` gets the caller's addresses, with routes."""
    subnets = [SUBNET, {"subnet": "fd00::/64", "gateway": "fd00::1"}]
    routes = [{"destination": "192.0.2.0/24", "gateway": "10.89.8.9", "metric": 5}]

    answer = setup(
        exec_of(directory, subnets=subnets, routes=routes, ips=["fd00::7", "10.89.8.7"])
    )

    call = only(directory, "ADD")
    assert call.conf["ipam"] == {
        "type": "static",
        "addresses": [
            {"address": "fd00::7/64", "gateway": "fd00::1"},
            {"address": "10.89.8.7/24", "gateway": "10.89.8.1"},
        ],
        "routes": [
            {"dst": "::/0", "gw": "fd00::1"},
            {"dst": "0.0.0.0/0", "gw": "10.89.8.1"},
            {"dst": "192.0.2.0/24", "gw": "10.89.8.9", "priority": 5},
        ],
    }
    assert "IP=" not in call.environ["CNI_ARGS"]
    assert "ips" not in call.conf.get("runtimeConfig", {})
    assert answer.value["interfaces"]["eth0"]["subnets"] == [
        {"ipnet": "fd00::7/64", "gateway": "fd00::1"},
        {"ipnet": "10.89.8.7/24", "gateway": "10.89.8.1"},
    ]


@pytest.mark.parametrize(
    ("internal", "option"), [(True, {}), (False, {"no_default_route": "true"})]
)
def test_no_default_route(directory: Path, internal: bool, option: dict[str, str]) -> None:
    """An internal network has no default route, nor has one that does not want any."""
    options = {**exec_of(directory)["network"]["options"], **option}

    setup(exec_of(directory, options, subnets=[SUBNET], ips=["10.89.8.7"], internal=internal))

    assert only(directory, "ADD").conf["ipam"]["routes"] == []


@pytest.mark.parametrize("with_subnets", [True, False])
def test_both_styles(directory: Path, with_subnets: bool) -> None:
    """An absent key and a null are the same, for the plugin and for the answer."""
    changes: Json = {"subnets": [{"subnet": "10.89.8.0/24"}], "ips": ["10.89.8.7"]}
    given = exec_of(directory, **(changes if with_subnets else {}))

    answers = []
    for style in (with_nulls, without_nulls):
        answers.append(setup(style(given)).value)
        assert teardown(style(given)).status == 0

    assert answers[0] == answers[1]
    calls = [call for call in fakes.calls(directory) if call.verb != "VERSION"]
    assert [call.verb for call in calls] == ["ADD", "DEL"] * 2
    assert calls[:2] == calls[2:]


@pytest.mark.parametrize("by", ["path", "name"])
def test_setup_with_conf(directory: Path, by: str) -> None:
    """A CNI network is found by its path or its name, and keeps its own name and keys."""
    (directory / "net.d").mkdir()
    path = conflist(directory / "net.d/x.conflist", {"type": "fake", "key": 1}, {"type": "fake"})
    given = exec_of(directory, {"conf": path if by == "path" else "other"})

    answer = setup(given, NETCONFPATH=str(directory / "net.d"))

    assert list(answer.value["interfaces"]) == ["eth0"]
    first, second = (call.conf for call in fakes.calls(directory) if call.verb == "ADD")
    assert (first["name"], first["key"], first["cniVersion"]) == ("other", 1, "1.0.0")
    assert second["prevResult"]["interfaces"][1]["name"] == "eth0"


def test_addresses_of_the_caller_with_conf(directory: Path) -> None:
    """The caller's addresses take the place of the IPAM plugin that the file names."""
    ipam = {"type": "host-local", "routes": [{"dst": "198.51.100.0/24"}]}
    path = conflist(directory / "x.conflist", {"type": "fake", "ipam": ipam})

    setup(exec_of(directory, {"conf": path}, subnets=[SUBNET], ips=["10.89.8.7"]))

    assert only(directory, "ADD").conf["ipam"] == {
        "type": "static",
        "addresses": [{"address": "10.89.8.7/24", "gateway": "10.89.8.1"}],
        "routes": [{"dst": "198.51.100.0/24"}],
    }


def test_setup_with_driver(directory: Path) -> None:
    """A plugin of netavark that is wrapped is asked for what was asked here."""
    netavark(directory)
    port = {"host_ip": "", "host_port": 80, "container_port": 80, "protocol": "tcp", "range": 1}
    given = exec_of(
        directory,
        {"driver": "mock", "pluginDirs": str(directory), "own": "x"},
        subnets=[SUBNET],
        ips=["10.89.8.7"],
        mac="02:00:00:00:00:07",
        aliases=["a"],
        ports=[port],
    )

    answer = setup(given)
    gone = teardown(given)

    subnets = [{"ipnet": "10.89.8.7/24", "gateway": "10.89.8.1"}]
    assert answer.value["interfaces"] == {
        "eth0": {"mac_address": "02:00:00:00:00:07", "subnets": subnets}
    }
    assert gone.status == 0
    assert fakes.verbs(directory) == [("mock", "setup"), ("mock", "teardown")]
    asked = only(directory, "setup", "mock").conf["stdin"]
    assert asked["network_options"] == {
        "interface_name": "eth0",
        "static_ips": ["10.89.8.7"],
        "static_mac": "02:00:00:00:00:07",
        "aliases": ["a"],
    }
    assert (asked["container_name"], asked["port_mappings"]) == ("web", [port])
    assert (asked["network"]["driver"], asked["network"]["options"]) == ("mock", {"own": "x"})


def test_setup_with_a_built_in_driver(directory: Path) -> None:
    """A built-in driver of netavark is run by the binary in PATH, once for each command."""
    netavark(directory, "netavark")
    given = exec_of(directory, {"driver": "bridge"}, subnets=[SUBNET], ips=["10.89.8.7"])

    answer = setup(given, PATH=str(directory))
    gone = teardown(given, PATH=str(directory))

    assert list(answer.value["interfaces"]) == ["eth0"]
    assert gone.status == 0
    made, unmade = (only(directory, verb, "netavark").conf for verb in ("setup", "teardown"))
    assert made["stdin"]["networks"]["net"]["static_ips"] == ["10.89.8.7"]
    assert unmade["stdin"] == made["stdin"]


def test_driver_without_subnets(directory: Path) -> None:
    """A wrapped plugin of netavark that allocates by itself is asked for no address."""
    netavark(directory)
    given = exec_of(directory, {"driver": "mock", "pluginDirs": str(directory)})

    answer = setup(given)

    assert list(answer.value["interfaces"]) == ["eth0"]
    assert "static_ips" not in only(directory, "setup", "mock").conf["stdin"]["network_options"]


@pytest.mark.parametrize("key", ["mac", "ips"])
def test_requests_that_are_ignored(directory: Path, key: str) -> None:
    """A plugin that ignores the MAC or the address asked for is undone, and that is an error."""
    ignoring = PLUGIN.replace("offered = ", "offered = {} and ")
    fakes.fake_plugin(directory, "fake", ignoring)
    wish: Json = {"mac": "02:00:00:00:00:07"} if key == "mac" else {"ips": ["10.1.0.7"]}

    answer = setup(exec_of(directory, **wish))

    assert "the plugin ignored the request for the " in answer.error
    assert fakes.verbs(directory) == [("fake", "ADD"), ("fake", "DEL")]
    assert references(directory) == []


def test_mac_is_compared_as_a_number(directory: Path) -> None:
    """A MAC that comes back in other letters is the one asked for."""
    upper = PLUGIN.replace('offered.get("mac", ', 'offered["mac"].lower() or (')
    fakes.fake_plugin(directory, "fake", upper)

    answer = setup(exec_of(directory, mac="02:00:00:00:00:AB"))

    assert answer.value["interfaces"]["eth0"]["mac_address"] == "02:00:00:00:00:ab"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("fail(142, 'no carrier')", "no carrier (code 142)"),
        ("print('oh no'); sys.exit(3)", "'fake' (ADD) failed with exit status 3"),
        ("sys.stderr.write('why'); sys.exit(101)", "stderr: why"),
        ("os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
        ("print('oh no'); sys.exit()", "printed no JSON"),
        ("sys.exit()", "without printing a result"),
        ("answer({'cniVersion': '9.9.9'}); sys.exit()", "9.9.9"),
    ],
)
def test_failed_setup(directory: Path, script: str, expected: str) -> None:
    """A failure is one text with all that is known, the plugin is undone, and nothing is left."""
    fakes.fake_plugin(directory, "fake", f"if verb == 'ADD':\n    {script}\n{PLUGIN}")

    answer = setup(exec_of(directory))

    assert expected in answer.error
    assert fakes.verbs(directory) == [("fake", "ADD"), ("fake", "DEL")]
    assert references(directory) == []


def test_failed_driver(directory: Path) -> None:
    """A failure of a wrapped plugin of netavark is torn down as well."""
    netavark(directory, script="if verb == 'setup':\n    fail('no carrier')\n")

    answer = setup(exec_of(directory, {"driver": "mock", "pluginDirs": str(directory)}))

    assert "no carrier" in answer.error
    assert fakes.verbs(directory) == [("mock", "setup"), ("mock", "teardown")]
    assert references(directory) == []


def test_failure_says_all(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What went wrong while undoing is in the error too."""
    fakes.fake_plugin(
        directory, "fake", f"if verb in ('ADD', 'DEL'):\n    fail(99, verb)\n{PLUGIN}"
    )

    answer = setup(exec_of(directory))

    assert "undoing a failed ADD: DEL" in answer.error
    assert "undoing a failed ADD: DEL" in capsys.readouterr().err


@pytest.mark.parametrize("ips", [None, [], ["10.1.0.7"], ["10.89.8.7", "10.1.0.7"]])
@pytest.mark.parametrize("options", [{"type": "fake"}, {"driver": "mock"}])
def test_addresses_that_fit_no_subnet(
    directory: Path, options: dict[str, str], ips: list[str] | None
) -> None:
    """Without an address, and with one outside of all subnets, nothing is called."""
    netavark(directory)
    options = {**options, "pluginDirs": str(directory)}
    given = exec_of(directory, options, subnets=[SUBNET], ips=ips)

    answer = setup(given)

    assert "static_ips" in answer.error
    assert fakes.calls(directory) == []
    assert teardown(given).status == 0
    assert references(directory) == []


def test_second_setup(directory: Path) -> None:
    """A setup of what is attached already is an error, and what is attached stays."""
    given = exec_of(directory)
    given["network_options"]["interface_name"] = "lo"  # it has to be there still
    with EmptyNetns() as path:
        serve(["setup", path], given, {})

        answer = serve(["setup", path], given, {})

    assert "already attached" in answer.error
    assert len(references(directory)) == 1


@pytest.mark.parametrize("change", ["deleted", "changed", "spoilt", "same"])
def test_teardown_goes_by_the_setup(directory: Path, change: str) -> None:
    """A teardown gives the plugin what the setup was given, whatever the file is now."""
    path = conflist(directory / "x.conflist", {"type": "fake", "key": 1})
    given = exec_of(directory, {"conf": path})
    setup(given)
    if change == "deleted":
        os.unlink(path)
    elif change == "changed":
        conflist(Path(path), {"type": "gone", "key": 2}, name="renamed")
    elif change == "spoilt":
        Path(path).write_text("{")

    answer = teardown(given)

    assert (answer.status, answer.stdout) == (0, "")
    added, deleted = only(directory, "ADD"), only(directory, "DEL")
    assert deleted.conf.pop("prevResult")["ips"][0]["address"] == "10.9.0.9/24"
    assert deleted.conf == added.conf
    assert references(directory) == []


@pytest.mark.parametrize("is_deleted", [True, False])
def test_teardown_too_many(directory: Path, is_deleted: bool) -> None:
    """A second teardown succeeds, and so does one without any setup."""
    path = conflist(directory / "x.conflist", {"type": "fake"})
    given = exec_of(directory, {"conf": path})
    never = {**given, "container_id": "never"}
    setup(given)
    if is_deleted:
        os.unlink(path)

    answers = [teardown(given), teardown(given), teardown(never)]

    assert [(answer.status, answer.stdout) for answer in answers] == [(0, "")] * 3
    assert references(directory) == []


def test_teardown_of_one_of_two_networks(directory: Path) -> None:
    """A teardown leaves the other interfaces of the container, and other containers, alone."""
    given = exec_of(directory)
    second = exec_of(directory, name="second")
    second["network_options"]["interface_name"] = "eth1"
    other = {**given, "container_id": "other"}
    for each in (given, second, other):
        setup(each)

    teardown(given)

    names = sorted(path.name.rpartition(":")[0] for path in references(directory))
    assert names == ["net:other:eth0", "second:c:eth1"]


def test_failed_teardown(directory: Path) -> None:
    """A teardown that fails is an error, and can be tried again."""
    given = exec_of(directory)
    fakes.fake_plugin(directory, "fake", f"if verb == 'DEL':\n    fail(11, 'busy')\n{PLUGIN}")
    setup(given)

    answer = teardown(given)

    assert "busy" in answer.error
    assert len(references(directory)) == 1
    fakes.fake_plugin(directory, "fake", PLUGIN)
    assert teardown(given).status == 0
    assert references(directory) == []


@pytest.mark.parametrize("command", ["setup", "teardown"])
def test_ignored_signals(installed: Path, directory: Path, command: str) -> None:
    """Signals that the caller ignores are what they usually are to a plugin."""
    netavark(directory)
    given = exec_of(directory, {"driver": "mock", "pluginDirs": str(directory)})
    if command == "teardown":
        setup(given)

    ignoring = ["/bin/sh", "-c", 'trap \'\' TERM INT; exec "$0" "$@"']
    done = run([*ignoring, installed, command, NETNS], given)

    assert done.returncode == 0
    assert only(directory, command, "mock").conf["ignored"] == []


def test_log_of_a_plugin(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What a plugin that succeeds says on stderr goes to the caller's."""
    fakes.fake_plugin(
        directory, "fake", f"if verb == 'ADD': print('hm', file=sys.stderr)\n{PLUGIN}"
    )

    answer = setup(exec_of(directory))

    assert answer.status == 0
    assert capfd.readouterr().err == "hm\n"


def test_state_directory(directory: Path) -> None:
    """State is where `stateDir` says, and below XDG_RUNTIME_DIR where it does not say."""
    given = exec_of(directory)
    del given["network"]["options"]["stateDir"]
    setup(exec_of(directory))

    setup({**given, "container_id": "d"}, XDG_RUNTIME_DIR=str(directory))

    assert [path.name for path in references(directory)] == ["net:c:eth0:fake"]
    elsewhere = directory / "netns-shim/.in-place/refs"
    assert [path.name for path in elsewhere.glob("*")] == ["net:d:eth0:fake"]


def test_teardown_after_a_state_directory_was_set(directory: Path) -> None:
    """A network that got a `stateDir` after the setup is torn down where it was set up."""
    given = exec_of(directory)
    del given["network"]["options"]["stateDir"]
    setup(given, XDG_RUNTIME_DIR=str(directory))
    elsewhere = directory / "netns-shim/.in-place/refs"
    assert len(list(elsewhere.iterdir())) == 1

    answer = teardown(exec_of(directory), XDG_RUNTIME_DIR=str(directory))

    assert answer.status == 0
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("given", ["option", "variable"])
def test_where_plugins_are(directory: Path, given: str) -> None:
    """Plugins are where the option says, else where the variable does."""
    other = directory / "other"
    other.mkdir()
    fakes.fake_plugin(other, "fake", PLUGIN)
    asked = exec_of(directory)
    if given == "variable":
        del asked["network"]["options"]["cniPath"]

    setup(asked, CNI_PATH=str(other))

    assert len(fakes.verbs(directory if given == "option" else other)) == 1


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
def test_routes_that_cni_does_not_have(directory: Path, kind: str) -> None:
    """A route of a type that CNI has no word for is an error."""
    routes = [{"destination": "192.0.2.0/24", "route_type": kind}]

    answer = setup(exec_of(directory, subnets=[SUBNET], ips=["10.89.8.7"], routes=routes))

    assert kind in answer.error
    assert fakes.calls(directory) == []


def test_keys_of_a_bridge(directory: Path) -> None:
    """Options become keys of their types, and `bridge` is followed by `portmap`."""
    fakes.fake_plugin(directory, "bridge", PLUGIN)
    fakes.strict_plugin(directory, "portmap", address="10.0.0.9/24")
    options = {"type": "bridge", "mtu": "1400", "hairpinMode": "true"}
    port = {"host_ip": "", "host_port": 80, "container_port": 80, "protocol": "tcp", "range": 1}

    answer = setup(exec_of(directory, options, network_interface="br7", ports=[port]))

    conf = only(directory, "ADD", "bridge").conf
    assert (conf["bridge"], conf["mtu"], conf["hairpinMode"]) == ("br7", 1400, True)
    assert (conf["isGateway"], conf["ipMasq"]) == (True, True)
    assert only(directory, "ADD", "portmap").conf["runtimeConfig"]["portMappings"] == [
        {"hostPort": 80, "containerPort": 80, "protocol": "tcp"}
    ]
    assert list(answer.value["interfaces"]) == ["eth0"]


def test_info_reads_nothing(installed: Path) -> None:
    """`info`, which people type, does not wait for standard input."""
    hear, tell = os.pipe()
    try:
        done = subprocess.run(
            [installed, "info"], stdin=hear, capture_output=True, timeout=20, check=True
        )
    finally:
        os.close(hear)
        os.close(tell)

    assert json.loads(done.stdout)["api_version"] == "1.0.0"

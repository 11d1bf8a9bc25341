# SPDX-License-Identifier: Apache-2.0
"""`netns-shim wrap`: what there is of a network, run through the shim."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench
import pytest
from runtime import PLUGIN, bridge, page

from netns_shim.main import main
from netns_shim.validate.document import Findings

CONF = Path(__file__).resolve().parent.parent / "conf"
PORTS = {"type": "portmap", "capabilities": {"portMappings": True, "snat": False}}
IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/24"}]]}
BRIDGE = {"type": "bridge", "ipMasq": True, "ipam": IPAM, "capabilities": {"mac": True}}
# The same as it is inside the shim.
INSIDE = {**BRIDGE, "capabilities": {"ips": True, "mac": True}}


class Wrapped:
    """What the command printed for a network, and what it said."""

    def __init__(self, capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> None:
        self.status = main(["netns-shim", "wrap", str(path), *arguments])
        self.out, self.err = capsys.readouterr()
        self.conf: Any = json.loads(self.out) if self.out else None


@pytest.fixture
def wrap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Wrapped]:
    """A function that wraps a network; what comes of it is valid."""

    def do(network: dict[str, Any], *arguments: str) -> Wrapped:
        path = tmp_path / "network"
        path.write_text(json.dumps(network))
        wrapped = Wrapped(capsys, path, *arguments)
        assert wrapped.status == 0, wrapped.err
        assert Findings(wrapped.out.encode(), "", "netns-shim").problems == []
        return wrapped

    return do


def test_list(wrap: Callable[..., Wrapped]) -> None:
    """A list gets one entry with all plugins; the network's keys stay in place."""
    keys = {"cniVersion": "1.0.0", "cniVersions": ["1.0.0"], "name": "n", "disableCheck": True}

    wrapped = wrap({**keys, "plugins": [BRIDGE, PORTS], "x-own": 1})

    entry = {
        "type": "netns-shim",
        "capabilities": {"ips": True, "mac": True, "portMappings": True},
        "plugins": [INSIDE, PORTS],
    }
    assert wrapped.conf == {**keys, "plugins": [entry], "x-own": 1}
    assert list(wrapped.conf) == [*keys, "plugins", "x-own"]
    assert wrapped.err.splitlines() == [
        "netns-shim: bridge, portmap: in one entry of netns-shim now",
        "netns-shim: capabilities for the runtime to see: ips, mac, portMappings",
    ]


def test_single(wrap: Callable[..., Wrapped]) -> None:
    """A single plugin stays one, so the name of its file stays right."""
    wrapped = wrap({"cniVersion": "0.4.0", "name": "n", "dns": {"domain": "x"}, **BRIDGE})

    assert wrapped.conf == {
        "cniVersion": "0.4.0",
        "name": "n",
        "type": "netns-shim",
        "capabilities": {"ips": True, "mac": True},
        "delegate": {"dns": {"domain": "x"}, **INSIDE},
    }


def test_options(wrap: Callable[..., Wrapped]) -> None:
    """The options are keys of the entry; again they replace what is there."""
    network = {"name": "n", "plugins": [BRIDGE]}

    once = wrap(network, "--netns", "blue", "--uplink", "none")
    twice = wrap(once.conf, "--netns", "red")

    assert (once.conf["plugins"][0]["netns"], once.conf["plugins"][0]["uplink"]) == (
        "blue",
        "none",
    )
    assert twice.conf["plugins"][0] == {**once.conf["plugins"][0], "netns": "red"}


@pytest.mark.parametrize("sample", sorted(CONF.glob("*.conflist")), ids=lambda path: path.stem)
def test_what_is_wrapped_stays(capsys: pytest.CaptureFixture[str], sample: Path) -> None:
    """A network that runs through the shim already comes out as it is, and that is said."""
    wrapped = Wrapped(capsys, sample)

    assert wrapped.conf == json.loads(sample.read_text())
    assert wrapped.err == "netns-shim: it runs through netns-shim already\n"


def test_single_that_is_wrapped(wrap: Callable[..., Wrapped]) -> None:
    """So does a single plugin."""
    network = {"name": "n", "type": "netns-shim", "delegate": BRIDGE}

    assert wrap(network).conf == network


def test_what_is_wrapped_in_part(wrap: Callable[..., Wrapped]) -> None:
    """Entries of the shim among others become one with them, in the same order."""
    ours = {"type": "netns-shim", "netns": "blue", "capabilities": {"ips": True}}
    plugins = [BRIDGE, {**ours, "delegate": {"type": "tuning"}}, {**ours, "plugins": [PORTS]}]

    wrapped = wrap({"name": "n", "plugins": plugins})

    (entry,) = wrapped.conf["plugins"]
    assert entry["netns"] == "blue"
    assert entry["capabilities"] == {"mac": True, "ips": True, "portMappings": True}
    assert entry["plugins"] == [INSIDE, {"type": "tuning", "capabilities": {"ips": True}}, PORTS]


def test_delegates_of_others_are_theirs(wrap: Callable[..., Wrapped]) -> None:
    """A meta plugin that has a `delegate` of its own is wrapped like any other."""
    flannel = {"type": "flannel", "delegate": {"isDefaultGateway": True}}

    assert wrap({"name": "n", "plugins": [flannel]}).conf["plugins"][0]["plugins"] == [flannel]


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        ({"type": "bridge"}, "bridge: without ipMasq, containers reach no further"),
        ({"type": "ptp", "mtu": 1400}, "ptp: mtu stays 1400; without the key it gets that of the"),
        ({"type": "macvlan", "master": "eth0"}, "macvlan: the interface 'eth0' has to be in"),
        ({"type": "ipvlan"}, "ipvlan: its interface has to be in the shared"),
        ({**BRIDGE, "ipam": {"type": "dhcp"}}, "bridge: the daemon of dhcp has to run inside"),
    ],
)
def test_cautions(wrap: Callable[..., Wrapped], plugin: dict[str, Any], said: str) -> None:
    """What works otherwise inside is said."""
    assert f"netns-shim: {said}" in wrap({"name": "n", "plugins": [plugin]}).err


def test_nothing_to_say(wrap: Callable[..., Wrapped]) -> None:
    """Where nothing is special, one line is all."""
    quiet = {k: v for k, v in BRIDGE.items() if k not in ("capabilities", "ipam")}

    assert len(wrap({"name": "n", "plugins": [quiet]}).err.splitlines()) == 1


@pytest.mark.parametrize(
    ("plugin", "expected"),
    [
        ({"type": "bridge", "ipam": IPAM}, {"ips": True, "mac": True}),
        ({"type": "ptp", "ipam": IPAM}, {"ips": True}),
        ({"type": "macvlan", "ipam": IPAM}, {"ips": True, "mac": True}),
        ({"type": "bridge", "ipam": IPAM, "capabilities": {"ips": False}}, {"mac": True}),
        ({"type": "bridge"}, {}),
        ({"type": "x", "ipam": "none", "capabilities": {"y": True}}, {"y": True}),
    ],
)
def test_addresses_of_the_runtime(
    wrap: Callable[..., Wrapped], plugin: dict[str, Any], expected: dict[str, bool]
) -> None:
    """A runtime sees `ips` where a plugin has addresses allocated, and `mac` if it takes one."""
    (entry,) = wrap({"name": "n", "plugins": [{"type": "first"}, plugin]}).conf["plugins"]

    assert entry.get("capabilities", {}) == expected
    assert entry["plugins"][0] == {"type": "first"}
    inside = entry["plugins"][1].get("capabilities", {})
    assert {key: value for key, value in inside.items() if value} == expected


def test_plugins_in_files_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """libcni 1.3 adds plugins from a directory beside the list, which are not seen here."""
    (tmp_path / "n").mkdir()
    path = tmp_path / "n.conflist"
    path.write_text(json.dumps({"name": "n", "plugins": [BRIDGE]}))
    assert f"plugins in {tmp_path}/n are not wrapped" in Wrapped(capsys, path).err

    path.write_text(json.dumps({"name": "n", "plugins": [BRIDGE], "loadOnlyInlinedPlugins": True}))

    assert "not wrapped" not in Wrapped(capsys, path).err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot decode the CNI network: it is empty"),
        ("{", "cannot decode the CNI network"),
        ('{"name": "n"}', "neither a plugin ('type') nor a list of them ('plugins')"),
        ('{"name": "n", "plugins": []}', "neither a plugin ('type') nor a list"),
        (
            '{"name": "n", "plugins": [{}]}',
            "cannot be wrapped: plugins[0].plugins[0].type: is missing",
        ),
        (
            '{"name": "n", "plugins": [{"type": "x", "capabilities": {"a": 7}}]}',
            "cannot be wrapped: plugins[0].plugins[0].capabilities.a: must be true or false",
        ),
        (
            '{"name": "n", "plugins": [{"type": "x"}, '
            '{"type": "netns-shim", "netns": "a", "delegate": {"type": "x"}}, '
            '{"type": "netns-shim", "netns": "b", "delegate": {"type": "x"}}]}',
            "entries of netns-shim must agree in their keys",
        ),
        ('{"name": "n", "plugins": [{"type": "x"}, {"type": "netns-shim"}]}', "must be"),
    ],
)
def test_what_cannot_be_wrapped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    """Where nothing valid would come of it, nothing is printed, and one line says why."""
    path = tmp_path / "network"
    path.write_text(text)

    wrapped = Wrapped(capsys, path)

    assert (wrapped.status, wrapped.out) == (1, "")
    assert wrapped.err.startswith("netns-shim: ")
    assert said in wrapped.err
    assert "Traceback" not in wrapped.err


def test_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there is one line."""
    wrapped = Wrapped(capsys, tmp_path / "none")

    assert wrapped.err == f"netns-shim: No such file or directory: {tmp_path}/none\n"


def test_texts_stay(wrap: Callable[..., Wrapped]) -> None:
    """Letters are not escaped, and half a character is what it was."""
    wrapped = wrap({"name": "n", "plugins": [{"type": "x", "text": "é\ud800\n"}]})

    assert wrapped.conf["plugins"][0]["plugins"][0]["text"] == "é\ud800\n"
    assert "é\\ud800\\n" in wrapped.out


@pytest.mark.usefixtures("libcni_cache")
def test_what_is_printed_attaches(
    world: bench.World, session: bench.Session, cnidrive: str
) -> None:
    """A network of a bridge and portmap, wrapped, is attached, checked and detached by libcni."""
    directory = f"{session.env['HOME']}/net.d"
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    network = {
        "cniVersion": "1.0.0",
        "name": "mine",
        "plugins": [bridge("10.89.1.0/24"), {"type": "firewall"}, ports],
    }
    session.path(directory).mkdir()
    done = session.run([PLUGIN, "wrap", "-"], input=json.dumps(network), check=True)
    session.path(f"{directory}/mine.conflist").write_text(done.stdout)
    checked = session.run([PLUGIN, "validate", f"{directory}/mine.conflist"])
    env = {**session.env, "NETCONFPATH": directory, "CNI_PATH": bench.World.plugin_dir}
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    env["CAP_ARGS"] = json.dumps({"portMappings": [mapping]})

    with session.container() as container:
        added = session.run([cnidrive, "add", "mine", container.netns], env=env)
        rules = session.run([PLUGIN, "run", "--", "iptables", "-t", "nat", "-S"]).stdout
        seen = page(container, bench.PAGE_BEYOND)
        deleted = session.run([cnidrive, "del", "mine", container.netns], env=env)

    assert checked.stdout == f"{directory}/mine.conflist: valid\n"
    assert added.returncode == 0, added.stderr
    assert "10.89.1.2" in added.stdout
    # The capability was seen by the runtime, and its values have reached portmap.
    assert "--dport 8080" in rules
    assert seen.endswith(f"{bench.HOST}\n")
    assert deleted.returncode == 0, deleted.stderr
    assert world.leftovers() == []

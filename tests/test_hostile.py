# SPDX-License-Identifier: Apache-2.0
"""Hostile input of every kind, within the process: one error in the right dialect, nothing left.

Each test damages one document: what a caller sends, what a plugin prints, what a file holds.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest
from fake_netavark import NETNS
from hostile import RESULT, SPOKEN, STATUS, SUBNET
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from looks import NOW, plain
from parts import examples

from netns_shim import decoding, errors
from netns_shim.attachment import PARTS
from netns_shim.cli import graph, inspection, show, tree
from netns_shim.errors import ShimError
from netns_shim.netavark import wire
from netns_shim.state import IN_PLACE, State

Json = dict[str, Any]

BY_TYPE: Json = {
    "delegate": {
        "type": "fake",
        "path": "odd",
        "ipam": {"type": "fake"},
        "capabilities": {"mac": True, "ipam": True},
    }
}
DRIVER: Json = {
    "driver": "mock",
    "subnets": [SUBNET],
    "capabilities": {"aliases": True, "ipam": True, "mac": True, "portMappings": True},
    "network_interface": "br0",
    "network_dns_servers": ["192.0.2.53"],
    "options": {"key": "text"},
    "routes": [{"destination": "192.0.2.0/24", "gateway": "10.89.8.1", "metric": 1}],
}
BY_DRIVER: Json = {"plugins": [{**DRIVER, "ipam": {"type": "fake"}}]}
BY_CALLER: Json = {"plugins": [{**DRIVER, "ipam": {}}]}
WAYS = [BY_TYPE, BY_DRIVER, BY_CALLER]

RUN_TIME: Json = {
    "runtimeConfig": {
        "aliases": ["web"],
        "dns": {"servers": ["192.0.2.53"]},
        "ipam": {"type": "x", "addresses": [{"address": "10.89.8.2/24", "gateway": "10.89.8.1"}]},
        "ips": ["10.89.8.2/24"],
        "mac": "02:00:00:00:00:01",
        "portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp", "hostIP": ""}],
    },
    "args": {"cni": {"mac": "x"}, "netavark": {"options": {"key": "text"}}},
    "prevResult": RESULT,
    "cni.dev/valid-attachments": [{"containerID": "c", "ifname": "eth0"}],
}

fuzz = settings(
    max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a plugin of CNI and one of netavark, with a short path."""
    with tempfile.TemporaryDirectory(prefix="h") as name:
        path = Path(name)
        reset(path)
        hostile.answering(path, "static", VERSION=SPOKEN)
        yield path


def reset(directory: Path) -> None:
    """Have the fakes answer well."""
    for status_file in directory.glob("*.status"):
        status_file.unlink()
    hostile.answering(directory, "fake", VERSION=SPOKEN, ADD=RESULT, DEL=b"", CHECK=b"")
    hostile.answering(directory, "mock", setup=STATUS, teardown=b"", info={})


def configuration(directory: Path, way: Json, **keys: Any) -> Json:
    """Return a configuration that is good."""
    return {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "netns-shim",
        "enter": "never",
        "stateDir": str(directory / "state"),
        "pluginDirs": [str(directory)],
        "netns": "default",
        "timeout": 60,
        "uplink": {"driver": "none", "options": [], "path": "/x"},
        "capabilities": {"mac": True},
        **way,
        **keys,
    }


def references(directory: Path) -> list[str]:
    """List what is attached."""
    refs = directory / f"state/{IN_PLACE}/refs"
    return os.listdir(refs) if refs.exists() else []


def detach(directory: Path, conf: Json) -> None:
    """Check that a good DEL makes an end of whatever there is."""
    reset(directory)
    error = hostile.checked(hostile.by_cni("DEL", directory, json.dumps(conf).encode()))
    assert error is None
    assert references(directory) == []


# The places of what is sent, without those by which the state would be elsewhere.
SENT = [
    hostile.damaged({**configuration(Path("/x"), way), **RUN_TIME}, but=("stateDir", "enter"))
    for way in WAYS
]


@fuzz
@given(
    way=st.sampled_from(range(len(WAYS))),
    verb=st.sampled_from(["ADD", "ADD", "DEL", "CHECK", "GC", "STATUS"]),
    data=st.data(),
)
def test_configurations(directory: Path, way: int, verb: str, data: st.DataObject) -> None:
    """Whatever stands in a configuration, the answer is one error or success; DEL undoes it."""
    sent = data.draw(SENT[way])
    good = configuration(directory, WAYS[way])
    places = {"stateDir": good["stateDir"], "pluginDirs": good["pluginDirs"]}
    if isinstance(sent, dict):
        sent = {**sent, "stateDir": places["stateDir"], "enter": "never"}
        if sent.get("pluginDirs") == ["/x"]:
            sent |= places

    error = hostile.checked(hostile.by_cni(verb, directory, json.dumps(sent).encode()))

    if error is not None and verb == "ADD":
        assert references(directory) == []
    for name in references(directory):
        os.unlink(directory / f"state/{IN_PLACE}/refs/{name}")


@fuzz
@given(
    st.sampled_from(["ADD", "DEL", "VERSION"]), st.binary(max_size=200) | st.text().map(str.encode)
)
def test_stdin(directory: Path, verb: str, text: bytes) -> None:
    """Whatever is on stdin, the answer is one document."""
    hostile.checked(hostile.by_cni(verb, directory, text))


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_odd_stdin(directory: Path, text: bytes) -> None:
    """What is no document is an error of CNI, and one of netavark."""
    assert hostile.checked(hostile.by_cni("ADD", directory, text)) is not None
    assert hostile.checked_netavark(
        hostile.by_netavark("setup", NETNS, directory=directory, stdin=text)
    )


ERROR: Json = {"cniVersion": "1.0.0", "code": 7, "msg": "text", "details": "more"}
# Who prints it, when, whether it fails, and what.
PRINTED: list[tuple[str, str, int, Any]] = [
    ("fake", "ADD", 0, RESULT),
    ("fake", "VERSION", 0, SPOKEN),
    ("fake", "ADD", 1, ERROR),
    ("fake", "DEL", 1, ERROR),
    ("fake", "CHECK", 1, ERROR),
    ("mock", "setup", 0, STATUS),
    ("mock", "setup", 1, {"error": "text"}),
    ("mock", "teardown", 1, {"error": "text"}),
]
OUTPUTS = [hostile.text(hostile.damaged(good)) for _, _, _, good in PRINTED]


@fuzz
@given(
    which=st.sampled_from(range(len(PRINTED))),
    way=st.sampled_from(WAYS),
    version=st.sampled_from(["0.2.0", "0.4.0", "1.0.0"]),
    data=st.data(),
)
def test_outputs(
    directory: Path, which: int, way: Json, version: str, data: st.DataObject
) -> None:
    """Whatever a plugin prints, the answer is one error or success, and DEL goes on."""
    name, verb, exit_status, _ = PRINTED[which]
    hostile.answering(directory, name, **{verb: data.draw(OUTPUTS[which])})
    hostile.ending(directory, name, verb, exit_status)
    conf = configuration(directory, way, cniVersion=version)

    for command in ("ADD", "CHECK", "DEL"):
        answer = hostile.by_cni(command, directory, json.dumps(conf).encode())
        error = hostile.checked(answer, is_own=False)
        if command == "ADD" and error is not None:
            assert references(directory) == []

    detach(directory, conf)


def exec_of(options: Json) -> Json:
    """Return what netavark gives a plugin for a container."""
    subnet = {**SUBNET, "lease_range": {"start_ip": "10.89.8.2", "end_ip": "10.89.8.9"}}
    route = {"destination": "192.0.2.0/24", "gateway": "10.89.8.1", "metric": 1}
    port = {"host_ip": "", "host_port": 1, "container_port": 1, "protocol": "tcp", "range": 1}
    return {
        "container_id": "c",
        "container_name": "web",
        "port_mappings": [port],
        "network": {
            "name": "net",
            "id": "a" * 64,
            "driver": "cni",
            "dns_enabled": False,
            "internal": False,
            "ipv6_enabled": False,
            "subnets": [subnet],
            "routes": [route],
            "ipam_options": {"driver": "host-local"},
            "options": {"uplink": "none", "timeout": "60", "netns": "x", **options},
        },
        "network_options": {
            "interface_name": "eth0",
            "static_ips": ["10.89.8.2"],
            "static_mac": "02:00:00:00:00:01",
            "aliases": ["web"],
            "options": {"key": "text"},
        },
    }


GIVEN = [hostile.damaged(exec_of(options)) for options in ({"type": "fake"}, {"driver": "mock"})]


@fuzz
@given(given_by=st.sampled_from(range(len(GIVEN))), data=st.data())
def test_netavark(directory: Path, given_by: int, data: st.DataObject) -> None:
    """Whatever netavark gives, the answer is one error in its dialect, or success."""
    asked = data.draw(GIVEN[given_by])
    here = {
        "enter": "never",
        "stateDir": str(directory / "state"),
        "cniPath": str(directory),
        "pluginDirs": str(directory),
    }
    options = asked["network"].get("options") if isinstance_network(asked) else None
    if isinstance(options, dict):
        asked = hostile.replaced(asked, ("network", "options"), {**here, **options})
    text = json.dumps(asked).encode()

    failed = hostile.checked_netavark(
        hostile.by_netavark("setup", NETNS, directory=directory, stdin=text)
    )
    if failed:
        assert references(directory) == []
    hostile.checked_netavark(
        hostile.by_netavark("teardown", NETNS, directory=directory, stdin=text)
    )
    assert references(directory) == []
    if isinstance_network(asked):
        text = json.dumps(asked["network"]).encode()
        hostile.checked_netavark(hostile.by_netavark("create", directory=directory, stdin=text))


def isinstance_network(asked: Any) -> bool:
    """Tell whether there is a network in what is given."""
    return isinstance(asked, dict) and isinstance(asked.get("network"), dict)


def journal(lines: Any) -> bytes:
    """Write the lines of a reference."""
    items = lines if isinstance(lines, list) else [lines]
    return "".join(json.dumps(line) + "\n" for line in items).encode()


@fuzz
@given(way=st.sampled_from([BY_TYPE, BY_DRIVER]), data=st.data())
def test_files(directory: Path, way: Json, data: st.DataObject) -> None:
    """Whatever a file of ours holds, every verb answers, and DEL makes an end of it."""
    shutil.rmtree(directory / "state", ignore_errors=True)
    conf = configuration(directory, way)
    text = json.dumps(conf).encode()
    assert hostile.checked(hostile.by_cni("ADD", directory, text)) is None
    found = sorted(p for p in (directory / "state").rglob("*") if p.is_file() and p.stat().st_size)
    path = data.draw(st.sampled_from(found), label="file")
    path.write_bytes(data.draw(hostile.text(st.nothing()) | contents(path)))

    gc = json.dumps({**conf, "cni.dev/valid-attachments": []}).encode()
    for verb in data.draw(st.permutations(["ADD", "CHECK", "GC", "DEL", "status"])):
        if verb == "status":
            look(directory)
        else:
            hostile.checked(hostile.by_cni(verb, directory, gc if verb == "GC" else text))

    detach(directory, conf)


@pytest.mark.parametrize("verb", ["DEL", "GC", "ADD"])
@pytest.mark.parametrize(
    "damage",
    [
        *({"type": name} for name in ("a:b", "../x", "fake/", "", "..", "missing", "x" * 300)),
        *({"type": value} for value in (7, ["fake"], None)),
        *({"driver": name} for name in ("a/b", "fake", "mock", 7)),
        {},
        7,
        ["fake"],
    ],
)
def test_plugins_of_a_reference(directory: Path, damage: object, verb: str) -> None:
    """A reference that tells of other plugins than its name is damaged: the request counts."""
    conf = configuration(directory, BY_TYPE)
    text = json.dumps(conf).encode()
    assert hostile.checked(hostile.by_cni("ADD", directory, text)) is None
    (name,) = references(directory)
    path = directory / f"state/{IN_PLACE}/refs/{name}"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    (line,) = [line for line in lines if "conf" in line]
    line["conf"]["delegate"] = damage
    path.write_bytes(journal(lines))
    os.utime(path, (0, 0))

    gc = json.dumps({**conf, "cni.dev/valid-attachments": []}).encode()
    error = hostile.checked(hostile.by_cni(verb, directory, gc if verb == "GC" else text))

    assert error is None or verb == "ADD"
    detach(directory, conf)


def look(directory: Path) -> None:
    """Look at all there is, in every way; nothing of it harms a terminal."""
    base = str(directory / "state")
    shown = inspection.look(State(base, IN_PLACE))
    found = {"netns": [shown], "stateDir": base, "inPlace": [], "pauseProcess": None}
    texts = plain(tree.draw(found, NOW))
    for entry in shown["references"]:
        made = inspection.made_from(base, IN_PLACE, entry["containerID"])
        key = tuple(entry[part] for part in PARTS)
        entry = {"sharedNetns": IN_PLACE, "madeFrom": made[key], **entry}
        texts += [line for text in show.describe(entry, NOW) for line in text.plain.split("\n")]
    for kind in ("mermaid", "dot"):
        texts += graph.render(found, kind).decode().replace("\t", "").splitlines()
    assert all(text.isprintable() for text in texts)


def contents(path: Path) -> st.SearchStrategy[bytes]:
    """Choose damaged contents of a file."""
    text = path.read_text()
    if path.parent.name in ("refs", "started"):  # in the latter are links to references
        return hostile.damaged([json.loads(line) for line in text.splitlines()]).map(journal)
    if path.parent.name == "validated" or path.suffix == ".lock" or path.name == "lock":
        return st.integers(0, len(text)).map(lambda size: text[:size].encode())
    return hostile.damaged(json.loads(text)).map(lambda value: json.dumps(value).encode())


UPLINK: Json = {
    "driver": "pasta",
    "pid": 2**22 + 1,
    "startTime": 1,
    "bootID": "x",
    "mountNamespace": 1,
    "netns": 1,
    "addresses": ["10.0.0.1"],
}


@fuzz
@given(hostile.text(hostile.damaged(UPLINK)))
def test_record_of_an_uplink(directory: Path, text: bytes) -> None:
    """Whatever is in `uplink.json`, what is read of it has the types that it is used with."""
    where = State(str(directory), "net")
    os.makedirs(where.refs, 0o700, exist_ok=True)
    Path(where.path("uplink.json")).write_bytes(text)

    record = where.uplink()

    if record:
        assert isinstance(record.driver, str)
        assert type(record.pid) is int
        assert 0 <= record.pid < 2**31
    assert isinstance(inspection.look(where), dict)


@pytest.mark.parametrize("kind", ["pipe", "directory", "device", "link"])
@pytest.mark.parametrize(
    "name",
    ["plugins.json", "refs/net:c:eth0:fake", "refs/more", "validated", "turn.lock", "started/net"],
)
def test_special_files(directory: Path, name: str, kind: str) -> None:
    """What is no file is not waited for, nor read for ever; what a link leads to stays."""
    conf = configuration(directory, BY_TYPE)
    text = json.dumps(conf).encode()
    assert hostile.checked(hostile.by_cni("ADD", directory, text)) is None
    path = directory / f"state/{IN_PLACE}" / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    outside = directory / "outside"
    outside.write_text("kept")
    make: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(path),
        "directory": path.mkdir,
        "device": lambda: path.symlink_to("/dev/zero"),
        "link": lambda: path.symlink_to(outside),
    }
    make[kind]()

    for verb in ("CHECK", "GC", "ADD", "DEL"):
        hostile.checked(hostile.by_cni(verb, directory, text))
    look(directory)

    assert outside.read_text() == "kept"


def test_depth_is_bounded() -> None:
    """What is nested more than 200 times is refused, whether by lists or by objects."""
    deep: Any = 0
    for _ in range(101):
        deep = {"x": [deep]}

    assert decoding.one(json.dumps(hostile.nested(199))) == hostile.nested(199)
    for value in (deep, hostile.nested(200)):
        with pytest.raises(ValueError, match="nested too deeply"):
            decoding.one(json.dumps(value))


def test_a_key_given_twice_is_found_at_once() -> None:
    """The search for a key that is given twice does not take the square of their number."""
    keys = ", ".join(f'"{number}": 0' for number in range(300_000))

    with pytest.raises(ValueError, match="'0' is given twice"):
        decoding.one(f'{{{keys}, "0": 1}}', is_strict=True)


def test_networks_given_twice_are_found_at_once() -> None:
    """Neither does that for a network."""
    networks = [{"name": f"n{n}", "interface_name": "e"} for n in range(100_000)]
    text = json.dumps({"container_id": "c", "networks": [*networks, networks[0]]})

    with pytest.raises(ShimError) as caught:
        wire.decode_options(text.encode())

    assert "'n0' is there twice" in caught.value.message


def test_many_unknown_keys(directory: Path) -> None:
    """Of very many problems some are shown, and that is soon."""
    keys = {f"key{number}" * 3: 0 for number in range(50_000)}
    conf = configuration(directory, BY_TYPE, **keys)

    error = hostile.checked(hostile.by_cni("ADD", directory, json.dumps(conf).encode()))

    assert error is not None
    assert error["code"] == errors.INVALID_NETWORK_CONFIG
    assert "50000 problems" in error["msg"]
    assert "… and 49950 more" in error["details"]

# SPDX-License-Identifier: Apache-2.0
"""CNI networks in files: found as libcni finds them, read as the shim needs them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from netns_shim import errors
from netns_shim.errors import ShimError
from netns_shim.validate import conflist

PLUGINS = [{"type": "bridge"}, {"type": "portmap"}]


def write(path: Path, value: Any) -> str:
    """Write a file; give its path as a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def test_by_path(tmp_path: Path) -> None:
    """A network is read by the path of its file, whatever that is called."""
    path = write(tmp_path / "x", {"cniVersion": "0.4.0", "name": "net", "plugins": PLUGINS})

    assert conflist.load(path, {}) == {"cniVersion": "0.4.0", "name": "net", "plugins": PLUGINS}


def test_by_name(tmp_path: Path) -> None:
    """A network is found by name: NETCONFPATH first, and lists before single plugins."""
    mine, home = tmp_path / "mine", tmp_path / "home"
    write(home / ".config/cni/net.d/10.conflist", {"name": "net", "plugins": PLUGINS})
    environ = {"HOME": str(home), "NETCONFPATH": str(mine)}
    assert conflist.load("net", environ)["plugins"] == PLUGINS

    write(mine / "10.conf", {"name": "net", "type": "ptp"})
    assert conflist.load("net", environ)["plugins"] == [{"name": "net", "type": "ptp"}]

    write(mine / "20.conflist", {"name": "net", "plugins": [{"type": "macvlan"}]})
    assert conflist.load("net", environ)["plugins"] == [{"type": "macvlan"}]


def test_name_that_is_not_there(tmp_path: Path) -> None:
    """A network that is nowhere is an error with the places that were looked at."""
    with pytest.raises(ShimError, match="no CNI network 'net'") as caught:
        conflist.load("net", {"XDG_CONFIG_HOME": str(tmp_path)})

    assert f"{tmp_path}/cni/net.d, /etc/cni/net.d" in caught.value.details


@pytest.mark.parametrize("version", ["9.0.0", 1, ["1.0.0"]])
def test_no_version(tmp_path: Path, version: Any) -> None:
    """An unknown version is refused like one that a runtime has sent."""
    path = write(tmp_path / "x", {"cniVersion": version, "name": "net", "plugins": PLUGINS})

    with pytest.raises(ShimError) as caught:
        conflist.load(path, {})

    assert caught.value.code in (errors.INCOMPATIBLE_VERSION, errors.DECODING_FAILURE)


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        ({}, "0.1.0"),
        ({"cniVersion": "0.3.1"}, "0.3.1"),
        ({"cniVersion": "0.3.1", "cniVersions": ["0.4.0", "1.0.0", "9.0.0"]}, "1.0.0"),
        ({"cniVersions": "1.0.0"}, "0.1.0"),
    ],
)
def test_versions(tmp_path: Path, versions: dict[str, Any], chosen: str) -> None:
    """Of the versions of a network the newest that is spoken is taken."""
    path = write(tmp_path / "x", {**versions, "name": "net", "plugins": PLUGINS})

    assert conflist.load(path, {})["cniVersion"] == chosen


def test_what_is_wrapped_is_unwrapped(tmp_path: Path) -> None:
    """Of entries that are the shim's already, what they wrap is taken, and their keys."""
    wrapped = [
        {"type": "x", "netns": "n", "capabilities": {"ips": True}, "delegate": {"type": "a"}},
        {"type": "x", "netns": "n", "plugins": [{"type": "b"}, {"type": "c"}]},
    ]
    path = write(tmp_path / "x", {"cniVersion": "1.0.0", "name": "net", "plugins": wrapped})

    assert conflist.load(path, {}) == {
        "cniVersion": "1.0.0",
        "name": "net",
        "netns": "n",
        "plugins": [{"capabilities": {"ips": True}, "type": "a"}, {"type": "b"}, {"type": "c"}],
    }


@pytest.mark.parametrize(
    ("plugins", "why"),
    [
        ([{"type": "x", "delegate": {"type": "a"}}, {"type": "b"}], "must be alone"),
        ([{"delegate": {"type": "a"}, "netns": "n"}, {"delegate": {"type": "b"}}], "must agree"),
    ],
)
def test_entries_that_disagree(tmp_path: Path, plugins: list[Any], why: str) -> None:
    """Entries of the shim beside others, or with other keys, cannot become one."""
    path = write(tmp_path / "x", {"name": "net", "plugins": plugins})

    with pytest.raises(ShimError, match=why):
        conflist.load(path, {})


def test_delegate_of_flannel(tmp_path: Path) -> None:
    """flannel has a key `delegate` as well: its entry is not taken for one of the shim."""
    plugins = [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    path = write(tmp_path / "x", {"name": "cbr0", "cniVersion": "0.3.1", "plugins": plugins})

    assert conflist.load(path, {})["plugins"] == plugins


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ("", errors.DECODING_FAILURE, "cannot decode the CNI network in"),
        ("[]", errors.DECODING_FAILURE, "cannot decode the CNI network in"),
        ({"plugins": PLUGINS}, errors.INVALID_NETWORK_CONFIG, "network name"),
        ({"name": "a/b", "plugins": PLUGINS}, errors.INVALID_NETWORK_CONFIG, "network name"),
        ({"name": "n", "plugins": []}, errors.INVALID_NETWORK_CONFIG, "a list of objects"),
        ({"name": "n", "plugins": ["x"]}, errors.INVALID_NETWORK_CONFIG, "a list of objects"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: Any, code: int, message: str) -> None:
    """A file that is no network is refused with its path."""
    path = write(tmp_path / "x", content)

    with pytest.raises(ShimError, match=message) as caught:
        conflist.load(path, {})

    assert caught.value.code == code
    assert path in caught.value.message


def test_order_of_files(tmp_path: Path) -> None:
    """In one directory lists come first, then .conf and .json together, each by name."""
    for name in ("2.conflist", "1.json", "3.conf", "9.conflist", "0.other"):
        write(tmp_path / "cni/net.d" / name, {"name": "net", "plugins": [{"type": name}]})
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    found = []
    for _ in range(4):
        (plugin,) = conflist.load("net", environ)["plugins"]
        found.append(plugin["type"])
        (tmp_path / "cni/net.d" / plugin["type"]).unlink()

    with pytest.raises(ShimError, match="no CNI network 'net'"):
        conflist.load("net", environ)

    assert found == ["2.conflist", "9.conflist", "1.json", "3.conf"]


@pytest.mark.parametrize(
    "wrapped", [{"delegate": {"type": "a"}}, {"plugins": [{"type": "a"}]}], ids=lambda w: str(w)
)
def test_one_entry_of_the_shim_alone(tmp_path: Path, wrapped: dict[str, Any]) -> None:
    """A file with one entry of the shim and no list around it keeps the entry's own keys."""
    entry = {"cniVersion": "1.0.0", "name": "net", "type": "netns-shim", "netns": "n", **wrapped}

    found = conflist.load(write(tmp_path / "x.conf", entry), {})

    assert found == {
        "cniVersion": "1.0.0",
        "name": "net",
        "netns": "n",
        "plugins": [{"type": "a"}],
    }


@pytest.mark.parametrize(
    "wrapped",
    [
        {"delegate": "bridge"},
        {"delegate": None},
        {"plugins": 5},
        {"plugins": None},
        {"plugins": [1]},
        {"plugins": []},
    ],
    ids=str,
)
def test_entries_that_wrap_nothing(tmp_path: Path, wrapped: dict[str, Any]) -> None:
    """An entry of the shim without plugins inside is refused with the path of the file."""
    path = write(tmp_path / "x", {"name": "net", "plugins": [{"type": "netns-shim", **wrapped}]})

    with pytest.raises(ShimError) as caught:
        conflist.load(path, {})

    assert caught.value.code == errors.INVALID_NETWORK_CONFIG
    assert path in caught.value.message


@pytest.mark.parametrize("wanted", ["/a\0b", "/\ud800"])
def test_paths_that_no_file_can_have(wanted: str) -> None:
    """A path that the kernel cannot be asked for is refused like one that is not there."""
    with pytest.raises(ShimError, match="cannot read") as caught:
        conflist.load(wanted, {})

    assert caught.value.code == errors.INVALID_NETWORK_CONFIG


def test_directory(tmp_path: Path) -> None:
    """A directory in place of a file is refused, and no descriptor is left open."""
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(ShimError, match="cannot read") as caught:
        conflist.load(str(tmp_path), {})

    assert caught.value.code == errors.INVALID_NETWORK_CONFIG
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("has_writer", [False, True])
def test_pipe(tmp_path: Path, has_writer: bool) -> None:
    """A pipe in place of a file is refused at once, whether it has a writer or not."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR) if has_writer else -1

    with pytest.raises(ShimError, match=str(path)):
        conflist.load(str(path), {})

    if has_writer:
        os.close(writer)


def test_path_that_is_relative() -> None:
    """A path has to be absolute: netavark may be called in any directory."""
    with pytest.raises(ShimError, match="not an absolute path"):
        conflist.load("./x", {})

# SPDX-License-Identifier: Apache-2.0
"""CNI networks in files: found as libcni finds them, read as the shim needs them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from netns_shim import conflist, errors
from netns_shim.errors import ShimError

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


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        ({}, "0.1.0"),
        ({"cniVersion": "0.3.1"}, "0.3.1"),
        ({"cniVersion": "0.3.1", "cniVersions": ["0.4.0", "1.0.0", "9.0.0"]}, "1.0.0"),
        ({"cniVersion": "9.0.0"}, "9.0.0"),
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
    "plugins",
    [
        [{"type": "x", "delegate": {"type": "a"}}, {"type": "b"}],
        [{"delegate": {"type": "a"}, "netns": "n"}, {"delegate": {"type": "b"}}],
    ],
)
def test_entries_that_disagree(tmp_path: Path, plugins: list[Any]) -> None:
    """Entries of the shim beside others, or with other keys, cannot become one."""
    path = write(tmp_path / "x", {"name": "net", "plugins": plugins})

    with pytest.raises(ShimError, match="must be alone and agree"):
        conflist.load(path, {})


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


def test_paths_that_are_none(tmp_path: Path) -> None:
    """No file, a directory, a relative path: refused; a pipe does not stop the call."""
    os.mkfifo(tmp_path / "fifo")

    for path in (tmp_path / "gone", tmp_path, tmp_path / "fifo", "./x"):
        with pytest.raises((ShimError, OSError)):
            conflist.load(str(path), {})

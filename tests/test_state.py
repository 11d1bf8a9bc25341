# SPDX-License-Identifier: Apache-2.0
"""What is on disk: whose directories it is in, how it is written."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from netns_shim import errors, state
from netns_shim.errors import ShimError
from netns_shim.shared import ownership
from netns_shim.state import State

UID = os.geteuid()


def refusal(path: Path) -> str:
    """Return why a directory is refused."""
    with pytest.raises(ShimError) as caught:
        state.is_private(str(path))
    assert caught.value.code == errors.IO_FAILURE
    assert caught.value.message == f"refusing the state directory {path}"
    return caught.value.details


def test_paths() -> None:
    """All paths of a netns are below its directory."""
    where = State("/run/netns-shim", "default")

    assert where.pin == "/run/netns-shim/default/netns"
    assert where.refs == "/run/netns-shim/default/refs"
    assert where.stamps == "/run/netns-shim/default/validated"
    assert where.path("uplink.json") == "/run/netns-shim/default/uplink.json"


def test_netns_exists_when_it_is_ready(tmp_path: Path) -> None:
    """The directory of the references, which is made last, says that a netns is ready."""
    where = State(str(tmp_path / "base"), "default")
    seen = [where.exists()]
    os.mkdir(where.base, 0o700)
    seen.append(where.exists())
    ownership.claim(where)
    seen.append(where.exists())
    os.mkdir(where.refs, 0o700)
    seen.append(where.exists())

    assert seen == [False, False, False, True]


@pytest.mark.parametrize("odd", ["base", "dir"])
def test_state_of_others_is_refused(tmp_path: Path, odd: str) -> None:
    """A netns is refused where another user could have written its state."""
    where = State(str(tmp_path / "base"), "default")
    os.makedirs(where.refs)
    os.chmod(where.base, 0o700)
    os.chmod(where.dir, 0o700)
    os.chmod(getattr(where, odd), 0o770)

    with pytest.raises(ShimError) as caught:
        where.exists()

    assert caught.value.details == "its mode is 0770, not 0700"


@pytest.mark.parametrize("mode", [0o701, 0o750, 0o755, 0o777, 0o1777])
def test_directory_open_to_others(tmp_path: Path, mode: int) -> None:
    """Others can neither write nor look into a state directory."""
    tmp_path.chmod(mode)

    assert refusal(tmp_path) == f"its mode is {mode:04o}, not 0700"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_no_directory(tmp_path: Path, kind: str) -> None:
    """A state directory is a directory, and not a link to one."""
    path = tmp_path / "x"
    if kind == "file":
        path.touch()
    else:
        path.symlink_to(tmp_path)

    assert refusal(path) == "it is not a directory"


def test_directory_of_somebody_else(tmp_path: Path) -> None:
    """A directory of another user is refused."""
    path = Path("/")
    if UID == 0:
        os.chown(tmp_path, 65534, -1)
        path = tmp_path

    assert refusal(path).startswith("it belongs to user ")


def test_state_dir_of_the_configuration_wins(tmp_path: Path) -> None:
    """`stateDir` is taken as it is."""
    assert state.base_dir({"XDG_RUNTIME_DIR": str(tmp_path)}, "/some/where") == "/some/where"


@pytest.mark.parametrize("end", ["", "/", "//"])
def test_runtime_directory(tmp_path: Path, end: str) -> None:
    """State is kept in the user's runtime directory."""
    environ = {"XDG_RUNTIME_DIR": f"{tmp_path}{end}"}

    assert state.base_dir(environ) == f"{tmp_path}/netns-shim"


@pytest.mark.parametrize("value", ["", "relative", "/no/such", "/proc/1/fdinfo/none"])
@pytest.mark.parametrize("tmp", [None, "/some/tmp", "/var/tmp"])
def test_runtime_directory_that_is_none(value: str, tmp: str | None) -> None:
    """Without one of our own a user has a directory in /tmp by the outer ID; TMPDIR is not asked.

    Sessions of one user may differ in TMPDIR.
    """
    environ = {"XDG_RUNTIME_DIR": value, "_CONTAINERS_ROOTLESS_UID": "987654321"}
    if tmp is not None:
        environ["TMPDIR"] = tmp

    assert state.base_dir(environ) == "/tmp/netns-shim-987654321"


@pytest.mark.parametrize("value", ["", "/run/user/0", "/run/user/0/"])
def test_runtime_directory_of_root(value: str) -> None:
    """Root on the host keeps its state in /run, with and without a log-in."""
    environ = {"XDG_RUNTIME_DIR": value, "_CONTAINERS_ROOTLESS_UID": "0"}

    assert next(state.usual(environ, "0")) == "/run/netns-shim"


def test_outer_uid_is_found() -> None:
    """In the initial user namespace the outer user ID is the user ID."""
    with open("/proc/self/uid_map") as file:
        maps = [list(map(int, line.split())) for line in file]
    (base,) = (out + UID - inside for inside, out, n in maps if inside <= UID < inside + n)

    assert state.outer_uid() == str(base)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "\ufeff{}"])
def test_unreadable_record(tmp_path: Path, text: str) -> None:
    """A damaged record of an uplink is no record."""
    where = State(str(tmp_path), "default")
    os.mkdir(where.dir)
    Path(where.path("uplink.json")).write_text(text)

    assert not where.uplink()


def test_record(tmp_path: Path) -> None:
    """The record of an uplink is read as it was written; without one there is none."""
    where = State(str(tmp_path), "default")
    os.mkdir(where.dir)
    assert not where.uplink()

    record = {"driver": "pasta", "pid": 7, "startTime": 8, "more": [None]}
    Path(where.path("uplink.json")).write_text(json.dumps(record))

    assert where.uplink().fields == record


def test_time() -> None:
    """Times are of RFC 3339, in UTC."""
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", state.now())

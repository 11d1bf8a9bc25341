# SPDX-License-Identifier: Apache-2.0
"""Configurations: the defaults, and when a stamp replaces a validation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns_shim import conf, errors
from netns_shim.errors import ShimError

ROOT = Path(conf.__file__).parent.parent
BRIDGE: dict[str, Any] = {"type": "bridge", "bridge": "cni0"}
CONF: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "net",
    "type": "netns-shim",
    "delegate": BRIDGE,
}
KEYS = ("delegate", "plugins", "stateDir", "pluginDirs")
RUN_TIME: dict[str, Any] = {
    "prevResult": {"cniVersion": "1.0.0"},
    "runtimeConfig": {"portMappings": []},
    "args": {"cni": {}},
    "cni.dev/valid-attachments": [],
}


def refusal(call: Any, *arguments: Any) -> ShimError:
    """Return the error that a call must end in."""
    with pytest.raises(ShimError) as caught:
        call(*arguments)
    assert caught.value.code == errors.INVALID_NETWORK_CONFIG
    return caught.value


def stamp(directory: Path) -> Path:
    """Return the one stamp in a directory."""
    (path,) = directory.iterdir()
    return path


def test_defaults() -> None:
    """A configuration with nothing but a delegate says all the rest by default."""
    read = conf.read(CONF)

    assert read.plugins == [BRIDGE]
    assert (read.netns, read.enter, read.state_dir, read.timeout) == ("default", "auto", "", 120.0)
    assert read.parallel is None
    assert read.mtu == "uplink"
    assert read.uplink == {"driver": "", "options": [], "path": ""}


def test_every_key_is_read() -> None:
    """Each key of the shim arrives where the code looks for it; plugins stay as written."""
    chain = [BRIDGE, {"type": "portmap", "capabilities": {"portMappings": True}}]
    uplink = {"driver": "pasta", "options": ["-4"], "path": "/usr/bin/pasta"}

    read = conf.read(
        {
            "plugins": chain,
            "netns": "other",
            "uplink": uplink,
            "enter": "never",
            "stateDir": "/s",
            "timeout": 7,
            "parallel": False,
            "mtu": 1500.0,
        }
    )

    assert read.plugins == chain
    assert (read.netns, read.enter, read.state_dir, read.timeout) == ("other", "never", "/s", 7.0)
    assert read.uplink == uplink
    assert read.parallel is False
    assert read.mtu == 1500


@pytest.mark.parametrize("uplink", ["none", {"driver": "none"}])
def test_an_uplink_is_a_word_or_an_object(uplink: Any) -> None:
    """The short form is the long one with nothing but the driver."""
    read = conf.read({**CONF, "uplink": uplink})

    assert read.uplink == {"driver": "none", "options": [], "path": ""}


@pytest.mark.parametrize(
    "change",
    [
        {"netns": "../x"},
        {"netns": "a\n"},
        {"netns": "a" * 65},
        {"netns": None},
        {"stateDir": "x"},
        {"stateDir": "/\0"},
        {"stateDir": "/\ud800"},
        {"stateDir": 1},
        {"enter": 1},
        {"enter": "maybe"},
    ],
)
def test_what_leads_to_the_stamps_is_right(change: dict[str, Any]) -> None:
    """`read` refuses a place for stamps that is none, with the same sentences as `check`."""
    error = refusal(conf.read, {**CONF, **change, "timeout": "1"})

    assert error.message == "invalid configuration: 2 problems"
    assert str(error) == str(refusal(conf.check, {**CONF, **change, "timeout": "1"}, None))


def test_odd_directories_are_validated() -> None:
    """A state directory that only may be wrong is no reason to refuse it."""
    assert conf.read({**CONF, "stateDir": "/a\u00adb"}).state_dir == "/a\u00adb"


@pytest.mark.parametrize(
    "change",
    [
        {"delegate": 1},
        {"timeout": "1"},
        {"timeout": -1},
        {"timeout": 10**400},
        {"uplink": 1},
        {"uplink": {}},
        {"uplink": []},
        {"uplink": {"driver": "pasta", "options": [1]}},
        {"uplink": {"driver": "pasta", "path": 1}},
        {"pluginDirs": 1},
        {"parallel": "true"},
        {"parallel": 1},
        {"parallel": None},
        {"plugins": [BRIDGE]},
        {"mtu": True},
        {"mtu": None},
        {"mtu": "1500"},
        {"mtu": 67},
        {"mtu": 65536},
        {"mtu": 1500.5},
    ],
)
def test_what_leads_nowhere_is_left_to_check(change: dict[str, Any]) -> None:
    """What `read` does not look at does not stop it; `check` refuses it in one sentence."""
    conf.read({**CONF, **change})

    error = refusal(conf.check, {**CONF, **change}, None)

    assert error.message.startswith("invalid configuration: $")


@pytest.mark.parametrize("plugins", [{}, [], None, [1]])
def test_a_chain_is_a_list_of_plugins(plugins: Any) -> None:
    """A chain that is none does not stop `read`, and `check` refuses it."""
    conf.read({"plugins": plugins})

    refusal(conf.check, {"plugins": plugins}, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from([*conf.Configuration.__slots__, *KEYS]), JSON))
def test_reading_before_checking_is_safe(changes: dict[str, Any]) -> None:
    """Whatever stands in a configuration, `read` ends in nothing but a refusal."""
    try:
        read = conf.read({**CONF, **changes})
    except ShimError:
        return

    # With these, nothing outside of the state directory is looked at.
    assert read.state_dir == "" or read.state_dir.startswith("/")
    assert "/" not in read.netns
    assert read.netns not in ("", ".", "..")


def test_the_static_part_is_without_run_time_keys() -> None:
    """Two calls for one configuration have the same static part, in any order of the keys."""
    call = {**RUN_TIME, **dict(reversed(CONF.items()))}

    assert conf.static_part(call) == conf.static_part(CONF)
    assert json.loads(conf.static_part(call)) == CONF


def test_the_static_part_keeps_what_delegates_are_told() -> None:
    """Keys of that name inside a delegate were written by a person and count."""
    one = {"delegate": {"type": "x", "args": {"a": 1}}}
    other = {"delegate": {"type": "x", "args": {"a": 2}}}

    assert conf.static_part(one) != conf.static_part(other)


@pytest.mark.parametrize("stamp_dir", [None, "/nonexistent"])
def test_a_bottomless_configuration_is_refused(stamp_dir: str | None) -> None:
    """Nesting that Python cannot follow is an error and not a crash."""
    value: dict[str, Any] = {}
    for _ in range(100_000):
        value = {"x": value}
    refusal(conf.static_part, {"delegate": value})

    refusal(conf.check, {**CONF, "netns": value}, stamp_dir)


def test_a_stamp_holds(tmp_path: Path) -> None:
    """What was remembered is not validated again, whatever the runtime adds to it."""
    assert conf.check(CONF, str(tmp_path)) is False

    conf.remember(CONF, str(tmp_path))

    assert conf.check(CONF, str(tmp_path)) is True
    assert conf.check({**CONF, **RUN_TIME}, str(tmp_path)) is True
    assert stamp(tmp_path).name.startswith("net-")
    assert stamp(tmp_path).stat().st_mode & 0o777 == 0o600


def test_remembering_twice_leaves_one_file(tmp_path: Path) -> None:
    """A stamp replaces its predecessor and leaves no temporary file."""
    conf.remember(CONF, str(tmp_path))
    conf.remember({**CONF, **RUN_TIME}, str(tmp_path))

    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("change", [{"timeout": 5}, {"name": "other"}, {"cniVersion": "0.4.0"}])
def test_another_configuration_has_no_stamp(tmp_path: Path, change: dict[str, Any]) -> None:
    """Any change of the static part is validated."""
    conf.remember(CONF, str(tmp_path))

    assert conf.check({**CONF, **change}, str(tmp_path)) is False


@pytest.mark.parametrize("content", [b"", b"x", b"same length"])
def test_a_collision_is_harmless(tmp_path: Path, content: bytes) -> None:
    """The name of a stamp proves nothing: its content is compared."""
    conf.remember(CONF, str(tmp_path))
    path = stamp(tmp_path)
    size = path.stat().st_size
    path.write_bytes(b"x" * size if content == b"same length" else content)

    assert conf.check(CONF, str(tmp_path)) is False


def test_a_stamp_is_of_one_version_of_the_shim(tmp_path: Path) -> None:
    """Another version may have another schema."""
    conf.remember(CONF, str(tmp_path))
    path = stamp(tmp_path)
    first, _, rest = path.read_text().partition("\n")
    path.write_text(f"{first[:-1]}x\n{rest}")

    assert conf.check(CONF, str(tmp_path)) is False


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o622, 0o666])
def test_a_stamp_that_others_may_write_is_not_trusted(tmp_path: Path, mode: int) -> None:
    """Group and others must not be able to vouch for a configuration."""
    conf.remember(CONF, str(tmp_path))
    stamp(tmp_path).chmod(mode)

    assert conf.check(CONF, str(tmp_path)) is False


def test_a_stamp_of_somebody_else_is_not_trusted(tmp_path: Path) -> None:
    """The owner of a stamp must be who runs the shim."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    conf.remember(CONF, str(tmp_path))
    os.chown(stamp(tmp_path), 12345, 12345)

    assert conf.check(CONF, str(tmp_path)) is False


def test_a_link_is_no_stamp(tmp_path: Path) -> None:
    """A symbolic link is not followed, even to a true stamp."""
    stamps = tmp_path / "stamps"
    stamps.mkdir()
    conf.remember(CONF, str(stamps))
    path = stamp(stamps)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    assert conf.check(CONF, str(stamps)) is False


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_other_kinds_of_files_are_no_stamps(tmp_path: Path, make: Any) -> None:
    """A FIFO does not stop the shim, and what cannot be replaced is left alone."""
    conf.remember(CONF, str(tmp_path))
    path = stamp(tmp_path)
    path.unlink()
    make(path)

    assert conf.check(CONF, str(tmp_path)) is False
    conf.remember(CONF, str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_stamp_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    """The stamp is a cache: without its directory everything works, only slower."""
    missing = str(tmp_path / "missing")
    conf.remember(CONF, missing)

    assert conf.check(CONF, missing) is False


@pytest.mark.parametrize("name", ["../x", 5, "a" * 238])
def test_a_stamp_stays_in_its_directory(tmp_path: Path, name: Any) -> None:
    """A name that no wire has checked does not lead anywhere else; the longest one fits."""
    stamps = tmp_path / "stamps"
    stamps.mkdir()
    conf.remember({**CONF, "name": name}, str(stamps))

    assert stamp(stamps).parent == stamps
    assert list(tmp_path.iterdir()) == [stamps]


@pytest.mark.parametrize("key", ["runtimeConfig", "prevResult", "args"])
def test_a_stamp_does_not_cover_the_run_time_keys(tmp_path: Path, key: str) -> None:
    """What the runtime adds is looked at in every call."""
    conf.remember(CONF, str(tmp_path))

    assert conf.check({**CONF, key: None}, str(tmp_path)) is True
    assert key in refusal(conf.check, {**CONF, key: []}, str(tmp_path)).message


def loaded(code: str, *arguments: str) -> set[str]:
    """Run code in a fresh interpreter and return the modules it loaded."""
    # Not -I or -S: the test bench finds jsonschema through site.
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


CHECK = (
    "import json; from netns_shim import conf; conf.check(json.loads(sys.argv[1]), sys.argv[2])"
)


def test_a_holding_stamp_spares_validation(tmp_path: Path) -> None:
    """With a stamp the schema is not looked at, and without one it is."""
    stale = loaded(CHECK, json.dumps(CONF), str(tmp_path))
    conf.remember(CONF, str(tmp_path))
    warm = loaded(CHECK, json.dumps(CONF), str(tmp_path))

    assert "netns_shim.validate.quick" in stale
    assert "netns_shim.validate.quick" not in warm


def test_the_hot_modules_are_light() -> None:
    """Wire, results and configuration load nothing that the interpreter and json do not."""
    base = loaded("import __future__, sys, os, _json, errno, fcntl, binascii, time")

    hot = loaded("import sys; from netns_shim import cni, result, conf")

    ours = ["cni", "conf", "decoding", "encoding", "errors", "request", "result"]
    assert hot - base == {"netns_shim", *(f"netns_shim.{module}" for module in ours)}

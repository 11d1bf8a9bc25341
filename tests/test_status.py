# SPDX-License-Identifier: Apache-2.0
"""`netns-shim status`: what is read from state directories, whatever they hold."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from netns_shim import state
from netns_shim.cli import status
from netns_shim.errors import ShimError
from netns_shim.main import main

SINCE = "2026-01-02T03:04:05Z"
LIVE = {
    "phase": "live",
    "network": "net",
    "containerID": "c",
    "ifname": "eth0",
    "netns": "/proc/7/ns/net",
    "since": SINCE,
    "result": {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}]},
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A state directory."""
    path = tmp_path / "netns-shim"
    path.mkdir(mode=0o700)
    return path


def make(base: Path, name: str, uplink: Any = None, **refs: Any) -> Path:
    """Make the state of a netns; a reference that is no text is its only line."""
    directory = base / name
    directory.mkdir(mode=0o700)
    (directory / "refs").mkdir()
    if uplink is not None:
        (directory / "uplink.json").write_text(json.dumps(uplink))
    for file, content in refs.items():
        text = content if isinstance(content, str) else json.dumps(content) + "\n"
        (directory / "refs" / file).write_text(text)
    return directory


def only(base: Path) -> dict[str, Any]:
    """Return the status of the only netns."""
    (netns,) = status.collect(str(base))["netns"]
    return netns


def test_nothing_is_up(base: Path) -> None:
    """Where nothing is up the status says so, and where it has looked."""
    for path in (base, base / "no" / "such"):
        found = status.collect(str(path))

        assert found == {"stateDir": str(path), "netns": []}
        assert status.describe(found) == f"no shared network namespace is up ({path})"
    assert os.listdir(base) == []


def test_shape(base: Path) -> None:
    """The status for programs has these keys."""
    since = state.start_time(os.getpid())
    uplink = {
        "driver": "pasta",
        "pid": os.getpid(),
        "startTime": since,
        "addresses": ["192.0.2.7", "2001:db8::7"],
    }
    make(base, "default", uplink, **{"net:c:eth0:bridge": LIVE})

    assert status.collect(str(base)) == {
        "stateDir": str(base),
        "netns": [
            {
                "name": "default",
                "path": f"{base}/default/netns",
                "uplink": {"driver": "pasta", "pid": os.getpid(), "alive": True},
                "addresses": ["192.0.2.7", "2001:db8::7"],
                "references": [
                    {
                        "network": "net",
                        "containerID": "c",
                        "ifname": "eth0",
                        "netns": "/proc/7/ns/net",
                        "ips": ["10.0.0.2/24"],
                        "since": SINCE,
                        "phase": "live",
                    }
                ],
                "commands": [],
            }
        ],
    }


def test_text(base: Path) -> None:
    """The status for people is a line for each thing."""
    uplink = {"driver": "pasta", "pid": os.getpid(), "startTime": 1, "addresses": ["192.0.2.7"]}
    make(
        base,
        "default",
        uplink,
        **{
            ":run:9": {"phase": "running", "pid": 9, "command": ["curl", "-v"], "since": SINCE},
            "net:a:eth0:bridge": LIVE,
            "net:b:eth0:bridge": {**LIVE, "phase": "deleting", "result": None},
        },
    )
    make(base, "other", {"driver": "none", "pid": None})

    assert status.describe(status.collect(str(base))).splitlines() == [
        f"default: uplink pasta (PID {os.getpid()}, gone)",
        "  addresses 192.0.2.7",
        f"  net: a eth0 10.0.0.2/24 since {SINCE}",
        f"  net: b eth0 no address since {SINCE} [deleting]",
        f"  command curl -v (PID 9) since {SINCE}",
        "other: uplink none",
    ]


def test_what_is_no_netns(base: Path) -> None:
    """Locks, what is kept for plugins run in place, and unfinished netns are passed over."""
    (base / ".lock-default").touch()
    make(base, ".in-place")
    (base / "unfinished").mkdir(mode=0o700)

    assert status.collect(str(base))["netns"] == []


def test_state_of_others_is_refused(base: Path) -> None:
    """What others can write into is not believed."""
    make(base, "default")
    base.chmod(0o777)

    with pytest.raises(ShimError, match="refusing the state directory"):
        status.collect(str(base))


def test_one_that_is_odd(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A netns that others can write into is left out with a warning, and hides no other."""
    make(base, "default")
    make(base, "odd")
    (base / "odd").chmod(0o777)
    (base / "junk").touch()

    found = status.collect(str(base))

    assert [entry["name"] for entry in found["netns"]] == ["default"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("refusing the state directory" in line for line in lines)


def test_attachment_with_two_references(base: Path) -> None:
    """Plugins that are wrapped one by one are one attachment, with the address of any."""
    make(
        base,
        "default",
        **{"net:c:eth0:a": {**LIVE, "result": None}, "net:c:eth0:b": LIVE},
    )

    (entry,) = only(base)["references"]
    assert entry["ips"] == ["10.0.0.2/24"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "\0\0\0",
        "[]\n7\n",
        '{"phase":"li',
        '{"network":["x"],"containerID":{}}\n',
        '{"network":"other"}\n',
        '{"result":7,"ips":7}\n',
        '{"result":{"ips":[7,{"address":8}]}}\n',
    ],
)
def test_damaged_reference(base: Path, content: str) -> None:
    """A damaged reference is shown by its name, as it keeps the netns all the same."""
    make(base, "default", **{"net:c:eth0:bridge": content})

    (entry,) = only(base)["references"]
    text = status.describe(status.collect(str(base)))

    assert (entry["network"], entry["containerID"], entry["ifname"]) == ("net", "c", "eth0")
    assert (entry["phase"], entry["ips"], entry["since"]) == ("adding", [], None)
    assert "  net: c eth0 no address since ? [adding]" in text


@pytest.mark.parametrize("content", ["", "[]\n", '{"command":"ls","pid":[]}\n'])
def test_damaged_command(base: Path, content: str) -> None:
    """A command of which nothing is known is shown, and breaks nothing."""
    make(base, "default", **{":run:9": content})

    (command,) = only(base)["commands"]

    assert (command["command"], command["since"]) == ([], None)
    assert "  command " in status.describe(status.collect(str(base)))


@pytest.mark.parametrize("name", [":gc:7", "nonsense", "a:b"])
def test_file_that_is_no_attachment(base: Path, name: str) -> None:
    """References of other kinds are none of the attachments."""
    make(base, "default", **{name: ""})

    assert (only(base)["references"], only(base)["commands"]) == ([], [])


@pytest.mark.parametrize(
    "uplink",
    [None, [], {}, {"driver": 7, "pid": "x", "addresses": "y"}, {"addresses": [1, None]}],
)
def test_damaged_record(base: Path, uplink: Any) -> None:
    """An uplink of which nothing is known is not alive."""
    make(base, "default", uplink, **{"net:c:eth0:bridge": LIVE})

    netns = only(base)

    assert netns["uplink"]["alive"] is False
    assert netns["addresses"] == []
    assert status.describe(status.collect(str(base))).startswith("default: uplink")


def test_command_line(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`netns-shim status` prints for people, with --json for programs."""
    make(base, "default", {"driver": "none", "pid": None})

    assert main(["netns-shim", "status", "--state-dir", str(base)]) == 0
    assert capsys.readouterr().out == "default: uplink none\n"
    assert main(["netns-shim", "status", "--json", "--state-dir", str(base)]) == 0
    assert json.loads(capsys.readouterr().out) == status.collect(str(base))


def test_failure_of_the_command(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A failure is one line on stderr and exit status 1."""
    base.chmod(0o755)

    assert main(["netns-shim", "status", "--state-dir", str(base)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"netns-shim: refusing the state directory {base}: its mode is 0755, not 0700\n"
    )

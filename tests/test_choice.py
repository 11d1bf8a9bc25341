# SPDX-License-Identifier: Apache-2.0
"""choice: who opens ports is chosen by what the uplink can do, and found again by the record."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fakes import executable
from places import Process
from ports import attached, shared

from netns_shim.attachment import AttachmentRecord
from netns_shim.errors import PORT_UNAVAILABLE, ShimError
from netns_shim.ports import choice, claims, mappings
from netns_shim.ports.claims import Claims
from netns_shim.ports.own_pasta import OwnPasta
from netns_shim.ports.publication import withdraw
from netns_shim.ports.publisher import Publisher
from netns_shim.proc import start_time
from netns_shim.state import State


def chosen(state: State, environ: dict[str, str] | None = None, more: int = 1) -> str:
    """Tell which publisher is chosen for more ports."""
    return choice.choose(state, environ or {"PATH": "/usr/bin"}, more).driver


@pytest.mark.parametrize(
    ("uplink", "publisher"),
    [
        ({"driver": "pasta", "control": "/usr/bin/pesto"}, "pesto"),
        ({"driver": "slirp4netns", "control": "/usr/bin/slirp4netns"}, "slirp4netns"),
        ({"driver": "pasta"}, "pasta"),
        ({"driver": "slirp4netns"}, "pasta"),
        ({"driver": "none"}, "pasta"),
    ],
)
def test_uplink_that_can_opens_ports(
    tmp_path: Path, uplink: dict[str, Any], publisher: str
) -> None:
    """The uplink opens ports if it can, else a pasta of its own does."""
    executable(tmp_path / "pasta", "#!/bin/sh\n")

    assert chosen(shared(tmp_path, **uplink), {"PATH": str(tmp_path)}) == publisher


def test_pasta_of_the_configuration(tmp_path: Path) -> None:
    """A pasta of its own is the one that is the uplink."""
    own = executable(tmp_path / "mine", "#!/bin/sh\n")
    state = shared(tmp_path, driver="pasta", wanted={"path": str(own)})

    assert choice.choose(state, {"PATH": "/usr/bin"}, 1).fields["path"] == str(own)


def test_table_that_is_full(tmp_path: Path) -> None:
    """What has no room in the table of pesto gets a pasta of its own; slirp4netns has no table."""
    executable(tmp_path / "pasta", "#!/bin/sh\n")
    environ = {"PATH": str(tmp_path)}
    pesto = shared(tmp_path / "pesto", driver="pasta", control="/usr/bin/pesto")
    slirp = shared(tmp_path / "slirp", driver="slirp4netns", control="/usr/bin/slirp4netns")

    assert [chosen(pesto, environ, n) for n in (250, 251)] == ["pesto", "pasta"]
    assert chosen(slirp, environ, 1000) == "slirp4netns"
    with Claims(pesto) as claimed:
        claimed.take(attached(pesto, "a"), mappings.read([{"hostPort": 80, "containerPort": 80}]))
    assert chosen(pesto, environ, 250) == "pasta"


def test_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any program the error says what to do."""
    monkeypatch.setattr("netns_shim.shared.uplink.program_path", lambda *_: "")
    with pytest.raises(ShimError, match="no program opens ports") as raised:
        chosen(shared(tmp_path, driver="none"))

    assert raised.value.code == PORT_UNAVAILABLE
    assert raised.value.details == 'install passt, or set "publish" to false'


def recalled(state: State, **fields: Any) -> Publisher | None:
    """Find the publisher of a record."""
    return choice.recall(state, AttachmentRecord(attached(state, "a"), fields))


def test_recall(tmp_path: Path) -> None:
    """A pasta of its own is found by its record; ports of an uplink that has ended are gone."""
    state = shared(tmp_path, driver="none")
    own = OwnPasta(state, "/usr/bin/pasta", 7, os.getpid(), start_time(os.getpid()))

    again = recalled(state, publisher=own.fields)

    assert again
    assert (again.fields, again.is_running) == (own.fields, True)
    assert recalled(state, publisher={"driver": "pesto"}, families=[4]) is None


DAMAGED: list[Any] = [
    None,
    7,
    "pasta",
    [],
    {},
    {"driver": "pasta", "number": 0},
    {"driver": "pasta", "number": -1, "pid": -1},
    {"driver": "pasta", "number": 1 << 40, "pid": 1, "startTime": 1},
    {"driver": "pasta", "number": "7", "path": 3},
    {"driver": "pasta", "number": 7, "pid": 1 << 40, "startTime": []},
    {"driver": "later", "number": True},
    {"driver": ["pesto"], "path": {}},
]
PORTS: list[Any] = [
    [None],
    ["8080", 7],
    [{"hostPort": 0}],
    [{"hostPort": 80, "containerPort": 80, "protocol": "\0", "hostIP": "x", "insidePort": 80}],
    [{"hostPort": 80, "containerPort": 80, "protocol": "sctp", "hostIP": "", "insidePort": 80}],
    [{"hostPort": 80, "containerPort": 80, "protocol": 5, "insidePort": 1 << 20}],
]


@pytest.mark.parametrize("publisher", DAMAGED)
@pytest.mark.parametrize("ports", PORTS)
def test_damaged_record(tmp_path: Path, publisher: Any, ports: Any) -> None:
    """A damaged record never makes a DEL fail, whatever is in it; its claims are given up."""
    state = shared(tmp_path, driver="none")
    name = attached(state, "a")
    with Claims(state) as claimed:
        claimed.take(name, mappings.read([{"hostPort": 80, "containerPort": 80}]))

    withdraw(state, AttachmentRecord(name, {"publisher": publisher, "ports": ports}))

    assert claims.count(state) == 0


def test_process_of_another_is_left_alone(tmp_path: Path) -> None:
    """A process that has got the ID of a publisher is not ended: its start time is another."""
    state = shared(tmp_path, driver="none")
    with Process(["cat"]) as other:
        for since in (start_time(other.pid) - 1, 0, None):
            made = {"driver": "pasta", "number": 7, "pid": other.pid, "startTime": since}
            record = AttachmentRecord(attached(state, "a"), {"publisher": made, "ports": [{}]})
            withdraw(state, record)

        assert other.communicate(b"still here")[0] == b"still here"
        assert other.returncode == 0

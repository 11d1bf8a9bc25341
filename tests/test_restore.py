# SPDX-License-Identifier: Apache-2.0
"""restore: what cannot be opened again is a warning; what other calls hold is left to them.

What is opened again is shown end to end in test_ports.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ports import attached, shared

from netns_shim import errors, references
from netns_shim.attachment import ReferenceName
from netns_shim.ports import choice, claims, mappings, reservation, restore
from netns_shim.ports.claims import Claims
from netns_shim.ports.mappings import Binding
from netns_shim.ports.publisher import Publisher
from netns_shim.state import State


class Opening(Publisher):
    """A publisher that notes what it opens, and fails as often as it is told to."""

    driver = "pesto"

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.failures = 0

    def open(self, wanted: Any) -> None:
        """Note it."""
        if self.failures:
            self.failures -= 1
            raise errors.ShimError(errors.PORT_UNAVAILABLE, "taken")
        self.opened += map(str, wanted)

    def close(self, wanted: Any) -> None:
        """Do nothing."""


@pytest.fixture
def state(tmp_path: Path) -> State:
    """Make the files of a shared netns whose uplink is new."""
    return shared(tmp_path, driver="pasta", control="/pesto", lacksPorts=True)


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> Opening:
    """Give the publisher of all."""
    publisher = Opening()
    monkeypatch.setattr(choice, "choose", lambda *_: publisher)
    monkeypatch.setattr(choice, "recall", lambda *_: publisher)
    return publisher


def live(state: State, container_id: str, number: int, **fields: Any) -> ReferenceName:
    """Make the reference of a container that publishes a port."""
    name = attached(state, container_id)
    ports = mappings.read([{"hostPort": number, "containerPort": 80}])
    with Claims(state) as claimed:
        claimed.take(name, ports)
    line = {"phase": "live", "ports": choice.fields_of(ports), "families": [4, 6], **fields}
    Path(state.refs, name.file).write_text(json.dumps(line) + "\n")
    return name


def test_live_attachments_only(state: State, opening: Opening) -> None:
    """The ports of what is live and idle are opened, and the uplink lacks none then."""
    live(state, "a", 8001)
    live(state, "adding", 8002, phase="adding")
    busy = references.find(state, live(state, "busy", 8003))

    restore.restore(state, {})

    assert busy
    busy.close()
    assert opening.opened == ["8001/tcp"]
    assert not state.uplink().lacks_ports


def test_claim_of_another_netns(state: State, opening: Opening) -> None:
    """What was attached to a netns that is lost has no claim, and is not opened."""
    claims.drop(state, live(state, "a", 8001))

    restore.restore(state, {})

    assert opening.opened == []


def test_failure_is_a_warning(state: State, opening: Opening) -> None:
    """A port that another program has by now is a warning, and the others are opened."""
    live(state, "a", 8001)
    live(state, "b", 8002)
    opening.failures = 2  # it is tried twice: see `_open_again`

    restore.restore(state, {})

    assert opening.opened == ["8002/tcp"]
    assert errors.warnings == ["a published port is not open: taken"]


@pytest.mark.parametrize("text", [b"", b"garbage", b'{"phase": "live", "ports": 7}', b"[]\n" * 9])
def test_damaged_reference(state: State, opening: Opening, text: bytes) -> None:
    """A damaged reference, or a directory in the place of one, hinders no other."""
    Path(state.refs, attached(state, "damaged").file).write_bytes(text)
    os.mkdir(f"{state.refs}/net:directory:eth0:bridge")
    live(state, "z", 8001)

    restore.restore(state, {})

    assert opening.opened == [str(Binding("tcp", "", 8001, 8001))]


@pytest.mark.parametrize(
    ("lifted", "expected"), [(None, []), (0, ["8001/tcp"]), (1, ["8001/tcp"])]
)
def test_conmon_is_seen_once(
    state: State,
    opening: Opening,
    monkeypatch: pytest.MonkeyPatch,
    lifted: int | None,
    expected: list[str],
) -> None:
    """A conmon that was seen counts, even if a second look would find none; without, all waits."""
    name = live(state, "a", 8001, publisher={"driver": restore.LATER})
    ports = mappings.read([{"hostPort": 8001, "containerPort": 80}])
    monkeypatch.setattr(reservation, "lift_later", lambda *_: lifted)
    monkeypatch.setattr(reservation, "lift", lambda *_: None)

    restore.open_later(state, name, ports, {}, os.getppid())

    assert opening.opened == expected

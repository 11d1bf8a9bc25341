# SPDX-License-Identifier: Apache-2.0
"""Which attachments have names in a netns, by what their references say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from netns_shim.names.table import Table
from netns_shim.proc import boot_id
from netns_shim.state import State

HOME = 4711


@pytest.fixture
def state(tmp_path: Path) -> State:
    """The state of a netns without references."""
    where = State(str(tmp_path), "default")
    Path(where.refs).mkdir(parents=True)
    return where


def write(state: State, **keys: Any) -> None:
    """Write a reference of an attachment that has names, but for what is told."""
    naming = {"home": HOME, "names": ["web"], "ips": ["10.0.0.2"], "gateways": ["10.0.0.1"]}
    line = {"phase": "live", "bootID": boot_id(), "naming": naming, **keys}
    Path(state.refs, "net:web:eth0:bridge").write_text(json.dumps(line) + "\n")


@pytest.mark.parametrize(
    ("keys", "has"),
    [
        ({}, True),
        ({"phase": "adding"}, True),
        ({"phase": "deleting"}, False),
        ({"bootID": "another"}, False),
        ({"naming": None}, False),
        ({"naming": {"home": HOME + 1, "names": ["web"]}}, False),
        ({"naming": {"home": True}}, False),
        ({"naming": ["web"]}, False),
    ],
)
def test_entries(state: State, keys: dict[str, Any], has: bool) -> None:
    """An attachment has names until its DEL begins, in its own netns, in this boot."""
    write(state, **keys)

    assert bool(Table(state, "", HOME).entries()) is has


def test_leaving(state: State) -> None:
    """One that leaves has none, also if its reference cannot be written to any more."""
    write(state)

    assert Table(state, "", HOME).entries("net:web:eth0:bridge") == []

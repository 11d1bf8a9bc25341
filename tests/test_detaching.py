# SPDX-License-Identifier: Apache-2.0
"""A DEL of what may never have been attached."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netns_shim import detaching, references
from netns_shim.attachment import LIVE, ReferenceName
from netns_shim.references import Reference
from netns_shim.shared import ownership
from netns_shim.state import State
from netns_shim.target import Shared

NAME = ReferenceName.of("net", "c", "eth0", ["bridge"])


@pytest.fixture
def state(tmp_path: Path) -> State:
    """The state of a netns that is ready."""
    tmp_path.chmod(0o700)
    where = State(str(tmp_path), "default")
    ownership.claim(where)
    os.mkdir(where.refs, 0o700)
    return where


@pytest.fixture
def opened(state: State, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The descriptors of the netns that have been opened."""
    found = list[int]()

    def open_as_is(_: Shared) -> int:
        found.append(os.open(state.refs, os.O_RDONLY))
        return found[-1]

    monkeypatch.setattr(Shared, "open_as_is", open_as_is)
    return found


@pytest.fixture
def detached(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Reference, int | None]]:
    """The references that got a DEL, and the netns that was open for it."""
    found = list[tuple[Reference, int | None]]()
    monkeypatch.setattr(detaching, "detach", lambda _, held, fd=None: found.append((held, fd)))
    return found


def call(state: State) -> Any:
    """Return a call for an attachment, as far as it is looked at."""
    return SimpleNamespace(target=Shared(state, {}, {}), name=NAME)


def test_never_attached(state: State, opened: list[int], detached: list[Any]) -> None:
    """A DEL that finds nothing opens the netns once, and holds it by a guard meanwhile."""
    detaching.detach_known(call(state))

    ((reference, fd),) = detached
    assert (reference.is_ours, reference.record.name.file) == (True, NAME.file)
    assert [fd] == opened
    reference.drop()
    os.close(opened[0])


def test_an_add_was_faster(
    state: State, opened: list[int], detached: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If an ADD takes the reference meanwhile, its netns is opened, not the one of before."""
    monkeypatch.setattr(Shared, "find", lambda *_: None)
    made = references.take(state, NAME)
    made.write(LIVE)
    made.close()

    detaching.detach_known(call(state))

    ((reference, fd),) = detached
    assert (reference.is_ours, reference.phase, fd) == (False, LIVE, None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])
    reference.close()

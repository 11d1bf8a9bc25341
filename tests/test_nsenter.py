# SPDX-License-Identifier: Apache-2.0
"""A function is called in another netns, and this process stays where it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import bench
import pytest

from netns_shim.errors import UPLINK_FAILED, ShimError
from netns_shim.shared.nsenter import run_in


def place() -> str:
    """Name the netns of this process."""
    return os.readlink("/proc/self/ns/net")


def test_look(session: bench.Session) -> None:
    """What the function gives comes back; it has been there, and we have not."""
    here = place()
    with session.container() as container:
        there = os.readlink(container.netns)

        assert run_in(container.netns, place) == there
    assert place() == here != there


def fail() -> None:
    """Fail."""
    raise OSError("it does not work")


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (fail, "it does not work"),
        (lambda: os._exit(0), "was killed"),
        (object, "not a type of JSON"),
    ],
)
def test_failure(session: bench.Session, function: Callable[[], object], why: str) -> None:
    """A function that fails, ends, or gives what is no JSON is an error that says so."""
    with session.container() as container, pytest.raises(ShimError) as caught:
        run_in(container.netns, function)
    assert caught.value.code == UPLINK_FAILED
    assert why in caught.value.details


def test_no_netns(tmp_path: Path) -> None:
    """What is no netns is an error with its path."""
    with pytest.raises(ShimError, match=str(tmp_path)) as caught:
        run_in(str(tmp_path), place)
    assert caught.value.code == UPLINK_FAILED

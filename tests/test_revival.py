# SPDX-License-Identifier: Apache-2.0
"""What a guardian does once it has become Python."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from netns_shim import interrupt, skel
from netns_shim.shared import guardian, revival
from netns_shim.state import State


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been done, by a guardian that leaves descriptors and signals of this process."""
    monkeypatch.setattr(os, "closerange", lambda *_: None)
    monkeypatch.setattr(skel, "settle", lambda: None)
    monkeypatch.setattr(interrupt, "heed", lambda: None)
    monkeypatch.setattr(revival, "_has_lived", lambda _: True)
    found = list[str]()

    def revive(_: State, number: int) -> bool:
        found.append(f"revive {number}")
        return number == 0

    def follow(_: State) -> list[str]:
        found.append("follow")
        return []

    monkeypatch.setattr(revival, "_revive", revive)
    monkeypatch.setattr(revival, "_follow", follow)
    monkeypatch.setattr(guardian, "stay", lambda *_: found.append("stay"))
    return found


def test_an_uplink_that_ends_while_the_host_is_followed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, done: list[str]
) -> None:
    """It comes back: the end of an uplink and a change of the network often come together."""
    answers = iter([True, False])
    monkeypatch.setattr(revival, "_is_guarding", lambda _: next(answers))

    assert revival.main(f"{tmp_path}/default/netns", "uplink", "0") == 0
    assert done == ["follow", "revive 0"]


def test_a_change_while_it_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, done: list[str]
) -> None:
    """It stays if it was woken before anything said whose guardian it is."""
    answers = iter([False, True])
    monkeypatch.setattr(revival, "_is_guarding", lambda _: next(answers))
    monkeypatch.setattr(revival, "_has_lived", lambda _: False)

    assert revival.main(f"{tmp_path}/default/netns", "uplink", "1") == 0
    assert done == ["revive 1", "stay"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["uplink", "3"], "_bring_back 3"),
        (["publisher", "/s/default/ports/pub1.log"], "_publish_again"),
        (["names"], "_serve_again"),
        # The words of a guardian that was started before an update.
        (["3"], "_bring_back 3"),
        (["0", "/s/default/ports/pub1.log"], "_publish_again"),
        (["0", "names"], "_serve_again"),
    ],
)
def test_what_has_ended(
    monkeypatch: pytest.MonkeyPatch, done: list[str], words: list[str], expected: str
) -> None:
    """A guardian brings back what it was told to: an uplink, a publisher or a server of names."""

    def noted(name: str) -> Callable[..., int]:
        def note(where: State, *more: int) -> int:
            assert where.dir == "/s/default"
            done.append(" ".join([name, *map(str, more)]))
            return 0

        return note

    for name in ("_bring_back", "_publish_again", "_serve_again"):
        monkeypatch.setattr(revival, name, noted(name))

    assert revival.main("/s/default/netns", *words) == 0
    assert done == [expected]


def test_an_installation_that_is_not_in_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits as a shell finds the package again, also where a hook has found it before."""
    checkout = str(Path(revival.__file__).parents[2])
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != checkout])
    monkeypatch.chdir("/")

    done = subprocess.run(
        guardian.call("--help"), capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stderr) == (0, "")

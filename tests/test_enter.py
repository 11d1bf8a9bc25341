# SPDX-License-Identifier: Apache-2.0
"""The plan of the mounts, before any is done: what covers what, and what stays visible."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netns_shim import enter, kept
from netns_shim.cli.run import shown
from netns_shim.enter import Beside, Bind, Step, Tmpfs
from netns_shim.kept import Paths, resolv_conf_target
from netns_shim.libc import MS_BIND, MS_REC
from netns_shim.state import State


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory whose path has no links."""
    return tmp_path.resolve()


@pytest.fixture
def cni(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /var/lib/cni, so that the plan hides something that a test can make."""
    path = root / "cni"
    path.mkdir()
    monkeypatch.setattr(kept, "CNI_STATE", str(path))
    return path


def test_order_of_the_plan(root: Path, cni: Path) -> None:
    """The new /run comes first, then CNI's state, then what is kept, and resolv.conf at last."""
    (cni / "keep").mkdir()
    state = State(str(root / "state"), "default")

    steps = enter.plan(state, {}, Paths([f"{cni}/keep"]))

    first, second = steps[:2]
    assert isinstance(first, Bind)
    assert isinstance(second, Bind)
    assert (first.source, first.target) == (f"{state.dir}/run", "/run")
    assert (second.source, second.target) == (f"{state.dir}{cni}", str(cni))
    assert f"{cni}/keep" in [step.target for step in steps[2:]]
    last = steps[-1]
    if os.path.exists("/etc/resolv.conf"):
        assert isinstance(last, Bind)
        assert last.source == f"{state.dir}/resolv.conf"
        assert last.target == resolv_conf_target("/etc/resolv.conf")


def test_parent_that_exists(root: Path, cni: Path) -> None:
    """Where /var/lib/cni is not there, its first parent that is there is covered, not hidden."""
    cni.rmdir()
    state = State(str(root / "state"), "default")

    covered = enter.plan(state, {}, Paths())[1]

    assert isinstance(covered, Beside)
    assert (covered.source, covered.target) == (f"{state.dir}{root}", str(root))
    assert enter.first_missing(str(root)) == "cni"
    assert enter.first_missing(str(root.parent)) == root.name


def test_root_is_not_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without /var there is no mount point: plugins keep no state, and see all."""
    monkeypatch.setattr(kept, "CNI_STATE", "/none-such/lib/cni")

    assert [step.target for step in enter.plan_in_place(State("/s", "x"), Paths())] == []


def test_what_is_kept(root: Path, cni: Path) -> None:
    """Paths below what is covered are bound again, with all that is mounted in them."""
    (cni / "a").mkdir()
    (cni / "file").touch()

    steps = enter.plan(State(str(root), "x"), {}, Paths([f"{cni}/a", f"{cni}//b/../file"]))

    flags = {step.target: step.flags for step in steps if isinstance(step, Bind)}
    assert flags[f"{cni}/a"] == flags[f"{cni}/file"] == MS_BIND | MS_REC


def test_runtime_directory_is_kept(root: Path, cni: Path) -> None:
    """XDG_RUNTIME_DIR stays visible, and so does /run/systemd where it is."""
    (cni / "user").mkdir()
    state = State(str(root / "state"), "default")

    targets = [
        step.target for step in enter.plan(state, {"XDG_RUNTIME_DIR": f"{cni}/user"}, Paths())
    ]

    assert f"{cni}/user" in targets
    assert ("/run/systemd" in targets) == os.path.exists("/run/systemd")


def test_throwaway_plan(cni: Path) -> None:
    """With nothing attached, /run and CNI's state are empty, except for the kept paths."""
    (cni / "keep").mkdir()

    steps = enter.throwaway_plan({}, Paths([f"{cni}/keep"]))

    assert all(isinstance(step, Tmpfs) for step in steps[:2])
    assert [step.target for step in steps[:2]] == ["/run", str(cni)]
    assert f"{cni}/keep" in [step.target for step in steps[2:]]


STEPS: tuple[Step, ...] = (
    Bind("/a", "/b"),
    Bind("/a", "/a", MS_REC),
    Tmpfs("/c"),
    Beside("/a", "/d"),
    Beside("", "/e"),
)


def test_steps_can_be_shown() -> None:
    """Each step says what it does."""
    assert [shown(step) for step in STEPS] == [
        "bind /a on /b",
        "bind /a on /a with what is mounted in it",
        "mount an empty tmpfs on /c",
        "bind /a on /d, and in it all that was in /d",
        "bind an empty tmpfs on /e, and in it all that was in /e",
    ]

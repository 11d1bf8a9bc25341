# SPDX-License-Identifier: Apache-2.0
"""References: one file an attachment, locked while it is worked on, read line by line."""

from __future__ import annotations

import errno
import os
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from netns_shim import errors, locks, references
from netns_shim.attachment import ADDING, DELETING, LIVE, RUNNING, ReferenceName
from netns_shim.detaching import guard
from netns_shim.errors import ShimError
from netns_shim.shared import lifecycle, listing, ownership
from netns_shim.state import State
from netns_shim.target import LAST_ONES, Shared

NAME = ReferenceName("net:c:eth0:bridge")


@pytest.fixture
def state(tmp_path: Path) -> State:
    """The state of a netns that is ready."""
    tmp_path.chmod(0o700)
    where = State(str(tmp_path), "default")
    ownership.claim(where)
    os.mkdir(where.refs)
    return where


def files(state: State) -> list[str]:
    """List the references."""
    return sorted(os.listdir(state.refs))


def take(state: State, name: str) -> references.Reference:
    """Take a reference of this name."""
    return references.take(state, ReferenceName(name))


def test_taking_creates_a_file(state: State) -> None:
    """A reference that is taken is a private file, and ours to give back."""
    reference = references.take(state, NAME)

    assert (reference.is_ours, reference.phase) == (True, ADDING)
    assert files(state) == [NAME.file]
    assert os.stat(reference.path).st_mode & 0o777 == 0o600
    reference.close()


def test_taking_twice(state: State) -> None:
    """An attachment has one reference."""
    references.take(state, NAME).close()

    with pytest.raises(FileExistsError):
        references.take(state, NAME)


def test_taking_one_of_nothing(state: State) -> None:
    """No reference can be taken to a netns that is not ready, or no longer."""
    os.rmdir(state.refs)

    with pytest.raises(FileNotFoundError):
        references.take(state, NAME)


def test_reference_keeps_the_netns(state: State) -> None:
    """Destroying begins with rmdir(2), which a reference prevents until it is dropped."""
    reference = references.take(state, NAME)
    with pytest.raises(OSError, match="not empty"):
        os.rmdir(state.refs)

    reference.drop()

    os.rmdir(state.refs)


def test_taken_reference_that_was_dropped(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference that another call drops before it is locked is made again."""
    lock = references._lock
    calls: list[str] = []

    def late(fd: int, path: str) -> None:
        calls.append(path)
        if len(calls) == 1:
            os.unlink(path)
        lock(fd, path)

    monkeypatch.setattr(references, "_lock", late)
    before = os.listdir("/proc/self/fd")

    references.take(state, NAME).close()

    assert len(calls) == 2
    assert os.listdir(state.refs) == [NAME.file]
    assert os.listdir("/proc/self/fd") == before


def test_taken_reference_that_another_call_has_made_its_own(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two ADDs at once one has the attachment, also where it found what the other had made."""
    lock = references._lock

    def late(fd: int, path: str) -> None:
        monkeypatch.setattr(references, "_lock", lock)
        other = references.find(state, NAME)
        assert other is not None
        other.write(ADDING)
        other.write(LIVE)
        other.close()
        lock(fd, path)

    monkeypatch.setattr(references, "_lock", late)

    with pytest.raises(FileExistsError):
        references.take(state, NAME)
    found = references.find(state, NAME)
    assert found is not None
    assert found.phase == LIVE
    found.close()


def test_taken_reference_of_a_netns_that_goes(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the netns goes before a reference to it is locked, there is none to be taken."""
    lock = references._lock

    def late(fd: int, path: str) -> None:
        os.unlink(path)
        os.rmdir(state.refs)
        lock(fd, path)

    monkeypatch.setattr(references, "_lock", late)

    with pytest.raises(FileNotFoundError):
        references.take(state, NAME)


def test_found_reference_that_was_dropped(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference that was dropped before it was locked is none."""
    references.take(state, NAME).close()
    lock = references._lock

    def late(fd: int, path: str) -> None:
        os.unlink(path)
        lock(fd, path)

    monkeypatch.setattr(references, "_lock", late)

    assert references.find(state, NAME) is None


def test_finding_none(state: State) -> None:
    """An attachment without a reference has none; nothing is made by looking."""
    assert references.find(state, NAME) is None
    assert files(state) == []


def test_finding_one(state: State) -> None:
    """A reference is found with what was last written, and is not ours to give back."""
    reference = references.take(state, NAME)
    reference.write(ADDING, network="net", conf={"é": [1]}, result=None)
    reference.write(LIVE, result={"cniVersion": "1.0.0"})
    reference.close()

    found = references.find(state, NAME)

    assert found is not None
    assert found.record.fields == {
        "phase": LIVE,
        "network": "net",
        "conf": {"é": [1]},
        "result": {"cniVersion": "1.0.0"},
    }
    assert (found.phase, found.is_ours) == (LIVE, False)
    found.close()


def test_link_is_not_followed(state: State, tmp_path: Path) -> None:
    """A link in the place of a reference is an error."""
    (tmp_path / "elsewhere").write_text("{}")
    os.symlink(tmp_path / "elsewhere", f"{state.refs}/{NAME}")

    with pytest.raises(OSError, match="symbolic links"):
        references.find(state, NAME)


@pytest.mark.parametrize("first", [references.take, references.find])
def test_one_operation_at_a_time(
    state: State, first: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an operation on an attachment goes on and on, others are told to come again."""
    monkeypatch.setattr(references, "WAIT_SECONDS", 0.1)
    if first is references.find:
        references.take(state, NAME).close()
    reference = first(state, NAME)
    before = os.listdir("/proc/self/fd")

    with pytest.raises(ShimError) as caught:
        references.find(state, NAME)

    assert caught.value.code == errors.TRY_AGAIN_LATER
    assert f"{state.refs}/{NAME}" in caught.value.details
    assert os.listdir("/proc/self/fd") == before
    reference.close()
    again = references.find(state, NAME)
    assert again is not None
    again.close()


def test_lock_ends_with_the_process(state: State) -> None:
    """A process that is killed leaves the reference and no lock."""
    pid = os.fork()
    if pid == 0:
        references.take(state, NAME).write(ADDING, network="net")
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)

    found = references.find(state, NAME)

    assert found is not None
    assert (found.phase, found.record.fields["network"]) == (ADDING, "net")
    found.close()


def test_giving_back_what_was_made(state: State) -> None:
    """An operation that failed removes the reference that it made."""
    references.take(state, NAME).give_back()

    assert files(state) == []


def test_giving_back_what_was_found(state: State) -> None:
    """An operation that failed leaves the reference that it found."""
    references.take(state, NAME).close()
    found = references.find(state, NAME)
    assert found is not None

    found.give_back()

    assert files(state) == [NAME.file]


def test_found_reference_becomes_ours(state: State) -> None:
    """An ADD that starts over with what it found has to give it back when it fails."""
    references.take(state, NAME).close()
    found = references.find(state, NAME)
    assert found is not None
    found.write(DELETING)
    assert not found.is_ours

    found.write(ADDING)
    found.give_back()

    assert files(state) == []


def test_dropping_twice(state: State) -> None:
    """A reference that is gone is dropped already, and closing again does nothing."""
    reference = references.take(state, NAME)
    os.unlink(reference.path)

    reference.drop()
    reference.drop()
    reference.close()

    assert files(state) == []


@pytest.mark.parametrize("size", [0, 1, 20])
def test_full_disk(state: State, size: int) -> None:
    """A line that does not fit is an error, and spoils neither what was there nor what follows."""
    reference = references.take(state, NAME)
    reference.write(LIVE, network="net", result={"x": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    used = os.stat(reference.path).st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (used + size, limits[1]))
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011 (which one is looked at below)
            reference.write(DELETING, long="x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    reference.write(DELETING, since="now")
    reference.close()

    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert caught.value.filename == reference.path
    (record,) = listing.records(state)
    assert record.name.file == NAME.file
    assert record.fields == {
        "phase": DELETING,
        "network": "net",
        "result": {"x": 1},
        "since": "now",
    }


@pytest.mark.parametrize(
    ("journal", "expected"),
    [
        (b"", {}),
        (b"\0\0\0\0", {}),
        (b'{"phase":"live"', {}),
        (b'{"phase":"live"}\n{"phase":"del', {"phase": "live"}),
        (b'\xff\xfe\n{"phase":"live"}\n', {"phase": "live"}),
        (b'[]\n7\nnull\n"x"\n{"phase":"live"}\n', {"phase": "live"}),
        (b'{"phase":"adding","a":1}\n\n{"phase":"live","b":2}\n', {"a": 1, "b": 2}),
    ],
)
def test_damaged_journal(state: State, journal: bytes, expected: dict[str, Any]) -> None:
    """What can be read of a damaged reference is read, and the rest is left out."""
    Path(state.refs, NAME.file).write_bytes(journal)

    found = references.find(state, NAME)
    (listed,) = listing.records(state)

    assert found is not None
    assert {**found.record.fields, **expected} == found.record.fields
    assert (listed.name.file, listed.fields) == (NAME.file, found.record.fields)
    assert found.phase == found.record.fields.get("phase", ADDING)
    found.close()


def test_dropping_ghosts(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was left empty, or by a guard, is dropped, unless a process still holds it.

    It waits for no call: the caller has a guard of its own there.
    """
    monkeypatch.setattr(locks, "wait", lambda *_, **__: pytest.fail("waited"))
    take(state, "net:ghost:eth0:x").close()
    take(state, ":gc:7").close()
    command = take(state, ":run:8")
    command.write(RUNNING, pid=8)
    command.close()
    whole = take(state, "net:whole:eth0:x")
    whole.write(ADDING, network="net")
    whole.close()
    Path(state.refs, "net:damaged:eth0:x").write_text("x")
    held = [take(state, name) for name in ("net:held:eth0:x", ":gc:9")]
    os.symlink(tmp_path / "nowhere", f"{state.refs}/net:link:eth0:x")
    before = os.listdir("/proc/self/fd")

    ghosts = listing.ghosts(state)

    assert [name.file for name in ghosts] == [":gc:7", ":run:8", "net:ghost:eth0:x"]
    assert references.drop_ghosts(state) == 3
    assert listing.ghosts(state) == []
    assert os.listdir("/proc/self/fd") == before
    names = ("damaged", "held", "link", "whole")
    assert files(state) == [":gc:9", *(f"net:{name}:eth0:x" for name in names)]
    for reference in held:
        reference.close()


def test_more_ghosts_than_calls_may_nest(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last call drops all ghosts, a few at a time, however many there are."""
    destroyed: list[State] = []
    monkeypatch.setattr(lifecycle, "destroy", destroyed.append)
    for number in range((sys.getrecursionlimit() + 10) * LAST_ONES):
        Path(state.refs, f":run:{number}").touch()

    Shared(state, {}, {}).leave()

    assert destroyed == [state]
    assert not os.path.exists(state.refs)


def test_dropping_ghosts_of_nothing(state: State) -> None:
    """A netns that is not there has none."""
    os.rmdir(state.refs)

    assert references.drop_ghosts(state) == 0


def test_listing(state: State) -> None:
    """All references are read in the order of their names, even those that are locked."""
    held = take(state, "b:c:eth0:x")
    held.write(LIVE, network="b")
    take(state, "a:c:eth0:x").close()

    assert [(record.name.file, record.fields) for record in listing.records(state)] == [
        ("a:c:eth0:x", {}),
        ("b:c:eth0:x", {"phase": LIVE, "network": "b"}),
    ]
    held.close()


def test_listing_nothing(state: State) -> None:
    """A netns that is not there has no references."""
    os.rmdir(state.refs)

    assert listing.records(state) == []


def test_a_guard_beside_an_add(state: State) -> None:
    """A DEL that meets an ADD that has just begun gets its reference, when the ADD has ended."""
    held = references.take(state, NAME)
    held.write(LIVE, result={})
    held.close()

    found = guard(Shared(state, {}, {}), NAME)

    assert found is not None
    assert (found.phase, found.is_ours) == (LIVE, False)
    found.close()


def test_a_guard_beside_an_add_that_fails(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the end of the ADD, and takes a guard then."""
    held = references.take(state, NAME)
    monkeypatch.setattr(locks, "wait", lambda *_: held.drop())

    found = guard(Shared(state, {}, {}), NAME)

    assert found is not None
    assert found.is_ours
    found.close()


def test_index(state: State) -> None:
    """What is attached to an interface is found by a link, of one or several, until it is gone."""
    names = [NAME, ReferenceName("net:c:eth0:tuning"), ReferenceName("net:c:eth1:bridge")]
    others = [ReferenceName("net:d:eth0:bridge"), ReferenceName("net:d:eth1:a:c:eth0:b")]
    taken = [references.take(state, name) for name in (*names, *others)]
    for reference in taken:
        reference.enter()
        reference.enter()

    def found(*, thoroughly: bool = False) -> list[str]:
        named = references.anywhere(state.base, "c", "eth0", thoroughly=thoroughly)
        return [name.file for _, name in named]

    assert found() == found(thoroughly=True) == [name.file for name in names[:2]]
    assert all(path.exists() for path in Path(state.path("started")).iterdir())
    taken[0].drop()
    assert found() == [names[1].file]
    taken[1].drop()
    assert found() == []
    for reference in taken[2:]:
        reference.drop()
    assert os.listdir(state.path("started")) == []

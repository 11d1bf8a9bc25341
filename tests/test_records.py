# SPDX-License-Identifier: Apache-2.0
"""What is written down of an uplink and of a holder, and whether it is true of what is there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netns_shim.records import Record, UplinkRecord, boot_id, start_time
from netns_shim.userns.record import HolderRecord


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits until its stdin is closed."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_start_time_is_an_identity(child: subprocess.Popen[bytes]) -> None:
    """A process keeps its start time, which is that of proc_pid_stat(5)."""
    since = start_time(child.pid)

    text = Path(f"/proc/{child.pid}/stat").read_text()
    assert since == int(text.rpartition(")")[2].split()[19]) > 0
    assert start_time(child.pid) == since


def test_start_time_of_a_process_with_an_odd_name(tmp_path: Path) -> None:
    """The name of a process may hold spaces and parentheses."""
    name = tmp_path / ") S 1 2 ("
    name.symlink_to("/bin/cat")
    with subprocess.Popen([name], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        process.stdout.read(1)  # so that it is this program by now

        since = start_time(process.pid)

        assert start_time(os.getpid()) <= since


def test_zombie_is_dead(child: subprocess.Popen[bytes]) -> None:
    """A process that is not reaped yet does not live; nor does one that never was."""
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert start_time(child.pid) == 0
    child.wait()
    assert start_time(child.pid) == 0


def test_uplink_is_alive(child: subprocess.Popen[bytes]) -> None:
    """An uplink lives if its process has the start time of the record."""
    since = start_time(child.pid)

    assert UplinkRecord({"driver": "pasta", "pid": child.pid, "startTime": since}).is_alive
    assert not UplinkRecord({"driver": "pasta", "pid": child.pid, "startTime": since - 1}).is_alive


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({}, False),
        ({"driver": "none", "pid": None}, True),
        ({"driver": "pasta", "pid": None}, False),
        ({"driver": "pasta", "pid": "1", "startTime": "1"}, False),
        ({"driver": "pasta", "pid": 0, "startTime": 0}, False),
        ({"driver": "pasta", "pid": 1 << 40, "startTime": 0}, False),
        ({"driver": "pasta", "pid": os.getpid()}, False),
    ],
)
def test_uplink_of_odd_records(record: dict[str, Any], expected: bool) -> None:
    """No uplink is alive where none is wanted; what is not known to live is dead."""
    assert UplinkRecord(record).is_alive is expected


def test_boots() -> None:
    """A record is of this boot, of another one, or does not say of which."""
    found = [Record(fields) for fields in ({"bootID": boot_id()}, {"bootID": "x"}, {})]

    assert [record.is_of_this_boot for record in found] == [True, False, False]
    assert [record.is_of_other_boot for record in found] == [False, True, False]


@pytest.mark.parametrize("value", [None, 0, -1, True, 1.5, "1", [1], 1 << 63])
def test_odd_values_are_none(value: object) -> None:
    """What is of another kind than it should be reads as what is not there."""
    record = UplinkRecord(dict.fromkeys(("pid", "netns", "host", "addresses"), value))

    assert (record.pid, record.netns, record.host, record.addresses) == (0, 0, None, [])


def test_what_is_not_known_stays() -> None:
    """A key of a newer version is still there when a record is written again."""
    record = UplinkRecord.read(b'{"driver": "none", "newer": 1, "host": {"routes": []}}')

    record.see({"nameServers": []})
    record.move(HolderRecord({"mountNamespace": 3, "userNamespace": 4}))

    assert record.fields == {
        "driver": "none",
        "newer": 1,
        "host": {"routes": [], "nameServers": []},
        "mountNamespace": 3,
        "userNamespace": 4,
    }


def test_holder(child: subprocess.Popen[bytes]) -> None:
    """The record of a holder is read as it was written, and lives as long as its process."""
    record = HolderRecord.of(child.pid, {"uid": [[0, 0, 1]]})

    assert record.is_alive
    assert record.user_namespace == os.stat("/proc/self/ns/user").st_ino
    assert not HolderRecord({**record.fields, "bootID": "another"}).is_alive
    child.kill()
    child.wait()
    assert not record.is_alive


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"pid": 1, "startTime": 1}', "\xff"])
def test_holder_that_makes_no_sense(text: str) -> None:
    """A damaged record of a pause process counts as empty, and no process is alive in it."""
    record = HolderRecord.read(text.encode("latin-1"))

    assert not record
    assert not record.is_alive

# SPDX-License-Identifier: Apache-2.0
"""What is written down of an uplink and of a holder, and whether it is true of what is there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from netns_shim.proc import boot_id, start_time
from netns_shim.records import Record, UplinkRecord
from netns_shim.userns.record import HolderRecord


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits until its stdin is closed."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


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

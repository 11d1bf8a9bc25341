# SPDX-License-Identifier: Apache-2.0
"""How the record of an uplink is changed and written."""

from __future__ import annotations

from pathlib import Path

from netns_shim.records import UplinkRecord
from netns_shim.shared import register
from netns_shim.state import State
from netns_shim.userns.record import HolderRecord


def test_what_is_not_known_stays() -> None:
    """A key of a newer version is still there when a record is written again."""
    record = UplinkRecord.read(b'{"driver": "none", "newer": 1, "host": {"routes": []}}')

    register.note_host(record, {"nameServers": []})
    register.move(record, HolderRecord({"mountNamespace": 3, "userNamespace": 4}))

    assert record.fields == {
        "driver": "none",
        "newer": 1,
        "host": {"routes": [], "nameServers": []},
        "mountNamespace": 3,
        "userNamespace": 4,
    }


def test_written(tmp_path: Path) -> None:
    """A record is read as it was written."""
    where = State(str(tmp_path), "default")
    Path(where.dir).mkdir()
    record = UplinkRecord({"driver": "pasta", "pid": 7, "startTime": 8, "more": [None]})

    register.write(where, record)

    assert where.uplink().fields == record.fields


def test_up_only_where_it_is_pinned(tmp_path: Path) -> None:
    """An uplink of another netns is not up in this one, nor awaited, whatever its record says."""
    where = State(str(tmp_path), "default")
    Path(where.dir).mkdir()
    Path(where.pin).touch()
    number = Path(where.pin).stat().st_ino
    own, other = (UplinkRecord({"driver": "none", "netns": n}) for n in (number, number + 1))
    waiting = UplinkRecord({"driver": "pasta", "netns": number, "pending": "no network"})

    found = [
        (register.is_up(where, each), register.is_awaited(where, each))
        for each in (own, other, waiting)
    ]

    assert found == [(True, False), (False, False), (False, True)]

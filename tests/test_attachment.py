# SPDX-License-Identifier: Apache-2.0
"""What is written down of an attachment: names that are parsed as they were made, and journals."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns_shim import cni
from netns_shim.attachment import COLLECTING, COMMAND, STOPPING, AttachmentRecord, ReferenceName

NAME = ReferenceName.of("net", "c", "eth0", ["bridge", "portmap"])


def test_name() -> None:
    """A reference is named after the attachment and the plugins, and that is read from it."""
    found = ReferenceName("net:c:eth0:bridge+portmap")

    assert NAME.file == found.file
    assert found.attachment == ("net", "c", "eth0")
    assert (found.kinds, found.is_attachment, found.is_guard) == ("bridge+portmap", True, False)


@given(st.text("abc", min_size=1, max_size=100), st.lists(st.text(min_size=1), max_size=30))
def test_name_fits_into_a_directory(container_id: str, types: list[str]) -> None:
    """However many plugins there are, the name is one that a file can have, and is parsed."""
    network = "n" * (cni.MAX_ATTACHMENT_BYTES - len(container_id) - 6)

    name = ReferenceName.of(network, container_id, "eth0", types)

    assert len(name.file.encode()) <= 255
    assert ReferenceName(name.file).attachment == (network, container_id, "eth0")
    assert ReferenceName.part(container_id, "eth0") in name.file
    for each in (name, ReferenceName(name.file), name.numbered(7)):
        assert each.fits(types)
        assert not each.fits(["other", *types])


@pytest.mark.parametrize("purpose", [COMMAND, COLLECTING, STOPPING])
def test_guards(purpose: str) -> None:
    """What a process takes to keep a netns says what for and by whom, and is no attachment."""
    name = ReferenceName(ReferenceName.guard(purpose).file)

    assert (name.purpose, name.pid) == (purpose, str(os.getpid()))
    assert (name.is_guard, name.is_command) == (True, purpose == COMMAND)
    assert not name.is_attachment
    assert name.file != ReferenceName.guard(purpose).file
    # No network can have a name that begins so.
    assert not cni.is_name(name.file[:1])


@pytest.mark.parametrize("file", ["odd", "a:b:c", ":", ":::", "", "\udcff"])
def test_files_that_are_neither(file: str) -> None:
    """A foreign file in there belongs to no attachment and to no command."""
    name = ReferenceName(file)

    assert name.attachment == ("", "", "")
    assert not name.is_attachment
    assert not name.is_command


@given(
    st.lists(
        st.dictionaries(st.text(), st.none() | st.integers() | st.text(), max_size=3), max_size=4
    ),
    st.data(),
)
def test_journal_cut_off_anywhere(lines: list[dict[str, Any]], data: st.DataObject) -> None:
    """Wherever a journal ends, its complete lines are read."""
    texts = [json.dumps(line).encode() + b"\n" for line in lines]
    whole = b"".join(texts)
    end = data.draw(st.integers(0, len(whole)))

    record = AttachmentRecord.parse(NAME, whole[:end])

    expected: dict[str, Any] = {}
    for line, text in zip(lines, texts, strict=True):
        # Its end of line may be missing.
        if end < len(text) - 1:
            break
        end -= len(text)
        expected.update(line)
    assert record.fields == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [([4, 7], (4, 7)), ([4], None), ([4, 7, 1], None), ([4, "7"], None), ("47", None)],
)
def test_netns_of_an_attachment(value: object, expected: tuple[int, int] | None) -> None:
    """The netns that ADD was given is a device and an inode; all else is nothing known."""
    record = AttachmentRecord(NAME, {"netnsID": value})

    assert record.netns_id == expected
    assert record.is_of((4, 7)) == (expected is not None)
    assert AttachmentRecord(NAME).is_of((4, 7))

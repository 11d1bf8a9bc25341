# SPDX-License-Identifier: Apache-2.0
"""The leases of host-local: which files are some, whose they are, and which ones are released."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from netns_shim import errors
from netns_shim.gc import leases
from netns_shim.gc.leases import Lease


def write(directory: Path, **files: bytes) -> None:
    """Write files whose names are addresses, with _ for a dot."""
    for name, content in files.items():
        (directory / name.removeprefix("ip").replace("_", ".")).write_bytes(content)


def release(directory: Path, *ids: str, dry_run: bool = False) -> list[str]:
    """Release the leases of all but some containers; give the addresses."""
    found = leases.release(str(directory), lambda: set(ids), dry_run=dry_run)
    return [lease.address for lease in found]


def test_networks(tmp_path: Path) -> None:
    """Each directory is a network; links and files are none, and there may be nothing at all."""
    (tmp_path / "b").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("a")

    assert leases.networks(str(tmp_path)) == ["a", "b"]
    assert leases.networks(str(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("content", "container_id", "ifname"),
    [
        (b"c1\r\neth0", "c1", "eth0"),
        (b" c1\r\neth0\n", "c1", "eth0"),
        (b"c1", "c1", ""),
        (b"c1\r\n", "c1", ""),
        (b"", "", ""),
        (b"\0\0", "\0\0", ""),
        (b"\xff\r\neth0", "\ufffd", "eth0"),
    ],
)
def test_reading(tmp_path: Path, content: bytes, container_id: str, ifname: str) -> None:
    """The content is ID and interface; what was cut off is read as far as it goes."""
    write(tmp_path, ip10_0_0_2=content)

    assert leases.read(str(tmp_path)) == [Lease("10.0.0.2", container_id, ifname)]


def test_what_is_no_lease(tmp_path: Path) -> None:
    """Files whose names are no addresses are none of them."""
    for name in ("lock", "last_reserved_ip.0", "10.0.0.2.tmp", "10.0.0", "notes"):
        (tmp_path / name).write_text("c1\r\neth0")

    assert leases.read(str(tmp_path)) == []
    assert release(tmp_path) == []
    assert len(os.listdir(tmp_path)) == 5


def test_releasing(tmp_path: Path) -> None:
    """The leases of known containers stay, whatever the interface; the others go."""
    write(
        tmp_path,
        ip10_0_0_2=b"c1\r\neth0",
        ip10_0_0_3=b"c1\r\nnet7",
        ip10_0_0_4=b"c2\r\neth0",
        ip10_0_0_5=b"c\r\neth0",
        ip10_0_0_6=b"",
    )
    (tmp_path / "fd00::2").write_bytes(b"c2\r\neth0")

    assert release(tmp_path, "c1", dry_run=True) == ["10.0.0.4", "10.0.0.5", "10.0.0.6", "fd00::2"]
    assert len(os.listdir(tmp_path)) == 6
    assert release(tmp_path, "c1") == ["10.0.0.4", "10.0.0.5", "10.0.0.6", "fd00::2"]
    assert sorted(os.listdir(tmp_path)) == ["10.0.0.2", "10.0.0.3", "lock"]


@pytest.mark.parametrize(
    ("content", "is_kept"), [(b"abc", True), (b"ab", True), (b"abcd", False), (b"b", False)]
)
def test_lease_without_an_interface(tmp_path: Path, content: bytes, is_kept: bool) -> None:
    """It is an old one, or was cut off: so it is that of whose ID begins like this."""
    write(tmp_path, ip10_0_0_2=content)

    assert release(tmp_path, "abc", "x") == ([] if is_kept else ["10.0.0.2"])


def test_references_are_read_last_and_under_the_lock(tmp_path: Path) -> None:
    """While it is found out whose leases there are, host-local cannot make one."""
    write(tmp_path, ip10_0_0_2=b"c1\r\neth0", lock=b"")
    seen = []

    def known() -> set[str]:
        with open(tmp_path / "lock") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(leases.read(str(tmp_path)))
        # One that is there now was not when the leases were listed.
        write(tmp_path, ip10_0_0_3=b"new\r\neth0")
        return {"c1"}

    assert leases.release(str(tmp_path), known, dry_run=False) == []

    assert seen == [[Lease("10.0.0.2", "c1", "eth0")]]
    assert (tmp_path / "10.0.0.3").exists()


def test_lock_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is released while host-local is at work, and no process waits for ever."""
    monkeypatch.setattr(leases, "LOCK_SECONDS", 0.05)
    write(tmp_path, ip10_0_0_2=b"", lock=b"")
    with open(tmp_path / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        with pytest.raises(errors.ShimError) as caught:
            release(tmp_path)

    assert caught.value.code == errors.TRY_AGAIN_LATER
    assert (tmp_path / "10.0.0.2").exists()


@pytest.mark.parametrize("dry_run", [True, False])
def test_lock_file_stays_as_it_is(tmp_path: Path, dry_run: bool) -> None:
    """The file of host-local's lock is neither written nor replaced; a dry run makes none."""
    write(tmp_path, ip10_0_0_2=b"c1\r\neth0")
    release(tmp_path, dry_run=dry_run)
    assert (tmp_path / "lock").exists() is not dry_run
    write(tmp_path, lock=b"host-local's")
    before = (tmp_path / "lock").stat()

    release(tmp_path, dry_run=dry_run)

    after = (tmp_path / "lock").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (tmp_path / "lock").read_bytes() == b"host-local's"


def test_link_is_not_followed(tmp_path: Path) -> None:
    """A link in the place of a lease is an error."""
    (tmp_path / "10.0.0.2").symlink_to("/etc/passwd")

    with pytest.raises(OSError, match="symbolic links"):
        release(tmp_path)

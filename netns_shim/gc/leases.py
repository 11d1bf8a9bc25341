# SPDX-License-Identifier: Apache-2.0
"""The leases of host-local, which are files.

A lease is a file named after the address, in a directory named after the network. Its content is
the container ID and, on a second line, the interface; before host-local 0.7 only the ID. If
host-local is killed between making and writing the file, it stays empty. host-local does all its
work there under flock(2) of the file `lock`, and so does this module. Source:
plugins/ipam/host-local/backend/disk of the CNI plugins.

It knows only the default directory, /var/lib/cni/networks as plugins in the shared netns see it.
Leases in a `dataDir` of a configuration are left to the person who chose it.
"""

from __future__ import annotations

import bisect
import ipaddress
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .. import locks

# host-local holds its lock only for a moment.
LOCK_SECONDS = 10


class Lease(NamedTuple):
    """One address; container ID and interface are empty where its file was cut off."""

    address: str
    container_id: str
    ifname: str


def networks(directory: str) -> list[str]:
    """List the networks that may have leases; empty where the directory is missing."""
    try:
        with os.scandir(directory) as entries:
            return sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def read(directory: str) -> list[Lease]:
    """List the leases in the directory of a network. Other files, such as `lock`, are skipped."""
    found = []
    for name in sorted(os.listdir(directory)):
        if not _is_address(name):
            continue
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(f"{directory}/{name}", flags)
        except FileNotFoundError:
            continue  # it has just been released
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)  # host-local makes none
            continue
        with open(fd, encoding="utf-8", errors="replace", newline="") as file:
            container_id, _, ifname = file.read().strip().partition("\r\n")
        found.append(Lease(name, container_id, ifname))
    return found


class Known:
    """The IDs of containers whose leases stay."""

    def __init__(self, ids: set[str]) -> None:
        """Take the IDs."""
        self._ids = ids
        self._sorted = sorted(ids)

    def has(self, lease: Lease) -> bool:
        """Tell whether a lease may be of one of them."""
        if lease.ifname or not lease.container_id:
            return lease.container_id in self._ids
        # An old lease, or one that was cut off: then it may hold the beginning of an ID.
        place = bisect.bisect_left(self._sorted, lease.container_id)
        return any(it.startswith(lease.container_id) for it in self._sorted[place : place + 1])


def release(directory: str, known: Callable[[], set[str]], *, dry_run: bool) -> list[Lease]:
    """Release the leases of all containers except the known ones; give those released.

    `known` gives their IDs. It is called after the leases are listed, and while no other lease can
    be made. So an ADD that has a lease also has a reference, and its ID is known.

    Raises ShimError (code 11) where another process keeps host-local's lock.
    """
    with _locked(f"{directory}/lock", dry_run=dry_run):
        listed = read(directory)
        ids = Known(known())
        found = [lease for lease in listed if not ids.has(lease)]
        if not dry_run:
            for lease in found:
                os.unlink(f"{directory}/{lease.address}")
    return found


@contextmanager
def _locked(path: str, *, dry_run: bool) -> Iterator[None]:
    """Hold host-local's lock; a dry run goes on where its file is missing, and makes none.

    It is flock(2), as in host-local, and leaves the file as it is. filelock would truncate it.
    Some versions (3.20.4 to 3.29.4) even remove it when they unlock, and then host-local waits
    for one file while its next call takes another: github.com/tox-dev/filelock/issues/574.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if dry_run else os.O_CREAT)
    try:
        fd = os.open(path, flags, 0o600)
    except FileNotFoundError:
        if not dry_run:
            raise
        yield
        return
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not locks.lock(fd):
            locks.wait(deadline, "garbage collection waits for host-local to end", path)
        yield
    finally:
        os.close(fd)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

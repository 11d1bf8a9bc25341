# SPDX-License-Identifier: Apache-2.0
"""User ids of the bench's own, and the processes that have them."""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import suppress
from errno import EUSERS


def _field(status: bytes, name: bytes) -> bytes:
    return status.partition(b"\n%b:\t" % name)[2].partition(b"\n")[0]


class UserIds:
    """User ids that no other World on this machine has while the bench lives.

    An abstract socket is the lock, since the kernel drops it with the process.
    """

    def __init__(self) -> None:
        self._lock = socket.socket(socket.AF_UNIX)
        for number in range(256):
            with suppress(OSError):
                self._lock.bind(f"\0netns-shim-bench-{number}")
                # Ranges that systemd's list of user ids leaves unused.
                self.uid = 60600 + number
                self.subid = 0x70000000 + number * 65536
                self.kill()  # what the last bench with these ids may have left
                return
        self._lock.close()
        raise OSError(EUSERS, "256 other benches are running")

    def processes(self) -> list[int]:
        """The processes of these users that have not ended."""
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [pid for pid in pids if self._has(pid)]

    def _has(self, pid: int) -> bool:
        try:
            # All processes of the real machine are read, often: so not line by line.
            fd = os.open(f"/proc/{pid}/status", os.O_RDONLY)
            try:
                status = os.read(fd, 4096)
            finally:
                os.close(fd)
        except OSError:
            return False
        uids = map(int, _field(status, b"Uid").split())
        ours = any(uid == self.uid or 0 <= uid - self.subid < 65536 for uid in uids)
        return ours and _field(status, b"State")[:1] not in b"ZX"

    def kill(self) -> None:
        """Kill them all and wait until they are gone."""
        while pids := self.processes():
            for pid in pids:
                with suppress(ProcessLookupError):
                    fd = os.pidfd_open(pid)
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    select.select([fd], [], [], 10)
                    os.close(fd)

    def close(self) -> None:
        """Kill them and leave the ids to others."""
        self.kill()
        self._lock.close()

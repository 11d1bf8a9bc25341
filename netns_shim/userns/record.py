# SPDX-License-Identifier: Apache-2.0
"""The record of the pause process of a user namespace: its keys."""

from __future__ import annotations

import os

from .. import decoding, encoding
from ..proc import boot_id, pid_namespace, start_time
from ..records import ProcessRecord
from ..state import HOLDER, read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from ..decoding import Json


class HolderRecord(ProcessRecord):
    """`.holder`: the pause process of the user's own user namespace, and that namespace."""

    __slots__ = ()
    # The key of each namespace's inode, by its name in /proc/PID/ns.
    NAMESPACES = (("userNamespace", "user"), ("mountNamespace", "mnt"))

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Read what is in the file; empty where it makes no sense."""
        try:
            fields = decoding.one(text)
        except ValueError:
            return cls()
        record = cls(fields if isinstance(fields, dict) else None)
        is_whole = (
            record.pid and record.start_time and record.user_namespace and record.mount_namespace
        )
        return record if is_whole else cls()

    @classmethod
    def read_file(cls, base: str) -> Self:
        """Read the record of a state directory; empty where it is missing or makes no sense."""
        try:
            return cls.read(read_file(f"{base}/{HOLDER}"))
        except OSError:
            return cls()

    @classmethod
    def read_open(cls, fd: int) -> Self:
        """Read the record from its open file; empty where it is missing or makes no sense."""
        try:
            return cls.read(os.pread(fd, 1 << 16, 0))
        except OSError:
            return cls()

    def write(self, fd: int) -> None:
        """Write it into its open file, without rename(2): the inode carries the locks."""
        text = encoding.pretty(self.fields).encode() + b"\n"
        try:
            os.pwrite(fd, text, 0)
            os.ftruncate(fd, len(text))
        except OSError as error:
            error.filename = os.readlink(f"/proc/self/fd/{fd}")  # for a person who makes room
            raise

    @classmethod
    def of(cls, pid: int, ranges: object, *, is_usual: bool = False) -> Self:
        """Write down a process that is there.

        `ranges` are ranges of IDs, see `subids`. `is_usual` tells that the state directory was not
        named by a `stateDir`.
        """
        fields: Json = {"ranges": ranges, "pid": pid, "startTime": start_time(pid)}
        fields["bootID"] = boot_id()
        fields["pidNamespace"] = pid_namespace()
        fields["isUsual"] = is_usual
        for key, kind in cls.NAMESPACES:
            fields[key] = os.stat(f"/proc/{pid}/ns/{kind}").st_ino
        return cls(fields)

    @property
    def ranges(self) -> object:
        """The ranges of IDs that are mapped there, as they were written down."""
        return self.fields.get("ranges")

    @property
    def is_usual(self) -> bool:
        """Whether calls without a `stateDir` use its state directory."""
        return self.fields.get("isUsual") is True

    @property
    def is_alive(self) -> bool:
        """Whether its process lives."""
        return bool(self) and self.is_of_this_boot and self.is_running

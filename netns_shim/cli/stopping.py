# SPDX-License-Identifier: Apache-2.0
"""Removing a shared netns because you ask for it, while containers may still be attached.

Each container is first detached by the DEL that its runtime would have called. All the rest is as
after the last DEL: the same lock, the same order, and not from another mount namespace.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .. import conf, recall, references
from ..attachment import STOPPING, ReferenceName
from ..detaching import detach_by, guard
from ..errors import DECODING_FAILURE, TRY_AGAIN_LATER, ShimError
from ..gc import liveness, sweep
from ..names.together import Together
from ..shared import lifecycle, listing
from ..target import ATTEMPTS, Shared

if TYPE_CHECKING:
    from ..attachment import AttachmentRecord
    from ..request import Request
    from ..state import State


class Ending:
    """The removal of a shared netns: its users, and what became of them.

    `users` are the references in it, `detached` the names of those that got their DEL. `failed`
    tells why others did not, by their names. `is_up` tells whether the netns existed.
    """

    def __init__(
        self, where: State, environ: Mapping[str, str], tell: Callable[[Request], None]
    ) -> None:
        """Take what to remove; nothing is done yet. `tell` is called before each DEL."""
        self.users: list[AttachmentRecord] = []
        self.detached: list[ReferenceName] = []
        self.failed: dict[ReferenceName, str] = {}
        self.is_up = False
        self._where = where
        self._environ = environ
        self._tell = tell
        self._target = Shared(where, conf.DEFAULT_UPLINK, environ)

    def end(self, *, by_force: bool) -> bool:
        """Remove it and tell whether it is gone; without force only if it is not in use.

        Raises ShimError (code 103) where it cannot be reached from here.
        """
        if not os.path.lexists(self._where.dir):
            return True
        self._target.join()
        fd = self._target.open_as_is()
        if fd is None:
            liveness.refuse_if_elsewhere(self._where)
        else:
            os.close(fd)
        own = ReferenceName.guard(STOPPING)
        held = guard(self._target, own)
        if held is None:
            # A removal that was cut off has left this.
            self._target.leave()
            return not self._where.exists()
        self.is_up = True
        try:
            references.drop_ghosts(self._where)
            others = [r for r in listing.records(self._where) if r.name.file != own.file]
            self.users = listing.in_order(others)
            if by_force:
                with Together(self._target):
                    self._end_by_force(own)
        finally:
            held.drop()
            self._target.leave()
        return not self._where.exists()

    def _end_by_force(self, own: ReferenceName) -> None:
        for _ in range(ATTEMPTS):
            if not self._where.exists():
                return
            kept = {own.file, *(name.file for name in self.failed)}
            for name in listing.names(self._where):
                if name.file in kept:
                    continue
                try:
                    self._detach_one(name)
                except (ShimError, OSError) as error:
                    self.failed[name] = str(error)
            kept = {own.file, *(name.file for name in self.failed)}
            if lifecycle.destroy_despite(self._where, kept):
                self._target.end_holder()
                return
        raise ShimError(
            TRY_AGAIN_LATER,
            f"the shared netns {self._where.name!r} keeps getting new attachments",
            "stop the runtime that makes them, then call again",
        )

    def _detach_one(self, name: ReferenceName) -> None:
        if name.is_command:
            raise ShimError(TRY_AGAIN_LATER, "it runs on, without a network")
        reference = references.find(self._where, name)
        if reference is None:
            return  # its own DEL was faster
        try:
            if reference.record.is_of_netavark:
                raise ShimError(DECODING_FAILURE, sweep.OF_NETAVARK)
            request = recall.undoing(reference.record, self._environ)
            if request is None:
                raise ShimError(DECODING_FAILURE, sweep.DAMAGED, reference.record.name.file)
            self._tell(request)
            detach_by(request, self._target, reference)
            self.detached.append(name)
        finally:
            reference.close()

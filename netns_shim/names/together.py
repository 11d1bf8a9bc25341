# SPDX-License-Identifier: Apache-2.0
"""Names of many attachments that are detached together: the server reads its files once."""

from __future__ import annotations

import os

from .. import state
from ..target import Shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..target import Target


class Together:
    """Detaching many from a target, as a context: their names are taken out at its end.

    So are those of an earlier call of its kind, which may have been killed after it had dropped
    their references. In place, each DEL takes out its own.
    """

    __slots__ = ("_where",)

    def __init__(self, where: Target) -> None:
        self._where = where

    def __enter__(self) -> None:
        if isinstance(self._where, Shared):
            self._where.nameless = set()

    def __exit__(self, *_: object) -> None:
        where = self._where
        if not isinstance(where, Shared):
            return
        left, where.nameless = where.nameless or set(), None
        if os.path.isdir(where.state.path(state.NAMES)):
            from . import membership  # only where there are names

            membership.settle(where.state, where.netns_path, left)

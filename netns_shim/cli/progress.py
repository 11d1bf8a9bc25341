# SPDX-License-Identifier: Apache-2.0
"""Saying what takes long: one line on a terminal, which is overwritten, and nothing in a pipe.

No thread draws it, as those of a process that enters namespaces have to be one.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Self

from .. import locks

if TYPE_CHECKING:
    from ..request import Request

# To the begin of the line, and away with the rest of it, console_codes(4).
ERASE = "\r\x1b[K"


class Progress:
    """The line, as a context. While it is open, waiting for others is said in it as well."""

    def __init__(self) -> None:
        self._is_wanted = sys.stderr is not None and sys.stderr.isatty()
        self._text = ""

    def __enter__(self) -> Self:
        locks.on_wait = self.say
        return self

    def __exit__(self, *_: object) -> None:
        locks.on_wait = None
        self.say("")

    def say(self, text: str) -> None:
        """Show a text in the place of the one before; an empty one shows nothing."""
        if not self._is_wanted or text == self._text:
            return
        self._text = text
        from .printing import shown  # rich: only for a terminal

        line = f"{shown(text)} …" if text else ""
        width = shutil.get_terminal_size().columns - 1
        # Back at the begin of the line, where a warning overwrites it.
        sys.stderr.write(f"{ERASE}{line[:width]}\r")
        sys.stderr.flush()

    def tell(self, request: Request) -> None:
        """Say that a DEL comes next."""
        self.say(f"detaching {request.container_id} {request.ifname} from {request.network}")

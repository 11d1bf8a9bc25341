# SPDX-License-Identifier: Apache-2.0
"""Showing what takes long: one line on a terminal, which is overwritten, and nothing in a pipe.

It has no thread, because a process that enters namespaces must have only one.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Self

from .. import locks
from ..errors import shown

if TYPE_CHECKING:
    from ..request import Request

# Go to the beginning of the line and erase it, console_codes(4).
ERASE = "\r\x1b[K"


class Progress:
    """The line, as a context. While it is open, it also shows what we wait for."""

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
        """Show a text in place of the last one; an empty text shows nothing."""
        if not self._is_wanted or text == self._text:
            return
        self._text = text
        line = f"{shown(text)} …" if text else ""
        width = shutil.get_terminal_size().columns - 1
        # Go back to the beginning of the line, so that a warning overwrites it.
        sys.stderr.write(f"{ERASE}{line[:width]}\r")
        sys.stderr.flush()

    def tell(self, request: Request) -> None:
        """Say that a DEL comes next."""
        self.say(f"detaching {request.container_id} {request.ifname} from {request.network}")

# SPDX-License-Identifier: Apache-2.0
"""Following facts: collect them every second, and show them when they have changed."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from .. import errors, interrupt

if TYPE_CHECKING:
    from ..decoding import Json

SECONDS = 1.0
STOP_KEYS = b"qQ\x04"


def follow(collect: Callable[[], Json], write: Callable[[Json], None]) -> int:
    """Write the facts, and again after each change; give the exit status."""
    interrupt.heed()
    ask = _Asking(collect)
    poll = select.poll()
    poll.register(interrupt.descriptor(), select.POLLIN)
    poll.register(1, 0)  # only to learn when the reader has closed the pipe
    last: Json = {}
    while True:
        facts = ask()
        if facts != last:
            write(facts)
            sys.stdout.flush()
        last = facts
        ready = [fd for fd, _ in poll.poll(SECONDS * 1000)]
        if ready:
            return 1 if 1 in ready else 0


def redraw(
    collect: Callable[[], Json], paint: Callable[[Json], RenderableType], console: Console
) -> int:
    """Show the facts on a terminal, always the latest; give the exit status."""
    interrupt.heed()
    ask = _Asking(collect)
    poll = select.poll()
    poll.register(interrupt.descriptor(), select.POLLIN)
    with _keys() as keys, Live(console=console, auto_refresh=False) as live:
        if keys is not None:
            poll.register(keys, select.POLLIN)
        hint = Text("\nq to end" if keys is not None else "\nCtrl-C to end", "dim")
        while True:
            picture = paint(ask())
            live.update(Group(picture, hint), refresh=True)
            if any(_says_stop(fd, keys, poll) for fd, _ in poll.poll(SECONDS * 1000)):
                # The last picture stays on the screen.
                live.update(picture, refresh=True)
                return 0


def _says_stop(fd: int, keys: int | None, poll: select.poll) -> bool:
    if fd != keys:
        return True  # a signal
    typed = os.read(fd, 64)
    if not typed:
        poll.unregister(fd)  # no more keys can come
    return any(key in STOP_KEYS for key in typed)


class _Asking:
    """Collects the facts; warnings that come every time are shown once."""

    def __init__(self, collect: Callable[[], Json]) -> None:
        self._collect = collect
        self._said: set[str] = set()

    def __call__(self) -> Json:
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            facts = self._collect()
        errors.warnings.clear()
        for line in stderr.getvalue().splitlines():
            if line not in self._said:
                print(line, file=sys.stderr)
                self._said.add(line)
        return facts


@contextlib.contextmanager
def _keys() -> Iterator[int | None]:
    """Give the descriptor on which keys arrive as they are typed; None without a keyboard."""
    if not os.isatty(0):
        yield None
        return
    before = termios.tcgetattr(0)
    tty.setcbreak(0)
    try:
        yield 0
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)

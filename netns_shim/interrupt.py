# SPDX-License-Identifier: Apache-2.0
"""Being told to stop: SIGTERM, SIGINT and SIGHUP end a wait, and never a step.

The handler only notes the signal. Code that waits for a plugin, a lock or an uplink sees it and
raises. So nothing is cut off between two steps that belong together, and a call that had begun is
undone as after any failure. The undoing itself cannot be interrupted.
"""

from __future__ import annotations

import _signal as signal  # see `child`
import os
import select
import time

from .errors import Stopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

_received: list[int] = []
# Both ends of a pipe: a byte arrives with every signal, before Python runs the handler.
_pipe: list[int] = []


def heed() -> None:
    """Note the signals from now on.

    A signal that the caller ignores has no effect here either. But it gets a handler, so that
    programs that we start do not inherit that it is ignored, execve(2).
    """
    _received.clear()
    if not _pipe:
        _pipe.extend(os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    for number in SIGNALS:
        is_ignored = signal.getsignal(number) == signal.SIG_IGN
        signal.signal(number, _disregard if is_ignored else _note)


def leave() -> None:
    """Watch the pipe no more, in a child that closes it: another file gets its number."""
    signal.set_wakeup_fd(-1)
    _pipe.clear()


def disregard() -> None:
    """Ignore signals from now on, so that the undoing is finished."""
    _received.clear()
    for number in SIGNALS:
        if signal.getsignal(number) is _note:
            signal.signal(number, _disregard)


def _note(number: int, frame: FrameType | None) -> None:
    _received.append(number)


def _disregard(number: int, frame: FrameType | None) -> None:
    pass


def descriptor() -> int:
    """Give the descriptor to watch while waiting, -1 where signals are not heeded."""
    return _pipe[0] if _pipe else -1


def name() -> str:
    """Give the name of the signal that was noted, "" without one; make `descriptor` wait again."""
    if _pipe:
        try:
            os.read(_pipe[0], 64)
        except BlockingIOError:
            pass
    return name_of(_received[0]) if _received else ""


def name_of(number: int) -> str:
    """Give the name of a signal."""
    from signal import Signals  # imports `enum`

    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time signal


def check(what: str) -> None:
    """Raise Stopped if a signal was noted; `what` names the work that it stopped."""
    told = name() if _received else ""
    if told:
        disregard()
        raise Stopped(f"{what} was stopped by {told}")


def wait(fd: int, seconds: float, what: str) -> bool:
    """Wait until a descriptor can be read; tell whether it can. Raises Stopped as `check`."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if descriptor() >= 0:
        poll.register(descriptor(), select.POLLIN)
    deadline = time.monotonic() + seconds
    while True:
        check(what)
        ready = [found for found, _ in poll.poll(max(0, deadline - time.monotonic()) * 1000)]
        if fd in ready:
            return True
        if not ready:
            return False
        name()

# SPDX-License-Identifier: Apache-2.0
"""The guardian of an uplink: a process as small as a shell, which brings a dead uplink back.

The stdin of an uplink is the *lifeline*, a FIFO that no other process can write to, and that the
uplink never reads. So a reader of it learns at once when the uplink has ended, however it ended.
The guardian is a shell that waits for that, or for another resolv.conf of the host (`watch`), and
becomes `revival` then. It is no parent of the uplink: where it has been killed, another one can
take its place, and the uplink goes on.
"""

from __future__ import annotations

import os
import sys

from .. import hostnet, main
from ..errors import ShimError, warn
from ..invoke import DEFAULT_PATH, find_program
from ..state import FILE_MODE, remove
from . import background, watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..state import State

SHELL = "sh"
LIFELINE = "lifeline"
# A publisher that a signal has ended comes back, but not one that could not be started.
PARENT = '"$@"; s=$?; [ $s -gt 128 ] || exit $s;'
# What a guardian brings back: the words for `revival.main`.
UPLINK, PUBLISHER, NAMES = "uplink", "publisher", "names"
# How it is called in the list of processes.
NAME = "netns-shim-guardian"


class Lifeline:
    """A new lifeline, as a context: both of its ends, for the uplink and for its guardian."""

    __slots__ = ("reader", "writer")

    def __init__(self, state: State) -> None:
        path = state.path(LIFELINE)
        remove(path)  # that of an uplink before, which is no longer of interest
        os.mkfifo(path, FILE_MODE)
        self.reader = open_reader(state)
        self.writer = os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def __enter__(self) -> Lifeline:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.reader)
        os.close(self.writer)


def open_reader(state: State) -> int:
    """Open the lifeline of an uplink for its guardian; OSError where there is no FIFO."""
    # Without O_NONBLOCK, this would wait for a writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(state.path(LIFELINE), flags)
    os.set_blocking(fd, True)
    return fd


def start(state: State, reader: int, attempt: int = 0) -> int | None:
    """Start the guardian of an uplink; give its process ID, None with a warning where it fails.

    `reader` is the lifeline, -1 where there is no uplink, so that the guardian starts one. The
    caller is in the netns and the user namespace in which that is to be. `attempt` counts the
    uplinks that have ended at once or could not be started.
    """
    try:
        return background.fork(state, reader, lambda: stay(state, attempt))
    except (ShimError, OSError) as error:
        warn(f"the uplink of {state.name!r} has no guardian, which would start it again: {error}")
        return None


def stay(state: State, attempt: int, seen: list[str] | None = None) -> None:
    """Become the guardian, or become it again: the lifeline is stdin already.

    `seen` are the host's addresses of before, of which there are others by now if they have
    changed while nothing watched them. Raises OSError where there is no shell.
    """
    os.closerange(3, 1 << 20)
    script = watch.script(is_there=watch.arm())
    if seen is not None and seen != hostnet.own_addresses():
        script = watch.AT_ONCE
    for fd in background.spare(state.base):  # an uplink may close what it inherits
        os.set_inheritable(fd, True)
    stamp = state.path("resolv.conf")
    # It becomes Python without a fork, so it stays one process.
    command = [SHELL, "-c", script, NAME, stamp, *_revival(state, UPLINK, str(attempt))]
    os.execve(shell(), command, os.environ)


def guarded(state: State, command: list[str], log: str) -> list[str]:
    """Give the arguments of a guardian that is the parent of a publisher with this log."""
    # As `shlex` does, which imports eight modules more.
    words = _revival(state, PUBLISHER, log)
    quoted = ["'{}'".format(word.replace("'", "'\\''")) for word in words]
    script = f"{PARENT} exec {' '.join(quoted)}"
    return [shell(), "-c", script, NAME, *command]


def waiting(state: State) -> list[str]:
    """Give the arguments of a guardian whose stdin ends with the server of names."""
    script = 'read -r _; exec "$@"'
    return [shell(), "-c", script, NAME, *_revival(state, NAMES)]


def shell() -> str:
    """Find the shell that a process becomes to wait in little memory."""
    return find_program(SHELL, DEFAULT_PATH.split(":")) or f"/bin/{SHELL}"


def _revival(state: State, ended: str, *more: str) -> list[str]:
    """List the arguments of the call that a guardian becomes; see `revival.main`."""
    return call(main.REVIVE, state.pin, ended, *more)


def call(*arguments: str) -> list[str]:
    """List the words of a call of this package, for a process that waits as a shell first."""
    library = os.path.dirname(os.__file__)  # of this Python: it may be a newer one by then
    own = (library, f"{library}/lib-dynload")
    # An editable installation is found in another way than by sys.path.
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    found = dict.fromkeys([*sys.path, package])
    paths = [path for path in found if path not in own and not path.endswith(".zip")]
    # The launcher can be gone by then, or have the name of another face.
    code = f"import sys; sys.path += {paths!r}; from netns_shim.main import run; run()"
    return [sys.executable, "-IS", "-c", code, *arguments]

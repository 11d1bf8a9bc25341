# SPDX-License-Identifier: Apache-2.0
"""Running an executable to its end: stdin in, stdout and stderr out, within a time.

It does without `subprocess`, whose import costs 7 ms and which reads without a bound.
"""

from __future__ import annotations

import _signal as signal  # not `signal`: it imports `enum`, which imports much more
import errno
import os
import select
import time

from . import interrupt, log
from .errors import PLUGIN_MISBEHAVED, PLUGIN_TIMED_OUT, ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    # The exit status of a program (negative: a signal), its stdout and its stderr.
    Outcome = tuple[int, bytes, bytes]

# How many bytes a plugin may print; one that prints more is taken for broken and killed.
MAXIMUM_OUTPUT = 16 << 20
# Python ignores these, and a parent may have ignored others; a plugin starts as from a shell.
DEFAULT_SIGNALS = [
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGPIPE,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGXFSZ,
]
BUSY_RETRIES = 5


def run(
    path: str,
    environ: dict[str, str],
    stdin: bytes,
    *,
    arguments: Sequence[str] = (),
    name: str,
    what: str,
    timeout: float,
) -> Outcome:
    """Run an executable to its end; give its exit status (negative: a signal), stdout and stderr.

    It has a process group of its own, which is killed when the time is over or the output is too
    long. A process that it leaves in the background is not waited for, even one that holds its
    stdout open.

    `name` and `what` are what errors call the executable and this call of it; `timeout` is in
    seconds. Raises ShimError (code 100, or 101 where the time is over), Stopped where a signal to
    this process says to.
    """
    interrupt.check(what)
    pid, to_child, from_child, child_said = _start([path, *arguments], environ, name)
    exchange = _Exchange(pid, to_child, stdin, from_child, child_said)
    began = time.monotonic()
    try:
        problem = exchange.finish(timeout, what)
    except BaseException:
        _kill(pid)
        raise
    finally:
        exchange.close()
        log.ran(what, time.monotonic() - began)
    if problem is not None:
        _kill(pid)
        code, text = problem
        raise ShimError(
            code, f"{what} {text}", explain("it was killed", exchange.read[child_said])
        )
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, bytes(exchange.read[from_child]), bytes(exchange.read[child_said])


def _start(command: list[str], environ: dict[str, str], name: str) -> tuple[int, int, int, int]:
    """Start it; give its ID and our ends of its stdin, stdout and stderr."""
    (child_in, to_child), (from_child, child_out), (child_said, child_log) = _pipes()
    try:
        pid = _spawn(command, environ, child_in, child_out, child_log)
    except (OSError, ValueError) as error:
        for fd in (to_child, from_child, child_said):
            os.close(fd)
        # ValueError: an argument or a variable holds a character that it cannot, such as NUL.
        why = error.strerror if isinstance(error, OSError) else error
        raise ShimError(
            PLUGIN_MISBEHAVED, f"{name} cannot be executed", f"{command[0]}: {why}"
        ) from None
    finally:
        for fd in (child_in, child_out, child_log):
            os.close(fd)
    return pid, to_child, from_child, child_said


def _kill(pid: int) -> None:
    """End a child with its process group."""
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _pipes() -> list[tuple[int, int]]:
    pipes: list[tuple[int, int]] = []
    try:
        while len(pipes) < 3:
            pipes.append(os.pipe())
    except OSError:
        # Too many are open: the few that are left are needed to undo what was done.
        for fd in (fd for pair in pipes for fd in pair):
            os.close(fd)
        raise
    return pipes


def _spawn(
    command: list[str], environ: dict[str, str], stdin: int, stdout: int, stderr: int
) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate((stdin, stdout, stderr))]
    for attempt in range(BUSY_RETRIES + 1):
        try:
            return os.posix_spawn(
                command[0],
                command,
                environ,
                file_actions=actions,
                setpgroup=0,
                setsigmask=[],
                setsigdef=DEFAULT_SIGNALS,
            )
        except OSError as error:
            # The file is still being written, as during an installation: libcni waits as well.
            if error.errno != errno.ETXTBSY or attempt == BUSY_RETRIES:
                raise
            time.sleep(0.2)
    raise AssertionError


def closings(*kept: int) -> list[tuple[int, int]]:
    """Give the actions of posix_spawn(3) that leave a process its standard streams and `kept`.

    It takes no descriptor above the limit, which a caller may have lowered with such ones open.
    These are closed on execution instead.
    """
    others = {int(fd) for fd in os.listdir("/proc/self/fd")} - {0, 1, 2, *kept}
    limit = os.sysconf("SC_OPEN_MAX")
    for fd in others:
        if fd >= limit:
            os.set_inheritable(fd, False)
    return [(os.POSIX_SPAWN_CLOSE, fd) for fd in others if fd < limit]


class _Exchange:
    """The conversation with a child: its stdin written, its stdout and stderr read."""

    def __init__(self, pid: int, stdin: int, data: bytes, stdout: int, stderr: int) -> None:
        self.read = {stdout: bytearray(), stderr: bytearray()}
        self._open = {stdin, stdout, stderr}
        self._stdin = stdin
        self._data = memoryview(data)
        self._pidfd = os.pidfd_open(pid)
        for fd in self._open:
            os.set_blocking(fd, False)

    def finish(self, timeout: float, what: str) -> tuple[int, str] | None:
        """Go on until the child has ended; give a code and a text where it must be killed."""
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        told = interrupt.descriptor()
        if told >= 0:
            poll.register(told, select.POLLIN)
        poll.register(self._stdin, select.POLLOUT)
        for fd in self.read:
            poll.register(fd, select.POLLIN)
        while True:
            remaining = deadline - time.monotonic()
            events = poll.poll(max(0, remaining) * 1000)
            if not events and remaining <= 0:
                return PLUGIN_TIMED_OUT, f"did not end within {timeout:g} s"
            ended = False
            for fd, _ in events:
                if fd == self._pidfd:
                    ended = True
                elif fd == told:
                    interrupt.name()
                    interrupt.check(what)
                elif not (self._feed() if fd == self._stdin else self._drain(fd)):
                    poll.unregister(fd)
                    os.close(fd)
                    self._open.remove(fd)
            if any(len(text) > MAXIMUM_OUTPUT for text in self.read.values()):
                return PLUGIN_MISBEHAVED, f"printed more than {MAXIMUM_OUTPUT >> 20} MiB"
            if ended:
                # What it wrote before it ended is in the pipes by now; a descendant that keeps
                # them open is not waited for.
                for fd in self.read:
                    if fd in self._open:
                        self._drain(fd)
                return None

    def _feed(self) -> bool:
        """Write what fits; tell whether there is more to write."""
        try:
            self._data = self._data[os.write(self._stdin, self._data) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False  # it does not read its input; it decides itself whether that is an error
        return len(self._data) > 0

    def _drain(self, fd: int) -> bool:
        """Read what is there; tell whether there may be more."""
        text = self.read[fd]
        try:
            while len(text) <= MAXIMUM_OUTPUT:
                chunk = os.read(fd, 1 << 16)
                if not chunk:
                    return False
                text += chunk
        except BlockingIOError:
            pass
        return True

    def close(self) -> None:
        for fd in (*self._open, self._pidfd):
            os.close(fd)


def explain(text: str, stderr: bytes | bytearray) -> str:
    """Say in one text what is known about a failure, with the end of its stderr."""
    log = stderr[-4000:].decode(errors="replace").strip()
    return "; ".join(part for part in (text, f"stderr: {log}" if log else "") if part)

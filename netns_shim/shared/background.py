# SPDX-License-Identifier: Apache-2.0
"""Starting the program of an uplink, ending it, and what its log says.

Its standard streams are the log in the state directory. It inherits that directory where it has to
be spared, and no other descriptor: a runtime waits until all processes that have its pipes are
gone, but an uplink stays.
"""

from __future__ import annotations

import _signal as signal  # see `child`
import fcntl
import os

from .. import child, enter, interrupt
from ..errors import UPLINK_FAILED, ShimError
from ..state import FILE_MODE, remove
from .files import remove_special

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..state import State

# Where an uplink listens for changes of its ports, in the state directory.
CONTROL = "control"
# How long an uplink may take to get ready, in seconds.
START_SECONDS = 30
# How long a program may take to print its usage, in seconds.
USAGE_SECONDS = 30
# How bad a line in the log of pasta is.
LEVELS = ("ERROR", "WARNING", "INFO", "DEBUG")
# How long the path of a socket may be, in bytes: unix(7).
MAXIMUM_SOCKET_PATH = 107


def start(command: list[str], state: State, *kept: int, stdin: int = -1) -> int:
    """Start an uplink; see `spawn`."""
    remove_special(state.path(CONTROL))  # the socket of an uplink that was killed
    return spawn(command, state, *kept, stdin=stdin)


def spawn(command: list[str], state: State, *kept: int, stdin: int = -1) -> int:
    """Start a process that stays, in a session of its own; give its process ID.

    It has the descriptors `kept`, and `stdin`, which is /dev/null by default. Raises ShimError
    (code 102) where the program cannot be executed.
    """
    # The uplink opens its log by path, and would write through a link.
    remove_special(state.path("uplink.log"))
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    log = os.open(state.path("uplink.log"), flags, FILE_MODE)
    here = enter.open_cwd()
    spared = spare(state.base)
    kept = (*kept, *spared)
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        if stdin < 0
        else (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
        # dup2(2) of a descriptor on itself makes it inheritable.
        *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in kept),
        # A process that stays must not have the caller's open files.
        *child.closings(*kept),
    ]
    try:
        # It inherits the working directory, and would keep its file system busy.
        os.chdir(socket_of(state)[0])
        return os.posix_spawn(
            command[0],
            command,
            os.environ,
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=child.DEFAULT_SIGNALS,
        )
    except OSError as error:
        raise ShimError(
            UPLINK_FAILED, f"cannot start the uplink {command[0]}", error.strerror or ""
        ) from None
    finally:
        os.fchdir(here)
        for fd in (here, log, *spared):
            os.close(fd)


def spare(base: str) -> list[int]:
    """Lock a state directory for a process that stays; give the descriptor for it to inherit.

    systemd-tmpfiles(8) removes what is old in /tmp, and passes over a directory that is locked,
    flock(2), with all that is in it. Nothing is old in /run, and there is no descriptor for that.
    """
    if base.startswith("/run/"):
        return []
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        pass  # the file system has no locks, or this is the moment when it is looked at
    return [fd]


def ready(fifo: int, pid: int, seconds: float, what: str) -> bytes | None:
    """Wait until a process has written into a FIFO, or has ended.

    Give what it wrote, b"" where it has ended, None after so many seconds. Raises Stopped where a
    signal says to stop; `what` is what it stops.
    """
    pidfd = os.pidfd_open(pid)
    try:
        if not interrupt.wait(fifo, seconds, what, pidfd):
            return None
        try:
            if said := os.read(fifo, 64):
                return said
        except BlockingIOError:
            pass  # no process has opened it for writing yet
        # It has ended, or it has closed the FIFO and is about to.
        return b"" if interrupt.wait(pidfd, seconds, what) else None
    finally:
        os.close(pidfd)


def open_fifo(path: str) -> int:
    """Make a FIFO, and open it for reading; it is for one answer of a process that is started."""
    remove(path)
    os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def fork(state: State, stdin: int, become: Callable[[], None]) -> int:
    """Start a process that stays as `spawn` does, but by fork(2); give its process ID.

    In it, `become` executes a program: after something that has to be done by the process itself.
    """
    remove_special(state.path("uplink.log"))
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    log = os.open(state.path("uplink.log"), flags, FILE_MODE)
    pid = os.fork()
    if pid:
        os.close(log)
        return pid
    try:
        os.setsid()
        os.chdir("/")
        os.dup2(stdin if stdin >= 0 else os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.set_wakeup_fd(-1)
        for number in child.DEFAULT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        become()
    except Exception as error:
        os.write(2, f"netns-shim: {error}\n".encode(errors="replace"))
    finally:
        os._exit(1)


def usage(program: str, name: str) -> tuple[str, str]:
    """Give what a program prints about its options, on stdout and on stderr.

    `name` is what errors call it. Raises ShimError (code 100 or 101) where it cannot be run.
    """
    _, stdout, stderr = child.run(
        program,
        dict(os.environ),
        b"",
        arguments=["--help"],
        name=name,
        what=f"asking {name} what it knows",
        timeout=USAGE_SECONDS,
    )
    return stdout.decode(errors="replace"), stderr.decode(errors="replace")


def socket_of(state: State) -> tuple[str, str]:
    """Give the working directory of an uplink, and the path of its socket from there."""
    path = state.path(CONTROL)
    return ("/", path) if len(os.fsencode(path)) <= MAXIMUM_SOCKET_PATH else (state.dir, CONTROL)


def kill(pid: int) -> int:
    """End a child of ours that has not ended; give its exit status."""
    os.kill(pid, signal.SIGKILL)
    return end(pid)


def end(pid: int) -> int:
    """Wait for a child of ours; give its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def ended(status: int) -> str:
    """Say how a process has ended, by its exit status, or the number of a signal as -N."""
    return f"ended by the signal {-status}" if status < 0 else f"exit status {status}"


def failed(name: str, why: str, state: State) -> ShimError:
    """Make the error of an uplink, ShimError (code 102), with the end of its log."""
    # After a wrong option both programs print their usage, which hides what was wrong.
    text = log_of(state).partition("\nUsage:")[0].strip()
    return ShimError(UPLINK_FAILED, f"the uplink {name} failed: {why}", text[-2000:])


def log_of(state: State) -> str:
    """Read what it has said, without what explains nothing."""
    with open(state.path("uplink.log"), encoding="utf-8", errors="replace") as file:
        return "\n".join(essence(file.read()))


def essence(text: str) -> list[str]:
    """List what a log says: pasta writes most lines twice, and some explain nothing."""
    lines = dict.fromkeys(map(_bare, text.splitlines()))
    return [line for line in lines if not _is_noise(line)]


def _is_noise(line: str) -> bool:
    # An unprivileged pasta complains about the system log, and its log begins with its version.
    return "to syslog" in line or (line.startswith("pasta ") and line.endswith(")"))


def _bare(line: str) -> str:
    """Take what pasta puts before a line in its log off it: the time, and how bad it is."""
    time, _, rest = line.partition(": ")
    level, _, text = rest.partition(":")
    is_in_log = time.strip().replace(".", "").isdigit() and level in LEVELS
    return text.strip() if is_in_log else line

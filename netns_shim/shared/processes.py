# SPDX-License-Identifier: Apache-2.0
"""Processes that other calls have started, uplinks and plugins among them: found, and ended.

A process ID is not an identity: it may belong to another process by now. No signal is sent before
we know to which process.
"""

from __future__ import annotations

import _signal as signal  # see `child`
import errno
import os
import select
import time

from .. import interrupt
from ..errors import CANNOT_ENTER, ShimError, warn
from ..proc import start_time
from ..references import MARK
from ..state import PORTS
from .files import file_at, is_same

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..state import State

STOP_SECONDS = 5
# How long the plugins of a killed call may go on, in seconds; later they must be broken. If they
# are ended too early, some leave things that no DEL finds: `host-local` a lease without an owner.
ORPHAN_SECONDS = 5
# Below this, the publishers of ports have their logs: see the wing `ports`.
PUBLISHERS = f"{PORTS}/"


def ids() -> list[int]:
    """List all processes, proc(5); some may end before you look at them."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def is_ours(pid: int) -> bool:
    """Tell whether a process is this user's, by its real user ID, proc_pid_status(5).

    The owner of /proc/PID is root for one that may not be dumped, prctl(2), such as pasta(1).
    """
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            words = file.read().partition(b"\nUid:")[2].split(maxsplit=1)
    except OSError:
        return False  # it has ended
    return words[:1] == [b"%d" % os.getuid()]


def stop(pid: int, since: int) -> None:
    """End a process and wait until it is gone; do nothing if its ID belongs to another one.

    `since` is its start time (proc_pid_stat(5)), which tells it from a later process of that ID.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        # The last two are for a thread of a process, which has the ID now; kernels differ.
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
            return
        raise
    try:
        # Only now: the descriptor stays with the process whose identity we check.
        if start_time(pid) != since or _number(pidfd) != pid:
            return
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(pidfd, number)
            # A process that is stopped gets the first one only once it goes on.
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)
            if poll.poll(STOP_SECONDS * 1000):
                return
        warn(f"the process {pid} does not end")
    except ProcessLookupError:
        return
    except PermissionError as error:
        # A security module may forbid the signal; the netns can still be removed.
        warn(f"cannot end the process {pid}: {error}")
    finally:
        os.close(pidfd)


def _number(pidfd: int) -> int:
    """Read which process a descriptor is of. /proc may be that of another PID namespace."""
    with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:
        return next((int(line[4:]) for line in file if line.startswith(b"Pid:")), 0)


def check_numbers() -> None:
    """Refuse to start a process where /proc has other process IDs: ShimError (code 103)."""
    if os.readlink("/proc/self") != str(os.getpid()):
        raise ShimError(
            CANNOT_ENTER,
            "/proc is that of another PID namespace",
            "mount proc(5) of this one, as `unshare --mount-proc` does",
        )


def stray(state: State, log: str = "") -> set[tuple[int, int]]:
    """Find uplinks and guardians of a netns without a record: process IDs and start times.

    Their arguments name the pin, and they have a file open that only they have: the log of the
    uplink, or the netns itself. The path alone proves nothing: another mount namespace can have
    it too. With `log`, find publishers of ports instead, which are told a path that begins so;
    that of a directory ends with a slash.
    """
    found, has_missed = _scan(state, log)
    # A process that ended during the scan may have been an uplink on its way to the background,
    # and its child may be younger than the list of processes.
    return found | (_scan(state, log)[0] if has_missed else set())


def _scan(state: State, log: str) -> tuple[set[tuple[int, int]], bool]:
    """Look at each process once; tell as well whether one ended before we looked."""
    held = {file_at(log or state.path("uplink.log")), file_at(state.pin)}
    if log[-1:] == "/" and os.path.isdir(log):
        held |= {file_at(log + name) for name in os.listdir(log)}
    held -= {None}
    # Without what is above the directory: another call may have spelled that with other links.
    pin = os.fsencode(state.pin.removeprefix(state.base))
    told = os.fsencode((log or state.path(PUBLISHERS)).removeprefix(state.base))
    found, has_missed = set(), False
    for pid in ids():
        if pid == os.getpid():
            continue  # a guardian that brings the uplink back
        try:
            # In the try as well: hidepid, proc(5), refuses even this for other users' processes.
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
            is_publisher = any(told in word for word in arguments)
            is_told = any(word[:1] == b"/" and word.endswith(pin) for word in arguments)
            if not is_told or is_publisher != bool(log):
                continue
            since = start_time(pid)
            descriptors = [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
        except (FileNotFoundError, ProcessLookupError):
            has_missed = True
            continue
        except OSError:
            continue  # it is not ours
        if since and held & {file_at(descriptor) for descriptor in descriptors}:
            found.add((pid, since))
    return found, has_missed


def stop_publishers(state: State) -> None:
    """End every process that has ports of the host open for a netns, but for its uplink."""
    for pid, since in sorted(stray(state, state.path(PUBLISHERS))):  # parents first
        stop(pid, since)


def end_orphans(path: str) -> None:
    """Wait for the processes that a killed call has started; end those that do not end.

    `path` is the path of the call's reference. This process has it locked, so no other call works
    on it. It is in the environment of every process that the call has started. A plugin's process
    that has a session of its own, setsid(2), was meant to stay, such as a name server.

    Raises Stopped when a signal says to stop.
    """
    for number, seconds in ((0, ORPHAN_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        deadline = time.monotonic() + seconds
        found = _marked(path)
        while found and time.monotonic() < deadline:
            _wait_for(found, number, deadline)
            found = _marked(path)
        if not found:
            return
        pids = ", ".join(map(str, found))
        warn(f"a killed call has left processes that do not end: PID {pids}")


def _wait_for(found: dict[int, int], number: int, deadline: float) -> None:
    """Wait for processes, sending a signal first unless it is 0; close their descriptors."""
    try:
        for pidfd in found.values():
            if number:
                signal.pidfd_send_signal(pidfd, number)
            interrupt.wait(pidfd, deadline - time.monotonic(), "waiting for an earlier call")
    except ProcessLookupError:
        pass  # ended and reaped meanwhile
    finally:
        for pidfd in found.values():
            os.close(pidfd)


def _marked(path: str) -> dict[int, int]:
    """Find processes by the mark of a call in their environment: process IDs and descriptors."""
    found = {}
    for pid in ids():
        try:
            # First: the descriptor stays with the process that we look at.
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        if pid != os.getpid() and _has_mark(pid, path):
            found[pid] = pidfd
        else:
            os.close(pidfd)
    return found


def _has_mark(pid: int, path: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = file.read().split(b"\0")
        with open(f"/proc/{pid}/stat", "rb") as file:
            session = file.read().rpartition(b")")[2].split()[3]
    except OSError:
        return False  # it has ended, or is not ours
    begin = b"%s=%s:" % (MARK.encode(), session)
    told = [os.fsdecode(entry[len(begin) :]) for entry in environ if entry.startswith(begin)]
    return any(is_same(it, path) for it in told)


def holders(path: str) -> set[tuple[int, int]]:
    """Find the processes of this user that have a file open: process IDs and start times."""
    wanted, found = file_at(path), set()
    for pid in ids() if wanted else []:
        try:
            descriptors = [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue  # it has ended, or is not ours
        if wanted in map(file_at, descriptors) and (since := start_time(pid)):
            found.add((pid, since))
    return found


def descriptor(pid: int, path: str) -> int | None:
    """Find the descriptor of a process that has a path open: its number."""
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return None  # it has ended, or is not ours
    for fd in descriptors:
        try:
            if os.readlink(f"/proc/{pid}/fd/{fd}") == path:
                return int(fd)
        except OSError:
            continue  # closed meanwhile
    return None

# SPDX-License-Identifier: Apache-2.0
"""The ports that Podman reserves, and how they become free for a publisher.

As root of a user namespace, Podman takes itself for root of the machine: it listens on each port
that it publishes, on the host, and leaves the socket to conmon, which holds it as long as the
container runs. No program serves that socket. A client is connected and waits for ever, and a
publisher cannot listen there.

conmon must keep its descriptor, but we can take a copy of it, pidfd_getfd(2), and what is done to
the copy is done to the socket. A socket for TCP no longer listens after a shutdown(2). One for UDP
gets datagrams from one peer alone after a connect(2). Both then stand aside for a socket that has
SO_REUSEADDR, as those of pasta and slirp4netns have. The port stays taken for all programs that
do not set it, until the publisher has it.

It is done to conmon alone: any other program needs its socket. And only to the conmon of the
container: Podman 4 calls us before it reserves, so another container may have the port. Podman 5
reserves first, and hands the sockets on to conmon later: there the Podman that calls has them.
"""

from __future__ import annotations

import _socket as socket  # see `holders`
import errno
import os
import select
import time

from ..libc import pidfd_getfd
from ..shared.processes import ids
from . import holders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    # Protocol (tcp or udp), address ("" for all of both families), port.
    Wanted = tuple[str, str, int]

PODMAN = "podman"
CONMON = "conmon"
# The peer that a socket of UDP gets: one that sends nothing, on the same address.
DISCARD = 9
LOOPBACK = {holders.ANY4: "127.0.0.1", holders.ANY6: "::1"}
# How long Podman may take from the end of an ADD until conmon runs, in seconds.
SECONDS = 60
PAUSE_MS = 20
# The errors that say that a process is ending: it has no files any more, or no entry in /proc.
ENDING = (errno.ENOENT, errno.ESRCH, errno.EBADF)


def is_podman(pid: int) -> bool:
    """Tell whether a process, the one that called us, is a Podman.

    As root of a user namespace it may reserve the ports of its container *after* the ADD: see
    `lift_later`. Its key `enable_port_reservation`, containers.conf(5), says whether it does.
    """
    return _name(pid) == PODMAN


def lift(container_id: str, wanted: Iterable[Wanted]) -> int | None:
    """Make the conmon of a container give up ports that it reserves; give the number of sockets.

    None where the container has no conmon; 0 where that reserves no such port. conmon forks into
    the background, and its first process, which is about to end, counts for none where it does not
    have the sockets any more. This process may be in any netns. Raises OSError where it may not do
    that to conmon, EPERM, or where the kernel is older than Linux 5.6, ENOSYS.
    """
    wanted = list(wanted)
    lifted = None
    for pid, pidfd in _conmons(container_id):
        try:
            number = _lift(pid, pidfd, wanted, f"/proc/{pid}/net")
            # A process that ends loses its arguments first, and then its files.
            if number or _is_conmon_of(pid, container_id.encode()):
                lifted = (lifted or 0) + number
        except OSError as error:
            if error.errno not in ENDING:
                raise
        finally:
            os.close(pidfd)
    return lifted


def lift_of_caller(caller: int, wanted: Iterable[Wanted]) -> int:
    """Make a Podman that calls us give up ports that it has reserved; give the number of sockets.

    0 where it reserves none, or not yet, and where this process has no power over it. Call it in
    the host's netns: Go may leave the first thread of a Podman, which /proc/PID/net shows, in that
    of a container.
    """
    try:
        pidfd = os.pidfd_open(caller)
    except ProcessLookupError:
        return 0
    try:
        return _lift(caller, pidfd, wanted, "/proc/self/net") if is_podman(caller) else 0
    except OSError as error:
        if error.errno not in (*ENDING, errno.EPERM, errno.EACCES):
            raise
        return 0
    finally:
        os.close(pidfd)


def lift_later(container_id: str, wanted: Iterable[Wanted], caller: int) -> int | None:
    """Wait until a container has a conmon, and do what `lift` does.

    `caller` is the process that will start it. None where that ends without, or takes more than
    SECONDS. Podman reserves all ports of a container before conmon starts, so there is no need to
    wait any more once conmon is there.
    """
    wanted = list(wanted)
    poll = select.poll()
    try:
        pidfd = os.pidfd_open(caller)
    except ProcessLookupError:
        return lift(container_id, wanted)
    try:
        poll.register(pidfd, select.POLLIN)
        deadline = time.monotonic() + SECONDS
        is_over = False
        while (lifted := lift(container_id, wanted)) is None and not is_over:
            # One more look after the end: conmon lives longer.
            is_over = bool(poll.poll(PAUSE_MS)) or time.monotonic() > deadline
        return lifted
    finally:
        os.close(pidfd)


def _conmons(container_id: str) -> Iterator[tuple[int, int]]:
    """Find each conmon of a container: its process ID, and a descriptor of it for the caller.

    There is one more for each command that `podman exec` runs, and it has the same arguments.

    Name and arguments are its own word. But it is a process of our own user, or one that we have
    power over: it can as well be told to do anything.
    """
    argument = container_id.encode()
    for pid in ids():
        if _name(pid) != CONMON:
            continue
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        if _is_conmon_of(pid, argument):
            yield pid, pidfd
        else:
            os.close(pidfd)


def _is_conmon_of(pid: int, argument: bytes) -> bool:
    """Tell about a process of which we have a descriptor, so that it is the same one later."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return argument in file.read().split(b"\0") and _name(pid) == CONMON
    except OSError:
        return False  # it has ended


def _name(pid: int) -> str:
    """Read the name of a process, proc_pid_comm(5); "" where it is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def _lift(pid: int, pidfd: int, wanted: Iterable[Wanted], net: str) -> int:
    """Make one process give up ports of a netns; give the number of sockets."""
    descriptors = holders.sockets_of(pid)
    lifted = 0
    for protocol, address, port in wanted:
        for holder in holders.sockets(protocol, address, port, net):
            if holder.inode in descriptors:
                taken = socket.socket(fileno=pidfd_getfd(pidfd, descriptors[holder.inode]))
                try:
                    _stand_aside(taken)
                finally:
                    taken.close()
                lifted += 1
    return lifted


def _stand_aside(taken: socket.socket) -> None:
    """Let a socket with SO_REUSEADDR have the port, and get what comes there."""
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if taken.type == socket.SOCK_STREAM:
        taken.shutdown(socket.SHUT_RDWR)
        return
    address, _, *scope = taken.getsockname()
    taken.connect((LOOPBACK.get(address, address), DISCARD, *scope))

# SPDX-License-Identifier: Apache-2.0
"""Which process has a port of the host, and which ports a user may not have.

The kernel's tables, proc_pid_net(5), show the sockets of one netns with their inodes. A process
shows the inodes of its sockets in /proc/PID/fd, if this process may look at it.
"""

from __future__ import annotations

import _socket as socket  # not `socket`: it imports `enum` and `selectors`
import os
import sys

from ..proc import start_time
from ..shared.processes import ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FIRST_UNPRIVILEGED = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
ANY4, ANY6 = "0.0.0.0", "::"
MAPPED = "::ffff:"
# States of a socket in these tables, include/net/tcp_states.h: TCP_LISTEN, and TCP_CLOSE, which
# is that of a UDP socket without a peer. A socket in another state holds its port as well.
WAITING = {"tcp": "0A", "udp": "07"}


class Holder:
    """A socket that has a port, and the process that has the socket.

    `pid`, `start_time` (see `proc.start_time`), `name` (proc_pid_comm(5)) and `fd`, the number
    of its descriptor, are 0 or "" where no process shows the socket. `inode` is the socket's, and
    `uid` its user, as seen in the user namespace of this process.
    """

    __slots__ = ("fd", "inode", "name", "pid", "start_time", "uid")

    def __init__(self, inode: int, uid: int) -> None:
        self.inode = inode
        self.uid = uid
        self.pid = self.start_time = self.fd = 0
        self.name = ""


def find(protocol: str, address: str, port: int, net: str = "/proc/self/net") -> Holder | None:
    """Find what has a port of an address, or would be in the way of a socket there.

    `protocol` is tcp or udp; an `address` of "" is each address of both families. `net` is the
    directory of a process that is in the host's netns, `/proc/PID/net`: that of this process shows
    the shared netns once it is in there. None where the port is free, or held by a socket that is
    bound and neither listens nor is connected: the kernel does not show these for TCP.

    A socket of `::` counts for IPv4 as well: the tables do not tell whether it takes that.
    """
    for holder in sockets(protocol, address, port, net):
        identify([holder])
        return holder
    return None


def sockets(protocol: str, address: str, port: int, net: str) -> list[Holder]:
    """List the sockets that `find` chooses from, the likeliest first, without their processes."""
    found = [
        # One that waits for clients, before its connections; then, that of just this address.
        (state != WAITING[protocol], local != address, inode, uid)
        for local, number, state, inode, uid in _table(protocol, net)
        if number == port and overlap(local, address)
    ]
    return [Holder(inode, uid) for _, _, inode, uid in sorted(found)]


def waiting(protocol: str, net: str) -> Iterator[tuple[str, int, Holder]]:
    """List all sockets that wait for clients: address, port, and the socket, as `sockets` does."""
    for local, number, state, inode, uid in _table(protocol, net):
        if state == WAITING[protocol]:
            yield local, number, Holder(inode, uid)


def describe(holder: Holder) -> str:
    """Write for people who has a port: `nginx (PID 123)`."""
    if holder.pid:
        return f"{holder.name} (PID {holder.pid})"
    if holder.uid == os.geteuid():
        # pasta is such a program.
        return "one of your processes, which cannot be looked into"
    return "another user's process"


def first_unprivileged() -> int:
    """Tell the first port that each user may have, ip(7), in the netns of this process.

    A process that has entered the shared netns reads the number of that one, not of the host.
    """
    try:
        with open(FIRST_UNPRIVILEGED, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1024  # what the kernel begins with


def is_privileged(port: int, first: int) -> bool:
    """Tell whether a port is for processes with CAP_NET_BIND_SERVICE alone."""
    return 0 < port < first


def advice(port: int, first: int) -> str:
    """Write what to do about a privileged port."""
    return (
        f"on this host a user may have the ports from {first} on: take one of these, or let root "
        f"run `sysctl net.ipv4.ip_unprivileged_port_start={port}`"
    )


def _table(protocol: str, net: str) -> Iterator[tuple[str, int, str, int, int]]:
    """Read the sockets of a netns: address, port, state, inode, user."""
    for family in ("", "6"):
        try:
            with open(f"{net}/{protocol}{family}", encoding="ascii") as file:
                lines = file.readlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6, or the process has ended
        for line in lines:
            fields = line.split()
            # One without an inode belongs to no process: a connection that has been closed.
            if fields[9] != "0":
                local, _, port = fields[1].partition(":")
                yield _address(local), int(port, 16), fields[3], int(fields[9]), int(fields[7])


def _address(text: str) -> str:
    """Write an address of these tables in its usual form; they have it in words of the machine."""
    packed = bytes.fromhex(text)
    if sys.byteorder == "little":
        packed = b"".join(packed[i : i + 4][::-1] for i in range(0, len(packed), 4))
    family = socket.AF_INET6 if len(packed) == 16 else socket.AF_INET
    return socket.inet_ntop(family, packed).removeprefix(MAPPED)


def overlap(local: str, wanted: str) -> bool:
    """Tell whether a socket of one address is in the way of one of another, "" for all."""
    if not wanted or local == wanted or ANY6 in (local, wanted):
        return True
    return (":" in local) == (":" in wanted) and ANY4 in (local, wanted)


def identify(found: Iterable[Holder]) -> None:
    """Find the process of each socket; of several the oldest, from which the others have it."""
    wanted: dict[int, list[Holder]] = {}
    for holder in found:
        wanted.setdefault(holder.inode, []).append(holder)
    for pid in ids():
        try:
            descriptors = sockets_of(pid)
            known = descriptors.keys() & wanted.keys()
            since = start_time(pid) if known else 0
            name = _name(pid) if since else ""
        except OSError:
            continue  # it has ended, or is not ours
        for inode in known if since else ():
            for holder in wanted[inode]:
                if not holder.pid or (since, pid) < (holder.start_time, holder.pid):
                    holder.pid, holder.start_time, holder.name = pid, since, name
                    holder.fd = descriptors[inode]


def sockets_of(pid: int) -> dict[int, int]:
    """List the sockets of a process: inodes, and which descriptor each is.

    Raises OSError where it has ended, or this process may not look.
    """
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            kind, _, inode = os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")
        except FileNotFoundError:
            continue  # closed meanwhile
        if kind == "socket":
            found[int(inode.strip("[]"))] = int(fd)
    return found


def _name(pid: int) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().rstrip("\n")

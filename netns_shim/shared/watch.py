# SPDX-License-Identifier: Apache-2.0
"""Waiting for other name servers or addresses of the host, by a shell, without any process for it.

The kernel tells a process by a signal when something changes in a directory, fcntl(2), F_NOTIFY,
and when a socket of rtnetlink(7) gets a message. What is asked for outlives execve(2), but not a
fork. So a process asks for it and then becomes the shell, which compares resolv.conf with what was
seen of it, and does that without starting a program.
"""

from __future__ import annotations

import _signal as signal  # see `child`
import _socket as socket  # see `addresses`
import fcntl
import os

from ..hostnet import RESOLV_CONF

# Ignored by default: they end no process that does not expect them, such as the shell at its
# start. The first is for a directory, the second for an address.
SIGNAL, MOVED = "URG", "WINCH"
# Group of rtnetlink(7): an IPv4 address comes or goes.
RTMGRP_IPV4_IFADDR = 0x10
CHANGES = (
    fcntl.DN_MODIFY | fcntl.DN_CREATE | fcntl.DN_DELETE | fcntl.DN_RENAME | fcntl.DN_MULTISHOT
)
# Where the shell has the file open that was seen: it is another one when the path leads elsewhere.
HELD = 9
# How many links to follow: there are few descriptors below that one.
MAXIMUM_LINKS = 4
# What is true in the shell as long as nothing has changed. "$1" is a file with the time of the
# host's file when that was read. It is missing before the first time, which shells take for older
# or for neither.
SAME = (
    f"[ {RESOLV_CONF} -ef /proc/self/fd/{HELD} ] && "
    f'{{ [ ! -e "$1" ] || [ ! {RESOLV_CONF} -nt "$1" ]; }}'
)
AT_ONCE = 'shift; exec "$@"'
MISSING = f"[ ! -e {RESOLV_CONF} ]"


def script(*, is_there: bool) -> str:
    """Write what the shell does: wait for a change, or for the end of stdin; then become "$@".

    `is_there` is the answer of `arm`.
    """
    same = SAME if is_there else MISSING
    return (
        f"trap again=1 {SIGNAL}; trap moved=1 {MOVED}; again=1; moved=; "
        f'while [ "$again" ] && [ ! "$moved" ] && {same}; do again=; read nothing; done; '
        f"{AT_ONCE}"
    )


def arm() -> bool:
    """Ask for the signals, for this process and what it becomes; tell whether the file is there.

    The process must not have any descriptor but the first three. Where the kernel has no
    F_NOTIFY, or this is a file system without it, there is no signal.
    """
    _listen()
    for directory in directories(RESOLV_CONF):
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            os.set_inheritable(fd, True)
            fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(fd, fcntl.F_NOTIFY, CHANGES)
        except OSError:
            continue
    try:
        held = os.open(RESOLV_CONF, os.O_PATH)
    except OSError:
        return False
    os.dup2(held, HELD)
    os.close(held)
    return True


def _listen() -> None:
    """Ask for the signal that an IPv4 address of the host has come or gone."""
    try:
        asked = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        asked.bind((0, RTMGRP_IPV4_IFADDR))
        fd = asked.detach()
        os.set_inheritable(fd, True)
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGWINCH)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:
        pass  # the next ADD looks as well


def directories(path: str) -> list[str]:
    """List the directories in which a file, or a link on the way to it, can be replaced."""
    found = dict[str, None]()
    for _ in range(MAXIMUM_LINKS):
        directory, name = os.path.split(path)
        directory = os.path.realpath(directory)
        found[directory] = None
        try:
            path = os.path.join(directory, os.readlink(f"{directory}/{name}"))
        except OSError:
            break  # it is the file, or missing
    return list(found)

# SPDX-License-Identifier: Apache-2.0
"""Processes that others have started: which one is an uplink of ours, and its end.

A process ID is no identity: it may be somebody else's by now. No signal is sent before it is known
whose it is.
"""

from __future__ import annotations

import glob
import os
import select
import signal
from typing import TYPE_CHECKING

from .errors import warn
from .state import start_time

if TYPE_CHECKING:
    from .state import State

STOP_SECONDS = 5


def stop(pid: int, since: int) -> None:
    """End a process and wait until it is gone; do nothing if it is not the one that is meant.

    `since` is its start time (proc_pid_stat(5)): a process ID may be somebody else's by now.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Only now, as the descriptor holds on to the process whose identity is looked at.
        if start_time(pid) != since:
            return
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(pidfd, number)
            if poll.poll(STOP_SECONDS * 1000):
                return
        warn(f"the process {pid} does not end")
    except ProcessLookupError:
        return
    except PermissionError as error:
        # A security module may forbid the signal; the netns can be removed all the same.
        warn(f"cannot end the process {pid}: {error}")
    finally:
        os.close(pidfd)


def stray(state: State) -> list[tuple[int, int]]:
    """Find uplinks of a netns that are in no record: process IDs and start times.

    They were told to join the pin, and hold open what only an uplink of this netns does: its log,
    or the netns itself. The path alone proves nothing, as another mount namespace can have it too.
    """
    held = {_file(state.path("uplink.log")), _file(state.pin)} - {None}
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            # In the try as well: hidepid, proc(5), refuses even this for others' processes.
            since = start_time(int(entry))
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
            if os.fsencode(state.pin) not in arguments:
                continue
            descriptors = [f"/proc/{entry}/fd/{fd}" for fd in os.listdir(f"/proc/{entry}/fd")]
        except OSError:
            continue  # it has ended, or is not ours
        if since and held & {_file(descriptor) for descriptor in descriptors}:
            found.append((int(entry), since))
    return found


def stop_name_server(state: State) -> None:
    """End an aardvark-dns that netavark has started in this netns and left there.

    It ends by itself with the last container, unless a teardown failed. Its record is a process
    ID alone, so it must have been told to look into our directory to be the one.
    """
    directory = state.path("netavark")
    for record in glob.glob("config-*/aardvark-dns/aardvark.pid", root_dir=directory):
        try:
            with open(f"{directory}/{record}", "rb") as file:
                pid = int(file.read())
            since = start_time(pid)
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
        except (OSError, ValueError):
            continue  # it has ended
        told = os.fsencode(f"{directory}/{os.path.dirname(record)}")
        if since and any(argument.rstrip(b"/") == told for argument in arguments):
            stop(pid, since)


def _file(path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino

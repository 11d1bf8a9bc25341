# SPDX-License-Identifier: Apache-2.0
"""What a guardian becomes when its uplink has ended: the call that starts another one.

Or when the host has another resolv.conf or other addresses: then it follows those, and becomes the
guardian again.

It runs where the uplink was started: in the same user and mount namespace, and in the host's
netns. It tries until the netns has an uplink, or until nothing is attached to it any more.
"""

from __future__ import annotations

import os
import time

from .. import hostnet, interrupt, log, netns, skel
from ..errors import ShimError, Stopped, warn, warnings
from ..in_place import InPlace
from ..proc import start_time
from ..state import IN_PLACE, State
from ..target import Shared
from . import connect, guardian, lifecycle, maintenance, register, uplink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..records import UplinkRecord

# How long to wait before an attempt, in seconds; the last one counts for all that follow.
PAUSES = (0, 0.1, 1, 2, 4, 8, 15, 30, 60)
# After an uplink that has lived for so long, in seconds, there is no need to wait.
LONG = 1.0
# How long a program may take to write the host's resolv.conf, in seconds.
SETTLE = 0.1
# How long to wait after it was woken without a reason, in seconds: it must not use up the machine.
IDLE = 0.3
NAMES, ADDRESSES = "nameServers", "addresses"
FOLLOWED = {NAMES, ADDRESSES}


def main(pin: str, ended: str, *more: str) -> int:
    """Bring back what has ended in the shared netns with this pin; give the exit status.

    It is the UPLINK, and then the attempts before this one follow; a PUBLISHER, and then the path
    of its log follows, by which its guardian can be found; or the server of NAMES.
    """
    os.closerange(3, 1 << 20)  # what the guardian has watched
    skel.settle()
    interrupt.heed()
    base, name = os.path.dirname(pin).rsplit("/", 1)
    state = State(base, name)
    if ended.isdecimal():
        ended, more = _as_earlier(ended, *more)
    if ended == guardian.PUBLISHER:
        return _publish_again(state)
    if ended == guardian.NAMES:
        return _serve_again(state)
    return _bring_back(state, int(more[0]))


def _as_earlier(attempt: str, ended: str = "") -> tuple[str, tuple[str, ...]]:
    """Understand a guardian from before an update: attempts, then a log, NAMES or nothing."""
    if ended == guardian.NAMES:
        return ended, ()
    return (guardian.PUBLISHER, (ended,)) if ended else (guardian.UPLINK, (attempt,))


def _bring_back(state: State, attempt: int) -> int:
    """Follow the host while the uplink lives, else start another one; give the exit status."""
    if _is_guarding(state):
        try:
            seen = _follow(state)
            if _is_guarding(state):
                guardian.stay(state, attempt, seen)
        except Stopped:
            return 1
    number = 0 if _has_lived(state) else attempt
    said = ""
    while True:
        warnings.clear()
        log.begin("revive", os.environ)
        log.name(state.name)
        try:
            _pause(PAUSES[min(number, len(PAUSES) - 1)])
            if _revive(state, number):
                log.end()
            elif _is_guarding(state):
                # It was woken before the call that has started it had written that down.
                guardian.stay(state, number, [])
            return 0
        except Stopped:
            return 1  # what it was to bring back is ended on purpose
        except (ShimError, OSError) as error:
            if str(error) != said:
                said = str(error)
                warn(f"the uplink of {state.name!r} cannot be started again: {said}")
            log.end("failed", error=said, code=skel.as_shim_error(error).code)
        number += 1


def _publish_again(state: State) -> int:
    """Open the ports whose publisher has ended; give the exit status."""
    log.begin("revive", os.environ)
    log.name(f"{state.name}: published ports")
    # This process is as old as the publisher was.
    pauses = (0, 2) if _age(start_time(os.getpid())) >= LONG else (1, 2)
    try:
        for seconds in pauses:  # the second time for what a call has held
            _pause(seconds)
            if not _is_used(state):
                return 0
            with lifecycle.locked(state):
                Shared(state, {}, os.environ).restore_ports()
    except Stopped:
        return 1
    log.end()
    return 0


def _serve_again(state: State) -> int:
    """Start the server of names again, which has ended; give the exit status."""
    log.begin("revive", os.environ)
    log.name(f"{state.name}: names")
    try:
        _pause(0 if _age(start_time(os.getpid())) >= LONG else 1)
        if _is_used(state):
            where = InPlace(state) if state.name == IN_PLACE else Shared(state, {}, os.environ)
            where.restore_names()
            log.end()
    except Stopped:
        return 1
    return 0


def _age(ticks: int) -> float:
    """Tell for how many seconds a process has lived that started then, proc_pid_stat(5)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _is_guarding(state: State) -> bool:
    """Tell whether this process is the guardian of an uplink that lives."""
    record = state.uplink()
    return record.guardian.pid == os.getpid() and record.is_alive


def _follow(state: State) -> list[str]:
    """Follow the host's name servers, and where it is itself; give the addresses that it had."""
    _pause(SETTLE)
    seen = hostnet.own_addresses()
    log.begin("follow", os.environ)
    log.name(state.name)
    try:
        changes = _changes(state.uplink())
        if changes:
            maintenance.follow(state, changes, os.environ)
            Shared(state, {}, os.environ).restore_names()
            log.end()
        if NAMES not in changes:
            _pause(IDLE)
    except (ShimError, OSError) as error:
        warn(f"{state.name!r} does not follow the host's network: {error}")
        log.end("failed", error=str(error), code=skel.as_shim_error(error).code)
    return seen


def _changes(record: UplinkRecord) -> list[str]:
    """List those changes of the host's network that are followed while the uplink goes on.

    The next ADD looks at the others, as it can tell its caller what it finds.
    """
    before = record.host or {}
    follows = {NAMES} if record.copies_addresses or not record.host_addresses else FOLLOWED
    changes = follows.intersection(hostnet.changes(before))
    if before.get(ADDRESSES) == []:  # it had none to which its name inside could lead
        changes |= follows - {NAMES}
    return sorted(changes)


def _has_lived(state: State) -> bool:
    """Tell whether the uplink that has ended has lived for long."""
    since = state.uplink().start_time
    return since > 0 and _age(since) >= LONG


def _pause(seconds: float) -> None:
    reader, writer = os.pipe()
    try:
        interrupt.wait(reader, seconds, "bringing the uplink back")
    finally:
        os.close(reader)
        os.close(writer)


def _revive(state: State, number: int) -> bool:
    """Start the uplink, with a new guardian; tell whether that was still to be done."""
    if not _is_used(state):
        return False  # the lock is in a directory that is not to be made again
    with lifecycle.locked(state):
        record = state.uplink()
        mine = os.getpid()
        is_mine = record.guardian.pid == mine or not record.guardian.is_running
        is_up = register.is_up(state, record) or netns.identity(state.pin, is_ours=True) is None
        if not is_mine or is_up or record.driver in ("", "none") or not _is_used(state):
            return False
        wanted = record.wanted
        try:
            if number > 1:
                os.truncate(state.path("uplink.log"), 0)  # one attempt fails as the other
            chosen = uplink.check(wanted, os.environ)
            connect.disconnect(state)
            connect.connect(state, chosen, wanted, number + 1)
        except Stopped:
            connect.disconnect(state)
            raise
        except (ShimError, OSError) as error:
            connect.disconnect(state)
            register.note_guardian(record, mine, str(error))
            register.write(state, record)
            raise
        # With the lock: a publisher that is started now must not miss the end of the netns.
        Shared(state, wanted, os.environ).restore_ports()
    return True


def _is_used(state: State) -> bool:
    """Tell whether anything has a reference to the netns, whose directories are ours still."""
    try:
        return state.exists() and bool(os.listdir(state.refs))
    except (ShimError, FileNotFoundError):
        return False

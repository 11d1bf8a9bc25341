# SPDX-License-Identifier: Apache-2.0
"""Whether a shared netns is ready: for the next ADD, and for what is attached to it."""

from __future__ import annotations

import time

from .. import hostnet, interrupt, netns
from ..errors import LIMITED_CONNECTIVITY, NOT_AVAILABLE, UPLINK_FAILED, ShimError
from ..locks import PAUSE
from . import health, ownership, register, uplink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..records import UplinkRecord
    from ..state import State
    from ..target import Shared

# How long an ADD waits for a guardian to bring the uplink back, in seconds.
REVIVAL_SECONDS = 20


def check(where: Shared) -> None:
    """Check that an ADD finds all it needs (STATUS). Raises ShimError (code 50 or 51)."""
    state = where.state
    try:
        ownership.check(state)
        uplink.check(where.wanted, where.environ)
    except ShimError as error:
        raise ShimError(NOT_AVAILABLE, error.message, error.details) from None
    if not state.exists():
        return
    record = state.uplink()
    if not _is_up(state, record):
        raise ShimError(
            LIMITED_CONNECTIVITY,
            f"the shared netns {state.name!r} has lost its uplink",
            "the next ADD repairs it",
        )
    if netns.identity(state.pin, is_ours=True) is not None:
        health.check(state, record, LIMITED_CONNECTIVITY)


def open_alive(where: Shared) -> int:
    """Open the netns, to which a reference is held (CHECK); ShimError where it is broken."""
    fd = where.open_as_is()
    state = where.state
    record = state.uplink()
    if fd is None or not _is_up(state, record):
        what = "is lost" if fd is None else f"has lost its uplink {record.driver}"
        raise ShimError(
            UPLINK_FAILED,
            f"the shared netns {state.name!r} {what}",
            "the next ADD repairs it",
        )
    health.check(state, record)
    return fd


def _is_up(state: State, record: UplinkRecord) -> bool:
    """Tell whether an uplink lives, perhaps in another PID namespace, or waits with reason."""
    waits = bool(record.pending) and not hostnet.routes()
    return waits or record.is_alive or register.is_up(state, record)


def await_uplink(state: State) -> None:
    """Wait for the uplink that the guardian starts after the end of the one before.

    This process has entered the netns, so it cannot start one for the host's. Raises ShimError
    (code 102) where none comes.
    """
    deadline = time.monotonic() + REVIVAL_SECONDS
    while not (record := state.uplink()).is_alive:
        guardian = record.guardian
        problem = guardian.text("problem")
        is_at_work = guardian.is_running and not guardian.is_stopped
        if problem or not is_at_work or time.monotonic() > deadline:
            raise ShimError(
                UPLINK_FAILED,
                f"the uplink of {state.name!r} has ended during this ADD",
                problem or "call again: the next ADD repairs it",
            )
        interrupt.check("waiting for the uplink")
        time.sleep(PAUSE)

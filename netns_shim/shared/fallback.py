# SPDX-License-Identifier: Apache-2.0
"""What becomes of a shared netns whose uplink cannot be started: it waits, or gets another one.

Without a default route on the host, an older pasta(1) gives up. Containers need no network of the
host to reach each other, so the uplink then *waits*: `maintenance.follow` starts it as soon as the
host has a route. Where pasta fails for another reason, slirp4netns may do better: it needs neither
IPv6 nor routes that can be copied.
"""

from __future__ import annotations

import os

from .. import hostnet
from ..errors import ShimError, warn
from . import uplink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from ..records import UplinkRecord
    from ..state import State
    from .uplink import Program, Wanted

    Started = TypeVar("Started")

# What every pasta says of a host's network that it cannot use, and of a wrong option.
NO_NETWORK = ("routable interface", "xternal interface")
WRONG_OPTION = ("option", "nvalid")
ADVICE = 'set "uplink" to "slirp4netns" or "none", or its options to ["-4"]'


def start(
    chosen: Program, wanted: Wanted, begin: Callable[[Program], Started]
) -> tuple[Program, Started | None, str]:
    """Start an uplink by calling `begin` with it; give the one that was started, and the answer.

    `wanted` is the configuration it was chosen by. Instead of the answer there is None, with the
    reason as the third, where the uplink has to wait for a network of the host. Raises ShimError
    (code 102) where nothing can be done.
    """
    try:
        return chosen, begin(chosen), ""
    except ShimError as error:
        if chosen.driver != "pasta":
            raise
        if _is_offline(error.details):
            return chosen, None, _last_line(error.details)
        other = _other(wanted)
        if other is None:
            raise _advised(error) from None
        try:
            begun = begin(other)
        except ShimError:
            raise error from None  # it is the one that is expected to work
        warn(f"{error.message} ({_last_line(error.details)}): slirp4netns takes its place")
        return other, begun, ""


def say(state: State, record: UplinkRecord) -> None:
    """Warn that the uplink of a record waits for a network of the host."""
    warn(
        f"the uplink {record.driver} of the shared netns {state.name!r} waits until the host has "
        f"a network: {record.pending}"
    )


def _is_offline(said: str) -> bool:
    return any(text in said for text in NO_NETWORK) and not hostnet.routes()


def _other(wanted: Wanted) -> Program | None:
    """Give the other uplink, None where it is not installed, or the first one was asked for."""
    if any(wanted.get(key) for key in ("driver", "options", "path")):
        return None
    path = uplink.program_path("slirp4netns", os.environ)
    return uplink.make("slirp4netns", path, []) if path else None


def _advised(error: ShimError) -> ShimError:
    if any(text in error.details for text in WRONG_OPTION):
        return error
    return ShimError(error.code, error.message, f"{error.details}; {ADVICE}".lstrip("; "))


def _last_line(text: str) -> str:
    """Give the line after which a program has ended."""
    return text.strip().rpartition("\n")[2]

# SPDX-License-Identifier: Apache-2.0
"""Holding on to a shared netns: take a reference to it, open it, leave it.

What has to be made, mended or removed is left to `lifecycle`, which is imported only then.
"""

from __future__ import annotations

import os

from . import netns, references, state
from .errors import TRY_AGAIN_LATER, ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .references import Reference
    from .state import State

    Json = dict[str, Any]

# How often a netns is made that others, all done meanwhile, remove before this call gets in.
ATTEMPTS = 10


def take(where: State, name: str, uplink: Json, environ: Mapping[str, str]) -> Reference:
    """Take a reference, making the netns with this uplink where there is none.

    One that is there already is given as it is, for the caller to judge.
    """
    for _ in range(ATTEMPTS):
        try:
            if where.exists():
                return references.take(where, name)
        except FileNotFoundError:
            pass  # the last one is just leaving
        except FileExistsError:
            reference = references.find(where, name)
            if reference is not None:
                return reference
        from . import lifecycle  # 60 ms: only where there is no netns

        lifecycle.create(where, uplink, environ)
    raise ShimError(
        TRY_AGAIN_LATER, f"the shared netns {where.name!r} comes and goes all the time"
    )


def open_mended(where: State, uplink: Json, environ: Mapping[str, str]) -> int:
    """Open the netns, to which a reference is held; mend it first if it is broken."""
    is_pinned = netns.identity(where.pin) is not None
    if not (is_pinned and state.is_alive(where.uplink())):
        from . import lifecycle  # 60 ms: only where something is broken

        lifecycle.repair(where, uplink, environ)
    return netns.open_netns(where.pin)


def open_as_is(where: State) -> int | None:
    """Open the netns; None where it is lost.

    Raises ShimError where it lives on in another mount namespace.
    """
    if netns.identity(where.pin) is not None:
        return netns.open_netns(where.pin)
    from . import lifecycle  # 60 ms: only where something is broken

    lifecycle.refuse_if_elsewhere(where)
    return None


def leave(where: State) -> None:
    """Remove the netns if a reference that was dropped was the last."""
    try:
        os.rmdir(where.refs)
    except OSError:
        return  # others are attached, or somebody is removing it already
    from . import lifecycle  # 60 ms: only for the last one

    lifecycle.destroy(where)

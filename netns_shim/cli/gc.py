# SPDX-License-Identifier: Apache-2.0
"""`netns-shim gc`: detach containers that are gone.

Runtimes call DEL for a container that has ended, unless they were killed, or the machine crashed.
The attachments that they leave keep addresses, and the shared netns with its uplink.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from .. import interrupt, state
from ..errors import TRY_AGAIN_LATER, ShimError, shown
from ..gc import sweep
from . import options
from .progress import Progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

SUMMARY = "Detach containers that are gone, and release addresses without a container."

# How long to wait for another `netns-shim gc`, in seconds: it may wait for slow plugins.
LOCK_SECONDS = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )
    parser.add_argument(
        "--idle",
        action="store_true",
        help="detach also containers without a process, whose network namespace is only mounted",
    )
    options.add_json(parser)
    options.add_state_dir(parser)


def main(arguments: argparse.Namespace) -> int:
    """Do it and say what was done; the exit status is 1 if anything failed."""
    base = options.base_of(arguments)
    has_lock = not arguments.dry_run and state.is_private(base)
    with Progress() as progress, alone(base, progress) if has_lock else nullcontext():
        interrupt.heed()
        progress.say("looking for what is gone")
        found = sweep.sweep(
            base,
            os.environ,
            dry_run=arguments.dry_run,
            idle=arguments.idle,
            tell=progress.tell,
        )
    print(json.dumps(found, indent=2) if arguments.json else shown(describe(found), kept="\n"))
    return 1 if any(netns["failed"] for netns in found["netns"]) else 0


@contextmanager
def alone(base: str, progress: Progress) -> Iterator[None]:
    """Wait until no other `netns-shim gc` is at work in this state directory.

    Two at once would do no harm, because each attachment has a lock of its own. But one would
    report as skipped what the other is detaching, and a timer that starts one before the last has
    ended would pile them up. filelock is for this lock: it waits with a timeout, a signal ends the
    wait, and nothing that has to be quick needs it. Raises ShimError (code 11).
    """
    import filelock  # a dry run and the other commands do without it

    path = f"{base}/.gc.lock"
    lock = filelock.FileLock(path, timeout=LOCK_SECONDS)
    progress.say("waiting for another netns-shim gc")
    try:
        with lock:
            try:
                yield
            finally:
                # filelock may leave the file. A process that waits for it now can run beside one
                # that comes later, which would do no harm either.
                with suppress(FileNotFoundError):
                    os.unlink(path)
    except filelock.Timeout:
        message = "another `netns-shim gc` is running"
        raise ShimError(TRY_AGAIN_LATER, message, f"waited for {path}") from None


def describe(found: dict[str, Any]) -> str:
    """Write for people what was done, one line each; leave out living containers."""
    done = {"deleted": "detached", "released": "released", "dropped": "dropped"}
    removed = "removed, because nothing is attached any more"
    if found["dryRun"]:
        done = {"deleted": "would detach", "released": "would release", "dropped": "would drop"}
        removed = "would be removed, because nothing is attached any more"
    lines = []
    for netns in found["netns"]:
        name = "in place" if netns["name"] == state.IN_PLACE else netns["name"]
        for kind, words in {**done, "skipped": "skipped", "failed": "failed"}.items():
            lines += [f"{name}: {words} {_name(entry)}" for entry in netns[kind]]
        if netns["isRemoved"]:
            lines.append(f"{name}: {removed}")
    return "\n".join(lines) or f"nothing to do ({found['stateDir']})"


def _name(entry: dict[str, Any]) -> str:
    keys = ("file", "network", "address", "containerID", "ifname")
    name = " ".join(entry[key] for key in keys if entry.get(key))
    return ": ".join(filter(None, [name, entry.get("why")]))

# SPDX-License-Identifier: Apache-2.0
"""`netns-shim stop`: remove a shared netns now, without waiting for the last container."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..errors import shown, warn
from ..shared import listing
from . import options
from .progress import Progress

if TYPE_CHECKING:
    import argparse

    from ..attachment import AttachmentRecord, ReferenceName

SUMMARY = "Remove a shared network namespace with its uplink."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    options.add_netns(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="detach all containers first, if it is in use",
    )
    options.add_state_dir(parser)


def main(arguments: argparse.Namespace) -> int:
    """Remove it and say what was done; the exit status is 1 if it stays, or a DEL failed."""
    where = options.state_of(arguments)
    name = where.name
    from .stopping import Ending  # not for completions and other commands

    with Progress() as progress:
        ending = Ending(where, os.environ, progress.tell)
        is_gone = ending.end(by_force=arguments.force)
    if is_gone and not ending.is_up:
        print(f"no shared network namespace {name!r} is up ({shown(where.base)})")
        return 0
    for file in ending.detached:
        print(shown(f"{name}: detached {_name(file)}"))
    for file, why in ending.failed.items():
        warn(f"{name}: not detached: {_name(file)}: {why}")
    if is_gone:
        print(f"{name}: removed")
        return 1 if ending.failed else 0
    users = [_describe(record) for record in ending.users]
    if not users:
        is_call = bool(listing.names(where))
        users = ["a call that has just begun" if is_call else "a container without a reference"]
    warn(f"the shared netns {name!r} is in use, and --force would end that:")
    print("\n".join(f"  {shown(user)}" for user in users), file=sys.stderr)
    return 1


def _describe(record: AttachmentRecord) -> str:
    """Name a container or command in a netns, so that you can find it."""
    if not record.name.is_command:
        return _name(record.name)
    return f"command {' '.join(record.command) or '?'} (PID {record.pid})"


def _name(name: ReferenceName) -> str:
    if name.is_command:
        return f"command {name.pid}"
    if not name.is_attachment:
        return name.file
    return f"{name.network} {name.container_id} {name.ifname}"

# SPDX-License-Identifier: Apache-2.0
"""`netns-shim refresh`: start the uplink again, after the host's network has changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import conf, interrupt
from ..target import Shared
from .progress import Progress
from .run import place_of

if TYPE_CHECKING:
    import argparse

SUMMARY = "Renew the uplink and resolv.conf of a shared network namespace."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--netns",
        default=conf.DEFAULT_NETNS,
        metavar="NAME",
        help="the shared netns [%(default)s]",
    )
    parser.add_argument(
        "--state-dir", default="", metavar="DIR", help="the `stateDir` of the configuration"
    )


def main(arguments: argparse.Namespace) -> int:
    """Start the uplink again; containers are cut off while that takes."""
    from ..shared import lifecycle  # not for completions and other commands

    where = place_of(arguments.netns, arguments.state_dir)
    interrupt.heed()
    place = Shared(where, conf.DEFAULT_UPLINK, os.environ)
    if where.exists():
        place.join()
    with Progress() as progress:
        progress.say("starting the uplink again")
        lifecycle.refresh(where, os.environ)
        place.restore_ports()
    record = where.uplink()
    addresses = ", ".join(record.addresses) or "no address"
    print(f"{where.name}: uplink {record.driver} started again, {addresses}")
    return 0

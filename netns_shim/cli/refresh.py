# SPDX-License-Identifier: Apache-2.0
"""`netns-shim refresh`: start the uplink again, after the host's network has changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import conf, interrupt
from ..target import Shared
from . import options
from .progress import Progress

if TYPE_CHECKING:
    import argparse

SUMMARY = "Renew the uplink and resolv.conf of a shared network namespace."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    options.add_netns(parser)
    options.add_state_dir(parser)


def main(arguments: argparse.Namespace) -> int:
    """Start the uplink again; containers are cut off while that takes."""
    from ..shared import maintenance  # not for completions and other commands

    where = options.state_of(arguments)
    interrupt.heed()
    target = Shared(where, conf.DEFAULT_UPLINK, os.environ)
    if where.exists():
        target.join()
    with Progress() as progress:
        progress.say("starting the uplink again")
        maintenance.refresh(where, os.environ)
        target.restore_ports()
        target.restore_names()
    record = where.uplink()
    if record.pending:
        print(f"{where.name}: uplink {record.driver} waits until the host has a network")
        return 0
    addresses = ", ".join(record.addresses) or "no address"
    print(f"{where.name}: uplink {record.driver} started again, {addresses}")
    return 0

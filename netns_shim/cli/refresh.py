# SPDX-License-Identifier: Apache-2.0
"""`netns-shim refresh`: start the uplink again, after the host's network has changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import conf, interrupt, lifecycle, netns, state
from ..cni import is_name
from ..errors import CANNOT_ENTER, INVALID_ENVIRONMENT, ShimError

if TYPE_CHECKING:
    import argparse

SUMMARY = "Renew the uplink and resolv.conf of a shared network namespace."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--netns", default=conf.DEFAULT_NETNS, metavar="NAME", help="which [%(default)s]"
    )
    parser.add_argument(
        "--state-dir", default="", metavar="DIR", help="the `stateDir` of the configuration"
    )


def main(arguments: argparse.Namespace) -> int:
    """Start the uplink again; what is attached is cut off for as long as that takes."""
    if not is_name(arguments.netns):
        raise ShimError(INVALID_ENVIRONMENT, f"not a name for a netns: {arguments.netns!r}")
    if not netns.is_privileged():
        raise ShimError(
            CANNOT_ENTER,
            "no capabilities over any network namespace",
            "run it where the container runtime runs, inside the same user namespace",
        )
    interrupt.heed()
    where = state.State(state.base_dir(os.environ, arguments.state_dir), arguments.netns)
    lifecycle.refresh(where, os.environ)
    record = where.uplink()
    addresses = ", ".join(record.get("addresses") or []) or "no address"
    print(f"{where.name}: uplink {record.get('driver')} started again, {addresses}")
    return 0

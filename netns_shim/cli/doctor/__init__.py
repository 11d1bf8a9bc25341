# SPDX-License-Identifier: Apache-2.0
"""`netns-shim doctor`: what is wrong here, most likely causes first, and what to do about it.

Nothing is changed. Each check runs in a process of its own and for a limited time, so that none
hides what the others would find.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from . import (
    configuration,
    drivers,
    ids,
    places,
    plugins,
    rules,
    stale,
    uplinks,
    userns,
)
from .bounded import look
from .check import PROBLEM, Check, Context, Result, as_json, context

if TYPE_CHECKING:
    import argparse

SUMMARY = "Look for what is wrong here, and say what to do about it."

CHECKS = [
    Check("user namespaces", userns.user_namespaces),
    Check("subordinate IDs", ids.subordinate_ids),
    Check("newuidmap", ids.mappers),
    Check("unshare", userns.session),
    Check("mounts", userns.mounts),
    Check("TUN device", uplinks.tun),
    Check("pasta", uplinks.pasta),
    Check("slirp4netns", uplinks.slirp4netns),
    Check("CNI plugins", plugins.plugins, seconds=15),
    Check("iptables", rules.iptables),
    Check("nft", rules.nft),
    Check("runtime directory", places.runtime_directory),
    Check("systemd session", places.user_session),
    Check("state", stale.stale_state),
    Check("host's network", stale.host_network),
    Check("netavark", drivers.netavark),
    Check("aardvark-dns", drivers.aardvark),
    Check("netavark plugins", drivers.plugins),
]
# Of what is named, first: it is what the user wants to know.
OF_CONFIGURATION = [
    Check("configuration", configuration.validity),
    Check("its plugins", configuration.plugins),
    Check("its drivers", configuration.drivers),
    Check("its uplink", configuration.uplinks),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--conf", default="", metavar="FILE", help="check what the network in this file needs"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.add_argument(
        "--state-dir", default="", metavar="DIR", help="the `stateDir` of the configuration"
    )


def main(arguments: argparse.Namespace) -> int:
    """Do the checks and say what they find; the exit status is 1 where there is a problem."""
    told = context(os.environ, arguments.state_dir, arguments.conf)
    checks = [*OF_CONFIGURATION, *CHECKS] if arguments.conf else CHECKS
    try:
        return diagnose(checks, told, is_json=arguments.json)
    except KeyboardInterrupt:
        return 130  # as a shell says it


def diagnose(checks: list[Check], told: Context, *, is_json: bool) -> int:
    """Do some checks; give the exit status."""
    found: list[tuple[str, Result]] = []

    def one(check: Check) -> Result:
        result = look(check, told)
        found.append((check.name, result))
        return result

    if is_json:
        for check in checks:
            one(check)
    else:
        from .report import Report  # rich, 100 ms, which JSON does without

        Report(checks).run(checks, one)
    is_well = all(result.status != PROBLEM for _, result in found)
    if is_json:
        results = [as_json(name, result) for name, result in found]
        print(json.dumps({"isWell": is_well, "results": results}, indent=2))
    return 0 if is_well else 1

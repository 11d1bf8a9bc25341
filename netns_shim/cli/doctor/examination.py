# SPDX-License-Identifier: Apache-2.0
"""The checks in their order, and doing them."""

from __future__ import annotations

import json

from . import (
    bridges,
    configuration,
    drivers,
    ids,
    names,
    places,
    plugins,
    ports,
    rules,
    stale,
    subnets,
    uplinks,
    userns,
)
from .bounded import look
from .check import PROBLEM, Check, Context, Result, as_json

CHECKS = [
    Check("user namespaces", userns.user_namespaces),
    Check("subordinate IDs", ids.subordinate_ids),
    Check("newuidmap", ids.mappers),
    Check("unshare", userns.session),
    Check("mounts", userns.mounts),
    Check("TUN device", uplinks.tun),
    Check("pasta", uplinks.pasta),
    Check("default route", uplinks.default_route),
    Check("ping", uplinks.ping),
    Check("slirp4netns", uplinks.slirp4netns),
    Check("CNI plugins", plugins.plugins, seconds=15),
    Check("iptables", rules.iptables),
    Check("nft", rules.nft),
    Check("runtime directory", places.runtime_directory),
    Check("systemd session", places.user_session),
    Check("state", stale.stale_state),
    Check("uplinks", stale.uplinks, seconds=20),
    Check("host's network", stale.host_network),
    Check("names", names.resolution, seconds=20),
    Check("container names", names.of_containers),
    Check("published ports", ports.published),
    Check("MTU", bridges.mtu),
    Check("subnets", subnets.of_what_is_up),
    Check("netavark", drivers.netavark),
    Check("aardvark-dns", drivers.aardvark),
    Check("netavark plugins", drivers.plugins),
]
# The checks of a named configuration come first: you want to know about it most.
OF_CONFIGURATION = [
    Check("configuration", configuration.validity),
    Check("its plugins", configuration.plugins),
    Check("its drivers", configuration.drivers),
    Check("its uplink", configuration.uplinks),
    Check("its paths", configuration.paths),
    Check("its ports", ports.of_configuration),
    Check("its subnets", subnets.of_configuration),
    Check("its names", names.of_configuration),
]


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
        from .report import Report  # rich, which JSON does not need

        Report(checks).run(checks, one)
    is_well = all(result.status != PROBLEM for _, result in found)
    if is_json:
        results = [as_json(name, result) for name, result in found]
        print(json.dumps({"isWell": is_well, "results": results}, indent=2))
    return 0 if is_well else 1

# SPDX-License-Identifier: Apache-2.0
"""The way out of the shared network namespace: the TUN device, pasta and slirp4netns."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from ... import hostnet
from ...errors import ShimError
from ...shared import routes, uplink
from .. import programs
from .check import IN_PLACE, OK, PROBLEM, SKIPPED, WARNING, Context, Result

if TYPE_CHECKING:
    from collections.abc import Mapping

# Groups whose sockets may ping, icmp(7). The kernel's default is an empty range.
PING_GROUPS = "net.ipv4.ping_group_range"
NO_UPLINK = "the configuration asks for no uplink"


def tun(context: Context) -> Result:
    """Check that /dev/net/tun can be opened, as every uplink does."""
    if why := why_not(context):
        return Result(SKIPPED, why)
    if problem := uplink.tun_problem():
        return Result(PROBLEM, *problem)
    return Result(OK, f"{uplink.TUN} can be opened")


def pasta(context: Context) -> Result:
    """Check pasta: is it installed, does it run, does it know all our options?"""
    if why := why_not(context):
        return Result(SKIPPED, why)
    path = uplink.program_path("pasta", context.environ)
    if not path:
        if uplink.program_path("slirp4netns", context.environ):
            return Result(SKIPPED, "not installed; slirp4netns is used")
        return Result(PROBLEM, "neither pasta nor slirp4netns is installed", "install passt")
    return examine_pasta(path, context.environ)


def examine_pasta(path: str, environ: Mapping[str, str]) -> Result:
    """Check the pasta at a path."""
    try:
        version = programs.version(path, environ)
        usage = programs.usage(path, environ)
    except ShimError as error:
        return Result(PROBLEM, f"{path} does not run: {error}", "install passt again")
    if "--map-guest-addr" not in usage:
        return Result(
            WARNING,
            f"{version} ({path}) is old: it lacks --map-guest-addr, and answers of published "
            "servers that speak first come a second late",
            "install a passt of August 2024 or later, if that matters",
        )
    return Result(OK, f"{version} ({path})")


def default_route(context: Context) -> Result:
    """Check that the host has a network to lead to."""
    if why := why_not(context):
        return Result(SKIPPED, why)
    families = sorted(routes.families(hostnet.routes()))
    if not families:
        return Result(
            WARNING,
            "this host has none: containers reach each other, and nothing outside",
            "connect the host: uplinks lead to the outside as soon as it has a default route",
        )
    named = " and ".join(f"IPv{kind}" for kind in families)
    return Result(OK, f"this host has a default route for {named}")


def ping(context: Context) -> Result:
    """Check that an uplink can ping for containers, with a socket of the user.

    It tries: in a user namespace, the sysctl does not show groups that are not mapped.
    """
    if why := why_not(context):
        return Result(SKIPPED, why)
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()
    except PermissionError:
        return Result(
            WARNING,
            "the kernel lets no uplink of yours ping: containers get no answer to `ping` from "
            "outside, while TCP and names work",
            f"sysctl {PING_GROUPS}='0 2147483647' (as root), if they need to",
        )
    except OSError as error:
        return Result(SKIPPED, f"it cannot be tried: {error.strerror}")
    return Result(OK, "containers get an answer from outside")


def slirp4netns(context: Context) -> Result:
    """Check slirp4netns, which is the second choice."""
    if why := why_not(context):
        return Result(SKIPPED, why)
    path = uplink.program_path("slirp4netns", context.environ)
    if not path:
        return Result(SKIPPED, "not installed; it is used where pasta is not")
    is_needed = not uplink.program_path("pasta", context.environ)
    return examine_slirp4netns(path, context.environ, is_needed=is_needed)


def examine_slirp4netns(path: str, environ: Mapping[str, str], *, is_needed: bool) -> Result:
    """Check the slirp4netns at a path."""
    try:
        version = programs.version(path, environ)
    except ShimError as error:
        status = PROBLEM if is_needed else WARNING
        return Result(status, f"{path} does not run: {error}", "install slirp4netns again")
    return Result(OK, f"{version} ({path})")


def why_not(context: Context) -> str:
    """Tell why no uplink is to be looked at, or ""."""
    if context.is_in_place:
        return IN_PLACE
    return "" if context.wants_uplink else NO_UPLINK

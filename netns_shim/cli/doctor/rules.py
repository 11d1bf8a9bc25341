# SPDX-License-Identifier: Apache-2.0
"""Whether rules for masquerading can be made: make one that goes with this process."""

from __future__ import annotations

from ... import libc
from ...errors import ShimError
from .. import programs
from .check import OK, PROBLEM, SKIPPED, WARNING, Context, Result
from .userns import enter

MODULES = "modprobe nf_tables nft_masq nft_chain_nat iptable_nat (as root); "
TABLE = "table ip doctor { chain c { type nat hook postrouting priority 100; masquerade; }; }\n"


def iptables(context: Context) -> Result:
    """Check iptables(8), which most plugins use for masquerading and published ports."""
    if not _is_inside(context):
        return Result(SKIPPED, "there is no namespace to try it in")
    path = programs.find("iptables", context.environ)
    if not path and programs.find("nft", context.environ):
        why = "not installed: firewall needs it, and so do all plugins before release 1.6"
        return Result(WARNING, why, "install iptables, if one of your networks uses them")
    if not path:
        return Result(
            PROBLEM,
            "not installed: bridge with ipMasq, portmap and firewall need it, or nft",
            "install iptables",
        )
    rule = ["-w", "1", "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE"]
    return _try(path, rule, "", context, PROBLEM)


def nft(context: Context) -> Result:
    """Check nft(8), which newer plugins and netavark use."""
    if not _is_inside(context):
        return Result(SKIPPED, "there is no namespace to try it in")
    path = programs.find("nft", context.environ)
    if not path:
        return Result(SKIPPED, "not installed; newer plugins can use it")
    return _try(path, ["-f", "-"], TABLE, context, WARNING)


def _try(path: str, arguments: list[str], stdin: str, context: Context, bad: str) -> Result:
    try:
        version = programs.version(path, context.environ)
        programs.output(path, arguments, context.environ, stdin=stdin)
    except ShimError as error:
        advice = f"{MODULES}a security module may forbid it as well"
        return Result(bad, f"no rule can be made: {error}", advice)
    return Result(OK, f"{version} ({path}) can make a rule in a namespace")


def _is_inside(context: Context) -> bool:
    """Go where plugins would be: in a network namespace, with a /run of their own."""
    try:
        enter()
        if not context.is_in_place:
            libc.mount("tmpfs", "/run", "tmpfs", 0)
    except OSError:
        return False
    return True

# SPDX-License-Identifier: Apache-2.0
"""Options of an uplink's program: which of them are given, and with what values."""

from __future__ import annotations

import itertools


def is_given(options: list[str], *names: str) -> bool:
    """Tell whether one of these options is there, in any form that getopt_long(3) accepts."""
    for name in names:
        if name.startswith("--"):
            if any(o == name or o.startswith(name + "=") for o in options):
                return True
        elif any(o.startswith(name) for o in options):
            return True
    return False


def values(options: list[str], name: str) -> tuple[str, ...]:
    """List the values of a long option, written as `--name=value` or as two words."""
    found = [o.partition("=")[2] for o in options if o.startswith(name + "=")]
    found += [value for o, value in itertools.pairwise(options) if o == name]
    return tuple(found)

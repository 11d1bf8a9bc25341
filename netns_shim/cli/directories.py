# SPDX-License-Identifier: Apache-2.0
"""The default directories of a plugin: beside the other plugins, or in the user's home."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .. import netns
from ..errors import INVALID_ENVIRONMENT, ShimError
from ..validate import conflist

if TYPE_CHECKING:
    import argparse

# The programs that look for plugins, and the name under which each finds this one.
NAMES = {"cni": "netns-shim", "netavark": "cni"}
# Debian's, that of the CNI project, Fedora's.
OF_CNI = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
# The directory to make if all are missing: runtimes look into it by default.
NEW = "/opt/cni/bin"
OF_NETAVARK = "/usr/local/lib/netavark"
# The same for a package of the distribution, which must not install into /usr/local.
PACKAGED_NETAVARK = "/usr/lib/netavark"
# A plugin that every collection of plugins has.
ANY_PLUGIN = "loopback"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name the file of a plugin; two commands have them."""
    parser.add_argument(
        "directory",
        nargs="?",
        default="",
        metavar="DIR",
        help="the directory of plugins [for a user ~/.local/lib/cni or ~/.local/lib/netavark; for "
        f"root that of the machine: for CNI {', '.join(OF_CNI)}, for netavark {OF_NETAVARK}]",
    )
    parser.add_argument(
        "--for",
        dest="kind",
        choices=tuple(NAMES),
        default="cni",
        help="which program looks for the plugin there [%(default)s]",
    )
    parser.add_argument(
        "--name",
        default="",
        help="the plugin's type for CNI [netns-shim], or the driver's name for netavark [cni]; "
        "with netavark it stands in for that program",
    )


def candidates(kind: str, environ: Mapping[str, str]) -> list[str]:
    """List the default directories in which a plugin may be, best first.

    Raises ShimError where a user has no home.
    """
    if os.geteuid() == 0 and netns.is_initial_userns():
        if kind == "netavark":
            return [OF_NETAVARK]
        with_plugins = [d for d in OF_CNI if os.access(f"{d}/{ANY_PLUGIN}", os.X_OK)]
        there = [d for d in OF_CNI if os.path.isdir(d)]
        return list(dict.fromkeys([*with_plugins, *there, NEW]))
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        raise ShimError(INVALID_ENVIRONMENT, "HOME is not set", "set it, or name a directory")
    return [f"{home.rstrip('/')}/.local/lib/{kind}"]


def hint(kind: str, directory: str, environ: Mapping[str, str]) -> str:
    """Say how to tell a runtime about a directory; "" where it looks there by itself."""
    if directory in (OF_NETAVARK, PACKAGED_NETAVARK, *OF_CNI):
        return ""
    if kind == "netavark":
        home = environ.get("XDG_CONFIG_HOME") or "~/.config"
        return (
            f"for Podman to find it, in {home}/containers/containers.conf:\n"
            f'[network]\nnetavark_plugin_dirs = ["{directory}"]'
        )
    return f"for a runtime to find it:\n{export(directory)}"


def export(directory: str) -> str:
    """Write the line that tells a runtime about a directory of CNI plugins, for a shell."""
    others = [d for d in conflist.PLUGIN_DIRS if os.path.isdir(d)] or ["DIRECTORY-OF-THE-OTHERS"]
    return f"export CNI_PATH={shlex.quote(':'.join([directory, *others]))}"

# SPDX-License-Identifier: Apache-2.0
"""The executable: which of its faces is asked for."""

from __future__ import annotations

import gc
import os
import sys

from . import as_cni, cni, skel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import NoReturn


# The first argument of a plugin of netavark; none of the commands for people has such a name.
NETAVARK_COMMANDS = ("create", "setup", "teardown", "info")


def _load_verbs() -> ModuleType:
    from . import verbs  # half of all modules: not for VERSION, which runtimes ask often

    return verbs


def main(argv: list[str]) -> int:
    """Serve a runtime or a person; give the exit status.

    A CNI runtime passes no arguments, and its CNI_COMMAND can be inherited by a command that is
    none of its plugins: so arguments count for more.
    """
    if os.path.basename(argv[0]) == "netavark":
        from .faces import netavark_binary  # for whoever calls the binary of that name

        return netavark_binary.main(argv[1:])
    if argv[1:] and argv[1] in NETAVARK_COMMANDS:
        from .faces import netavark_plugin  # as is this

        return skel.serve(netavark_plugin.Face(argv[1:], os.environ), 0, 1)
    # A shell that asks for completions passes no arguments either.
    if argv[1:] or (os.environ.get("_ARGCOMPLETE") and not os.environ.get("CNI_COMMAND")):
        from . import cli  # argparse and more: for people only

        gc.enable()  # the launcher has disabled it for calls of plugins
        return cli.main(argv[1:])
    if not os.environ.get("CNI_COMMAND"):
        sys.stderr.write(cni.about())
        return 0
    return skel.serve(as_cni.Face(_load_verbs, os.environ), 0, 1)


def run() -> NoReturn:
    """Serve a runtime or a person, and end.

    At once: what Python does at its end takes a fifth of a call, and the kernel does all of it.
    """
    status = main(sys.argv)
    for do in skel.at_end:
        do()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            status = status or 1
    os._exit(status)

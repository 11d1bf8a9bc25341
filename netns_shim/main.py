# SPDX-License-Identifier: Apache-2.0
"""The executable: it decides which of its faces the caller asks for."""

from __future__ import annotations

import atexit
import gc
import os
import sys

from . import finder

finder.install()  # all modules of ours come by it

from . import as_cni, cni, encoding, skel  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


# The first argument of a plugin of netavark; no command for people has such a name.
NETAVARK_COMMANDS = ("create", "setup", "teardown", "info")
# The name of netavark's binary: called so, the shim stands in for it.
BINARY = "netavark"
# What a guardian says. It may be one that an earlier release has started: see `shared.guardian`.
REVIVE = "revive"
# What cleans up after a command says: see `cli.supervisor`.
RELEASE = "release"


def main(argv: list[str]) -> int:
    """Serve a runtime or a person; give the exit status.

    A CNI runtime passes no arguments. A command for people can inherit CNI_COMMAND from a runtime:
    so arguments win. A call of a plugin goes on in `skel.serve`.
    """
    if os.path.basename(argv[0]) == BINARY:
        from .faces import netavark_binary  # for a caller of the binary `netavark`

        return netavark_binary.main(argv[1:])
    if _is_plugin_of_netavark(argv):
        from .faces import netavark_plugin  # for netavark as the caller

        return skel.serve(netavark_plugin.Face(argv[1:], os.environ), 0, 1)
    if argv[1:2] == [REVIVE]:
        from .shared import revival  # only after the end of an uplink, or of a publisher

        return revival.main(*argv[2:])
    if argv[1:2] == [RELEASE]:
        from .cli import release  # only after the end of a command

        return release.main(*argv[2:])
    # A shell that asks for completions passes no arguments either.
    if argv[1:] or (os.environ.get("_ARGCOMPLETE") and not os.environ.get("CNI_COMMAND")):
        from . import cli  # argparse and more: for people only

        gc.enable()  # the launcher has disabled it for calls of plugins
        return cli.main(argv[1:])
    if not os.environ.get("CNI_COMMAND"):
        sys.stderr.write(cni.about())
        return 0
    return skel.serve(as_cni.Face(os.environ), 0, 1)


def _is_plugin_of_netavark(argv: list[str]) -> bool:
    return bool(argv[1:]) and argv[1] in NETAVARK_COMMANDS


def run() -> NoReturn:
    """Serve a runtime or a person, and end.

    It ends at once, after what `atexit` has: Python's own cleaning up takes a fifth of a call, and
    the kernel does it all.
    """
    try:
        status = main(sys.argv)
    except Exception as error:
        # Nothing gets here but what kept the module of a face from being loaded.
        if os.path.basename(sys.argv[0]) != BINARY and not _is_plugin_of_netavark(sys.argv):
            raise
        failure = skel.as_shim_error(error)
        print(encoding.compact({"error": f"{failure} (code {failure.code})"}))
        status = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            status = status or 1
    os._exit(status)

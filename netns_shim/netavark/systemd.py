# SPDX-License-Identifier: Apache-2.0
"""netavark and systemd: its name server, for a user whose service manager does not answer.

Where systemd runs, netavark starts aardvark-dns by `systemd-run --user --scope`. That fails for a
user without a log-in. Then there are no names, and until release 1.12 not even an error. A program
that comes first in PATH takes the place of systemd-run, and starts what it is given.
"""

from __future__ import annotations

import os

from .. import netns
from ..errors import warn
from ..shared.files import write_atomically
from ..state import make_below, outer_uid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DIRECTORY = "without-systemd"
PROGRAM = "systemd-run"
SCRIPT = """\
#!/bin/sh
# Of netns-shim: there is no service manager of this user that could start the program.
while [ "${1#-}" != "$1" ]; do shift; done
exec "$@"
"""


def environment(environ: Mapping[str, str], base: str) -> dict[str, str]:
    """Give the environment for a netavark that has to start its name server.

    `base` is the directory in which our program may be, in a directory of its own. `environ` has
    PATH. Where systemd does not run, or for root, nothing changes.
    """
    from ..shared import scope  # few machines and networks get here

    if netns.is_initial_userns() or not os.path.isdir(scope.BOOTED):
        return dict(environ)
    bus = scope.answering_bus(outer_uid(), environ)
    if bus:
        # A runtime may not have passed it on.
        return {**environ, "DBUS_SESSION_BUS_ADDRESS": bus}
    make_below(os.path.dirname(base), f"{os.path.basename(base)}/{DIRECTORY}")
    directory = f"{base}/{DIRECTORY}"
    path = f"{directory}/{PROGRAM}"
    if not os.access(path, os.X_OK):
        write_atomically(path, SCRIPT)
        os.chmod(path, 0o700)
    if os.statvfs(directory).f_flag & os.ST_NOEXEC:
        warn(
            "names may not resolve: netavark has systemd start aardvark-dns, the systemd of this "
            f"user does not answer, and no program can be started in {directory}"
        )
    return {**environ, "PATH": f"{directory}:{environ['PATH']}"}

# SPDX-License-Identifier: Apache-2.0
"""Which process joins the shared netns to the host's network: pasta, slirp4netns, or none.

Each is started from the host's netns, inside the user namespace that owns the shared netns.
"""

from __future__ import annotations

import errno
import os

from ..errors import UPLINK_FAILED, ShimError
from ..invoke import HELPER_DIRECTORIES, find_program, with_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypeAlias

    from ..state import State
    from .pasta import Pasta
    from .slirp4netns import Slirp4netns

    Program: TypeAlias = Pasta | Slirp4netns
    Uplink: TypeAlias = "Nothing | Program"
    # The key `uplink` of a configuration: `driver`, `options` and `path`.
    Wanted = Mapping[str, Any]

TUN = "/dev/net/tun"
TUN_DEVICE = os.makedev(10, 200)  # Documentation/admin-guide/devices.txt of the kernel
DEFAULT_MTU = 65520
# In the order in which they are tried if a network names none.
PROGRAMS = ("pasta", "slirp4netns")


class Nothing:
    """No uplink: containers reach each other and nothing else."""

    driver = "none"
    path = ""
    control = ""
    forwarders: tuple[str, ...] = ()
    forwards: list[str] | None = None
    host_addresses: tuple[str, ...] = ()
    takes_ipv6 = False
    copies_addresses = False
    sends_bare_segments = False

    def start(self, state: State, lifeline: int = -1) -> None:
        """Start nothing."""


def make(name: str, path: str, options: list[str]) -> Program:
    """Make the uplink of a program, with options of a user. Only its own module is loaded."""
    if name == "pasta":
        from .pasta import Pasta  # a first ADD starts one of the two

        return Pasta(path, options)
    from .slirp4netns import Slirp4netns  # see above

    return Slirp4netns(path, options)


def choose(wanted: Wanted, environ: Mapping[str, str]) -> Uplink:
    """Make the uplink that a configuration asks for: pasta if it is installed, else slirp4netns.

    Raises ShimError (code 102) where its program is not installed.
    """
    driver, options = wanted.get("driver", ""), list(wanted.get("options", []))
    if driver == "none":
        return Nothing()
    path = wanted.get("path", "")
    for name in PROGRAMS:
        program = program_path(path or name, environ)
        if driver in ("", name) and program:
            return make(name, program, options)
    missing = f"{path or driver} is not" if driver else "neither pasta nor slirp4netns is"
    raise ShimError(
        UPLINK_FAILED,
        f"no uplink: {missing} installed",
        'install passt or slirp4netns, or set "uplink": "none"',
    )


def check(wanted: Wanted, environ: Mapping[str, str]) -> Uplink:
    """Choose an uplink; raise ShimError (code 102) where it certainly cannot be started.

    pasta's own message does not name the missing device.
    """
    chosen = choose(wanted, environ)
    if not isinstance(chosen, Nothing) and (problem := tun_problem()):
        raise ShimError(UPLINK_FAILED, *problem)
    return chosen


def tun_problem() -> tuple[str, str] | None:
    """Say why the device of every uplink cannot be used, and what to do; None where it can."""
    try:
        if os.stat(TUN).st_rdev != TUN_DEVICE:
            return (
                f"{TUN} is something else",
                f"remove it, and mknod -m 0666 {TUN} c 10 200 (root)",
            )
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/net/tun cannot be opened: {error.strerror}", _tun_cure(error.errno)
    return None


def _tun_cure(number: int | None) -> str:
    device = f"give the container the device: --device {TUN}"
    if number not in (errno.EACCES, errno.EPERM):  # it is missing, or has no driver
        return f"modprobe tun (as root); in a container, {device}"
    if os.access(TUN, os.R_OK | os.W_OK):
        return f"its mode allows it, a control group or a mount with nodev does not: {device}"
    return f"chmod 0666 {TUN} (as root), as udev does"


def program_path(name: str, environ: Mapping[str, str]) -> str:
    """Find an uplink's program in PATH or where Podman keeps its helpers, or give ""."""
    return find_program(name, [*with_path(environ)["PATH"].split(":"), *HELPER_DIRECTORIES])

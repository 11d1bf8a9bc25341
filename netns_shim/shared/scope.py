# SPDX-License-Identifier: Apache-2.0
"""A cgroup of its own for what outlives its caller, where systemd runs.

An uplink is started by whichever call comes first. In the cgroup of that, it would be ended with
the service or the session that the call was made in, and with it the network of everybody else.
"""

from __future__ import annotations

import os
import time

from .. import child, interrupt, locks
from ..errors import ShimError, warn
from ..invoke import find_program, with_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# sd_booted(3)
BOOTED = "/run/systemd/system"
SECONDS = 5
# systemd answers before it moves anything, and says nothing where it then may not.
MOVE_SECONDS = 1
MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
METHOD = ("org.freedesktop.systemd1.Manager", "StartTransientUnit")


def move(pid: int, name: str, uid: str, environ: Mapping[str, str]) -> None:
    """Move a process into a scope `netns-shim-NAME-PID.scope` of the user's service manager.

    `uid` is the user's ID outside of any user namespace. Nothing happens where there is no systemd
    or no bus; a failure is a warning. Raises Stopped where a signal says so.
    """
    busctl = find_program("busctl", with_path(environ)["PATH"].split(":"))
    bus = _bus(uid, environ)
    if not (os.path.isdir(BOOTED) and bus and busctl):
        return
    unit = f"netns-shim-{name}-{pid}.scope"
    try:
        status, _, stderr = child.run(
            busctl,
            {**with_path(environ), "DBUS_SESSION_BUS_ADDRESS": bus},
            b"",
            arguments=command(unit, pid),
            name="busctl",
            what="moving a process to its own scope",
            timeout=SECONDS,
        )
        problem = child.explain("busctl has failed", stderr) if status else _await(pid, unit)
    except (ShimError, FileNotFoundError, ProcessLookupError) as error:
        problem = str(error)
    if problem:
        warn(f"{name} (PID {pid}) stays in the cgroup of its caller, and ends with it: {problem}")


def command(unit: str, pid: int) -> list[str]:
    """Write the call of the method, as busctl(1) takes it."""
    properties = [
        *("Description", "s", "netns-shim: the network of rootless containers"),
        *("PIDs", "au", "1", str(pid)),
        # Else it is gone before those who need it are, when all is shut down.
        *("DefaultDependencies", "b", "false"),
        *("CollectMode", "s", "inactive-or-failed"),
    ]
    call = [*MANAGER, *METHOD, "ssa(sv)a(sa(sv))", unit, "fail", "4", *properties, "0"]
    return ["--user", f"--timeout={SECONDS}", "call", *call]


def _await(pid: int, unit: str) -> str:
    """Wait until a process is in its scope; say that it is not, or nothing."""
    deadline = time.monotonic() + MOVE_SECONDS
    while time.monotonic() < deadline:
        interrupt.check("moving a process to its own scope")
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            if any(line.rstrip().endswith(f"/{unit}") for line in file):
                return ""
        time.sleep(locks.PAUSE)
    return "systemd has taken the order, and not moved it"


def _bus(uid: str, environ: Mapping[str, str]) -> str:
    """Find the user's bus; "" where there is none. A runtime may not pass on where it is."""
    address = environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    if address:
        return address
    for runtime in (environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        if runtime.startswith("/") and os.path.exists(f"{runtime}/bus"):
            return f"unix:path={runtime}/bus"
    return ""

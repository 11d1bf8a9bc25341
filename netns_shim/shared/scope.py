# SPDX-License-Identifier: Apache-2.0
"""A cgroup for a process that outlives its caller, where systemd runs.

The first call starts the uplink. In the cgroup of that call, the uplink would end with the service
or the session that made the call, and all other containers would lose their network.
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
# systemd answers before it moves a process, and reports nothing if it then fails to.
MOVE_SECONDS = 1
ANSWER_SECONDS = 2
MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
METHOD = ("org.freedesktop.systemd1.Manager", "StartTransientUnit")


def move(pids: list[int], name: str, uid: str, environ: Mapping[str, str]) -> None:
    """Move processes into a scope `netns-shim-NAME-PID.scope` of the user's service manager.

    The scope has the ID of the first one. `uid` is the user's ID outside of any user namespace.
    Nothing happens where there is no systemd or no bus; a failure is a warning. Raises Stopped
    when a signal says to stop.
    """
    busctl, bus = _way(uid, environ)
    if not bus:
        return
    pid = pids[0]
    unit = f"netns-shim-{name}-{pid}.scope"
    try:
        what = "moving a process to its own scope"
        status, stderr = _call(busctl, bus, command(unit, pids), what, environ)
        problem = child.explain("busctl has failed", stderr) if status else _await(pid, unit)
    except (ShimError, FileNotFoundError, ProcessLookupError) as error:
        problem = str(error)
    if problem:
        warn(f"{name} (PID {pid}) stays in the cgroup of its caller, and ends with it: {problem}")


def answering_bus(uid: str, environ: Mapping[str, str]) -> str:
    """Give the address of the bus on which the user's service manager answers.

    "" where systemd does not run, or the manager does not, as for a user who came by su or cron.
    """
    busctl, bus = _way(uid, environ)
    if not bus:
        return ""
    question = ["get-property", *MANAGER, METHOD[0], "Version"]
    try:
        arguments = ["--user", f"--timeout={ANSWER_SECONDS}", *question]
        status, _ = _call(busctl, bus, arguments, "asking systemd", environ)
    except ShimError:
        return ""
    return "" if status else bus


def _way(uid: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Give a program that can ask the user's service manager, and its bus; "" for none."""
    if not os.path.isdir(BOOTED):
        return "", ""
    busctl = find_program("busctl", with_path(environ)["PATH"].split(":"))
    return (busctl, _bus(uid, environ)) if busctl else ("", "")


def _call(
    busctl: str, bus: str, arguments: list[str], what: str, environ: Mapping[str, str]
) -> tuple[int, bytes]:
    """Run busctl(1) on a bus; give its exit status and what it said on stderr."""
    variables = {**with_path(environ), "DBUS_SESSION_BUS_ADDRESS": bus}
    status, _, stderr = child.run(
        busctl, variables, b"", arguments=arguments, name="busctl", what=what, timeout=SECONDS
    )
    return status, stderr


def command(unit: str, pids: list[int]) -> list[str]:
    """Give the arguments of busctl(1) for the call of the method."""
    properties = [
        *("Description", "s", "netns-shim: the network of rootless containers"),
        *("PIDs", "au", str(len(pids)), *map(str, pids)),
        # Otherwise a shutdown ends it before the containers that need it.
        *("DefaultDependencies", "b", "false"),
        *("CollectMode", "s", "inactive-or-failed"),
    ]
    call = [*MANAGER, *METHOD, "ssa(sv)a(sa(sv))", unit, "fail", "4", *properties, "0"]
    return ["--user", f"--timeout={SECONDS}", "call", *call]


def _await(pid: int, unit: str) -> str:
    """Wait until a process is in its scope; say what is wrong, or ""."""
    deadline = time.monotonic() + MOVE_SECONDS
    while time.monotonic() < deadline:
        interrupt.check("moving a process to its own scope")
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            if any(line.rstrip().endswith(f"/{unit}") for line in file):
                return ""
        time.sleep(locks.PAUSE)
    return "systemd accepted the request, but did not move it"


def _bus(uid: str, environ: Mapping[str, str]) -> str:
    """Find the user's bus, or ""; a runtime may not pass on the variable that names it."""
    address = environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    if address:
        return address
    for runtime in (environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        if runtime.startswith("/") and os.path.exists(f"{runtime}/bus"):
            return f"unix:path={runtime}/bus"
    return ""

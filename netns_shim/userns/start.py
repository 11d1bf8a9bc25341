# SPDX-License-Identifier: Apache-2.0
"""Making the user's own user namespace and mount namespace, and the pause process in them.

The process is a `cat` that reads a pipe which no other process has. It takes 0.1 MB of memory,
where Python would take 8. It starts in steps, each of which waits for us, and becomes `cat` only
after its record is written. So if we are killed, either it ends or there is a record of it.
"""

from __future__ import annotations

import _signal as signal  # see `child`
import fcntl
import os

from .. import child, interrupt, invoke
from ..errors import CANNOT_ENTER, ShimError, warn
from ..libc import CLONE_NEWNS, CLONE_NEWUSER, MS_REC, MS_SHARED, MS_SLAVE, mount, setns, unshare
from ..shared import background
from . import subids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .subids import Extent

PROGRAM = "cat"
START_SECONDS = 30
WHAT = "making a user namespace"
# The sysctls by which a distribution forbids user namespaces, and their values.
SWITCHES = {
    "user.max_user_namespaces": "0",
    "kernel.unprivileged_userns_clone": "0",
    "kernel.apparmor_restrict_unprivileged_userns": "1",
}


def arguments(path: str) -> list[str]:
    """Give the arguments of the process; it never gets to read the file of this path."""
    return [PROGRAM, "-", path]


def start(
    path: str,
    maps: dict[str, list[Extent]],
    record: Callable[[int], None],
    lost: tuple[int, int | None] | None = None,
) -> int:
    """Start the process; give its ID.

    `record` is called with that ID once the namespaces are complete; `path` is that of the
    record. With `lost`, descriptors of a user namespace and maybe of a mount namespace, it holds
    those instead of new ones. Raises ShimError (code 103) where that fails.
    """
    program = trusted(PROGRAM, os.environ)
    if not program:
        raise ShimError(CANNOT_ENTER, "no user namespace can be made", f"there is no {PROGRAM!r}")
    hear, say = os.pipe()
    heard, told = os.pipe()
    spared = background.spare(os.path.dirname(path))
    pid = os.fork()
    if pid == 0:
        try:
            os.close(say)
            os.close(heard)
            _hold(program, path, hear, told, spared, lost)
        except OSError as error:
            os.write(told, str(error.errno).encode())
        finally:
            os._exit(1)
    for fd in (hear, told, *spared):
        os.close(fd)
    try:
        _lead(pid, say, heard, {} if lost else maps, record)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(say)
        os.close(heard)
    return pid


def _lead(
    pid: int,
    say: int,
    heard: int,
    maps: dict[str, list[Extent]],
    record: Callable[[int], None],
) -> None:
    """Take the process through its steps, until it has become another program."""
    _await(heard)
    for kind, extents in maps.items():
        _write_map(pid, kind, extents)
    os.write(say, b"1")
    _await(heard)
    record(pid)
    os.write(say, b"1")
    _await(heard, until=b"")


def _await(heard: int, until: bytes = b".") -> None:
    """Wait for the process; the pipe ends when it has become another program."""
    answer = b""
    if not interrupt.wait(heard, START_SECONDS, WHAT) or (answer := os.read(heard, 16)) != until:
        number = int(answer) if answer.isdigit() else 0
        why = os.strerror(number) if number else f"not ready after {START_SECONDS} s"
        hint = "; ".join([why, *(f"sysctl {n} is {value}" for n, value in forbidding().items())])
        raise ShimError(CANNOT_ENTER, "no user namespace can be made", hint)


def forbidding() -> dict[str, str]:
    """Find the sysctls that forbid user namespaces, and their values."""
    found = {name: sysctl(name) for name in SWITCHES}
    return {name: value for name, value in found.items() if value == SWITCHES[name]}


def sysctl(name: str) -> str:
    """Read a value of sysctl(8); "" where this kernel does not have it."""
    try:
        with open(f"/proc/sys/{name.replace('.', '/')}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _hold(
    program: str,
    path: str,
    hear: int,
    told: int,
    spared: list[int],
    lost: tuple[int, int | None] | None,
) -> None:
    """Run the new process, from the fork until it becomes `cat`; it keeps what is `spared`."""
    # A session of its own: no terminal's interrupt can end it.
    os.setsid()
    user, mounts = lost or (None, None)
    if user is not None:
        setns(user, CLONE_NEWUSER)
    else:
        unshare(CLONE_NEWUSER | CLONE_NEWNS)
    _say_and_wait(hear, told)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    if mounts is not None:
        setns(mounts, CLONE_NEWNS)
    elif user is not None:
        unshare(CLONE_NEWNS)
    os.chdir("/")
    # The kernel has set these already; this fails if it gave us no power after all.
    mount(None, "/", None, MS_SLAVE | MS_REC)
    # What a runtime mounts in here later, a namespace of a container, is seen by commands and
    # daemons in mount namespaces that were made from this one before.
    mount(None, "/", None, MS_SHARED | MS_REC)
    _say_and_wait(hear, told)
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    # Out of the way of the numbers 0 to 2. The process has the other end of its pipe itself.
    ends = (reading, null, null, writing, *spared)
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in ends]
    told = fcntl.fcntl(told, fcntl.F_DUPFD_CLOEXEC, 10)
    for number, fd in enumerate(moved):
        os.dup2(fd, number)
    os.dup2(told, len(moved), inheritable=False)
    # Our caller may wait until no process has its pipes any more.
    os.closerange(len(moved) + 1, 1 << 20)
    try:
        os.execve(program, arguments(path), {})
    except OSError as error:
        os.write(len(moved), str(error.errno).encode())
        os._exit(1)


def _say_and_wait(hear: int, told: int) -> None:
    os.write(told, b".")
    if not os.read(hear, 1):
        os._exit(1)  # the process that started us has ended


def _write_map(pid: int, kind: str, extents: list[Extent]) -> None:
    """Map subordinate IDs if there are any, else the caller alone."""
    if len(extents) > 1:
        why = _map_all(pid, kind, extents)
        if not why:
            return
    else:
        why = subids.why_none(kind, os.environ)
    warn(
        f"no subordinate {kind}s, as {why}: root is the only {kind} in the user namespace, so "
        "a program that changes to another one there, or gives it a file, fails"
    )
    if kind == "gid":
        _write(pid, "setgroups", "deny")
    _write(pid, f"{kind}_map", " ".join(map(str, extents[0])))


def _map_all(pid: int, kind: str, extents: list[Extent]) -> str:
    """Run newuidmap(1) or newgidmap(1); give what is wrong, or ""."""
    name = f"new{kind}map"
    program = trusted(name, os.environ)
    if not program:
        return f"{name} is not installed (package uidmap or shadow-utils)"
    numbers = [str(number) for extent in extents for number in extent]
    try:
        status, _, stderr = child.run(
            program,
            invoke.with_path({"PATH": os.environ.get("PATH", "")}),
            b"",
            arguments=[str(pid), *numbers],
            name=name,
            what=WHAT,
            timeout=START_SECONDS,
        )
    except ShimError as error:
        return str(error)
    return "" if status == 0 else child.explain(f"{name} has failed", stderr)


def trusted(name: str, environ: Mapping[str, str]) -> str:
    """Find a program that root has installed, in PATH only if it is in no usual place; or "".

    In PATH there may be a namesake that lacks the power: the one of a package manager of the user.
    """
    places = [*invoke.WRAPPERS, *invoke.usual_places()]
    return invoke.find_program(name, [*places, *invoke.with_path(environ)["PATH"].split(":")])


def _write(pid: int, name: str, text: str) -> None:
    with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
        file.write(text)

# SPDX-License-Identifier: Apache-2.0
"""aardvark-dns: one process a netns, which reads the files of a directory when it is told to.

We start it ourselves. netavark has systemd do that wherever it finds systemd, and a user without a
service manager has no names then. The process outlives its caller.
"""

from __future__ import annotations

import _signal as signal  # see `child`
import _socket as socket  # see `shared.addresses`
import errno
import os
import struct
import time

from .. import child, invoke
from ..errors import NAMES_UNAVAILABLE, ShimError
from ..proc import is_stopped, lives
from ..shared import name_servers
from ..shared.files import remove_special
from ..state import FILE_MODE
from .entries import DOMAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM = "aardvark-dns"
PORT = 53
INSTALL = "install it, or set names to false"
# How long the server may take until it answers as the files say, and one question, in seconds.
SECONDS, PATIENCE = 10.0, 0.2
# How long to wait before it is told again: releases before 1.5 can miss it while they read.
AGAIN = 0.5
# One that has just started ends where it is told something too early, in seconds.
SETTLE = 2.0
PAUSE = 0.005
KINDS = {"A": 1, "PTR": 12, "AAAA": 28}
CLASS_IN = 1
NO_SUCH_NAME = 3


def find(environ: Mapping[str, str]) -> str:
    """Find the program, among Podman's helpers or in PATH. Raises ShimError (code 107)."""
    directories = invoke.with_path(environ)["PATH"].split(":")
    path = invoke.find_program(PROGRAM, [*invoke.HELPER_DIRECTORIES, *directories])
    if not path:
        raise ShimError(NAMES_UNAVAILABLE, "names: aardvark-dns is not installed", INSTALL)
    return path


def running(directory: str) -> tuple[int, int]:
    """Find the server of a directory: process ID and start time, 0 and 0 where it does not run."""
    pid, since = name_servers.find(directory)
    return (pid, since) if lives(pid, since) else (0, 0)


def tell(directory: str) -> None:
    """Have the server of a directory read its files again; nothing happens if it has ended."""
    pid, _ = running(directory)
    try:
        if pid:
            os.kill(pid, signal.SIGHUP)
    except ProcessLookupError:
        pass


def start(program: str, directory: str, log: str, lifeline: int, *, is_cut_off: bool) -> None:
    """Start it in the netns of this process, and wait until it has gone to the background.

    It keeps the descriptor `lifeline` open. Raises ShimError (code 107) where it fails.
    """
    environ = invoke.with_path(dict(os.environ))
    if is_cut_off:
        environ |= {"AARDVARK_NO_PROXY": "1"}
    remove_special(log)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    out = os.open(log, flags, FILE_MODE)
    os.chdir("/")
    try:
        pid = spawn(
            [program, "--config", directory, "--port", str(PORT), "run"], out, lifeline, environ
        )
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except OSError as error:
        raise ShimError(NAMES_UNAVAILABLE, f"{program} cannot be started: {error}") from None
    finally:
        os.close(out)
    if status:
        raise ShimError(NAMES_UNAVAILABLE, f"{program} has failed")
    try:
        os.chmod(f"{directory}/{name_servers.PID_FILE}", FILE_MODE)
    except OSError:
        pass  # it has ended, or has written nothing yet


def spawn(
    command: list[str], out: int, kept: int, environ: Mapping[str, str], stdin: int = -1
) -> int:
    """Start a process that stays, in a session of its own; give its process ID.

    It has `out` as its output, and the descriptor `kept` unless that is -1. A runtime waits for
    its pipes, and locks are in descriptors, so it has no other.
    """
    return os.posix_spawn(
        command[0],
        command,
        environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
            if stdin < 0
            else (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, out, 2),
            *([(os.POSIX_SPAWN_DUP2, kept, kept)] if kept >= 0 else []),
            *child.closings(kept),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=child.DEFAULT_SIGNALS,
    )


def await_start(directory: str) -> bool:
    """Wait until a server runs that another program has started; False where none does."""
    deadline = time.monotonic() + SETTLE
    while not running(directory)[0]:
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE)
    return True


def await_answer(directory: str, servers: list[str], marker: str, *, is_new: bool) -> bool:
    """Wait until the server answers as its files say; False where it does not, or cannot.

    Call it in the netns of the server.
    """
    began = time.monotonic()
    told = began + (SETTLE if is_new else 0)
    while (now := time.monotonic()) < began + SECONDS:
        if any(ask(server, f"{marker}.{DOMAIN}") for server in servers):
            return True
        pid, _ = running(directory)
        if not pid or is_stopped(pid):
            return False
        if now > told + AGAIN:
            tell(directory)
            told = now
        time.sleep(PAUSE)
    return False


def taken(addresses: list[str]) -> list[str]:
    """List those of these addresses on which another program has our port.

    Call it in the netns, while no server of ours runs; one that was killed may still be ending.
    """
    deadline = time.monotonic() + SETTLE
    while found := [each for each in addresses if _is_taken(each)]:
        if time.monotonic() > deadline:
            break
        time.sleep(PAUSE)
    return found


def _is_taken(address: str) -> bool:
    kinds = socket.SOCK_DGRAM, socket.SOCK_STREAM
    return any(_bind(address, PORT, kind) == errno.EADDRINUSE for kind in kinds)


def can_listen(address: str) -> bool:
    """Tell whether an address is one of the netns of this process."""
    return not _bind(address, 0, socket.SOCK_DGRAM)


def _bind(address: str, port: int, kind: int) -> int:
    """Take a port of an address for a moment; give 0, or why not, as in `errno`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        probe = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    except OSError as error:
        return error.errno or errno.EIO  # a kernel without IPv6
    try:
        if kind == socket.SOCK_STREAM:  # connections that have ended are no other program
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        probe.close()
    return 0


def ask(server: str, name: str, kind: str = "A", patience: float = PATIENCE) -> bytes:
    """Ask a server about a name; give its answer if there is such a name, else b""."""
    reply = query(server, name, kind, patience)
    has_any = len(reply) > 12 and not reply[3] & 0xF and reply[6:8] != b"\0\0"
    return reply if has_any else b""


def query(server: str, name: str, kind: str = "A", patience: float = PATIENCE) -> bytes:
    """Send a question over UDP; give the message that comes back, b"" where none does."""
    number = os.urandom(2)
    labels = [label.encode() for label in name.split(".")]
    asked = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    tail = struct.pack("!HH", KINDS[kind], CLASS_IN)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    client = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        client.settimeout(patience)
        client.connect((server, PORT))
        client.sendall(number + b"\1\0\0\1\0\0\0\0\0\0" + asked + tail)
        reply = client.recv(4096)
    except OSError:
        return b""
    finally:
        client.close()
    return reply if reply[:2] == number else b""

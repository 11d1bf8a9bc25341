# SPDX-License-Identifier: Apache-2.0
"""Calling a plugin: find it, run it, read its answer or its error."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time

from .errors import (
    INVALID_NETWORK_CONFIG,
    PLUGIN_MISBEHAVED,
    PLUGIN_TIMED_OUT,
    PluginFailed,
    ShimError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Json = dict[str, Any]

# What a plugin may print, in bytes, before it is taken for broken and ended.
MAXIMUM_OUTPUT = 16 << 20
# A runtime may pass no PATH at all, and plugins call iptables and nft.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Python ignores these, and a parent may have ignored others; a plugin starts as from a shell.
DEFAULT_SIGNALS = [
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGPIPE,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGXFSZ,
]
BUSY_RETRIES = 5
# Two are the most that a plugin has a reason for; each costs a copy of the rest.
MAXIMUM_DOCUMENTS = 8
# What these print in success is nobody's business, and libcni does not look at it.
WITHOUT_ANSWER = ("DEL", "CHECK", "GC", "STATUS")


class Plugin:
    """An executable that speaks the CNI protocol.

    `timeout` is how many seconds one call may take.
    """

    __slots__ = ("path", "timeout", "type")

    def __init__(self, type_: str, search_path: str, timeout: float) -> None:
        """Find it; ShimError (code 7) where no directory of `search_path` (CNI_PATH) has it."""
        self.type = type_
        self.timeout = timeout
        self.path = find(type_, search_path)

    def call(self, verb: str, environ: Mapping[str, str], conf: Json) -> Json | None:
        """Call a verb; give the object it printed, None where it printed nothing.

        Raises PluginFailed with the plugin's own error, ShimError where it gave none.
        """
        status, stdout, stderr = run(
            self.path, _environment(environ, verb), json.dumps(conf).encode(), self
        )
        what = f"plugin {self.type!r} ({verb})"
        try:
            is_ignored = status == 0 and verb in WITHOUT_ANSWER
            answers = [] if is_ignored else documents(stdout.decode())
        except ValueError as error:
            raise ShimError(
                PLUGIN_MISBEHAVED,
                f"{what} {_ending(status)} and printed no JSON",
                _explain(f"{error}; it printed {stdout[:500]!r}", stderr),
            ) from None
        if status:
            raise _failure(what, status, answers, stderr)
        if stderr:
            # As libcni does: the log of a plugin that succeeded belongs to whoever called it.
            try:
                os.write(2, stderr)
            except OSError:
                pass  # whoever does not want to read it has its network all the same
        return answers[-1][0] if answers else None


def _failure(what: str, status: int, answers: list[tuple[Any, str]], stderr: bytes) -> ShimError:
    """Make the error for an exit status that is not zero."""
    if not answers:
        return ShimError(PLUGIN_MISBEHAVED, f"{what} {_ending(status)}", _explain("", stderr))
    # A plugin of the Go library whose netns check fails late has printed its result already.
    error, text = answers[-1]
    if isinstance(error, dict) and isinstance(error.get("code"), int) and "msg" in error:
        details = error.get("details")
        return PluginFailed(
            error["code"], str(error["msg"]), details if isinstance(details, str) else "", text
        )
    return ShimError(
        PLUGIN_MISBEHAVED,
        f"{what} {_ending(status)} and printed no error object",
        _explain(f"it printed {text[:500]}", stderr),
    )


def _ending(status: int) -> str:
    if status < 0:
        try:
            return f"was ended by {signal.Signals(-status).name}"
        except ValueError:
            return f"was ended by signal {-status}"
    return f"failed with exit status {status}" if status else "ended"


def _explain(text: str, stderr: bytes | bytearray) -> str:
    log = stderr[-4000:].decode(errors="replace").strip()
    return "; ".join(part for part in (text, f"stderr: {log}" if log else "") if part)


def find(type_: str, search_path: str) -> str:
    """Find a plugin as libcni does: the first regular file of that name in CNI_PATH."""
    for directory in search_path.split(":"):
        path = f"{directory}/{type_}"
        if directory and os.path.isfile(path):
            return path
    raise ShimError(
        INVALID_NETWORK_CONFIG,
        f"failed to find plugin {type_!r} in path [{search_path}]",
        "install the plugin, or add its directory to CNI_PATH",
    )


def documents(text: str) -> list[tuple[Any, str]]:
    """Split a text into JSON documents, each with its own text; ValueError where it is none."""
    decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
    found: list[tuple[Any, str]] = []
    try:
        while text := text.lstrip(" \t\r\n"):
            if len(found) == MAXIMUM_DOCUMENTS:
                raise ValueError(f"more than {MAXIMUM_DOCUMENTS} documents")
            document, end = decoder.raw_decode(text)
            found.append((document, text[:end]))
            text = text[end:]
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return found


def _finite(digits: str) -> float:
    # Python would write 1e999 and NaN as no JSON can be.
    number = float(digits)
    if number - number != 0:
        raise ValueError(f"{digits[:200]} is not a number of JSON")
    return number


def _environment(environ: Mapping[str, str], verb: str) -> dict[str, str]:
    path = environ.get("PATH", "")
    missing = [d for d in DEFAULT_PATH.split(":") if d not in path.split(":")]
    return {
        **environ,
        "CNI_COMMAND": verb,
        "PATH": ":".join([*filter(None, [path]), *missing]),
    }


def run(
    path: str, environ: dict[str, str], stdin: bytes, plugin: Plugin
) -> tuple[int, bytes, bytes]:
    """Run an executable to its end; give its exit status (negative: a signal), stdout and stderr.

    Its process group is its own, and is killed when the time is over or the output too long. What
    it leaves running in the background is not waited for, even if that holds its stdout.
    """
    pipes = [os.pipe() for _ in range(3)]
    (child_in, to_child), (from_child, child_out), (log, child_log) = pipes
    try:
        pid = _spawn(path, environ, child_in, child_out, child_log)
    except OSError as error:
        for fd in (to_child, from_child, log):
            os.close(fd)
        raise ShimError(
            PLUGIN_MISBEHAVED,
            f"plugin {plugin.type!r} cannot be executed",
            f"{path}: {error.strerror}",
        ) from None
    finally:
        for fd in (child_in, child_out, child_log):
            os.close(fd)
    exchange = _Exchange(pid, to_child, stdin, from_child, log)
    try:
        problem = exchange.finish(plugin.timeout)
    except BaseException:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        exchange.close()
    if problem is not None:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        verb = environ["CNI_COMMAND"]
        code, text = problem
        raise ShimError(
            code,
            f"plugin {plugin.type!r} ({verb}) {text}",
            _explain("it was killed", exchange.read[log]),
        )
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, bytes(exchange.read[from_child]), bytes(exchange.read[log])


def _spawn(path: str, environ: dict[str, str], stdin: int, stdout: int, stderr: int) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate((stdin, stdout, stderr))]
    for attempt in range(BUSY_RETRIES + 1):
        try:
            return os.posix_spawn(
                path,
                [path],
                environ,
                file_actions=actions,
                setpgroup=0,
                setsigmask=[],
                setsigdef=DEFAULT_SIGNALS,
            )
        except OSError as error:
            # Somebody is still writing the file, as while installing it: libcni waits as well.
            if error.errno != errno.ETXTBSY or attempt == BUSY_RETRIES:
                raise
            time.sleep(0.2)
    raise AssertionError


class _Exchange:
    """The conversation with a child: its stdin written, its stdout and stderr read."""

    def __init__(self, pid: int, stdin: int, data: bytes, stdout: int, stderr: int) -> None:
        self.read = {stdout: bytearray(), stderr: bytearray()}
        self._open = {stdin, stdout, stderr}
        self._stdin = stdin
        self._data = memoryview(data)
        self._pidfd = os.pidfd_open(pid)
        for fd in self._open:
            os.set_blocking(fd, False)

    def finish(self, timeout: float) -> tuple[int, str] | None:
        """Go on until the child has ended; give a code and a text where it must be killed."""
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.register(self._stdin, select.POLLOUT)
        for fd in self.read:
            poll.register(fd, select.POLLIN)
        while True:
            remaining = deadline - time.monotonic()
            events = poll.poll(max(0, remaining) * 1000)
            if not events and remaining <= 0:
                return PLUGIN_TIMED_OUT, f"did not end within {timeout:g} s"
            ended = False
            for fd, _ in events:
                if fd == self._pidfd:
                    ended = True
                elif not (self._feed() if fd == self._stdin else self._drain(fd)):
                    poll.unregister(fd)
                    os.close(fd)
                    self._open.remove(fd)
            if any(len(text) > MAXIMUM_OUTPUT for text in self.read.values()):
                return PLUGIN_MISBEHAVED, f"printed more than {MAXIMUM_OUTPUT >> 20} MiB"
            if ended:
                # What it wrote before it ended is in the pipes by now; a descendant that keeps
                # them open is not waited for.
                for fd in self.read:
                    if fd in self._open:
                        self._drain(fd)
                return None

    def _feed(self) -> bool:
        """Write what fits; tell whether there is more to write."""
        try:
            self._data = self._data[os.write(self._stdin, self._data) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False  # it does not want to know; whether that is an error is its own to say
        return len(self._data) > 0

    def _drain(self, fd: int) -> bool:
        """Read what is there; tell whether there may be more."""
        text = self.read[fd]
        try:
            while len(text) <= MAXIMUM_OUTPUT:
                chunk = os.read(fd, 1 << 16)
                if not chunk:
                    return False
                text += chunk
        except BlockingIOError:
            pass
        return True

    def close(self) -> None:
        for fd in (*self._open, self._pidfd):
            os.close(fd)

# SPDX-License-Identifier: Apache-2.0
"""The log of calls, one line a call: many runtimes do not show you the stderr of a plugin.

The keys `logFile` and `logLevel` of a configuration say where it goes. The variable NETNS_SHIM_LOG
says it for all calls, and wins. Each line opens the file, so you can rotate it at any time. A line
is one write(2) with O_APPEND, so lines of calls at the same time do not mix. A failure here is a
warning and never fails a call.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from . import encoding
from .errors import warn, warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .decoding import Json
    from .request import Request

VARIABLE = "NETNS_SHIM_LOG"
# From the lines that are always written to those that are seldom wanted.
LEVELS = ("error", "warning", "info", "debug")
DEFAULT_LEVEL = "info"
# How long one text in a line may be, in characters: a warning can quote the output of a plugin.
MAXIMUM_TEXT = 2000


class _Entry:
    """What is known about the current call."""

    __slots__ = ("began", "level", "names", "path", "problem", "ran", "request", "verb")

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.began = time.monotonic()
        self.path = ""
        self.problem = ""
        self.level = DEFAULT_LEVEL
        self.names = ""
        self.ran: list[str] = []
        self.request: Request | None = None


_entry = _Entry("")


def begin(verb: str, environ: Mapping[str, str]) -> None:
    """Begin the line of a call. `verb` is the caller's word, which may be anything.

    Nothing is written yet: at this point not even stderr need be open.
    """
    global _entry
    _entry = _Entry(verb)
    wanted = environ.get(VARIABLE)
    if wanted:
        level, colon, path = wanted.partition(":")
        if not colon or level.startswith("/"):
            level, path = DEFAULT_LEVEL, wanted
        if level not in LEVELS or not path.startswith("/"):
            levels = "|".join(LEVELS)
            _entry.problem = f"{VARIABLE} must be an absolute path, or {levels}, a colon and one"
        else:
            _entry.path, _entry.level = path, level


def about(request: Request) -> None:
    """Note what the call is about: the first request counts, later ones come from undoing.

    Its configuration need not be checked yet, so that a wrong one is logged as well.
    """
    if _entry.request is not None:
        return
    _entry.request = request
    _entry.verb = request.verb
    _entry.names = ":".join(filter(None, (request.network, request.container_id, request.ifname)))
    path, level = request.conf.get("logFile"), request.conf.get("logLevel", DEFAULT_LEVEL)
    if not _entry.path and isinstance(path, str) and path.startswith("/") and level in LEVELS:
        _entry.path, _entry.level = path, level


def name(names: str) -> None:
    """Note what a call without a request is about."""
    _entry.names = names


def ran(what: str, seconds: float) -> None:
    """Note how long a program has run; `what` is its name in errors."""
    words = what.removeprefix("plugin ").replace("'", "")
    _entry.ran.append(f"{words} {_milliseconds(seconds)}")


def end(outcome: str = "done", *, error: str = "", code: int = 0, answer: str = "") -> None:
    """Write the line, if it is wanted; never raise. `answer` is what the caller got."""
    if _entry.problem:
        warn(_entry.problem)
    if not _entry.path:
        return
    level = "error" if outcome != "done" else "warning" if warnings else "info"
    if LEVELS.index(level) > LEVELS.index(_entry.level):
        return
    try:
        fields = {"code": code or "", "error": error, "outcome": outcome}
        _append(_entry.path, _line(level, answer, fields))
    except (OSError, ValueError) as failure:
        # ValueError: the path holds NUL, or bytes that are no characters.
        why = failure.strerror if isinstance(failure, OSError) else failure
        warn(f"cannot write the log {_entry.path!r}: {why}")


def _line(level: str, answer: str, ending: Json) -> str:
    took = time.monotonic() - _entry.began
    fields: Json = {"pid": os.getpid(), "took": _milliseconds(took), "ran": ", ".join(_entry.ran)}
    if _entry.level == "debug" and _entry.request is not None:
        fields["netns"] = _entry.request.netns
        fields["args"] = _entry.request.args
        fields["path"] = _entry.request.path
        fields["answer"] = answer
    fields["warnings"] = "; ".join(warnings)
    fields |= ending
    words = [_now(), level, _word(_entry.verb) or "-", _word(_entry.names) or "-"]
    words += [f"{name}={_word(value)}" for name, value in fields.items() if value != ""]
    return " ".join(words) + "\n"


def _word(value: str | int) -> str:
    """Write any text so that it is one word: as JSON if need be."""
    text = str(value)
    if all(c.isalnum() or c in "-_.:/+" for c in text) and text.isascii():
        return text if len(text) <= MAXIMUM_TEXT else f"{text[:MAXIMUM_TEXT]}+"
    return encoding.compact(text if len(text) <= MAXIMUM_TEXT else f"{text[:MAXIMUM_TEXT]}…")


def _append(path: str, line: str) -> None:
    # Not through a link that another user may have put there; not to a pipe, which may be full.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if info.st_uid != os.geteuid():
            # That user could read it, and CNI_ARGS may hold secrets.
            raise OSError(errno.EPERM, f"it belongs to user {info.st_uid}")
        data = line.encode("ascii")
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}ms"


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}Z"

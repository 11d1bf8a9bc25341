# SPDX-License-Identifier: Apache-2.0
"""One check in a process of its own: it may enter namespaces, hang or crash there.

The process is told to stop by SIGALRM first, so that it ends what it has started.
"""

from __future__ import annotations

import fcntl
import io
import os
import select
import signal
import sys
import time
from typing import NoReturn

from ... import errors, libc
from .check import PROBLEM, Check, Context, Result, dump, load

# How long a process may take to end what it has started, in seconds.
GRACE = 2.0


class OutOfTime(BaseException):
    """The time of a check is over; `except Exception` must not catch that."""


def look(check: Check, context: Context) -> Result:
    """Do a check and give its result, even if it hangs or crashes."""
    hear, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(check, context, tell)
    os.close(tell)
    try:
        text = _read(hear, check.seconds + GRACE)
    except BaseException:
        os.kill(pid, signal.SIGALRM)
        _end(pid, GRACE)
        raise
    finally:
        os.close(hear)
    status = _end(pid, 0)
    try:
        return load(text)
    except (ValueError, KeyError):
        return _failed(f"its process ended without a word ({status})")


def _child(check: Check, context: Context, tell: int) -> NoReturn:
    result = _failed("it was ended")
    if tell < 3:  # we were started without one of the standard streams
        tell = fcntl.fcntl(tell, fcntl.F_DUPFD_CLOEXEC, 3)
    try:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        sys.stdout = sys.stderr = io.StringIO()
        signal.signal(signal.SIGINT, lambda *_: None)  # our parent handles the terminal's
        signal.signal(signal.SIGALRM, _raise)
        signal.setitimer(signal.ITIMER_REAL, check.seconds)
        libc.become_subreaper()
        errors.warnings.clear()
        result = check.look(context)
        if errors.warnings:
            details = (*result.details, *errors.warnings)
            result = Result(result.status, result.message, result.advice, details)
    except OutOfTime:
        result = Result(PROBLEM, f"the check did not end within {check.seconds:g} s")
    except BaseException as error:
        result = _failed(f"{type(error).__name__}: {error}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _end_children()
        with open(tell, "wb") as file:
            file.write(dump(result))
        os._exit(0)


def _end_children() -> None:
    """End what a program that was asked has left running: it is our child by now.

    unshare(1) leaves a process if it cannot make a user namespace.
    """
    try:
        while pids := _children():
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    except OSError:
        pass  # another user's, or a kernel that does not list children


def _children() -> list[int]:
    pid = os.getpid()
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def _raise(number: int, frame: object) -> NoReturn:
    raise OutOfTime


def _failed(why: str) -> Result:
    return Result(PROBLEM, f"the check itself has failed: {why}", "report this as a bug")


def _read(fd: int, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    text = b""
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            break
        text += chunk
    return text


def _end(pid: int, seconds: float) -> str:
    """End a process, with some time to end by itself; say how it ended.

    A process that hangs in the kernel, and that not even SIGKILL ends, is not waited for.
    """
    pidfd = os.pidfd_open(pid)
    try:
        if not select.select([pidfd], [], [], seconds)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not select.select([pidfd], [], [], GRACE)[0]:
            return "it does not end"
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return f"exit status {code}" if code >= 0 else signal.Signals(-code).name
    finally:
        os.close(pidfd)

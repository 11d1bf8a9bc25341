# SPDX-License-Identifier: Apache-2.0
"""Being a plugin: read a request, get its answer, write it, give the exit status.

It turns an error into an answer, and writes exactly one document to stdout. The stand-in for the
binary `netavark`, which hands on what another program says, does so by the same functions.
"""

from __future__ import annotations

import _signal as signal  # see `child`
import errno
import os
import select
import sys

from . import interrupt, log
from .errors import INTERNAL, INTERRUPTED, IO_FAILURE, ShimError, Stopped, warn, warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Face(Protocol):
        """One call of a caller of plugins, for one wire.

        `verb` is the caller's own word for the operation, which need not make sense.
        """

        verb: str

        def prepare(self) -> bool:
            """Refuse what can be refused before stdin is read; tell whether to read it."""

        def answer(self, text: bytes) -> str:
            """Do what the caller asks for; give the text for stdout."""

        def failure(self, error: ShimError, text: bytes) -> str:
            """Write an error; `text` is what was on stdin."""

        def undo(self) -> None:
            """Undo the operation, because the caller did not get the answer."""


# How many bytes a runtime may send: far more than any configuration has.
MAXIMUM_INPUT = 16 << 20


def serve(face: Face, stdin: int, stdout: int) -> int:
    """Serve one call over open descriptors; give the exit status.

    The face does the work in `answer`, and undoes it if the caller did not get that.
    """
    text = b""
    warnings.clear()
    log.begin(face.verb, os.environ)
    was_open = is_open(stdout)
    try:
        if face.prepare():
            text = read(stdin)
        settle()
        interrupt.heed()
        answer = face.answer(text)
    except Exception as error:
        failure = as_shim_error(error)
        said = str(failure)
        # Callers throw stderr away when a call fails, so the answer has to explain it.
        failure.details = "; ".join(filter(None, [failure.details, *warnings]))
        interrupt.heed_again()  # a caller may not read the answer, and must be able to end us
        deliver(stdout, face.failure(failure, text).encode(), is_open=was_open)
        log.end("failed", error=said, code=failure.code)
        return 1
    if deliver(stdout, answer.encode(), is_open=was_open):
        log.end(answer=answer)
        return 0
    interrupt.disregard()
    try:
        face.undo()
    except Exception as error:
        warn(f"undoing a call without an answer: {as_shim_error(error)}")
    log.end("unheard")
    return 1


def is_open(fd: int) -> bool:
    """Tell whether the caller has left this descriptor open for us."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def deliver(stdout: int, answer: bytes, *, is_open: bool) -> bool:
    """Write an answer; tell whether the caller can have got it.

    `is_open` tells whether there was a stdout before `settle` replaced a missing one.
    """
    try:
        if answer and not is_open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        interrupt.write(stdout, answer, "writing the answer")
    except OSError as error:
        warn(f"the answer cannot be written: {error.strerror}")
        return False
    except Stopped as error:
        warn(str(error))
        return False
    return True


def settle() -> None:
    """Repair what a careless caller passes on: closed streams, an odd umask, SIGCHLD ignored."""
    # Otherwise a file of ours gets the number 2, and the next warning is written into it.
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        pass
    os.close(fd)
    if sys.stderr is None:
        # Otherwise `print` would write to stdout.
        sys.stderr = os.fdopen(2, "w", errors="backslashreplace", closefd=False)
    # Otherwise no process, not even ours, might be able to use the files we make.
    os.umask(os.umask(0o077) & ~0o700)
    # Otherwise the kernel reaps our children, and we cannot learn how they ended, wait(2).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def as_shim_error(error: Exception) -> ShimError:
    """Turn any failure into one with a code: 5 for the kernel's, 999 for an unexpected one."""
    if isinstance(error, ShimError):
        return error
    if isinstance(error, OSError):
        details = [str(error.filename or "")]
        if error.errno in (errno.EMFILE, errno.ENFILE):
            details += ["raise the limit of open files (ulimit -n)"]
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename:
            details += ["make room on its file system"]
        what = error.strerror or str(error)
        return ShimError(IO_FAILURE, what, "; ".join(filter(None, details)))
    if isinstance(error, Stopped):
        return ShimError(INTERRUPTED, str(error))
    if isinstance(error, MemoryError):
        return ShimError(IO_FAILURE, "not enough memory")
    if isinstance(error, ModuleNotFoundError):
        return ShimError(
            IO_FAILURE,
            f"the Python package {error.name!r} is missing",
            "install it, or netns-shim with pip, then call `netns-shim install` again",
        )
    if _is_of_import(error):
        return ShimError(
            IO_FAILURE,
            f"Python cannot load a module: {type(error).__name__}: {error}",
            "raise the limits of open files and memory (ulimit -n, -v) if they are low; "
            "else remove the directories __pycache__ of netns_shim, or install it again",
        )
    # As `traceback` does, which imports eight modules more.
    sys.excepthook(type(error), error, error.__traceback__)
    return ShimError(INTERNAL, "this is a bug in netns-shim", f"{type(error).__name__}: {error}")


def _is_of_import(error: Exception) -> bool:
    """Tell whether a file of a module was the reason: it is damaged, or cannot be loaded now."""
    if isinstance(error, (ImportError, SyntaxError)):
        return True
    if isinstance(error, ValueError) and "null bytes" in str(error):
        return True  # what a power cut leaves of a source, before Python 3.12
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and "importlib" in place.tb_frame.f_code.co_filename


def read(fd: int) -> bytes:
    """Read a descriptor to its end; refuse more than any caller has a reason to send."""
    chunks = []
    size = 0
    while chunk := _read(fd):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAXIMUM_INPUT:
            raise ShimError(IO_FAILURE, f"more than {MAXIMUM_INPUT >> 20} MiB on stdin")
    return b"".join(chunks)


def _read(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, 1 << 16)
        except BlockingIOError:
            _wait(fd)  # a caller may have a pipe that does not block


def _wait(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll()

# SPDX-License-Identifier: Apache-2.0
"""Being a plugin: read a request, have it answered, write the answer, give the exit status.

This is the one place where an error becomes an answer. Exactly one document is written to stdout.
"""

from __future__ import annotations

import os
import signal
import sys

from .errors import INTERNAL, IO_FAILURE, ShimError, warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Face(Protocol):
        """One call of whoever calls plugins, by whichever wire."""

        def prepare(self) -> bool:
            """Refuse what can be refused before stdin is read; tell whether it is to be."""

        def answer(self, text: bytes) -> str:
            """Do what is asked for; give what goes to stdout."""

        def failure(self, error: ShimError, text: bytes) -> str:
            """Write an error; `text` is what was on stdin."""


# What a runtime may send, in bytes: far more than any configuration has.
MAXIMUM_INPUT = 16 << 20


def serve(face: Face, stdin: int, stdout: int) -> int:
    """Serve one call over open descriptors; give the exit status."""
    text = b""
    warnings.clear()
    try:
        if face.prepare():
            text = read(stdin)
        settle()
        answer = face.answer(text)
    except Exception as error:
        failure = as_shim_error(error)
        # Callers throw stderr away where a call fails; what explains it has to be in the answer.
        failure.details = "; ".join(filter(None, [failure.details, *warnings]))
        write(stdout, face.failure(failure, text).encode())
        return 1
    write(stdout, answer.encode())
    return 0


def settle() -> None:
    """Make up for what a careless caller has left us: closed streams, and SIGCHLD ignored."""
    # Else a file of ours gets the number 2, and the next warning is written into it.
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        pass
    os.close(fd)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)  # else `print` would take stdout
    # Else the kernel reaps our children, and nobody learns how they have ended, wait(2).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def as_shim_error(error: Exception) -> ShimError:
    """Turn any failure into one with a code: 5 for the kernel's, 999 for the unexpected."""
    if isinstance(error, ShimError):
        return error
    if isinstance(error, OSError):
        return ShimError(IO_FAILURE, f"{error.strerror}", str(error.filename or ""))
    if isinstance(error, ModuleNotFoundError):
        return ShimError(
            IO_FAILURE,
            f"the Python package {error.name!r} is missing",
            "install it, or netns-shim with pip, then call `netns-shim install` again",
        )
    # As `traceback` does, which imports eight modules more.
    sys.excepthook(type(error), error, error.__traceback__)
    return ShimError(INTERNAL, "this is a bug in netns-shim", f"{type(error).__name__}: {error}")


def read(fd: int) -> bytes:
    """Read a descriptor to its end; refuse more than anybody has a reason to send."""
    chunks = []
    size = 0
    while chunk := os.read(fd, 1 << 16):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAXIMUM_INPUT:
            raise ShimError(IO_FAILURE, f"more than {MAXIMUM_INPUT >> 20} MiB on stdin")
    return b"".join(chunks)


def write(fd: int, data: bytes) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(fd, data) :]

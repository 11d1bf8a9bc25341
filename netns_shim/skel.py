# SPDX-License-Identifier: Apache-2.0
"""Being a plugin: read a request, call a verb, write the answer, give the exit status.

This is the one place that makes error JSON. Exactly one document is written to stdout.
"""

from __future__ import annotations

import os
import signal
import sys

from . import cni
from .errors import INTERNAL, IO_FAILURE, ShimError, warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

# What a runtime may send, in bytes: far more than any configuration has.
MAXIMUM_INPUT = 16 << 20


def serve(
    load_verbs: Callable[[], ModuleType], environ: Mapping[str, str], stdin: int, stdout: int
) -> int:
    """Serve one call of a CNI runtime over open descriptors; give the exit status.

    `load_verbs` imports the verbs, which VERSION does without.
    """
    text = b""
    warnings.clear()
    try:
        verb = cni.check_environment(environ)
        text = _read(stdin)
        if verb == "VERSION":
            _write(stdout, cni.version_answer(text))
            return 0
        request = cni.parse(environ, text)
        _settle()
        result = getattr(load_verbs(), VERBS[verb])(request)
        answer = "" if result is None else cni.format_result(result)
    except Exception as error:
        failure = as_shim_error(error)
        # libcni throws stderr away where a call fails; what explains it has to be in the answer.
        failure.details = "; ".join(filter(None, [failure.details, *warnings]))
        _write(stdout, cni.format_error(failure, cni.spoken_version(text)))
        return 1
    _write(stdout, answer)
    return 0


def _settle() -> None:
    """Make up for what a careless caller has left us: closed streams, and SIGCHLD ignored."""
    # Else a file of ours gets the number 2, and the next warning is written into it.
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        pass
    os.close(fd)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)  # else `print` would take stdout
    # Else the kernel reaps our children, and nobody learns how they have ended, wait(2).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


VERBS = {"ADD": "add", "DEL": "delete", "CHECK": "check", "GC": "gc", "STATUS": "status"}


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


def _read(fd: int) -> bytes:
    chunks = []
    size = 0
    while chunk := os.read(fd, 1 << 16):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAXIMUM_INPUT:
            raise ShimError(IO_FAILURE, f"more than {MAXIMUM_INPUT >> 20} MiB on stdin")
    return b"".join(chunks)


def _write(fd: int, text: str) -> None:
    data = text.encode()
    while data:
        data = data[os.write(fd, data) :]

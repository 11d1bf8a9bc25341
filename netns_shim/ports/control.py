# SPDX-License-Identifier: Apache-2.0
"""The socket by which an uplink changes its ports."""

from __future__ import annotations

import _socket as socket  # see `mappings`
import os
import struct
import time

from .. import enter
from ..errors import PORT_UNAVAILABLE, ShimError
from ..shared.background import CONTROL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..state import State

# How long an uplink may take to answer, in seconds; one that answers at all takes milliseconds.
SECONDS = 2.0


class Ended(ShimError):
    """No uplink listens on the socket any more: it has ended, and its ports with it."""


class Beside:
    """Being in the directory of the socket, as a context: its path may be too long, unix(7)."""

    __slots__ = ("_directory", "_here")

    def __init__(self, state: State) -> None:
        self._directory = state.dir

    def __enter__(self) -> None:
        self._here = enter.open_cwd()
        os.chdir(self._directory)

    def __exit__(self, *_: object) -> None:
        os.fchdir(self._here)
        os.close(self._here)


def ask(state: State, request: bytes) -> bytes:
    """Make a connection, send a request if there is one, and give the answer.

    Without a request, it is the first part of what the uplink says by itself. Raises ShimError
    (code 106) where the uplink does not answer: Ended where it has ended.
    """
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    deadline = time.monotonic() + SECONDS
    try:
        with Beside(state):
            _limit(client, deadline).connect(CONTROL)
        if not request:
            return _limit(client, deadline).recv(4096)
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while part := _limit(client, deadline).recv(1 << 16):
            answer += part
        return answer
    except BlockingIOError:
        raise silent(state, f"no answer within {SECONDS:g} s") from None
    except ConnectionRefusedError as error:
        raise silent(state, str(error), Ended) from None
    except OSError as error:
        raise silent(state, str(error)) from None
    finally:
        client.close()


def _limit(client: socket.socket, deadline: float) -> socket.socket:
    """Have the next call of a socket end in time, with EAGAIN.

    It is not `settimeout`: an uplink serves one client at a time, and lets one more wait. With
    that, connect(2) does not wait for a place, but fails.
    """
    rest = deadline - time.monotonic()
    if rest <= 0:
        raise BlockingIOError
    value = struct.pack("ll", int(rest), max(1, int(rest % 1 * 1e6)))  # struct timeval
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        client.setsockopt(socket.SOL_SOCKET, option, value)
    return client


def silent(state: State, why: str, kind: type[ShimError] = ShimError) -> ShimError:
    """Make the error for an uplink that does not answer."""
    return kind(
        PORT_UNAVAILABLE,
        f"the uplink of the shared netns {state.name!r} does not change its ports",
        f"{why}: `netns-shim refresh` starts it again",
    )

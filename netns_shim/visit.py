# SPDX-License-Identifier: Apache-2.0
"""A look into another network namespace, by a child: to enter one is one-way."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

from .errors import UPLINK_FAILED, ShimError
from .libc import CLONE_NEWNET, setns

if TYPE_CHECKING:
    from collections.abc import Callable


def visit(pin: str, function: Callable[[], Any]) -> Any:
    """Give what a function gives in a netns, by way of JSON.

    Raises ShimError (code 102) where the netns cannot be entered, or the function fails.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
            setns(fd, CLONE_NEWNET, pin)
            answer = {"result": function()}
        except Exception as error:
            answer = {"error": str(error)}
        theirs.sendall(json.dumps(answer).encode())
        os._exit(0)
    theirs.close()
    with ours, ours.makefile("rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    answer = json.loads(text or '{"error": "the process was killed"}')
    if "error" in answer:
        raise ShimError(UPLINK_FAILED, f"cannot look into the netns {pin}", answer["error"])
    return answer["result"]

# SPDX-License-Identifier: Apache-2.0
"""A look into another network namespace, by a child: entering one is one-way."""

from __future__ import annotations

import os

from .. import decoding, encoding
from ..errors import UPLINK_FAILED, ShimError
from ..libc import CLONE_NEWNET, setns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def run_in(pin: str, function: Callable[[], Any]) -> Any:
    """Run a function in a netns; give its answer, which has to be JSON.

    Raises ShimError (code 102) where the netns cannot be entered, or the function fails.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
            setns(fd, CLONE_NEWNET, pin)
            answer = {"result": function()}
        except Exception as error:
            answer = {"error": str(error)}
        with open(writer, "wb") as file:
            file.write(encoding.compact(answer).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    answer = decoding.one(text or '{"error": "the process was killed"}')
    if "error" in answer:
        raise ShimError(UPLINK_FAILED, f"cannot look into the netns {pin}", answer["error"])
    return answer["result"]

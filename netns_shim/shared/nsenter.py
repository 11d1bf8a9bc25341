# SPDX-License-Identifier: Apache-2.0
"""A look into other namespaces, by a child: entering a network namespace is one-way."""

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

    def go() -> None:
        fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
        setns(fd, CLONE_NEWNET, pin)

    return ask_child(go, function, UPLINK_FAILED, f"cannot look into the netns {pin}")


def ask_child(go: Callable[[], None], function: Callable[[], Any], code: int, what: str) -> Any:
    """Run a function in a child that has called `go` first; give its answer, which has to be JSON.

    Raises ShimError with this code, and `what` as its message, where one of the two fails.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            go()
            answer = encoding.compact({"result": function()})
        except Exception as error:
            answer = encoding.compact({"error": str(error)})
        try:
            with open(writer, "wb") as file:
                file.write(answer.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    answer = decoding.one(text or '{"error": "the process was killed"}')
    if "error" in answer:
        raise ShimError(code, what, answer["error"])
    return answer["result"]

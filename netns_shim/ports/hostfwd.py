# SPDX-License-Identifier: Apache-2.0
"""The uplink itself opens the ports: the API socket of slirp4netns(1), which knows IPv4 only.

Containers see the address of the client, but for one at 127.0.0.1: that is 10.0.2.2 there.
"""

from __future__ import annotations

from .. import decoding, encoding
from ..errors import PORT_UNAVAILABLE, ShimError
from . import control
from .mappings import ANY4
from .publisher import Publisher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..decoding import Json
    from ..state import State
    from .mappings import Binding


class HostForward(Publisher):
    """The forwarded ports of a slirp4netns."""

    driver = "slirp4netns"

    def __init__(self, state: State) -> None:
        self._state = state

    def open(self, wanted: Sequence[Binding]) -> None:
        """Open ports. Raises ShimError (code 106) where one cannot be, and leaves none open."""
        try:
            for binding in wanted:
                self._open(binding)
        except ShimError:
            self.close(wanted)
            raise

    def _open(self, binding: Binding) -> None:
        problem = "slirp4netns opens ports on IPv4 only"
        if ":" not in binding.address:
            answer = self._ask(
                "add_hostfwd",
                proto=binding.protocol,
                host_addr=binding.address or ANY4,
                host_port=binding.port,
                guest_port=binding.inside,
            )
            if "error" not in answer:
                return
            error = answer["error"]
            problem = error.get("desc", "") if isinstance(error, dict) else str(error)
        raise ShimError(PORT_UNAVAILABLE, f"cannot publish {binding}", f"{problem}")

    def close(self, wanted: Sequence[Binding]) -> None:
        """Close ports; it does not matter whether they are open.

        Raises ShimError (code 106) where slirp4netns does not answer.
        """
        keys = {(b.protocol, b.address or ANY4, b.port) for b in wanted}
        for entry in self._entries():
            if (entry["proto"], entry["host_addr"], entry["host_port"]) in keys:
                self._ask("remove_hostfwd", id=entry["id"])

    def _entries(self) -> list[Json]:
        try:
            answer = self._ask("list_hostfwd")
        except control.Ended:
            return []  # it was killed at this moment
        # The manual page has the list below `return`, release 1.2 has not.
        inner = answer.get("return", answer)
        entries = inner.get("entries") if isinstance(inner, dict) else None
        keys = {"id", "proto", "host_addr", "host_port"}
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and keys <= entry.keys() for entry in entries
        ):
            raise control.silent(self._state, "it does not list them")
        return entries

    def _ask(self, command: str, **arguments: str | int) -> Json:
        """Make one request, which is one connection, and give the answer."""
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        text = control.ask(self._state, encoding.compact(request).encode())
        try:
            answer = decoding.one(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise control.silent(self._state, f"it answers {text[:100]!r}")
        return answer

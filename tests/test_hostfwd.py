# SPDX-License-Identifier: Apache-2.0
"""hostfwd: ports by the API of slirp4netns, for which a small server stands in.

The real one is asked in test_ports.py.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from ports import serving, shared

from netns_shim.errors import PORT_UNAVAILABLE, ShimError
from netns_shim.ports.hostfwd import HostForward
from netns_shim.ports.mappings import Binding
from netns_shim.state import State

WANTED = [Binding("tcp", "", 8080, 8080), Binding("udp", "127.0.0.1", 53, 49152)]


@pytest.fixture
def state(tmp_path: Path) -> State:
    """Make the files of a shared netns whose uplink is a slirp4netns."""
    return shared(tmp_path, driver="slirp4netns")


class Api:
    """The API: what is forwarded, by ID. `taken` are ports of the host that others have.

    `nests` tells that a list is below `return`, as the manual page has it.
    """

    def __init__(self, *taken: int, nests: bool = False) -> None:
        self.entries: list[dict[str, Any]] = []
        self.taken = taken
        self.nests = nests
        self._last = 0

    def serve(self, client: socket.socket) -> None:
        """Answer one request."""
        text = b""
        while part := client.recv(1000):
            text += part
        client.sendall(json.dumps(self._answer(**json.loads(text))).encode())

    def _answer(self, execute: str, arguments: dict[str, Any] | None = None) -> Any:
        if execute == "list_hostfwd":
            found = {"entries": self.entries}
            return {"return": found} if self.nests else found
        assert arguments is not None
        if execute == "remove_hostfwd":
            self.entries = [e for e in self.entries if e["id"] != arguments["id"]]
            return {"return": {}}
        if arguments["host_port"] in self.taken:
            return {"error": {"desc": "bad request: add_hostfwd: slirp_add_hostfwd failed"}}
        self._last += 1
        self.entries.append({"id": self._last, **arguments})
        return {"return": {"id": self._last}}


@pytest.mark.parametrize("nests", [False, True])
def test_open_and_close(state: State, nests: bool) -> None:
    """Ports are opened, and closed without those of others; twice is no error."""
    api = Api(nests=nests)
    with serving(state, api.serve):
        HostForward(state).open([Binding("tcp", "", 9090, 9090)])
        HostForward(state).open(WANTED)
        opened = list(api.entries)
        for _ in range(2):
            HostForward(state).close(WANTED)

    assert [(e["proto"], e["host_addr"], e["host_port"], e["guest_port"]) for e in opened] == [
        ("tcp", "0.0.0.0", 9090, 9090),
        ("tcp", "0.0.0.0", 8080, 8080),
        ("udp", "127.0.0.1", 53, 49152),
    ]
    assert [entry["host_port"] for entry in api.entries] == [9090]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (Binding("tcp", "", 666, 666), "slirp_add_hostfwd failed"),
        (Binding("tcp", "::1", 80, 80), "slirp4netns opens ports on IPv4 only"),
    ],
)
def test_refused_port(state: State, bad: Binding, why: str) -> None:
    """One port that cannot be opened fails with the reason, and leaves none open."""
    api = Api(666)
    with (
        serving(state, api.serve),
        pytest.raises(ShimError, match=f"cannot publish .*{bad.port}/tcp") as raised,
    ):
        HostForward(state).open([*WANTED, bad])

    assert raised.value.code == PORT_UNAVAILABLE
    assert why in raised.value.details
    assert api.entries == []


@pytest.mark.parametrize("said", [b"", b"no JSON", b"[]", b'{"return": 7}', b'{"entries": [7]}'])
def test_answer_that_makes_no_sense(state: State, said: bytes) -> None:
    """An answer that is not what the API has is an error of ours."""

    def answer(client: socket.socket) -> None:
        while client.recv(1000):
            pass
        client.sendall(said)

    with serving(state, answer), pytest.raises(ShimError, match="does not change its ports"):
        HostForward(state).close(WANTED)

# SPDX-License-Identifier: Apache-2.0
"""control: an uplink is asked over its socket, and no call waits for long."""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ports import serving, shared

from netns_shim.errors import PORT_UNAVAILABLE, ShimError
from netns_shim.ports import control


def echo(client: socket.socket) -> None:
    """Send back what a client sends until it has ended its request."""
    while part := client.recv(100):
        client.sendall(part)


def greet(client: socket.socket) -> None:
    """Speak first, and wait until the client has gone."""
    client.sendall(b"hello")
    client.recv(1)


def test_answer_is_all_that_is_said(tmp_path: Path) -> None:
    """A request gets the whole answer, however long it is."""
    state = shared(tmp_path)
    request = b"x" * 300_000
    said: list[bytes] = []

    def answer(client: socket.socket) -> None:
        while part := client.recv(1 << 16):
            said.append(part)
        client.sendall(request)

    with serving(state, answer):
        assert control.ask(state, request) == request
    assert b"".join(said) == request


def test_greeting_without_a_request(tmp_path: Path) -> None:
    """Without a request, the answer is what the uplink says by itself."""
    state = shared(tmp_path)
    with serving(state, greet):
        assert control.ask(state, b"") == b"hello"


def test_calls_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """An uplink that has one client at a time answers all of many."""
    state = shared(tmp_path)
    with serving(state, echo):
        here = os.getcwd()
        os.chdir(state.dir)
        try:
            with ThreadPoolExecutor(16) as pool:  # threads have one working directory: this one
                answers = list(pool.map(lambda n: control.ask(state, b"%d" % n), range(16)))
        finally:
            os.chdir(here)

    assert answers == [b"%d" % n for n in range(16)]


@pytest.mark.parametrize("request_", [b"", b"request"])
def test_silence_is_an_error_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: bytes
) -> None:
    """An uplink that takes the connection and says nothing is an error that says what to do."""
    monkeypatch.setattr(control, "SECONDS", 0.2)
    state = shared(tmp_path)
    over = threading.Event()

    def wait(_: socket.socket) -> None:
        over.wait(20)

    began = time.monotonic()
    with serving(state, wait):
        with pytest.raises(ShimError, match="'default' does not change its ports") as raised:
            control.ask(state, request_)
        took = time.monotonic() - began
        over.set()

    assert raised.value.code == PORT_UNAVAILABLE
    assert raised.value.details == "no answer within 0.2 s: `netns-shim refresh` starts it again"
    assert 0.2 <= took < 2


def test_drops_are_an_error_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An uplink that goes on answering without an end is an error as well."""
    monkeypatch.setattr(control, "SECONDS", 0.3)
    state = shared(tmp_path)

    def drip(client: socket.socket) -> None:
        try:
            while True:
                client.sendall(b"x")
        except OSError:
            pass  # the client has gone

    with serving(state, drip), pytest.raises(ShimError, match="does not change its ports"):
        control.ask(state, b"request")


def test_full_queue_is_an_error_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An uplink that accepts no client at all is an error too: connecting ends."""
    monkeypatch.setattr(control, "SECONDS", 0.1)
    state = shared(tmp_path)
    path = f"{state.dir}/control"
    with (
        socket.socket(socket.AF_UNIX) as server,
        socket.socket(socket.AF_UNIX) as first,
    ):
        server.bind(path)
        server.listen(0)
        first.connect(path)

        with pytest.raises(ShimError, match=r"no answer within 0\.1 s"):
            control.ask(state, b"request")


def test_missing_socket_is_an_error(tmp_path: Path) -> None:
    """Where there is no socket, or nothing listens on it, the error says so."""
    state = shared(tmp_path)
    with pytest.raises(ShimError, match="No such file"):
        control.ask(state, b"")

    with serving(state, echo):
        pass

    with pytest.raises(ShimError, match="refused"):
        control.ask(state, b"")


def test_long_path(tmp_path: Path) -> None:
    """A path that is too long for a socket is no problem, and the working directory stays."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    state = shared(directory)
    here = os.getcwd()
    with serving(state, echo):
        assert control.ask(state, b"request") == b"request"

    assert os.getcwd() == here

# SPDX-License-Identifier: Apache-2.0
"""probe: whether ports of the host are free, found out with real sockets."""

from __future__ import annotations

import socket

import pytest

from netns_shim.errors import PORT_UNAVAILABLE, ShimError
from netns_shim.ports.mappings import Binding, Port
from netns_shim.ports.probe import Probe


def refusal(port: Port, *families: int) -> ShimError | None:
    """Probe a port, and ask for it in some families, with 0 for a socket of both."""
    probe = Probe([port])
    addresses = {4: "0.0.0.0", 6: "::", 0: ""}
    try:
        for family in families:
            address = port.host_ip or addresses[family]
            probe.check([Binding(port.protocol, address, port.host_port, port.inside)])
    except ShimError as error:
        return error
    return None


@pytest.mark.parametrize(("kind", "protocol"), [("STREAM", "tcp"), ("DGRAM", "udp")])
def test_taken_port(kind: str, protocol: str) -> None:
    """A port that a program has is refused with the program, in the families that it has."""
    with socket.socket(socket.AF_INET, getattr(socket, f"SOCK_{kind}")) as taken:
        taken.bind(("0.0.0.0", 0))
        if protocol == "tcp":
            taken.listen()
        number = taken.getsockname()[1]
        port = Port(protocol, "", number, 80)

        error = refusal(port, 4)
        assert error
        assert error.code == PORT_UNAVAILABLE
        assert f"0.0.0.0:{number}/{protocol}" in error.message
        assert "(PID " in error.details
        assert refusal(port, 0)
        assert refusal(port, 6) is None
    assert refusal(port, 0) is None


def test_reserved_port_without_a_server() -> None:
    """A port that is bound and not listened on is taken as well."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = refusal(Port("tcp", "127.0.0.1", taken.getsockname()[1], 80), 4)

    assert error
    assert error.details == "it is in use by a process that does not use it"


def test_connections_of_before() -> None:
    """A port whose last connection is not forgotten yet is free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", number)) as client:
            server.accept()[0].close()  # the side that closes first is the one that waits
            assert client.recv(1) == b""

    assert refusal(Port("tcp", "127.0.0.1", number, 80), 4) is None


def test_address_of_another_host() -> None:
    """An address that the host does not have is refused."""
    error = refusal(Port("tcp", "203.0.113.77", 8080, 80), 4)

    assert error
    assert error.details == "the host does not have this address"

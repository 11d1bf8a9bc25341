# SPDX-License-Identifier: Apache-2.0
"""listed: ports of the shared netns itself, as the key `publish` writes them."""

from __future__ import annotations

import pytest

from netns_shim.ports import listed


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("8080", ["8080/tcp>8080"]),
        ("8080:80", ["8080/tcp>80"]),
        ("53:5353/udp", ["53/udp>5353"]),
        ("127.0.0.1:8080:80/tcp", ["127.0.0.1:8080/tcp>80"]),
        ("[::1]:8080", ["[::1]:8080/tcp>8080"]),
        ("8000-8001:90-91", ["8000/tcp>90", "8001/tcp>91"]),
        ("8000-8001:90", ["8000/tcp>90", "8001/tcp>91"]),
    ],
)
def test_form(text: str, ports: list[str]) -> None:
    """An entry is a port or a range; address, port inside and protocol are optional."""
    assert [f"{port}>{port.inside}" for port in listed.parse(text)] == ports


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http", "is no"),
        ("80/sctp", "is no"),
        ("0", "from 1 to 65535"),
        ("65536", "from 1 to 65535"),
        ("65535:65536", "from 1 to 65535"),
        ("9-8", "is empty"),
        ("8-9:1-3", "not of one length"),
        ("300.0.0.1:80", "is not an IP address"),
        ("[no]:80", "is not an IP address"),
    ],
)
def test_wrong_entry(text: str, problem: str) -> None:
    """What is wrong with an entry is said."""
    with pytest.raises(ValueError, match=problem):
        listed.parse(text)

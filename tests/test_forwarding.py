# SPDX-License-Identifier: Apache-2.0
"""What pasta is told to forward, by what the host's resolv.conf says and by its release."""

from __future__ import annotations

from pathlib import Path

import pytest

from netns_shim import hostnet
from netns_shim.shared import forwarding, resolvconf
from netns_shim.shared.forwarding import Forwarding

FORWARDERS = ("169.254.1.1", "fd6e:7368:696d::53")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the files of the host into a directory of the test's own; the link's name is eth0."""
    monkeypatch.setattr(resolvconf, "RESOLV_CONF", str(tmp_path / "host"))
    monkeypatch.setattr(resolvconf, "BEHIND_STUBS", (str(tmp_path / "behind"),))
    monkeypatch.setattr(hostnet, "is_on_default_link", lambda server: server.endswith("%eth0"))
    return tmp_path


def told(files: Path, *servers: str, is_old: bool = False, names_host: bool = True) -> Forwarding:
    """Tell a pasta about a host with these servers."""
    (files / "host").write_text("".join(f"nameserver {server}\n" for server in servers))
    host = resolvconf.HostNames()
    if is_old:
        return forwarding.of_old_pasta(host, FORWARDERS)
    return forwarding.of_pasta(host, FORWARDERS, names_host=names_host)


def test_server_that_containers_can_ask(files: Path) -> None:
    """It is not forwarded to: rules lead there. A resolver of the host's may come later."""
    found = told(files, "192.0.2.53")

    assert found.options == ["--dns-forward", FORWARDERS[0], "--dns-forward", FORWARDERS[1]]
    assert found.newest == ["--dns-host", "127.0.0.1"]
    assert found.forwards == ["udp 127.0.0.1", "tcp 127.0.0.1"]
    assert found.passed_on == "none"


@pytest.mark.parametrize("resolver", ["127.0.0.53", "127.0.0.1"])
def test_resolver_on_the_loopback(files: Path, resolver: str) -> None:
    """pasta finds it by itself."""
    found = told(files, resolver, "::1", "192.0.2.53")

    assert found.newest == []
    asked = (resolver, "::1")
    assert found.forwards == [f"{kind} {one}" for one in asked for kind in ("udp", "tcp")]


def test_server_of_a_link(files: Path) -> None:
    """pasta can ask it only on the link of its default route, and has to be told."""
    assert "fe80::53" in told(files, "fe80::53%eth0").newest
    assert "udp fe80::53%eth0" in told(files, "fe80::53%eth0").forwards
    assert "fe80::53" not in told(files, "fe80::53%eth1").newest
    assert "udp fe80::53%eth1" not in told(files, "fe80::53%eth1").forwards


def test_pasta_that_cannot_be_told(files: Path) -> None:
    """One of before October 2024 asks what it finds itself, without zones."""
    found = told(files, "127.0.0.53", "fe80::53%eth0", names_host=False)

    assert found.newest == []
    assert found.forwards == ["udp 127.0.0.53", "tcp 127.0.0.53"]


def test_old_pasta_and_a_server_that_containers_can_ask(files: Path) -> None:
    """A forwarder would make its answers come from a wrong address."""
    found = told(files, "192.0.2.53", "2001:db8::53", is_old=True)

    assert (found.options, found.forwards, found.passed_on) == ([], [], "none")


def test_old_pasta_and_a_resolver_on_the_loopback(files: Path) -> None:
    """It forwards over UDP, and passes on the port over TCP, unless there is a server behind."""
    alone = told(files, "127.0.0.1", is_old=True)
    (files / "behind").write_text("nameserver 192.0.2.53\n")
    behind = told(files, "127.0.0.1", is_old=True)

    assert alone.options == behind.options == ["--dns-forward", FORWARDERS[0]]
    assert (alone.passed_on, alone.forwards) == ("53", ["udp 127.0.0.1", "local 127.0.0.1"])
    assert (behind.passed_on, behind.forwards) == ("none", ["udp 127.0.0.1"])

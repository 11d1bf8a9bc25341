# SPDX-License-Identifier: Apache-2.0
"""What pasta is told of its interface, beside the options of a user."""

from __future__ import annotations

import pytest

from netns_shim import hostnet
from netns_shim.shared import tap

NAMED = ["-I", "tap0"]
FOUR = ["-a", tap.ADDRESS4, "-n", tap.LENGTH4, "-g", tap.GATEWAY4]
SIX = ["-a", tap.ADDRESS6, "-g", tap.GATEWAY6]
MAC = ["-M", tap.MAC]
LO = ["-i", "lo"]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a host has: `ipv6` unless it is turned off, and an interface with a link-local one."""
    facts = {"ipv6": "on", "interface": "wlan0"}
    monkeypatch.setattr(hostnet, "has_ipv6", lambda: facts["ipv6"] == "on")
    monkeypatch.setattr(hostnet, "link_local_interface", lambda: facts["interface"])
    return facts


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], [*NAMED, *LO, *FOUR, *SIX, *MAC]),
        (["--mtu", "1400"], [*NAMED, *LO, *FOUR, *SIX, *MAC]),
        (["-I", "up"], [*LO, *FOUR, *SIX, *MAC]),
        (["--ns-ifname=up"], [*LO, *FOUR, *SIX, *MAC]),
        (["-4"], [*NAMED, *LO, *FOUR, *MAC]),
        (["--ipv6-only"], [*NAMED, *LO, *SIX, *MAC]),
        (["-M", "02:00:00:00:00:01"], [*NAMED, *LO, *FOUR, *SIX]),
        (["-a", "192.0.2.1"], NAMED),
        (["-a192.0.2.1"], NAMED),
        (["--address=192.0.2.1"], NAMED),
        (["-n", "16"], NAMED),
        (["--gateway", "192.0.2.1"], NAMED),
        (["-i", "eth0", "-Iup"], []),
        (["--no-copy-routes"], NAMED),
    ],
)
def test_options_win(host: dict[str, str], options: list[str], told: list[str]) -> None:
    """Who says one thing about addresses is taken to say all; the name and the MAC are apart."""
    assert tap.arguments(options, is_old=False) == told


def test_an_old_pasta_takes_an_interface_for_ipv6(host: dict[str, str]) -> None:
    """It is told one that has a link-local address, and has IPv4 only where there is none."""
    found = tap.arguments([], is_old=True)
    host["interface"] = ""
    without = tap.arguments([], is_old=True)

    assert found == [*NAMED, "-i", "wlan0", *FOUR, *SIX, *MAC]
    assert without == [*NAMED, *LO, *FOUR, *SIX, *MAC]


def test_ipv6_that_is_turned_off(host: dict[str, str]) -> None:
    """Then pasta is told to do without, once."""
    host["ipv6"] = "off"

    assert tap.arguments([], is_old=True) == [*NAMED, *LO, *FOUR, "-4", *MAC]
    assert tap.arguments(["-4"], is_old=False) == [*NAMED, *LO, *FOUR, *MAC]


def test_without_network(host: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A pasta that copies nothing is told an interface only if it would find none."""
    routes = ["default"]
    monkeypatch.setattr(hostnet, "look", lambda _: {"routes": routes})

    with_one = tap.without_network()
    routes.clear()
    without = tap.without_network()

    assert with_one == []
    assert without == ["-i", "wlan0", "-g", tap.GATEWAY4, "-g", tap.GATEWAY6, *MAC]

# SPDX-License-Identifier: Apache-2.0
"""The rules that lead from a shared netns to the host, as nft(8) reads them."""

from __future__ import annotations

import socket

import bench
import pytest

from netns_shim import hostnet
from netns_shim.shared import hostward
from netns_shim.shared.nsenter import run_in

OTHER = "table ip other { chain c { }; }\n"
RULES = """
table inet netns-shim-host {
    chain arriving {
        type nat hook prerouting priority -101
        meta nfproto ipv4 ip daddr 169.254.1.2 dnat ip to 198.51.100.2
        meta nfproto ipv6 ip6 daddr fd00::2 dnat ip6 to 2001:db8::2
    }
    chain leaving {
        type nat hook output priority -101
        meta nfproto ipv4 ip daddr 169.254.1.2 dnat ip to 198.51.100.2
        meta nfproto ipv6 ip6 daddr fd00::2 dnat ip6 to 2001:db8::2
    }
}
"""
SHOW = ["/usr/sbin/nft", "list", "ruleset"]


def test_rules(session: bench.Session) -> None:
    """They are what is meant, replace those of before, and touch no others."""
    wanted = [("169.254.1.2", "198.51.100.2"), ("fd00::2", "2001:db8::2")]
    with session.container() as container, session.container() as expected:
        expected.run(["/usr/sbin/nft", "-f", "-"], input=OTHER + RULES, check=True)
        container.run(["/usr/sbin/nft", "-f", "-"], input=OTHER, check=True)
        run_in(container.netns, lambda: hostward.lead([("169.254.1.2", "192.0.2.1")]))
        run_in(container.netns, lambda: hostward.lead(wanted))

        found, meant = (c.run(SHOW, check=True).stdout for c in (container, expected))
    assert found == meant


def test_a_host_without_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of its addresses will do, but for loopback."""
    monkeypatch.setattr(hostward, "_source", lambda _: "")
    monkeypatch.setattr(hostnet, "own_addresses", lambda: ["127.0.0.1", "192.0.2.9"])

    assert hostward.pairs(["169.254.1.2", "fd00::2"]) == [("169.254.1.2", "192.0.2.9")]


def test_addresses_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each leads to the host's own of its family; what is no address, or has none, to nothing."""
    own = {socket.AF_INET: "192.0.2.9", socket.AF_INET6: ""}
    monkeypatch.setattr(hostward, "_source", own.get)

    found = hostward.pairs(["169.254.1.2", "fd00::2", "none"])

    assert found == [("169.254.1.2", "192.0.2.9")]

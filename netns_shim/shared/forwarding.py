# SPDX-License-Identifier: Apache-2.0
"""How pasta is told to forward questions about names to the host's servers.

It forwards to the first server of each family that it finds in the host's resolv.conf when it
starts. We want that only for servers that nothing but the host can ask: see `names`.
"""

from __future__ import annotations

from .. import hostnet
from . import resolvconf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .resolvconf import HostNames

# The resolver that it may be told to ask, if the host has none on its loopback yet.
LOOPBACK = "127.0.0.1"
PORT = "53"
# As pasta's `passed_on`: no port of the host's loopback.
NO_PORT = "none"


class Forwarding:
    """Options for a pasta, and what they make it do.

    `options` are for every release, `newest` for those of October 2024 and later. `passed_on` is
    the port of the host's loopback that it passes on. `link` is the interface of the host on which
    it asks, if its server is a link-local address. For `forwards` see `names.plan`.
    """

    __slots__ = ("forwards", "link", "newest", "options", "passed_on")

    def __init__(self, forwards: list[str]) -> None:
        self.forwards = forwards
        self.link = ""
        self.newest = list[str]()
        self.options = list[str]()
        self.passed_on = NO_PORT

    def forward(self, forwarder: str, server: str, protocols: Iterable[str]) -> None:
        """Add the options for one forwarder; `server` is "" if it has nothing to ask yet."""
        self.options += ["--dns-forward", forwarder]
        self.forwards += [f"{protocol} {server}" for protocol in protocols if server]


def of_pasta(host: HostNames, forwarders: tuple[str, ...], *, names_host: bool) -> Forwarding:
    """Tell how to start a pasta that forwards over UDP and TCP.

    `names_host` is whether it knows `--dns-host`, which names the server that it asks.
    """
    told = Forwarding([])
    for forwarder in forwarders:
        is_ipv6 = ":" in forwarder
        server = _first(host, forwarder)
        if names_host and is_ipv6 and hostnet.is_on_default_link(server):
            address, _, told.link = server.partition("%")
            told.newest += ["--dns-host", address]
        elif names_host and not is_ipv6 and not resolvconf.is_loopback(server):
            server = LOOPBACK
            told.newest += ["--dns-host", server]
        told.forward(forwarder, "" if _is_lost(server, told) else server, ("udp", "tcp"))
    return told


def _is_lost(server: str, told: Forwarding) -> bool:
    """Tell whether a server needs the zone of a link, and pasta has not been told of it."""
    return "%" in server and server.partition("%")[0] not in told.newest


def of_old_pasta(host: HostNames, forwarders: tuple[str, ...]) -> Forwarding:
    """Tell how to start a pasta of before August 2024, which forwards over UDP only.

    One of before March 2024 lets each answer of the server come from the forwarder, also where
    another address was asked, and NAT drops such an answer. So it must not forward to a server
    that containers can ask by its own address. TCP gets to a resolver at 127.0.0.1 by another way.
    """
    told = Forwarding([])
    for forwarder in forwarders:
        server = _first(host, forwarder)
        if resolvconf.is_loopback(server):
            told.forward(forwarder, server, ["udp"])
        if server == LOOPBACK and all(":" in one for one in host.servers):
            told.passed_on = PORT
            told.forwards.append(f"local {server}")
    return told


def _first(host: HostNames, forwarder: str) -> str:
    """Give the first server of a forwarder's family, or ""."""
    return next((one for one in host.listed if (":" in one) == (":" in forwarder)), "")

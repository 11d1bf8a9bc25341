# SPDX-License-Identifier: Apache-2.0
"""The address of a client, as a container sees it: the tables of docs/how-to/ports.md."""

from __future__ import annotations

import bench
import pytest
from bench import HOST, HOST6, PAGE, PAGE6
from ports import answering, ask, mapping, publishing, runtime
from runtime import DUAL

pytestmark = pytest.mark.netns
UPLINKS = ["pasta", "slirp4netns", "none"]
BRIDGE, SLIRP, UPLINK = "10.89.0.1", "10.0.2.2", "198.19.110.114"
# What a container sees where its publisher is a pasta of its own: an address of the publisher's
# interface, or with the pasta of Debian 12 that of the bridge.
INSIDE = ("169.254.", BRIDGE, "fd6e:6574:6e73::")


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("uplink", UPLINKS)
def test_address_of_the_client(
    world: bench.World, session: bench.Session, uplink: str, kind: str
) -> None:
    """A container sees the addresses of the tables, of clients over IPv4 and IPv6."""
    client = runtime(session, *DUAL, uplink=uplink)
    ports = publishing(mapping(8080, protocol=kind))
    with session.container() as container, answering(world, container):
        client.succeed("ADD", "web", container.netns, conf=ports)
        publisher = client.status()[0]["references"][0]["publisher"]["driver"]
        four = {
            "outside": ask(world.internet, HOST, 8080, kind),
            "own": ask(world, HOST, 8080, kind),
            "loopback": ask(world, "127.0.0.1", 8080, kind, patience=2),
        }
        six = {}
        if publisher != "slirp4netns":
            six["outside"] = ask(world.internet, HOST6, 8080, kind)
            six["own"] = ask(world, HOST6, 8080, kind)
        client.succeed("DEL", "web", container.netns, conf=ports)

    outside = {"outside": PAGE, "own": HOST, "loopback": HOST}
    if publisher == "slirp4netns":
        assert four == {**outside, "loopback": SLIRP if kind == "tcp" else "silent"}
    elif publisher == "pesto":
        assert four == {**outside, "loopback": UPLINK}
        assert six == {"outside": PAGE6, "own": HOST6}
    else:
        assert four.pop("loopback").startswith(INSIDE)
        assert four == {"outside": PAGE, "own": HOST}
        assert six == {"outside": PAGE6, "own": HOST6}
    assert world.leftovers() == []


@pytest.mark.parametrize("uplink", UPLINKS)
def test_other_containers(world: bench.World, session: bench.Session, uplink: str) -> None:
    """Another container of the same or another network reaches the port, if there is a way out."""
    client = runtime(session, uplink=uplink)
    other = runtime(session, "10.95.0.0/24", uplink=uplink, bridge_name="cni1", name="other")
    with (
        session.container() as web,
        session.container() as peer,
        session.container() as stranger,
        answering(world, web),
    ):
        client.succeed("ADD", "web", web.netns, conf=publishing(mapping(8080)))
        client.succeed("ADD", "peer", peer.netns)
        other.succeed("ADD", "stranger", stranger.netns)
        patience = 0 if uplink == "none" else 2
        found = {ask(place, HOST, 8080, patience=patience) for place in (peer, stranger)}
        itself = ask(web, HOST, 8080, patience=0)
        other.succeed("DEL", "stranger", stranger.netns)
        client.succeed("DEL", "peer", peer.netns)
        client.succeed("DEL", "web", web.netns)

    if uplink == "none":
        assert [answer for answer in found if answer[:1].isdigit()] == []
    else:
        assert found == {HOST}
    assert (itself == HOST) == (uplink != "none")
    assert world.leftovers() == []

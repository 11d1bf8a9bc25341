# SPDX-License-Identifier: Apache-2.0
"""Published ports as people and runtimes see them, with the real programs."""

from __future__ import annotations

import json
from typing import Any

import bench
import pytest
from bench import HOST
from ports import mapping, publishing, runtime
from runtime import DUAL, PLUGIN, Runtime, kill_publisher

pytestmark = pytest.mark.netns
TAKE = "import socket; s = socket.create_server(('', 8080)); print(flush=True); input()"
UPLINKS = ["pasta", "slirp4netns", "none"]
PORTS = publishing(mapping(8080), mapping(5353, 53, "udp", HOST))


def attached(client: Runtime) -> dict[str, Any]:
    """Give the facts about the only attachment."""
    (entry,) = client.status()[0]["references"]
    found: dict[str, Any] = entry
    return found


def states(client: Runtime) -> dict[int, Any]:
    """Give the state of each port of the only attachment."""
    return {port["hostPort"]: port["state"] for port in attached(client)["ports"]}


def is_content(client: Runtime, netns: str) -> bool:
    """Tell whether CHECK finds nothing wrong before it calls the plugins, or with them.

    portmap 1.1.1 looks for the rules of IPv4 in the tables of IPv6, for every caller.
    """
    done = client.call("CHECK", "web", netns, conf=PORTS)
    return done.returncode == 0 or "could not check ipv6 dnat" in done.stdout


@pytest.mark.parametrize("uplink", UPLINKS)
def test_open_ports(world: bench.World, session: bench.Session, uplink: str) -> None:
    """With each uplink, open ports and their publisher are shown, and CHECK is content."""
    client = runtime(session, *DUAL, uplink=uplink)
    with session.container() as container:
        client.succeed("ADD", "web", container.netns, conf=PORTS)
        entry, inside = attached(client), states(client)
        tree, shown, graph = (
            session.run([PLUGIN, *words], check=True).stdout
            for words in (["status"], ["show", "web"], ["graph"])
        )
        # From outside of the session, less may be seen, and nothing else than what is so.
        outside = json.loads(world.run([PLUGIN, "status", "--json"], check=True).stdout)
        checked = is_content(client, container.netns)
        client.succeed("DEL", "web", container.netns, conf=PORTS)

    assert checked
    assert inside == {8080: "open", 5353: "open"}
    publisher = entry["publisher"]
    assert (publisher["alive"], publisher["driver"] in ("pasta", "pesto", uplink)) == (True, True)
    for text in (tree, shown, graph):
        assert ":8080 → web:80/tcp" in text
        assert f"{HOST}:5353 → web:53/udp" in text
    assert f"  publisher     {publisher['driver']} (PID {publisher['pid']})\n" in shown
    ports = outside["netns"][0]["references"][0]["ports"]
    assert {port["state"] for port in ports} <= {"open", None}
    assert world.leftovers() == []


def test_ports_without_publisher(world: bench.World, session: bench.Session) -> None:
    """After the end of a publisher its ports are closed, or refused: CHECK fails and says why."""
    client = runtime(session, *DUAL, uplink="none")
    with session.container() as container:
        client.succeed("ADD", "web", container.netns, conf=PORTS)
        kill_publisher(attached(client)["publisher"]["pid"])
        closed, error = states(client), client.fail("CHECK", "web", container.netns, conf=PORTS)
        client.succeed("STATUS", conf={"cniVersion": "1.1.0"})
        with session.popen(["python3", "-c", TAKE], stdin=-1, stdout=-1) as taker:
            taker.stdout.readline()
            refused = states(client)
            drawn = session.run([PLUGIN, "status"], check=True).stdout
            taken = client.fail("CHECK", "web", container.netns, conf=PORTS)
            taker.communicate("\n")
        session.run([PLUGIN, "refresh"], check=True)
        again = states(client)
        checked = is_content(client, container.netns)
        client.succeed("DEL", "web", container.netns, conf=PORTS)

    assert closed == {8080: "closed", 5353: "closed"}
    assert error["code"] == taken["code"] == 106
    assert error["msg"].endswith(f"on the host: 8080/tcp, {HOST}:5353/udp")
    assert refused == {8080: "refused", 5353: "closed"}
    assert "refused: python3 (PID " in drawn
    assert "8080/tcp is in use by python3 (PID " in taken["details"]
    assert again == {8080: "open", 5353: "open"}
    assert checked
    assert world.leftovers() == []

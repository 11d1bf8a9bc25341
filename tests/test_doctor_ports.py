# SPDX-License-Identifier: Apache-2.0
"""`netns-shim doctor` about published ports: those that are recorded, and those of a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import bench
import pytest
from diagnosis import FAKES, Fakes, ask, ask_in, hide
from ports import PORTMAP, mapping, publishing, runtime
from runtime import bridge, kill_publisher

TAKE = "import socket; s = socket.create_server(('', 8080)); print(flush=True); input()"
NAMED = {"capabilities": {"portMappings": True}}
CHAIN = {"plugins": [bridge(), PORTMAP], **NAMED}
PASTA = "/usr/bin/pasta"


@pytest.fixture
def fakes(world: bench.World) -> Iterator[Fakes]:
    """A place for files of networks."""
    fakes = Fakes(world)
    yield fakes
    fakes.remove()


def write(fakes: Fakes, **keys: Any) -> str:
    """Write a network of one entry into a file; give its path."""
    entry = {"type": "netns-shim", **keys}
    network = {"cniVersion": "1.0.0", "name": "net", "plugins": [entry]}
    fakes.add("conf.json", json.dumps(network), mode=0o644)
    return f"{FAKES}/conf.json"


def of_file(place: bench.Place, fakes: Fakes, **keys: Any) -> dict[str, Any]:
    """Ask about the ports of a network of one entry."""
    return ask(place, "--conf", write(fakes, **keys))["its ports"]


def said(found: dict[str, Any]) -> str:
    """Put together what was found."""
    return "\n".join([found["message"], *found["details"]])


def test_nothing_is_published(session: bench.Session) -> None:
    """Where no port is published, there is nothing to look at."""
    found = ask(session)["published ports"]

    assert (found["result"], found["message"]) == ("skipped", "no port is published")


def test_recorded_ports(world: bench.World, session: bench.Session) -> None:
    """Open ports are well; without their publisher they are a warning that says what to do."""
    client = runtime(session, uplink="none")
    ports = publishing(mapping(8080), mapping(8081, protocol="udp"))
    with session.container() as container:
        client.succeed("ADD", "web", container.netns, conf=ports)
        inside, outside = ask(session)["published ports"], ask(world)["published ports"]
        kill_publisher(client.status()[0]["references"][0]["publisher"]["pid"])
        closed = ask(session)["published ports"]
        with session.popen(["python3", "-c", TAKE], stdin=-1, stdout=-1) as taker:
            taker.stdout.readline()
            taken = ask(session)["published ports"]
            taker.communicate("\n")
        client.succeed("DEL", "web", container.netns)

    assert (inside["result"], inside["message"]) == ("ok", "2 ports are published, and open")
    assert outside["result"] == "ok"
    assert (closed["result"], closed["message"]) == (
        "warning",
        "default: 2 published ports are not open on the host: 8080/tcp, 8081/udp",
    )
    assert closed["advice"] == "`netns-shim refresh` opens it again"
    assert taken["advice"].startswith("8080/tcp is in use by python3 (PID ")
    assert world.leftovers() == []


@pytest.mark.parametrize(
    ("keys", "result", "words"),
    [
        ({"delegate": bridge()}, "skipped", "the network takes no port mappings"),
        ({**CHAIN, "publish": False}, "skipped", "`publish` is false"),
        ({"delegate": bridge(), **NAMED}, "ok", "opened on the host"),
        ({"plugins": [bridge()], **NAMED}, "warning", "and no plugin takes them"),
        ({"plugins": [bridge(), PORTMAP]}, "warning", "no runtime will give port mappings"),
        ({**CHAIN, "uplink": "pasta"}, "ok", "port mappings of the runtime are opened"),
        ({**CHAIN, "uplink": "slirp4netns"}, "ok", "opened by the uplink, with slirp4netns"),
        ({**CHAIN, "uplink": "none"}, "ok", "opened by a pasta of its own for each container ("),
        ({"delegate": bridge(), "publish": ["8080"]}, "ok", "the listed ports are free"),
        ({"delegate": bridge(), "publish": ["80"]}, "problem", "80/tcp of the host cannot be"),
    ],
)
def test_configuration(
    session: bench.Session, fakes: Fakes, keys: Any, result: str, words: str
) -> None:
    """It is told whether port mappings come to a plugin, what opens them, and what is free."""
    found = of_file(session, fakes, **keys)

    assert found["result"] == result
    assert words in said(found)


def test_listed_port_that_is_low(session: bench.Session, fakes: Fakes) -> None:
    """A listed port that is for root is a problem, with what root can do."""
    found = of_file(session, fakes, delegate=bridge(), publish=["127.0.0.1:80:8080/tcp"])

    assert "net.ipv4.ip_unprivileged_port_start=80" in found["advice"]


def test_listed_port_that_is_taken(session: bench.Session, fakes: Fakes) -> None:
    """A listed port that another program has is a problem that names it."""
    with session.popen(["python3", "-c", TAKE], stdin=-1, stdout=-1) as taker:
        taker.stdout.readline()
        found = of_file(session, fakes, delegate=bridge(), publish=["8080:80"])
        taker.communicate("\n")

    assert (found["result"], "python3 (PID " in found["advice"]) == ("problem", True)


def test_listed_ports_that_are_open(session: bench.Session, fakes: Fakes) -> None:
    """What the shared netns has open itself is no problem; another list comes too late."""
    client = runtime(session, publish=["8080:80"])
    with session.container() as container:
        client.succeed("ADD", "web", container.netns)
        same = of_file(session, fakes, delegate=bridge(), publish=["8080:80"])
        other = of_file(session, fakes, delegate=bridge(), publish=["8081:80"])
        whole = ask(session)["published ports"]
        client.succeed("DEL", "web", container.netns)

    assert same["result"] == "ok"
    assert other["result"] == "warning"
    assert "was made without this list" in other["message"]
    assert whole["message"] == "1 port is published, and open"


def test_no_program_opens_ports(world: bench.World, fakes: Fakes) -> None:
    """Where no program can open ports, that is a problem, and its cure is named."""
    path = write(fakes, **CHAIN, uplink="none")

    found = ask_in(world, hide(PASTA), "--conf", path)["its ports"]

    assert found["result"] == "problem"
    assert '"publish" to false' in found["advice"]


def test_in_place(world: bench.World, fakes: Fakes) -> None:
    """Where plugins work in place, the owner of the netns publishes."""
    assert of_file(world.root, fakes, **CHAIN)["result"] == "skipped"

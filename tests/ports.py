# SPDX-License-Identifier: Apache-2.0
"""What tests of published ports share: a runtime that publishes, a server, and clients."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import bench
import places
from runtime import Runtime, bridge

from netns_shim.attachment import ReferenceName
from netns_shim.records import UplinkRecord
from netns_shim.shared import register
from netns_shim.state import MARK, State

PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
# The ports of an `answerer`: on the first it speaks first.
FIRST, OTHER = 25, 80
ASKER = (bench.INSIDE / "asker").read_text()


class Startable(Protocol):
    """A place in which a program can be started."""

    def popen(self, argv: Sequence[object], *, stdin: int, stdout: int) -> places.Child:
        """Start it, with pipes."""


def mapping(
    host: int, to: int = OTHER, protocol: str = "tcp", address: str = ""
) -> dict[str, Any]:
    """Write a port mapping as runtimes do."""
    made = {"hostPort": host, "containerPort": to, "protocol": protocol}
    return {**made, "hostIP": address} if address else made


def publishing(*mappings: dict[str, Any]) -> dict[str, Any]:
    """Write what a runtime adds to a configuration for ports."""
    return {"runtimeConfig": {"portMappings": list(mappings)}}


def runtime(place: bench.Place, *subnets: str, bridge_name: str = "cni0", **keys: Any) -> Runtime:
    """Make a runtime with a bridge and portmap, and with further keys of the shim."""
    chain = [bridge(*(subnets or ("10.89.0.0/24",)), name=bridge_name), PORTMAP]
    return Runtime(place, plugins=chain, capabilities={"portMappings": True}, **keys)


@contextmanager
def answering(world: bench.World, container: Startable) -> Iterator[None]:
    """Run a server in a container that answers with the address of its client."""
    world.provide(bench.INSIDE / "answerer")
    command = [f"{bench.TYPED}/answerer", str(FIRST), str(OTHER)]
    server = container.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout.readline() == "ready\n"
    try:
        yield
    finally:
        server.stdin.close()
        server.wait(10)
        server.stdout.close()


def ask(
    place: bench.Place, address: str, port: int, kind: str = "tcp", *, patience: float = 15
) -> str:
    """Ask a server from a place; give the client's address as the server sees it, or what failed.

    `patience` is how many seconds to try again for, where an answer is expected.
    """
    # As text: not every place has the files of the tests.
    command = ["/usr/bin/python3", "-I", "-", kind, address, port, patience]
    return place.run(command, input=ASKER, check=True).stdout.strip()


def listening(world: bench.World) -> set[str]:
    """List the ports that are open on the machine, such as `tcp 0.0.0.0:8080`."""
    lines = world.root.run(["ss", "--no-header", "-lntu"], check=True).stdout.splitlines()
    found = set()
    for line in lines:
        protocol, state, _, _, address = line.split()[:5]
        if state in ("LISTEN", "UNCONN"):
            found.add(f"{protocol} {address}")
    return found


def shared(directory: Path, **uplink: Any) -> State:
    """Make the files of a shared netns, with keys of the record of its uplink; no netns."""
    state = State(str(directory), "default")
    os.makedirs(state.refs, 0o700)
    for made in (state.base, state.dir):
        os.chmod(made, 0o700)
    for name in (MARK, "uplink.log"):
        Path(state.path(name)).touch()
    register.write(state, UplinkRecord({"driver": "none", **uplink}))
    return state


def attached(state: State, container_id: str) -> ReferenceName:
    """Make the empty reference of a container."""
    name = ReferenceName.of("net", container_id, "eth0", ["bridge"])
    Path(state.refs, name.file).touch()
    return name


@contextmanager
def serving(state: State, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """With a control socket in place of an uplink's, as slow with clients: one after the other."""
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(".", os.O_PATH)
        os.chdir(state.dir)
        server.bind("control")
        os.fchdir(here)
        os.close(here)
        server.listen(0)

        def work() -> None:
            while True:
                try:
                    client = server.accept()[0]
                except OSError:
                    return  # the end of the test
                with client:
                    serve(client)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)

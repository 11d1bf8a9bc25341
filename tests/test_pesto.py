# SPDX-License-Identifier: Apache-2.0
"""pesto: the table of a pasta is changed as a whole, and what is refused is gone at once.

A small program stands in for pesto, and a socket for that of pasta. Where the real ones are
installed, the last tests ask these.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bench
import pytest
from fakes import executable
from ports import mapping, publishing, runtime, serving, shared

from netns_shim import errors
from netns_shim.errors import PORT_UNAVAILABLE, ShimError
from netns_shim.ports import control
from netns_shim.ports.mappings import Binding
from netns_shim.ports.pesto import Pesto
from netns_shim.state import State

# It keeps the rules in a file; a pasta that cannot open one says so in its log. As the real one,
# it adds all or none, and deletes all or none.
PESTO = """#!/usr/bin/python3 -IS
import json, os, signal, sys

directory = os.path.dirname(sys.argv[0])
if os.path.exists(directory + "/hanging"):
    signal.pause()
action, *words, path = sys.argv[1:]
assert os.path.lexists(path)
rules = list(zip(words[::2], words[1::2]))
try:
    table = [tuple(rule) for rule in json.load(open(directory + "/table"))]
except FileNotFoundError:
    table = []
with open(directory + "/calls", "a") as calls:
    calls.write(action + "\\n")
if action == "-A":
    table += rules
    if len(table) > 255:
        sys.exit("Too many rules (maximum 255)")
    if any("8666" in text for _, text in table):
        with open("uplink.log", "a") as log:
            log.write("0.5: WARNING: Listen failed for HOST TCP port */8666: Address in use\\n")
for kind, text in rules if action == "-D" else ():
    if (kind, text) not in table:
        sys.exit(f"Couldn't find forwarding rule to delete: {text}")
    table.remove((kind, text))
json.dump(table, open(directory + "/table", "w"))
"""


@pytest.fixture
def state(tmp_path: Path) -> State:
    """Make the files of a shared netns whose uplink is a pasta."""
    return shared(tmp_path, driver="pasta")


@pytest.fixture
def pesto(state: State, tmp_path: Path) -> Pesto:
    """Make a publisher with the stand-in."""
    return Pesto(state, str(executable(tmp_path / "pesto", PESTO)))


def greet(client: socket.socket) -> None:
    """Speak first, as pasta does when it is ready for a change."""
    client.sendall(b"hello")


def bindings(*ports: int) -> list[Binding]:
    """Want some ports of TCP to be open."""
    return [Binding("tcp", "", port, port) for port in ports]


def table(directory: Path) -> list[list[str]]:
    """Read the rules that are there."""
    rules: list[list[str]] = json.loads((directory / "table").read_text())
    return rules


def test_open_and_close(state: State, pesto: Pesto, tmp_path: Path) -> None:
    """Ports are opened and closed in one call each, and the rules of others stay."""
    wanted = [*bindings(80, 81), Binding("udp", "192.0.2.1", 53, 49152)]
    with serving(state, greet):
        pesto.open(bindings(9090))
        pesto.open(wanted)
        opened = table(tmp_path)
        pesto.close(wanted)

    assert opened == [["-t", "9090"], ["-t", "80-81"], ["-u", "192.0.2.1/53:49152"]]
    assert table(tmp_path) == [["-t", "9090"]]
    assert (tmp_path / "calls").read_text().split() == ["-A", "-A", "-D"]


def test_uplink_that_has_ended(state: State, tmp_path: Path) -> None:
    """A pasta that was just killed has no port open, so closing succeeds without a word."""
    refused = executable(tmp_path / "pesto", "#!/bin/sh\necho Connection refused >&2; exit 1\n")
    with serving(state, greet):
        pass  # the socket is left

    Pesto(state, str(refused)).close(bindings(80, 82))

    assert errors.warnings == []


def test_nothing_to_open(state: State, pesto: Pesto, tmp_path: Path) -> None:
    """Without ports pesto is not called at all."""
    with serving(state, greet):
        pesto.open([])
        pesto.close([])

    assert not (tmp_path / "calls").exists()


def test_refused_rule_is_gone_at_once(state: State, pesto: Pesto, tmp_path: Path) -> None:
    """A port that pasta cannot open fails with its reason, and its rule does not stay."""
    Path(state.path("uplink.log")).write_text("0.1: Listen failed for an earlier port\n")
    with serving(state, greet):
        pesto.open(bindings(9090))
        with pytest.raises(ShimError, match="cannot publish 8666/tcp, 8668/tcp") as raised:
            pesto.open(bindings(8666, 8668))

    assert (raised.value.code, raised.value.details) == (
        PORT_UNAVAILABLE,
        "HOST TCP port */8666: Address in use",
    )
    assert table(tmp_path) == [["-t", "9090"]]


def test_refused_rule_spoils_no_other_call(state: State, pesto: Pesto, tmp_path: Path) -> None:
    """Calls that open ports at the same time do not see what is refused to one of them."""
    here = os.getcwd()
    os.chdir(state.dir)  # threads have one working directory
    try:
        with serving(state, greet), ThreadPoolExecutor(8) as pool:
            calls = {n: pool.submit(pesto.open, bindings(n)) for n in (8666, *range(9001, 9008))}
            failed = [number for number, call in calls.items() if call.exception()]
    finally:
        os.chdir(here)

    assert failed == [8666]
    assert sorted(rule[1] for rule in table(tmp_path)) == [str(n) for n in range(9001, 9008)]


def test_missing_rule_on_close(state: State, pesto: Pesto, tmp_path: Path) -> None:
    """Ports that are not open are no error, and those that are get closed."""
    with serving(state, greet):
        pesto.open(bindings(80, 82))
        for _ in range(2):
            pesto.close(bindings(80, 82, 84))

    assert table(tmp_path) == []
    assert errors.warnings == []


def test_too_many_rules(state: State, pesto: Pesto, tmp_path: Path) -> None:
    """What pesto itself refuses is in the error, and nothing is open."""
    with serving(state, greet):
        pesto.open(bindings(80))
        with pytest.raises(ShimError, match=r"cannot publish 1000/tcp.*, …") as raised:
            pesto.open(bindings(*range(1000, 1600, 2)))

    assert raised.value.details == "Too many rules (maximum 255)"
    assert table(tmp_path) == [["-t", "80"]]


@pytest.mark.parametrize("what", ["open", "close"])
def test_hanging_pesto(
    state: State, pesto: Pesto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A pesto that does not end is killed in time, and the error says what to do."""
    monkeypatch.setattr(control, "SECONDS", 0.2)
    (tmp_path / "hanging").touch()
    began = time.monotonic()

    with pytest.raises(ShimError, match="does not change its ports") as raised:
        getattr(pesto, what)(bindings(80))

    assert raised.value.code == PORT_UNAVAILABLE
    assert "`netns-shim refresh` starts it again" in raised.value.details
    assert time.monotonic() - began < 2


def test_pasta_that_does_not_greet(
    state: State, pesto: Pesto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pasta that pesto has told, and that does nothing then, is an error."""
    monkeypatch.setattr(Pesto, "_call", lambda *_: "")  # as if pesto had ended well
    monkeypatch.setattr(control, "SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(state.path("control"))
        server.listen(10)

        with pytest.raises(ShimError, match="does not change its ports"):
            pesto.open(bindings(80))


def test_missing_pesto(state: State) -> None:
    """A program that is gone is an error that names it."""
    with pytest.raises(ShimError, match="/missing/pesto: No such file"):
        Pesto(state, "/missing/pesto").open(bindings(80))


@pytest.fixture
def real(world: bench.World) -> None:
    """Skip a test where pasta comes without pesto."""
    if world.run(["sh", "-c", "command -v pesto"]).returncode:
        pytest.skip("pasta has no pesto here")


@pytest.mark.usefixtures("real")
def test_real_pasta_that_hangs(world: bench.World, session: bench.Session) -> None:
    """With an uplink that is stopped an ADD fails soon, and `refresh` makes all well again."""
    client = runtime(session)
    with session.container() as one, session.container() as other:
        client.succeed("ADD", "one", one.netns, conf=publishing(mapping(8001)))
        record = json.loads(world.path(f"{world.state_dir}/default/uplink.json").read_text())
        os.kill(record["pid"], signal.SIGSTOP)  # the kernel takes connections for it
        began = time.monotonic()
        error = client.fail("ADD", "two", other.netns, conf=publishing(mapping(8002)))
        took = time.monotonic() - began
        kept = list(world.path(f"{world.state_dir}/default/refs").glob("*:two:*"))
        session.run(["/opt/netns-shim/bin/netns-shim", "refresh"], check=True)
        client.succeed("ADD", "two", other.netns, conf=publishing(mapping(8002)))
        client.succeed("DEL", "two", other.netns)
        client.succeed("DEL", "one", one.netns)

    assert error["code"] == PORT_UNAVAILABLE
    assert "`netns-shim refresh` starts it again" in error["details"]
    assert took < 2 * control.SECONDS + 3
    assert kept, "pasta may open the port when it goes on: a DEL has to close it"
    assert world.leftovers() == []


@pytest.mark.usefixtures("real")
def test_real_pasta_that_refuses(world: bench.World, session: bench.Session) -> None:
    """What the real pasta refuses, the real pesto takes back."""
    state = f"{world.state_dir}/default"
    client = runtime(session)
    script = (
        "import sys, socket; from netns_shim.errors import ShimError\n"
        "from netns_shim.state import State; from netns_shim.ports.mappings import Binding\n"
        "from netns_shim.ports.pesto import Pesto\n"
        "pesto = Pesto(State(*sys.argv[1].rsplit('/', 1)), '/usr/bin/pesto')\n"
        "bindings = [Binding('tcp', '', n, n) for n in (8001, 8003)]\n"
        "with socket.create_server(('', 8003)):\n"
        "    try:\n"
        "        pesto.open(bindings)\n"
        "    except ShimError as error:\n"
        "        print(error)\n"
        "pesto.open(bindings)\n"
        "pesto.close(bindings)\n"
        "pesto.close(bindings)\n"
    )
    with session.container() as container:
        client.succeed("ADD", "one", container.netns)
        python = "/opt/netns-shim/bin/python3"
        done = session.run([python, "-c", script, state], check=True)
        rules = session.run(["pesto", f"{state}/control"], check=True).stdout
        client.succeed("DEL", "one", container.netns)

    assert "cannot publish 8001/tcp, 8003/tcp" in done.stdout
    assert "Address already in use" in done.stdout
    assert "800" not in rules
    assert done.stderr == ""

# SPDX-License-Identifier: Apache-2.0
"""Which published ports are open: found with real sockets, for records of every kind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from netns_shim.attachment import AttachmentRecord, ReferenceName
from netns_shim.errors import PORT_UNAVAILABLE, ShimError
from netns_shim.ports import holders, look
from netns_shim.proc import start_time
from netns_shim.records import UplinkRecord
from netns_shim.shared import register
from netns_shim.state import State

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
NAME = ReferenceName.of("net", "web", "eth0", ["bridge"])
LISTEN = (
    "import socket, sys; s = socket.socket(); s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen();"
    "print(s.getsockname()[1], flush=True); input()"
)


@contextmanager
def bound(protocol: str = "tcp", address: str = "0.0.0.0", port: int = 0) -> Iterator[int]:
    """With a socket of this process that waits for clients; give its port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, KINDS[protocol]) as server:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind((address, port))
        if protocol == "tcp":
            server.listen()
        yield server.getsockname()[1]


@contextmanager
def another(*before: str, port: int = 0) -> Iterator[tuple[int, int]]:
    """With another process that listens on 127.0.0.1; give its ID and the port."""
    argv = [*before, sys.executable, "-ISc", LISTEN, str(port)]
    with subprocess.Popen(argv, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout
        yield process.pid, int(process.stdout.readline())
        process.communicate("\n")


@contextmanager
def free() -> Iterator[int]:
    """Give a port on which no program listens; it stays bound, so that none takes it."""
    with socket.socket() as keeper:
        keeper.bind(("0.0.0.0", 0))
        yield keeper.getsockname()[1]


def uplink(pid: int | None = None, **keys: Any) -> UplinkRecord:
    """Write the record of an uplink that is this process, in this netns."""
    pid = pid or os.getpid()
    here = os.stat("/proc/self/ns/net").st_ino
    return UplinkRecord(
        {
            "driver": "pasta",
            "pid": pid,
            "startTime": start_time(pid),
            "hostNetns": here,
            "addresses": ["192.0.2.7"],
            **keys,
        }
    )


def recorded(port: int, protocol: str = "tcp", address: str = "", to: int = 80) -> dict[str, Any]:
    """Write a port for a record."""
    return {
        "protocol": protocol,
        "hostIP": address,
        "hostPort": port,
        "containerPort": to,
        "insidePort": port,
    }


def attachment(*ports: dict[str, Any], **keys: Any) -> AttachmentRecord:
    """Write the record of an attachment with IPv4 whose ports the uplink has open."""
    fields = {"ports": [*ports], "families": [4], "publisher": {"driver": "pesto"}, **keys}
    return AttachmentRecord(NAME, fields)


def seen(link: UplinkRecord, record: AttachmentRecord) -> list[tuple[str, str | None, str]]:
    """Look; give address, state and holder of each port."""
    return [(s.address, s.state, s.who) for s in look.Host(link).attachment(record)]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("local", "asked", "families", "address"),
    [
        ("0.0.0.0", "", [4], "0.0.0.0"),
        ("::", "", [6], "::"),
        ("::", "", [4, 6], "*"),
        ("0.0.0.0", "", [4, 6], "*"),
        ("127.0.0.1", "127.0.0.1", [4], "127.0.0.1"),
        ("::1", "::1", [4, 6], "::1"),
    ],
)
def test_open(protocol: str, local: str, asked: str, families: list[int], address: str) -> None:
    """A port is open where its publisher listens on just the address that it was told."""
    with bound(protocol, local) as port:
        record = attachment(recorded(port, protocol, asked), families=families)

        assert seen(uplink(), record) == [(address, "open", "")]


def test_closed() -> None:
    """A port on which no program listens is closed, whether or not its publisher lives."""
    with free() as port:
        record = attachment(recorded(port))

        assert seen(uplink(), record) == [("0.0.0.0", "closed", "")]
        assert seen(uplink(startTime=1), record) == [("0.0.0.0", "closed", "")]


def test_refused() -> None:
    """A port that another program has is refused, and the program is named."""
    with another() as (pid, port):
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        record = attachment(recorded(port), recorded(port, address="127.0.0.2"))

        assert seen(uplink(), record) == [
            ("0.0.0.0", "refused", f"{name} (PID {pid})"),
            ("127.0.0.2", "closed", ""),
        ]


def test_publisher_that_has_ended() -> None:
    """The sockets of a process that has the ID of the publisher by now are another program's."""
    with bound() as port:
        ((_, state, who),) = seen(uplink(startTime=1), attachment(recorded(port)))

    assert state == "refused"
    assert who.endswith(f"(PID {os.getpid()})")


def test_publisher_of_its_own() -> None:
    """Ports of a pasta of its own are looked for in that process, not in the uplink."""
    with another() as (pid, port):
        made = {"driver": "pasta", "number": 1, "pid": pid, "startTime": start_time(pid)}
        record = attachment(recorded(port, address="127.0.0.1"), publisher=made)

        assert seen(uplink(), record) == [("127.0.0.1", "open", "")]
        process = look.Host(uplink()).process(made)
        assert process is not None
        assert process.pid == pid


def test_what_is_not_known() -> None:
    """There is no state for a port before it is opened, or of a family that is missing."""
    with bound() as port:
        early = attachment(recorded(port), families=None)
        other = attachment(recorded(port, address="::1"))
        later = attachment(recorded(port), publisher={"driver": "later"})

        assert seen(uplink(), early) == [("", None, "")]
        assert seen(uplink(), other) == [("::1", None, "")]
        assert seen(uplink(), later) == [("0.0.0.0", None, "")]
        # In another netns, without a process of the host's to look through.
        assert seen(uplink(startTime=1, hostNetns=7), attachment(recorded(port))) == [
            ("0.0.0.0", None, "")
        ]


def test_publisher_that_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the publisher lets no process look into it, a listening socket may be its own."""
    real = holders.sockets_of

    def refuse(pid: int) -> dict[int, int]:
        if pid == os.getpid():
            raise PermissionError
        return real(pid)

    monkeypatch.setattr(holders, "sockets_of", refuse)
    with bound() as port, free() as closed, another() as (_, taken):
        ports = [recorded(port), recorded(closed), recorded(taken, address="127.0.0.1")]
        states = [state for _, state, _ in seen(uplink(), attachment(*ports))]

    assert states == [None, "closed", "refused"]


def test_damaged_records() -> None:
    """What a record says wrongly is left out."""
    record = attachment({"hostPort": "x"}, publisher="x", families="y")
    link = uplink(wanted={"publish": ["nonsense", 7]}, startTime="x")

    assert seen(link, record) == []
    assert look.Host(link).netns() == []


def test_listed_ports() -> None:
    """The ports of the shared netns itself are looked at in the same way."""
    with bound() as port, free() as closed:
        link = uplink(wanted={"publish": [f"{port}:443", f"{closed}"]})
        found = look.Host(link).netns()

    assert [(s.port.container_port, s.state) for s in found] == [(443, "open"), (closed, "closed")]


@pytest.mark.netns
def test_from_inside() -> None:
    """From another netns, the host's is seen through the process of the publisher."""
    with another("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$0" "$@"') as (
        pid,
        port,
    ):
        link = uplink(pid, hostNetns=os.stat(f"/proc/{pid}/ns/net").st_ino)

        record = attachment(recorded(port, address="127.0.0.1"))
        assert seen(link, record) == [("127.0.0.1", "open", "")]


def test_many_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """For 1,000 ports, open, closed and taken, each table and each process is read once."""
    calls: list[str] = []
    real, really = holders.waiting, holders.identify

    def waiting(protocol: str, net: str) -> Iterator[tuple[str, int, holders.Holder]]:
        calls.append(protocol)
        return real(protocol, net)

    def identify(found: Iterable[holders.Holder]) -> None:
        calls.append("processes")
        really(found)

    monkeypatch.setattr(holders, "waiting", waiting)
    monkeypatch.setattr(holders, "identify", identify)
    with ExitStack() as stack:
        own = [stack.enter_context(bound()) for _ in range(50)]
        taken = [stack.enter_context(another())[1] for _ in range(2)]
        ports = [recorded(port) for port in own + taken]
        ports += [recorded(port, "udp") for port in range(1, 949)]
        states = [state for _, state, _ in seen(uplink(), attachment(*ports))]

    assert calls == ["tcp", "udp", "processes"]
    assert len(states) == 1000
    assert states[:52] == ["open"] * 50 + ["refused"] * 2


@pytest.fixture
def state(tmp_path: Path) -> State:
    """The directory of a shared netns with an uplink that is this process."""
    where = State(str(tmp_path), "default")
    os.mkdir(where.dir, 0o700)
    register.write(where, uplink())
    return where


def test_check_is_content(state: State) -> None:
    """CHECK accepts ports that are open, and those whose state cannot be seen."""
    with bound() as port:
        look.check(state, attachment(recorded(port)))
        look.check(state, attachment(recorded(port), publisher={"driver": "later"}))


def test_check_of_a_closed_port(state: State) -> None:
    """CHECK names a port that is not open, and says what opens it."""
    with free() as port, pytest.raises(ShimError) as raised:
        look.check(state, attachment(recorded(port)))

    assert raised.value.code == PORT_UNAVAILABLE
    assert raised.value.message == f"a published port is not open on the host: {port}/tcp"
    assert "netns-shim refresh" in raised.value.details


def test_check_of_a_taken_port(state: State) -> None:
    """CHECK names the program that has a port, and counts how many there are."""
    with free() as port, another() as (pid, taken), pytest.raises(ShimError) as raised:
        look.check(state, attachment(recorded(port), recorded(taken)))

    assert raised.value.message.startswith("2 published ports are not open on the host: ")
    assert f"{taken}/tcp is in use by " in raised.value.details
    assert f"(PID {pid})" in raised.value.details

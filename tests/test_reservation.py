# SPDX-License-Identifier: Apache-2.0
"""A port that a conmon reserves becomes free for a publisher, and for nothing else."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from places import Process
from runtime import until

from netns_shim.ports import holders, reservation

ID = "ab" * 32
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
ADDRESSES = ["0.0.0.0", "127.0.0.1", "::", "::1"]
IPPROTO_MPTCP = 262
# As Podman's conmon: it holds a socket that Go has made, and never looks at it.
CONMON = """
import socket, sys
protocol, address, port, number, name = sys.argv[1:6]
kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
family = socket.AF_INET6 if ":" in address else socket.AF_INET
server = socket.socket(family, kind, int(number))
if ":" in address:
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
if protocol == "tcp":
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((address, int(port)))
if protocol == "tcp":
    server.listen()
with open("/proc/self/comm", "w") as file:
    file.write(name)
if "elsewhere" in sys.argv:
    import ctypes, os
    ctypes.CDLL(None).unshare(0x40000000 | (0x10000000 if os.geteuid() else 0))
print(flush=True)
sys.stdin.read()
"""


def command(
    protocol: str,
    address: str,
    port: int,
    *,
    number: int = 0,
    name: str = "conmon",
    of: str = ID,
    more: Sequence[str] = (),
) -> list[str]:
    """Write the command of a process that reserves a port for a container.

    With "elsewhere" in `more`, its first thread is in another netns by then.
    """
    numbers = [str(port), str(number)]
    return [sys.executable, "-ISc", CONMON, protocol, address, *numbers, name, "-c", of, *more]


def free_port(protocol: str, address: str) -> int:
    """Choose a port. A process that binds to 0 has one that the kernel takes back early."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, KINDS[protocol]) as chosen:
        chosen.bind((address, 0))
        return int(chosen.getsockname()[1])


@contextmanager
def reserved(protocol: str, address: str, **how: Any) -> Iterator[int]:
    """With a process that reserves a port; give the port."""
    port = free_port(protocol, address)
    argv = command(protocol, address, port, **how)
    with Process(argv) as conmon:
        conmon.stdout.readline()
        yield port
        conmon.communicate()


def listen(protocol: str, address: str, port: int, *, reuse: bool) -> socket.socket:
    """Listen as a publisher does; OSError where the port is taken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, KINDS[protocol])
    try:
        server.settimeout(20)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        server.bind((address, port))
        if protocol == "tcp":
            server.listen()
    except OSError:
        server.close()
        raise
    return server


def answers(protocol: str, address: str, port: int) -> bool:
    """Tell whether what a client sends comes to a publisher; OSError where it cannot listen."""
    to = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    with (
        listen(protocol, address, port, reuse=True) as server,
        socket.socket(server.family, server.type) as client,
    ):
        client.connect((to, port))
        client.send(b"hello")
        if protocol == "udp":
            return server.recv(10) == b"hello"
        with server.accept()[0] as connection:
            return connection.recv(10) == b"hello"


@pytest.mark.parametrize("wanted", ["its own", "all"])
@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_publisher_has_the_port(protocol: str, address: str, wanted: str) -> None:
    """A publisher, which could not listen before, has the port, and clients come to it."""
    with reserved(protocol, address) as port:
        with pytest.raises(OSError, match="in use"):
            answers(protocol, address, port)

        asked = (protocol, address if wanted == "its own" else "", port)
        assert reservation.lift(ID, [asked]) == 1
        assert answers(protocol, address, port)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_port_stays_reserved_for_others(protocol: str) -> None:
    """A program that does not share the port does not get it, before the publisher has it."""
    with reserved(protocol, "0.0.0.0") as port:
        reservation.lift(ID, [(protocol, "", port)])

        with pytest.raises(OSError, match="in use"):
            listen(protocol, "0.0.0.0", port, reuse=False)


def test_client_without_publisher() -> None:
    """A client is refused then, one that waits already is cut off: it does not wait for ever."""
    with reserved("tcp", "127.0.0.1") as port:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as waiting:
            reservation.lift(ID, [("tcp", "", port)])

            with pytest.raises(ConnectionResetError):
                waiting.recv(1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_twice() -> None:
    """To lift reservations again, as another call for the container does, does no harm.

    A container may have more than one conmon.
    """
    with reserved("udp", "0.0.0.0") as udp, reserved("tcp", "0.0.0.0") as tcp:
        for _ in range(2):
            assert reservation.lift(ID, [("udp", "", udp), ("tcp", "", tcp)])

        assert answers("udp", "0.0.0.0", udp)
        assert answers("tcp", "0.0.0.0", tcp)


def test_several() -> None:
    """Each port that is asked for is given up, and no other one."""
    with reserved("tcp", "127.0.0.1") as port:
        assert reservation.lift(ID, [("udp", "", port), ("tcp", "::1", port)]) == 0
        assert reservation.lift(ID, [("tcp", "", port ^ 1)]) == 0

        assert holders.find("tcp", "", port)
        assert reservation.lift(ID, [("udp", "", port), ("tcp", "", port)]) == 1


@pytest.mark.parametrize("other", [{"name": "nginx"}, {"of": "cd" * 32}])
def test_what_is_not_the_containers(other: dict[str, str]) -> None:
    """What another program has, or another container, is left alone."""
    with reserved("tcp", "127.0.0.1", **other) as port:
        assert reservation.lift(ID, [("tcp", "", port)]) is None

        assert holders.find("tcp", "", port)


def test_multipath() -> None:
    """A socket of Multipath TCP, which Go makes since 1.24, gives the port up as well."""
    try:
        socket.socket(proto=IPPROTO_MPTCP).close()
    except OSError as error:
        if error.errno not in (errno.EPROTONOSUPPORT, errno.ENOPROTOOPT, errno.EINVAL):
            raise
        pytest.skip("this kernel has no Multipath TCP")
    with reserved("tcp", "0.0.0.0", number=IPPROTO_MPTCP) as port:
        assert reservation.lift(ID, [("tcp", "", port)]) == 1
        assert answers("tcp", "0.0.0.0", port)


@pytest.mark.parametrize("number", [errno.ESRCH, errno.EBADF, errno.ENOENT])
def test_conmon_that_is_ending(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The first process of conmon may end while we look at it: it does not count then."""

    def take(pidfd: int, fd: int) -> int:
        raise OSError(number, "")

    with reserved("tcp", "127.0.0.1") as port:
        with monkeypatch.context() as patched:
            patched.setattr(reservation, "pidfd_getfd", take)
            assert reservation.lift(ID, [("tcp", "", port)]) is None

        assert reservation.lift(ID, [("tcp", "", port)]) == 1


def test_conmon_that_has_lost_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is if it has no socket any more by the time we look."""
    with reserved("tcp", "127.0.0.1") as port:
        answers = iter([True])
        monkeypatch.setattr(reservation, "_is_conmon_of", lambda *_: next(answers, False))
        monkeypatch.setattr(holders, "sockets_of", lambda _: {})

        assert reservation.lift(ID, [("tcp", "", port)]) is None


# As Podman: on a line, it starts what it is given, if anything, waits until that is ready, and
# ends.
PODMAN = """
import subprocess, sys
with open("/proc/self/comm", "w") as file:
    file.write("podman")
print(flush=True)
sys.stdin.readline()
if sys.argv[1:]:
    subprocess.Popen(sys.argv[1:], stdin=0, stdout=subprocess.PIPE).stdout.readline()
"""


@contextmanager
def podman(*conmon: str) -> Iterator[Process]:
    """With a process that, on a line, starts another one and ends; that ends with the context."""
    argv = [sys.executable, "-ISc", PODMAN, *conmon]
    with Process(argv) as started:
        started.stdout.readline()
        yield started


def test_caller() -> None:
    """A Podman is told from other callers."""
    with podman() as caller:
        assert reservation.is_podman(caller.pid)
        caller.communicate(b"\n")

    assert not reservation.is_podman(os.getpid())
    assert not reservation.is_podman(caller.pid)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Give the answers of all looks for a conmon."""
    found: list[int | None] = []
    lift = reservation.lift

    def look(*given: Any) -> int | None:
        found.append(lift(*given))
        return found[-1]

    monkeypatch.setattr(reservation, "lift", look)
    return found


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_later(looks: list[int | None], protocol: str) -> None:
    """A port is given up that the caller reserves after it has called, even if it ends then."""
    port = free_port(protocol, "127.0.0.1")
    argv = command(protocol, "127.0.0.1", port)
    with podman(*argv) as caller, ThreadPoolExecutor() as pool:
        lifting = pool.submit(reservation.lift_later, ID, [(protocol, "", port)], caller.pid)
        assert until(lambda: bool(looks))
        caller.stdin.write(b"\n")

        assert lifting.result() == 1
        assert answers(protocol, "127.0.0.1", port)
    assert looks[0] is None


def test_caller_that_fails(looks: list[int | None]) -> None:
    """A caller that ends without a conmon is not waited for; nor is one that is gone already."""
    with podman() as caller, ThreadPoolExecutor() as pool:
        lifting = pool.submit(reservation.lift_later, ID, [("tcp", "", 1)], caller.pid)
        assert until(lambda: bool(looks))
        caller.stdin.write(b"\n")

        assert lifting.result() is None
    assert reservation.lift_later(ID, [("tcp", "", 1)], caller.pid) is None


def test_caller_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that serves others, and does not end, is waited for in vain for a time only."""
    monkeypatch.setattr(reservation, "SECONDS", 0)

    assert reservation.lift_later(ID, [("tcp", "", 1)], os.getpid()) is None


def test_caller_whose_first_thread_is_elsewhere() -> None:
    """The ports of a Podman are found, though its first thread is in the netns of a container."""
    with reserved("tcp", "127.0.0.1", name="podman", more=["elsewhere"]) as port:
        holder = holders.find("tcp", "127.0.0.1", port)
        assert holder
        there, here = (os.stat(f"/proc/{name}/ns/net").st_ino for name in (holder.pid, "self"))
        assert there != here

        assert reservation.lift_of_caller(holder.pid, [("tcp", "", port)]) == 1
        assert answers("tcp", "127.0.0.1", port)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_caller_that_reserves_first(protocol: str) -> None:
    """A Podman that calls with the ports reserved gives them up; another program keeps them."""
    with (
        reserved(protocol, "127.0.0.1", name="podman") as port,
        reserved(protocol, "127.0.0.1", name="nginx") as other,
    ):
        holder, stranger = (holders.find(protocol, "127.0.0.1", n) for n in (port, other))
        assert holder
        assert stranger
        wanted = [(protocol, "", port), (protocol, "", other)]

        assert reservation.lift_of_caller(holder.pid, wanted) == 1
        assert reservation.lift_of_caller(stranger.pid, wanted) == 0
        assert answers(protocol, "127.0.0.1", port)
        with pytest.raises(OSError, match="in use"):
            answers(protocol, "127.0.0.1", other)
    assert reservation.lift_of_caller(holder.pid, wanted) == 0

# SPDX-License-Identifier: Apache-2.0
"""Which process has a port of the host: found with real sockets, and said to people."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from places import Process

from netns_shim.ports import holders
from netns_shim.proc import start_time

FAMILIES = {True: socket.AF_INET6, False: socket.AF_INET}
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
NOBODY = 65534


@contextmanager
def bound(protocol: str, address: str, port: int = 0, *, v6only: bool = True) -> Iterator[int]:
    """With a socket of this process that waits for clients; give its port."""
    with socket.socket(FAMILIES[":" in address], KINDS[protocol]) as server:
        if ":" in address:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        server.bind((address, port))
        if protocol == "tcp":
            server.listen()
        yield server.getsockname()[1]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_process(protocol: str, address: str) -> None:
    """What has a port is found: process, start time, name, and which descriptor it is."""
    with bound(protocol, address) as port:
        holder = holders.find(protocol, address, port)

        assert holder
        assert (holder.pid, holder.start_time) == (os.getpid(), start_time(os.getpid()))
        assert os.fstat(holder.fd).st_ino == holder.inode
        assert holders.describe(holder) == f"{holder.name} (PID {os.getpid()})"
    with open("/proc/self/comm", encoding="utf-8") as file:
        assert holder.name == file.read().strip()
    assert holders.find(protocol, address, port) is None


@pytest.mark.parametrize(
    ("local", "wanted", "is_in_the_way"),
    [
        ("127.0.0.1", "", True),
        ("::1", "", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "::1", False),
        ("127.0.0.1", "::", True),
        ("::1", "0.0.0.0", False),
        ("::1", "::", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "::1", False),
        ("::", "127.0.0.1", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
    ],
)
def test_addresses(local: str, wanted: str, is_in_the_way: bool) -> None:
    """A socket is in the way of those that want its address, or all, or where it has all."""
    with bound("tcp", local, v6only=False) as port:
        assert (holders.find("tcp", wanted, port) is not None) == is_in_the_way


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_both_families(address: str) -> None:
    """Of two sockets with a port, that of the address is found."""
    other = "0.0.0.0" if address == "::" else "::"
    with bound("tcp", address) as port, bound("tcp", other, port):
        holder = holders.find("tcp", address, port)

        assert holder
        with socket.socket(fileno=os.dup(holder.fd)) as found:
            assert found.getsockname()[0] == address


def test_connection() -> None:
    """A connection has the port of its server too: the socket that listens is found."""
    with bound("tcp", "0.0.0.0") as port, socket.create_connection(("127.0.0.1", port)):
        holder = holders.find("tcp", "127.0.0.1", port)

        assert holder
        with socket.socket(fileno=os.dup(holder.fd)) as found:
            assert found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_heir() -> None:
    """Of several processes with one socket, that is found which the others have it from."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        argv = [sys.executable, "-ISc", "print(flush=True); input()"]
        with Process(argv, pass_fds=[server.fileno()]) as heir:
            heir.stdout.readline()
            port = server.getsockname()[1]
            before = holders.find("tcp", "127.0.0.1", port)
            server.close()
            after = holders.find("tcp", "127.0.0.1", port)
            heir.communicate(b"\n")

    assert before
    assert after
    assert (before.pid, after.pid) == (os.getpid(), heir.pid)
    assert before.inode == after.inode


@pytest.mark.netns
def test_other_netns() -> None:
    """The directory of a process leads to the sockets of its netns, and to no others."""
    script = "ip link set lo up; exec cat"
    argv = ["unshare", "--net", "sh", "-euc", f"echo; {script}"]
    with bound("tcp", "127.0.0.1") as port, Process(argv) as there:
        there.stdout.readline()

        assert holders.find("tcp", "127.0.0.1", port, f"/proc/{there.pid}/net") is None
        assert holders.find("tcp", "127.0.0.1", port, f"/proc/{os.getpid()}/net")
        there.communicate()


# Listens, and says where; hides itself where it is told to.
SERVER = """
import ctypes, socket, sys
server = socket.create_server(("127.0.0.1", 0))
if sys.argv[1] == "hidden":
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.mark.netns
@pytest.mark.parametrize(
    ("user", "kind", "text"),
    [
        (0, "open", "another user's process"),
        (NOBODY, "hidden", "one of your processes, which cannot be looked into"),
    ],
)
def test_process_that_cannot_be_seen(user: int, kind: str, text: str) -> None:
    """Where only the socket is seen, its user says whether it is that of a program like pasta."""
    argv = [sys.executable, "-ISc", SERVER, kind]
    with Process(argv, user=user, group=user) as server:
        port = int(server.stdout.readline())
        pid = os.fork()
        if pid == 0:
            try:
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
                holder = holders.find("tcp", "127.0.0.1", port)
                os._exit(not holder or holders.describe(holder) != text or holder.pid != 0)
            finally:
                os._exit(1)

        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        server.communicate()


def test_privileged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports below the number of the host are privileged; what to do names the port."""
    setting = tmp_path / "first"
    monkeypatch.setattr(holders, "FIRST_UNPRIVILEGED", str(setting))
    assert holders.first_unprivileged() == 1024
    setting.write_text("80\n")

    first = holders.first_unprivileged()

    assert [holders.is_privileged(port, first) for port in (79, 80)] == [True, False]
    assert "sysctl net.ipv4.ip_unprivileged_port_start=53`" in holders.advice(53, first)

#!/usr/bin/python3 -IS
# SPDX-License-Identifier: Apache-2.0
"""Ask a server over and over, in four ways, and tell for how long there was no answer.

Arguments: the server, and the resolv.conf of which the first name server is asked. It prints
`ready` when all work or three seconds are over. A line on standard input says that a change
begins. At its end the answer is printed, an object of seconds. A stream that ended has "cut".
"""

import itertools
import json
import socket
import sys
import threading
import time

SERVER, RESOLV_CONF = sys.argv[1:]
PORT = 7000
EVERY, PATIENCE = 0.05, 0.4  # s
# A gap between two answers that a busy machine explains, in seconds.
GAP = 0.4
QUESTION = b"\1\0\0\1\0\0\0\0\0\0\3www\7example\4test\0\0\1\0\1"


def ask(address: str, port: int, question: bytes, number: int) -> None:
    """Ask over UDP, from a new socket."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        _ask(client, address, port, question, number)


def _ask(client: socket.socket, address: str, port: int, question: bytes, number: int) -> None:
    mark = (number % 65536).to_bytes(2, "big")
    client.settimeout(PATIENCE)
    client.sendto(mark + question, (address, port))
    while client.recv(512)[:2] != mark:
        pass


class Udp:
    """One socket, as ping(8) has one."""

    def __init__(self) -> None:
        family = socket.AF_INET6 if ":" in SERVER else socket.AF_INET
        self.client = socket.socket(family, socket.SOCK_DGRAM)

    def try_it(self, number: int) -> None:
        """Send a number and wait for it."""
        _ask(self.client, SERVER, PORT, b"", number)


class Stream:
    """One connection, for a byte at a time."""

    def __init__(self) -> None:
        self.client: socket.socket | None = None

    def try_it(self, number: int) -> None:
        """Send a byte and wait for it, for as long as the connection is there."""
        if self.client is None:
            self.client = socket.create_connection((SERVER, PORT), timeout=PATIENCE)
            self.client.settimeout(None)
        self.client.sendall(b".")
        if not self.client.recv(1):
            raise ConnectionResetError


class New:
    """A new connection each time."""

    def try_it(self, number: int) -> None:
        """Connect, and have a byte answered."""
        with socket.create_connection((SERVER, PORT), timeout=PATIENCE) as client:
            client.sendall(b".")
            client.recv(1)


class Names:
    """A name server, as resolv.conf names it at that moment."""

    def try_it(self, number: int) -> None:
        """Ask it for a name."""
        with open(RESOLV_CONF) as file:
            servers = [line.split()[1] for line in file if line.startswith("nameserver ")]
        ask(servers[0], 53, QUESTION, number)


WAYS: dict[str, type[Udp | Stream | New | Names]] = {
    "udp": Udp,
    "stream": Stream,
    "new": New,
    "names": Names,
}
answered: dict[str, list[float]] = {name: [] for name in WAYS}
cut: set[str] = set()


def work(name: str) -> None:
    """Try one way for ever."""
    way = WAYS[name]()
    number = 0
    while True:
        number += 1
        try:
            way.try_it(number)
            answered[name].append(time.monotonic())
        except (OSError, IndexError) as error:
            if name == "stream" and answered[name] and not isinstance(error, TimeoutError):
                cut.add(name)
                return
        time.sleep(EVERY)


def lost(name: str, begin: float, end: float) -> float | str:
    """Add up the gaps."""
    if name in cut:
        return "cut"
    times = [begin, *(t for t in answered[name] if t > begin), end]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    return round(sum(gap for gap in gaps if gap > GAP), 1)


for each in WAYS:
    threading.Thread(target=work, args=(each,), daemon=True).start()
deadline = time.monotonic() + 3
while not all(answered.values()) and time.monotonic() < deadline:
    time.sleep(EVERY)
print("ready", flush=True)
sys.stdin.readline()
begin = time.monotonic()
sys.stdin.read()
end = time.monotonic()
print(json.dumps({name: lost(name, begin, end) for name in WAYS}), flush=True)

# SPDX-License-Identifier: Apache-2.0
"""The whole internet of the test bench: four web pages and a name server.

Its argument is the device for TUN, as not every real machine has one. Says `ready` when all
sockets are bound and ends when its standard input does, that is with the process that started it.
Nothing here resolves a name: http.server would, and wait for seconds.

One page is not next door but in a netns of its own, and every packet to it and back takes time.
Where all answers are there before anybody can wait for them, nothing is seen of what an uplink
does while it waits. (The kernel's own way is netem, which few kernels of virtual machines have.)
"""

import ctypes
import fcntl
import ipaddress
import os
import select
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

PAGE, PAGE_BEYOND, PAGE6 = "198.51.100.1", "203.0.113.7", "2001:db8:100::1"
PAGE_OF_DOCUMENTS = "1.1.1.1"  # one that the real internet has
NAME_SERVER = "198.51.100.1"
A, AAAA = 1, 28
ZONE = {("www.example.test", A): PAGE_BEYOND, ("www.example.test", AAAA): PAGE6}
NAMES = {name for name, _ in ZONE}


class Page(socketserver.StreamRequestHandler):
    """Greets every request with the address it came from."""

    def handle(self) -> None:
        """Answer one request, whatever it asks for."""
        while self.rfile.readline().strip():
            pass
        body = f"hello from the internet, you are {self.client_address[0]}\n"
        head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write((head + body).encode())


class Web(socketserver.ThreadingTCPServer):
    """Pages over IPv4."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


class Web6(Web):
    """Pages over IPv6."""

    address_family = socket.AF_INET6


class Name(socketserver.DatagramRequestHandler):
    """Answers one question of a DNS message (RFC 1035, section 4)."""

    def handle(self) -> None:
        """Answer from ZONE; NXDOMAIN for a name that is not there."""
        query = self.rfile.read()
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        question = query[12 : at + 5]
        name, (kind,) = ".".join(labels), struct.unpack_from("!H", query, at + 1)
        address = ZONE.get((name, kind))
        answer = b""
        if address:
            data = ipaddress.ip_address(address).packed
            answer = struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(data)) + data
        flags = 0x8580 if name in NAMES else 0x8583
        head = struct.pack("!HHHHH", flags, 1, 1 if answer else 0, 0, 0)
        self.wfile.write(query[:2] + head + question + answer)


DELAY = 0.002  # s, one way
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def tun(commands: str) -> int:
    """Make the device `way` in this thread's netns, and set it up with commands of ip(8)."""
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"way", IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=True)
    return fd


def carry(one: int, other: int) -> None:
    """Write what is read from each of two devices to the other, `DELAY` later."""
    to = {one: other, other: one}
    queue: deque[tuple[float, int, bytes]] = deque()
    while True:
        wait = max(queue[0][0] - time.monotonic(), 0) if queue else None
        for end in select.select([one, other], [], [], wait)[0]:
            queue.append((time.monotonic() + DELAY, to[end], os.read(end, 1 << 16)))
        while queue and queue[0][0] <= time.monotonic():
            _, end, packet = queue.popleft()
            os.write(end, packet)


def far_away() -> Web:
    """Serve the page beyond in a new netns, and lead there. Only this thread is taken into it."""
    here = tun(f"link set way up\nroute add {PAGE_BEYOND} dev way\n")
    if ctypes.CDLL(None).unshare(CLONE_NEWNET):
        raise OSError("no network namespace for the page beyond")
    commands = f"link set lo up\naddress add {PAGE_BEYOND} dev lo\n"
    there = tun(commands + "link set way up\nroute add default dev way\n")
    threading.Thread(target=carry, args=(here, there), daemon=True).start()
    return Web((PAGE_BEYOND, 80), Page)


servers: list[socketserver.BaseServer] = [
    Web((page, 80), Page) for page in (PAGE, PAGE_OF_DOCUMENTS)
]
servers += [Web6((PAGE6, 80), Page), socketserver.ThreadingUDPServer((NAME_SERVER, 53), Name)]
with ThreadPoolExecutor(1) as traveller:
    servers.append(traveller.submit(far_away).result())
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()

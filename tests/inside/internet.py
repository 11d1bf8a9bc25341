# SPDX-License-Identifier: Apache-2.0
"""The whole internet of the test bench: three web pages and a name server.

Says `ready` when all sockets are bound and ends when its standard input does, that is with the
process that started it. Nothing here resolves a name: http.server would, and wait for seconds.
"""

import ipaddress
import socket
import socketserver
import struct
import sys
import threading

PAGES = ("198.51.100.1", "203.0.113.7", "2001:db8:100::1")
NAME_SERVER = "198.51.100.1"
A, AAAA = 1, 28
ZONE = {("www.example.test", A): PAGES[1], ("www.example.test", AAAA): PAGES[2]}
NAMES = {name for name, _ in ZONE}


class Page(socketserver.StreamRequestHandler):
    """Greets every request with the address it came from."""

    def handle(self):
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

    def handle(self):
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


servers = [(Web6 if ":" in page else Web)((page, 80), Page) for page in PAGES]
servers.append(socketserver.ThreadingUDPServer((NAME_SERVER, 53), Name))
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()

#!/usr/bin/python3 -IS
# SPDX-License-Identifier: Apache-2.0
"""Answer what a prober asks, until standard input ends: echoes on port 7000, and names.

Its arguments are the addresses of name servers, which know one address for every name.
"""

import socket
import sys
import threading


def echo(client: socket.socket) -> None:
    """Give back what comes over a connection."""
    try:
        while data := client.recv(100):
            client.sendall(data)
    except OSError:
        pass  # it has gone
    client.close()


def serve_tcp(server: socket.socket) -> None:
    """Take connections."""
    while True:
        client, _ = server.accept()
        threading.Thread(target=echo, args=(client,), daemon=True).start()


def serve_udp(server: socket.socket) -> None:
    """Give back each datagram."""
    while True:
        data, address = server.recvfrom(512)
        server.sendto(data, address)


def serve_names(server: socket.socket) -> None:
    """Answer a question of one name with 203.0.113.50."""
    while True:
        data, address = server.recvfrom(512)
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton("203.0.113.50")
        head = data[:2] + b"\x81\x80" + data[4:6] + b"\0\1\0\0\0\0"
        server.sendto(head + data[12:] + answer, address)


# Each address has a socket of its own: an answer must come from the address that was asked.
for address in ("203.0.113.50", "2001:db8:200::50", *sys.argv[1:]):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    udp = socket.socket(family, socket.SOCK_DGRAM)
    if address in sys.argv:
        udp.bind((address, 53))
        threading.Thread(target=serve_names, args=(udp,), daemon=True).start()
        continue
    tcp = socket.create_server((address, 7000), family=family, backlog=100)
    udp.bind((address, 7000))
    threading.Thread(target=serve_tcp, args=(tcp,), daemon=True).start()
    threading.Thread(target=serve_udp, args=(udp,), daemon=True).start()
print("ready", flush=True)
sys.stdin.read()

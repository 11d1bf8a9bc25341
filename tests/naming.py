# SPDX-License-Identifier: Apache-2.0
"""Networks with names, and questions that their containers ask."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from typing import Any

import bench
from runtime import Runtime, bridge

from netns_shim.names import server

SERVER = "10.89.0.1"
NO_SUCH_NAME = "3"
# Prints the answers to a question, sorted, or the number of the refusal; "silent" without one.
ASK = """
import os, socket, sys
server, name, kind = sys.argv[1:]
kinds = {"A": 1, "PTR": 12, "AAAA": 28}
if kind == "PTR":
    if ":" in name:
        digits = socket.inet_pton(socket.AF_INET6, name).hex()
        name = ".".join(reversed(digits)) + ".ip6.arpa"
    else:
        name = ".".join(reversed(name.split("."))) + ".in-addr.arpa"
number = os.urandom(2)
question = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
question += b"\\0" + kinds[kind].to_bytes(2, "big") + b"\\0\\1"
asker = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
asker.settimeout(3)
try:
    asker.connect((server, 53))
    asker.send(number + b"\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + question)
    answer = asker.recv(4096)
except OSError:
    print("silent")
    sys.exit()
if answer[3] & 15:
    print(answer[3] & 15)
    sys.exit()
found, place = [], 12 + len(question)

def name_at(place):
    labels, end = [], None
    while size := answer[place]:
        if size >= 192:
            end = end or place + 2
            place = int.from_bytes(answer[place : place + 2], "big") & 0x3FFF
            continue
        labels.append(answer[place + 1 : place + 1 + size].decode())
        place += 1 + size
    return ".".join(labels), end or place + 1

for _ in range(int.from_bytes(answer[6:8], "big")):
    _, place = name_at(place)
    size = int.from_bytes(answer[place + 8 : place + 10], "big")
    data = answer[place + 10 : place + 10 + size]
    if kind == "PTR":
        found.append(name_at(place + 10)[0])
    else:
        found.append(socket.inet_ntop(socket.AF_INET if kind == "A" else socket.AF_INET6, data))
    place += 10 + size
print(*sorted(found))
"""


def named(place: bench.Place, *subnets: str, bridge_name: str = "cni0", **keys: Any) -> Runtime:
    """Give a runtime for a network with names, on a bridge."""
    delegate = bridge(*subnets, name=bridge_name) if subnets else bridge(name=bridge_name)
    more = {"delegate": delegate, "uplink": "none", "names": True, **keys}
    return Runtime(place, **more)


def by_netavark(directory: str) -> dict[str, Any]:
    """Configure netavark's own bridge with names; the programs are in a directory."""
    return {
        "driver": "bridge",
        "path": f"{directory}/netavark",
        "network_interface": "nv0",
        "dns_enabled": True,
        "subnets": [{"subnet": "10.89.0.0/24"}],
    }


def called(name: str) -> dict[str, str]:
    """Give the variable by which a runtime says how a container is called."""
    return {"CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAME={name}"}


def ask(place: bench.Place, name: str, server: str = SERVER, kind: str = "A") -> str:
    """Ask a server about a name, or with PTR about an address; give the answers, as one text."""
    return place.run(["python3", "-I", "-c", ASK, server, name, kind], check=True).stdout.strip()


# Has a container look up what it is told, each as `DATABASE/WHAT`, see getent(1).
LOOK = """
look() {
    asked=$1
    set -- $(getent "${asked%%/*}" "${asked#*/}")
    echo "$asked" "$@"
}
for one; do look "$one"; done
"""


def looks(names: Iterable[str], four: str, six: str) -> dict[str, str]:
    """Say for each look that finds a container, by its names and back, what it has to find."""
    first, *more = names
    return {
        **{f"ahostsv4/{name}": four for name in (first, *more)},
        **{f"ahostsv6/{name}": six for name in (first, *more)},
        **({f"hosts/{address}": first for address in (four, six)} if glibc_finds_back() else {}),
    }


def glibc_finds_back() -> bool:
    """Tell whether answers about addresses say what was asked, which glibc wants."""
    done = subprocess.run(
        [server.find({"PATH": ""}), "--version"], capture_output=True, check=True
    )
    return not done.stdout.startswith(b"aardvark-dns 1.4.")


def wrong(said: str, wanted: dict[str, str]) -> dict[str, str]:
    """List the looks that have not found what they had to find, with what they have found."""
    found = dict((f"{line} ").split(" ", 1) for line in said.splitlines())
    words = {asked: found.get(asked, "").replace(".dns.podman", "").split() for asked in wanted}
    return {asked: found.get(asked, "") for asked in wanted if wanted[asked] not in words[asked]}

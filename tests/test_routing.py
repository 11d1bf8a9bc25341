# SPDX-License-Identifier: Apache-2.0
"""Answers leave by the publisher that the question came by, as programs and clients see it."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import bench
import pytest
from ports import ask
from runtime import DUAL, Runtime, bridge, page, until

from netns_shim.errors import ShimError
from netns_shim.ports import handshake, marks, routing
from netns_shim.shared.nsenter import run_in

NFT = "/usr/sbin/nft"
ADDRESS4, ADDRESS6 = "169.254.78.7", "fd00:78::7"
TAPS = "for n in 7 9; do ip tuntap add name pub$n mode tap; done"
OTHERS = "table inet other { chain c { }; }\n"

TABLE = """
table inet netns-shim-ports {
    map arrivals { type devgroup : verdict; }
    map answers { type mark : verdict; }
    chain prerouting { type filter hook prerouting priority mangle; }
    chain output { type route hook output priority mangle; }
}
"""
RULES = """
add rule inet netns-shim-ports prerouting iifgroup vmap @arrivals
add rule inet netns-shim-ports prerouting ct mark & 0x7fff0000 vmap @answers
add rule inet netns-shim-ports output ct mark & 0x7fff0000 vmap @answers
"""
PUBLISHER = """
add chain inet netns-shim-ports publisher-{n}
add rule inet netns-shim-ports publisher-{n} iifgroup {mark} \
    ct mark set ct mark & 0x8000ffff | {mark} accept
add rule inet netns-shim-ports publisher-{n} meta mark set meta mark & 0x8000ffff | {mark}
add element inet netns-shim-ports arrivals {{ {mark} : jump publisher-{n} }}
add element inet netns-shim-ports answers {{ {mark} : jump publisher-{n} }}
"""
SYN_ACK = "oifgroup {mark} tcp flags & (syn | ack) == (syn | ack)"
HANDSHAKE = f"""
add set inet netns-shim-ports handshake-{{n}} \
    {{{{ typeof ct id; flags dynamic,timeout; timeout 500ms; }}}}
add chain inet netns-shim-ports handshake-{{n}} \
    {{{{ type filter hook postrouting priority 300; }}}}
add rule inet netns-shim-ports handshake-{{n}} {SYN_ACK} ct mark & 0x80000000 == 0 \
    ct mark set ct mark & 0x7fffffff | 0x80000000 add @handshake-{{n}} {{{{ ct id }}}} accept
add rule inet netns-shim-ports handshake-{{n}} {SYN_ACK} ct id @handshake-{{n}} drop
add rule inet netns-shim-ports handshake-{{n}} {SYN_ACK} @th,48,16 & 0xff00 != 0xff00 \
    @th,48,16 set @th,48,16 & 0x00ff | 0xff00 @th,96,16 set 0x5010 accept
add rule inet netns-shim-ports handshake-{{n}} {SYN_ACK} @th,32,16 & 0x00ff != 0x00ff \
    @th,32,16 set @th,32,16 & 0xff00 | 0x00ff @th,96,16 set 0x5010 accept
"""


def prepare(container: bench.Container, number: int, *, is_old: bool = False) -> None:
    """Prepare a tap in a container."""
    run_in(
        container.netns,
        lambda: routing.prepare(f"pub{number}", number, ADDRESS4, ADDRESS6, is_old=is_old),
    )


def remove(container: bench.Container, number: int) -> None:
    """Remove what is of a tap in a container."""
    run_in(container.netns, lambda: routing.remove(f"pub{number}", number))


def shown(container: bench.Container, *command: str) -> Any:
    """Ask ip(8) for something; give what it says as JSON."""
    return json.loads(container.run(["ip", "-json", *command], check=True).stdout or "[]")


def rules(container: bench.Container, family: str) -> list[tuple[Any, ...]]:
    """List the rules of routing: priority, mark, mask and table."""
    return [
        tuple(rule.get(key) for key in ("priority", "fwmark", "fwmask", "table"))
        for rule in shown(container, family, "rule")
    ]


def tables(container: bench.Container) -> str:
    """List what nft(8) says of all tables, with no counters."""
    return container.run([NFT, "--stateless", "list", "ruleset"], check=True).stdout


MAIN = {
    "-4": [(32766, None, None, "main"), (32767, None, None, "default")],
    "-6": [(32766, None, None, "main")],
}


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_routes(session: bench.Session, family: str) -> None:
    """A mark leads to the tap, before local addresses; what is done again is there once."""
    with session.container() as container:
        container.run(["sh", "-euc", TAPS], check=True)
        for number in (7, 7, 9):
            prepare(container, number)

        ours = [
            (1, "0x50070000", "0x7fff0000", "780007"),
            (1, "0x50090000", "0x7fff0000", "780009"),
        ]
        local = (2, None, None, "local")
        assert rules(container, family) == [*ours, local, *MAIN[family]]
        for number in (7, 9):
            (route,) = shown(
                container, family, "route", "show", "table", f"{routing.TABLES + number}"
            )
            assert (route["dst"], route["dev"]) == ("default", f"pub{number}")
            assert "gateway" not in route

        remove(container, 7)
        remove(container, 7)

        assert rules(container, family) == [ours[1], local, *MAIN[family]]
        assert shown(container, family, "route", "show", "table", "780007") == []


def test_loopback_of_an_old_pasta(session: bench.Session) -> None:
    """Connections to ::1 come from the publisher's address, until it is removed."""
    wanted = {"dst": "::1", "dev": "lo", "prefsrc": ADDRESS6}
    with session.container() as container:
        container.run(["sh", "-euc", TAPS], check=True)
        before = shown(container, "-6", "route", "get", "::1")
        for _ in range(2):
            prepare(container, 7, is_old=True)

        (found,) = shown(container, "-6", "route", "get", "::1")
        assert {key: found[key] for key in wanted} == wanted
        assert [rule[3] for rule in rules(container, "-6")].count("780007") == 2

        remove(container, 7)

        assert shown(container, "-6", "route", "get", "::1") == before
        assert "780007" not in [rule[3] for rule in rules(container, "-6")]


def test_tap(session: bench.Session) -> None:
    """The tap is up without neighbours, and takes what comes from a local address."""
    with session.container() as container:
        container.run(["sh", "-euc", TAPS], check=True)
        container.run(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter"], check=True)
        prepare(container, 7)

        (link,) = shown(container, "address", "show", "pub7")
        files = "pub7/accept_local pub7/rp_filter all/rp_filter"
        read = ["sh", "-euc", f"cd /proc/sys/net/ipv4/conf; cat {files}"]
        options = container.run(read, check=True).stdout.split()
    assert {"UP", "NOARP"} <= set(link["flags"])
    assert (link["mtu"], link["group"]) == (65520, str(0x50070000))
    found = {(a["local"], a["prefixlen"]) for a in link["addr_info"] if a["scope"] == "global"}
    assert found == {(ADDRESS4, 32), (ADDRESS6, 128)}
    assert not any(address.get("tentative") for address in link["addr_info"])
    assert options == ["1", "0", "0"]


def test_marks(session: bench.Session) -> None:
    """The table is what is meant, whatever is done again, and no other table is touched."""
    with session.container() as container, session.container() as expected:
        text = OTHERS + TABLE + RULES + PUBLISHER.format(n=7, mark="0x50070000")
        text += PUBLISHER.format(n=9, mark="0x50090000")
        text += HANDSHAKE.format(n=9, mark="0x50090000")
        expected.run([NFT, "-f", "-"], input=text, check=True)
        container.run([NFT, "-f", "-"], input=OTHERS, check=True)
        container.run(["sh", "-euc", TAPS], check=True)
        for number, is_old in ((7, False), (9, True), (9, True), (7, False)):
            prepare(container, number, is_old=is_old)

        assert sorted(tables(container).splitlines()) == sorted(tables(expected).splitlines())

        for number in (7, 7, 9):
            remove(container, number)
        expected.run([NFT, "flush", "ruleset"], check=True)
        expected.run([NFT, "-f", "-"], input=OTHERS + TABLE + RULES, check=True)

        assert tables(container) == tables(expected)


@pytest.mark.parametrize("steps", range(4))
def test_cut_off(session: bench.Session, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """What a killed call has left is removed; without anything, nothing is made."""
    with session.container() as container:
        container.run(["sh", "-euc", TAPS], check=True)
        before = [rules(container, family) for family in MAIN]

        def die(*_: object) -> None:
            raise OSError(5, "killed")

        places = [(routing, "_add_address"), (routing, "_add_routes"), (marks, "add")]
        if steps < len(places):
            module, name = places[steps]
            monkeypatch.setattr(module, name, die)
            with pytest.raises(ShimError, match="cannot look into") as caught:
                prepare(container, 7, is_old=True)
            assert caught.value.details.endswith(": killed")
        monkeypatch.undo()
        remove(container, 7)

        after = [rules(container, family) for family in MAIN]
        if steps < 2:
            assert after == before
        assert not any(rule[1] for found in after for rule in found)
        assert tables(container) == ""


@pytest.mark.parametrize("module", [marks, handshake])
def test_nothing_to_drop(session: bench.Session, module: ModuleType) -> None:
    """A netns without the table stays without."""
    with session.container() as container:
        run_in(container.netns, lambda: module.drop(7))

        assert tables(container) == ""


def test_without_ipv6(session: bench.Session) -> None:
    """Where IPv6 is switched off, IPv4 works."""
    off = "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6"
    with session.container() as container:
        container.run(["sh", "-euc", f"{off}; {TAPS}"], check=True)
        prepare(container, 7)

        assert rules(container, "-4")[0][1] == "0x50070000"
        assert not any(rule[1] for rule in rules(container, "-6"))
        assert "publisher-7" in tables(container)
        remove(container, 7)
        assert "publisher-7" not in tables(container)


def test_tap_comes_and_goes(session: bench.Session) -> None:
    """A tap that is not there is made, and stays without a program until it is removed."""
    with session.container() as container:
        for _ in range(2):
            prepare(container, 7)
        (link,) = shown(container, "link", "show", "pub7")
        for _ in range(2):
            remove(container, 7)
        left = [link["ifname"] for link in shown(container, "link")]

    assert "UP" in link["flags"]
    assert left == ["lo"]


def test_tap_cannot_be_made(session: bench.Session) -> None:
    """The error names the tap."""
    number = 10**12  # its name would be too long
    with session.container() as container, pytest.raises(ShimError) as caught:
        prepare(container, number)
    assert f"cannot set up pub{number}: " in caught.value.details


# Each answer is the address that the server sees. On port 25 it speaks first.
SERVER = """
import socket, threading
def stream(family, port):
    s = socket.create_server(("", port), family=family)
    while True:
        c, peer = s.accept()
        if port == 80:
            c.recv(99)
        c.sendall(peer[0].encode())
        c.close()
def datagrams(family):
    s = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind(("", 80))
    while True:
        peer = s.recvfrom(99)[1]
        s.sendto(peer[0].encode(), peer)
for family in socket.AF_INET, socket.AF_INET6:
    for target, *more in (stream, 80), (stream, 25), (datagrams,):
        threading.Thread(target=target, args=(family, *more)).start()
print(flush=True)
"""
PORTS = [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 8080, "containerPort": 80, "protocol": "udp"},
    {"hostPort": 2525, "containerPort": 25, "protocol": "tcp"},
]
PREPARE = "from netns_shim.ports import routing as r; r.prepare('pub7', 7, {!r}, {!r}, is_old={})"
REMOVE = "from netns_shim.ports import routing as r; r.remove('pub7', 7)"


def seen(place: bench.Place, kind: str, address: str, port: str) -> str:
    """Ask from a place; give the address that the server sees, or what went wrong.

    It asks again for a while: with a pasta of 2023, one server of 256 that speaks first is not
    heard.
    """
    return ask(place, address, int(port), "first" if port == "2525" else kind, patience=15)


@pytest.mark.parametrize("driver", ["pasta", "none"])
def test_a_port_of_the_host(world: bench.World, session: bench.Session, driver: str) -> None:
    """Clients keep their addresses, the host itself as well; the uplink's way is not touched."""
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    runtime = Runtime(
        session,
        plugins=[bridge(*DUAL), ports],
        capabilities={"portMappings": True},
        uplink={"driver": driver},
        publish=False,  # the test does that itself
        runtimeConfig={"portMappings": PORTS},
    )
    with session.container() as container:
        runtime.add("c", container)
        server = container.popen(["python3", "-c", SERVER], stdout=-1, text=True)
        server.stdout.readline()
        pin = f"{world.state_dir}/default/netns"
        is_old = "--map-guest-addr" not in session.run(["pasta", "--help"]).stderr
        command = ["pasta", "-t", "8080", "-t", "2525", "-u", "8080", "-T", "none", "-U", "none"]
        command += ["--no-map-gw", "-a", ADDRESS4, "-a", ADDRESS6, "-I", "pub7"]
        command += ["--quiet", "--pid", "/tmp/pub7", "--netns", pin]
        inside = ["nsenter", f"--net={pin}", "/opt/netns-shim/bin/python3", "-c"]
        session.run([*inside, PREPARE.format(ADDRESS4, ADDRESS6, is_old)], check=True)
        session.run(command, check=True)
        session.run([*inside, PREPARE.format(ADDRESS4, ADDRESS6, is_old)], check=True)

        asked = [("tcp", "8080"), ("udp", "8080"), ("tcp", "2525")]
        clients = [(world.internet, bench.PAGE, bench.PAGE6), (world, bench.HOST, bench.HOST6)]
        # A bridge that is new has no IPv6 for a second or two.
        assert until(lambda: seen(world, "udp", bench.HOST6, "8080") == bench.HOST6)
        for kind, port in asked:
            for place, address4, address6 in clients:
                assert seen(place, kind, bench.HOST, port) == address4
                assert seen(place, kind, bench.HOST6, port) == address6
            assert seen(world, kind, "127.0.0.1", port) in (ADDRESS4, "10.89.0.1")
            if kind == "tcp" or not is_old:
                assert seen(world, kind, "::1", port) == ADDRESS6
        if driver == "pasta":
            assert page(container, bench.PAGE)
            assert page(container, bench.PAGE_BEYOND)
            assert page(container, bench.PAGE6)

        session.run(["sh", "-c", "kill $(cat /tmp/pub7)"], check=True)
        session.run([*inside, REMOVE], check=True)
        runtime.delete("c", container)
    assert until(lambda: world.leftovers() == [])

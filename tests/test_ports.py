# SPDX-License-Identifier: Apache-2.0
"""Published ports end to end: open on the host exactly as long as their attachment."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bench
import pytest
from bench import HOST, HOST6, PAGE, PAGE6
from fakes import executable
from places import Child
from ports import ASKER, FIRST, answering, ask, listening, mapping, publishing, runtime
from runtime import DUAL, PLUGIN, ips, until

pytestmark = pytest.mark.netns
NFT = "/usr/sbin/nft"
DEAF = "table arp deaf { chain input { type filter hook input priority 0; policy drop; }; }"
UPLINKS = ("pasta", "slirp4netns", "none")


@pytest.fixture(params=UPLINKS)
def uplink(request: pytest.FixtureRequest) -> str:
    """Give each uplink in turn."""
    return str(request.param)


def open_ports(world: bench.World) -> set[int]:
    """List the numbers of the ports below 32768 that are open on the machine."""
    numbers = {int(re.sub(r".*:", "", entry)) for entry in listening(world)}
    return {number for number in numbers if number < 32768}


def test_port_is_open_while_attached(
    world: bench.World, session: bench.Session, uplink: str
) -> None:
    """A published port is open on the host from ADD to DEL, over TCP and UDP."""
    client = runtime(session, uplink=uplink)
    ports = publishing(mapping(8080), mapping(8080, protocol="udp"), mapping(2525, FIRST))
    with session.container() as container, answering(world, container):
        client.succeed("ADD", "web", container.netns, conf=ports)
        answers = [ask(world.internet, HOST, 8080), ask(world.internet, HOST, 8080, "udp")]
        opened = open_ports(world)
        client.succeed("DEL", "web", container.netns, conf=ports)

    assert [answer[:1].isdigit() for answer in answers] == [True, True], answers
    assert opened == {8080, 2525}
    assert open_ports(world) == set()
    assert world.leftovers() == []


def test_families_are_those_of_the_container(
    world: bench.World, session: bench.Session, uplink: str
) -> None:
    """A container with IPv4 has its ports open on IPv4 only, one with both on both."""
    four = runtime(session, uplink=uplink)
    both = runtime(session, *DUAL, uplink=uplink, bridge_name="cni1", name="both")
    both.conf["plugins"][0]["ipam"]["ranges"][0][0]["subnet"] = "10.90.0.0/24"
    with session.container() as one, session.container() as other, answering(world, other):
        four.succeed("ADD", "four", one.netns, conf=publishing(mapping(8004)))
        both.succeed("ADD", "both", other.netns, conf=publishing(mapping(8046)))
        said = {
            "IPv6 of a container without": ask(world, "::1", 8004, patience=0),
            "IPv6": ask(world, HOST6, 8046) if uplink != "slirp4netns" else PAGE6,
            "IPv4": ask(world, HOST, 8046),
        }
        both.succeed("DEL", "both", other.netns)
        four.succeed("DEL", "four", one.netns)

    assert said["IPv6 of a container without"] == "refused"
    assert ":" in said["IPv6"], said
    assert "." in said["IPv4"], said
    assert world.leftovers() == []


@pytest.mark.parametrize("uplink", ["pasta", "none"])
def test_ipv6_answers_at_once(world: bench.World, session: bench.Session, uplink: str) -> None:
    """The first client over IPv6 is answered: the bridge looks for no duplicate of its address."""
    client = runtime(session, *DUAL, uplink=uplink)
    with session.container() as container, answering(world, container):
        client.succeed("ADD", "web", container.netns, conf=publishing(mapping(8080)))
        answer = ask(world.internet, HOST6, 8080, patience=0)
        client.succeed("DEL", "web", container.netns)

    assert answer == PAGE6


def test_one_address_of_the_host(world: bench.World, session: bench.Session, uplink: str) -> None:
    """A port on one address is open there only; another container has it on another address."""
    client = runtime(session, uplink=uplink)
    own, local = mapping(8080, address=HOST), mapping(8080, address="127.0.0.1")
    with session.container() as one, session.container() as other:
        with answering(world, one):
            client.succeed("ADD", "one", one.netns, conf=publishing(own))
            before = [ask(world, "127.0.0.1", 8080, patience=0), ask(world.internet, HOST, 8080)]
        with answering(world, other):
            client.succeed("ADD", "other", other.netns, conf=publishing(local))
            # The server of the first container has ended, so its port leads to nothing.
            after = [ask(world, "127.0.0.1", 8080), ask(world.internet, HOST, 8080, patience=0)]
        opened = {entry for entry in listening(world) if entry.endswith(":8080")}
        client.succeed("DEL", "one", one.netns, conf=publishing(own))
        left = {entry for entry in listening(world) if entry.endswith(":8080")}
        client.succeed("DEL", "other", other.netns, conf=publishing(local))

    assert before[0] == "refused"
    assert before[1][:1].isdigit(), before
    assert after[0][:1].isdigit(), after
    assert not after[1][:1].isdigit(), after
    assert opened == {f"tcp {HOST}:8080", "tcp 127.0.0.1:8080"}
    assert left == {"tcp 127.0.0.1:8080"}
    assert world.leftovers() == []


def test_nothing_to_open_starts_no_publisher(world: bench.World, session: bench.Session) -> None:
    """A call whose mappings no host can open starts no publisher, and says what is not open."""
    client = runtime(session)
    six, sctp = mapping(8080, address="::1"), mapping(8080, protocol="sctp")
    with session.container() as one, session.container() as other:
        client.succeed("ADD", "other", other.netns)
        before = sorted(world.programs())
        for ports, said in (
            (None, ""),
            ([], ""),
            ([sctp], "8080/sctp"),
            ([six], "[::1]:8080/tcp"),
        ):
            conf = {"runtimeConfig": {"portMappings": ports}}
            added = client.call("ADD", "one", one.netns, conf=conf)
            during = sorted(world.programs())
            client.succeed("DEL", "one", one.netns, conf=conf)

            assert added.returncode == 0, added.stdout
            assert said in added.stderr
            assert bool(said) == bool(added.stderr)
            assert during == before == sorted(world.programs())
        client.succeed("DEL", "other", other.netns)

    assert world.leftovers() == []


def test_taken_port_fails_the_add(world: bench.World, session: bench.Session, uplink: str) -> None:
    """A port that another program has fails the ADD with its name, and nothing is left."""
    script = (
        "import socket; s = socket.create_server(('', 8080)); print('open', flush=True); input()"
    )
    client = runtime(session, uplink=uplink)
    with (
        session.container() as container,
        session.popen(["python3", "-c", script], stdin=-1, stdout=-1) as taker,
    ):
        assert taker.stdout.readline() == "open\n"
        error = client.fail("ADD", "web", container.netns, conf=publishing(mapping(8080)))
        taker.communicate("\n")

    assert error["code"] == 106
    assert "8080/tcp" in error["msg"]
    assert "python3" in error["details"]
    assert world.leftovers() == []


def test_port_of_another_attachment(
    world: bench.World, session: bench.Session, uplink: str
) -> None:
    """A port that another container publishes is refused with the name of that container."""
    client = runtime(session, uplink=uplink)
    ports = publishing(mapping(8080))
    with session.container() as one, session.container() as other:
        client.succeed("ADD", "first", one.netns, conf=ports)
        error = client.fail("ADD", "second", other.netns, conf=ports)
        client.succeed("DEL", "second", other.netns, conf=ports)
        opened = open_ports(world)
        client.succeed("DEL", "first", one.netns, conf=ports)

    assert (error["code"], "'first'" in error["details"]) == (106, True), error
    assert opened == {8080}
    assert world.leftovers() == []


def test_container_in_two_networks(
    world: bench.World, session: bench.Session, uplink: str
) -> None:
    """Runtimes give the ports to each network of a container: the first one publishes them."""
    client = runtime(session, uplink=uplink)
    second = runtime(session, "10.90.0.0/24", uplink=uplink, bridge_name="cni1", name="second")
    ports = publishing(mapping(8080), mapping(8080, protocol="udp"))
    with session.container() as web, answering(world, web):
        client.succeed("ADD", "web", web.netns, conf=ports)
        second.succeed("ADD", "web", web.netns, conf=ports, CNI_IFNAME="eth1")
        answer = ask(world.internet, HOST, 8080)
        second.succeed("DEL", "web", web.netns, conf=ports, CNI_IFNAME="eth1")
        again = ask(world.internet, HOST, 8080)
        client.succeed("DEL", "web", web.netns, conf=ports)

    assert (answer[:1].isdigit(), again[:1].isdigit()) == (True, True), (answer, again)
    assert open_ports(world) == set()
    assert world.leftovers() == []


def test_low_port(world: bench.World, session: bench.Session) -> None:
    """A port that is for root fails the ADD, and the error says what to do."""
    client = runtime(session)
    with session.container() as container:
        error = client.fail("ADD", "web", container.netns, conf=publishing(mapping(80)))

    assert error["code"] == 106
    assert "net.ipv4.ip_unprivileged_port_start=80" in error["details"]
    assert world.leftovers() == []


def test_publish_false(world: bench.World, session: bench.Session) -> None:
    """With the key `publish` set to false, no port of the host is opened."""
    client = runtime(session, publish=False)
    with session.container() as container:
        client.succeed("ADD", "web", container.netns, conf=publishing(mapping(8080)))
        opened = open_ports(world)
        client.succeed("DEL", "web", container.netns)

    assert opened == set()


@pytest.mark.parametrize("uplink", ["pasta", "slirp4netns"])
def test_ports_of_the_netns_itself(
    world: bench.World, session: bench.Session, uplink: str
) -> None:
    """A list of ports leads to what listens in the shared netns, as long as it is there."""
    client = runtime(session, uplink=uplink, publish=["8443:80", "127.0.0.1:5353:80/udp"])
    with session.container() as container:
        client.succeed("ADD", "web", container.netns)
        pin = f"{world.state_dir}/default/netns"
        with answering(world, _Netns(session, pin)):
            answer = ask(world.internet, HOST, 8443)
        opened = {e for e in listening(world) if e.endswith((":8443", ":5353"))}
        client.succeed("DEL", "web", container.netns)

    assert answer[:1].isdigit(), answer
    assert {entry.partition(" ")[0] for entry in opened} == {"tcp", "udp"}
    assert world.leftovers() == []


class _Netns:
    """The shared netns, as a place in which a program can be started."""

    def __init__(self, session: bench.Session, path: str) -> None:
        self._session, self._path = session, path

    def popen(self, argv: Sequence[object], *, stdin: int, stdout: int) -> Child:
        """Start a program there."""
        command = ["nsenter", f"--net={self._path}", *argv]
        return self._session.popen(command, stdin=stdin, stdout=stdout)


def test_ports_of_an_isolated_netns_itself(session: bench.Session) -> None:
    """Without an uplink a list of ports is refused, with the reason."""
    client = runtime(session, uplink="none", publish=["8443:80"])
    with session.container() as container:
        error = client.fail("ADD", "web", container.netns)

    assert (error["code"], "$.publish" in error["msg"]) == (7, True), error
    assert "need an uplink" in error["msg"]


def test_listed_port_is_tried_again(world: bench.World, session: bench.Session) -> None:
    """A listed port that is taken is a warning, and the next ADD opens it once it is free."""
    script = "import socket; s = socket.create_server(('', 8443)); print(1, flush=True); input()"
    client = runtime(session, publish=["8443"])
    with session.container() as one, session.container() as two:
        with session.popen(["python3", "-c", script], stdin=-1, stdout=-1) as taker:
            taker.stdout.readline()
            warned = client.call("ADD", "one", one.netns)
            taker.communicate("\n")
        client.succeed("ADD", "two", two.netns)
        opened = open_ports(world)
        client.succeed("DEL", "two", two.netns)
        client.succeed("DEL", "one", one.netns)

    assert warned.returncode == 0
    assert "a port of the shared netns is not open" in warned.stderr
    assert opened == {8443}


@pytest.mark.parametrize("uplink", ["pasta", "slirp4netns"])
def test_listed_ports_outlive_the_uplink(
    world: bench.World, session: bench.Session, uplink: str
) -> None:
    """Listed ports are open after `refresh`, a lost record, and a kill of all that opens them."""
    client = runtime(session, uplink=uplink, publish=["8443"])
    record = world.path(f"{world.state_dir}/default/uplink.json")
    refresh = ["/opt/netns-shim/bin/netns-shim", "refresh"]
    with session.container() as one, session.container() as two:
        client.succeed("ADD", "one", one.netns)
        refreshed = session.run(refresh, check=True).stderr, open_ports(world)
        forgotten = {k: v for k, v in json.loads(record.read_text()).items() if k != "publisher"}
        write = ["tee", f"{world.state_dir}/default/uplink.json"]
        session.run(write, input=json.dumps(forgotten), check=True)
        restored = session.run(refresh, check=True).stderr, open_ports(world)
        _kill_all(session)
        client.succeed("ADD", "two", two.netns)
        repaired = open_ports(world)
        client.succeed("DEL", "two", two.netns)
        client.succeed("DEL", "one", one.netns)

    assert (refreshed[1], restored[1]) == ({8443}, {8443})
    assert "is not open" not in refreshed[0] + restored[0]
    assert repaired == {8443}
    assert world.leftovers() == []


def test_gc_and_stop_close_ports(world: bench.World, session: bench.Session, uplink: str) -> None:
    """GC closes the ports of what it detaches, and `stop --force` closes all."""
    client = runtime(session, uplink=uplink)
    with session.container() as one, session.container() as other:
        client.succeed("ADD", "one", one.netns, conf=publishing(mapping(8001)))
        client.succeed("ADD", "other", other.netns, conf=publishing(mapping(8002)))
        valid = [{"containerID": "other", "ifname": "eth0"}]
        client.conf["cniVersion"] = "1.1.0"
        client.succeed("GC", conf={"cni.dev/valid-attachments": valid})
        left = open_ports(world)
        session.run(["/opt/netns-shim/bin/netns-shim", "stop", "--force"], check=True)

    assert left == {8002}
    assert open_ports(world) == set()
    assert world.leftovers() == []


def test_new_uplink_opens_all_again(
    world: bench.World, session: bench.Session, uplink: str
) -> None:
    """After `refresh` all ports are open, and after a kill of the uplink with the next ADD."""
    client = runtime(session, uplink=uplink)
    with session.container() as one, session.container() as other:
        client.succeed("ADD", "one", one.netns, conf=publishing(mapping(8001)))
        client.succeed("ADD", "two", other.netns, conf=publishing(mapping(8002)))
        session.run(["/opt/netns-shim/bin/netns-shim", "refresh"], check=True)
        refreshed = open_ports(world)
        _kill_all(session)
        killed = open_ports(world)
        client.succeed("ADD", "three", other.netns, CNI_IFNAME="eth1")
        repaired = open_ports(world)
        client.succeed("DEL", "three", other.netns, CNI_IFNAME="eth1")
        client.succeed("DEL", "two", other.netns)
        last = open_ports(world)
        client.succeed("DEL", "one", one.netns)

    assert refreshed == {8001, 8002}
    assert killed == set()
    assert repaired == {8001, 8002}
    assert last == {8001}
    assert world.leftovers() == []


def _kill_all(session: bench.Session) -> None:
    """Kill the uplink, all publishers and first their guardians; wait until they are gone."""
    script = (
        "import os, select, signal\n"
        "found = [pid for pid in os.listdir('/proc') if pid.isdigit()]\n"
        "for pid in found * 2:\n"
        "    is_first, found = bool(found), found[1:]\n"
        "    try:\n"
        "        name = os.path.basename(os.readlink(f'/proc/{pid}/exe'))\n"
        "        with open(f'/proc/{pid}/cmdline', 'rb') as file:\n"
        "            is_guardian = b'netns-shim-guardian\\0' in file.read()\n"
        "        if not (is_guardian if is_first else name.startswith(('pas', 'slirp'))):\n"
        "            continue\n"
        "        fd = os.pidfd_open(int(pid))\n"
        "        signal.pidfd_send_signal(fd, signal.SIGKILL)\n"
        "    except OSError:\n"
        "        continue\n"
        "    select.select([fd], [], [], 10)\n"
    )
    session.run(["python3", "-c", script], check=True)


# Who opens the ports, and what the container sees of a client from outside, of one at the host's
# own address, at 127.0.0.1, and at ::1. IPv6 is answered later, for the bridge has an address
# that is not usable for a second.
SEEN = {
    "pesto": (PAGE, HOST, "198.19.110.114", "fd6e:6574:6e73:1::2"),
    "pasta": (PAGE, HOST, "169.254.64.1", "fd6e:6574:6e73::1"),
    "pasta of 2023": (PAGE, HOST, "10.89.0.1", "fd6e:6574:6e73::1"),
    "slirp4netns": (PAGE, HOST, "10.0.2.2", "refused"),
}


def test_what_the_container_sees(world: bench.World, session: bench.Session, uplink: str) -> None:
    """From another machine the container sees the client's own address; on the host it depends."""
    client = runtime(session, *DUAL, uplink=uplink)
    other = runtime(session, "10.90.0.0/24", uplink=uplink, bridge_name="cni1", name="other")
    with session.container() as web, session.container() as near, session.container() as far:
        with answering(world, web):
            client.succeed("ADD", "web", web.netns, conf=publishing(mapping(8080)))
            client.succeed("ADD", "near", near.netns)
            other.succeed("ADD", "far", far.netns)
            seen = (
                ask(world.internet, HOST, 8080),
                ask(world, HOST, 8080),
                ask(world, "127.0.0.1", 8080),
                ask(world, "::1", 8080, patience=15 if uplink != "slirp4netns" else 0),
            )
            inside = [ask(near, "10.89.0.1", 8080), ask(far, "10.90.0.1", 8080)]
            first = ask(world.internet, HOST6, 8080) if uplink != "slirp4netns" else PAGE6
        who = publisher_of(world, "web")
        client.succeed("DEL", "web", web.netns)
        client.succeed("DEL", "near", near.netns)
        other.succeed("DEL", "far", far.netns)

    assert seen == SEEN[who], who
    assert first == PAGE6
    # Another container sees the address of the bridge, as without the shim.
    assert inside == ["10.89.0.1", "10.89.0.1"]


def publisher_of(world: bench.World, container_id: str) -> str:
    """Tell who has opened the ports of a container, as SEEN calls it."""
    (path,) = world.path(f"{world.state_dir}/default/refs").glob(f"*:{container_id}:*")
    made = [json.loads(line).get("publisher") for line in path.read_text().splitlines()]
    driver = str([publisher for publisher in made if publisher][-1]["driver"])
    usage = world.run(["pasta", "--help"])
    is_old = "--map-guest-addr" not in usage.stdout + usage.stderr
    return f"{driver} of 2023" if driver == "pasta" and is_old else driver


def test_server_that_speaks_first(world: bench.World, session: bench.Session, uplink: str) -> None:
    """SSH and SMTP work from outside: a server that speaks first is heard."""
    client = runtime(session, uplink=uplink)
    with session.container() as container, answering(world, container):
        client.succeed("ADD", "mail", container.netns, conf=publishing(mapping(2525, FIRST)))
        answer = ask(world.internet, HOST, 2525, "first")
        client.succeed("DEL", "mail", container.netns)

    assert answer == PAGE


def test_answers_that_come_at_once(world: bench.World, session: bench.Session) -> None:
    """A port works after the first answers of its server have waited, and come together."""
    client = runtime(session)
    question = ["/usr/bin/python3", "-I", "-", "tcp", HOST, "8080", "20"]
    pipe = subprocess.PIPE
    with session.container() as container, answering(world, container):
        made = client.add("web", container, conf=publishing(mapping(8080)))
        inside = ["nsenter", f"--net={world.state_dir}/default/netns"]
        (mac,) = (each["mac"] for each in made["interfaces"] if each.get("sandbox"))
        fixed = ["ip", "neigh", "replace", *ips(made), "lladdr", mac, "dev", "cni0"]
        session.run([*inside, *fixed, "nud", "permanent"], check=True)
        # The server asks for the bridge's address for 3 seconds, and repeats itself after one.
        session.run([*inside, NFT, "-f", "-"], input=DEAF, check=True)
        container.run(["ip", "neigh", "flush", "dev", "eth0"], check=True)
        with world.internet.popen(question, stdin=pipe, stdout=pipe) as asker:
            asker.stdin.write(ASKER)
            asker.stdin.close()
            waiting = ["ss", "--no-header", "-tno", "state", "syn-recv"]
            assert until(
                lambda: re.search(r"timer:\(on,[^,]*,[1-9]", container.run(waiting).stdout)
            )
            session.run([*inside, NFT, "delete", "table", "arp", "deaf"], check=True)
            answer = asker.stdout.read().strip()
        again = ask(world.internet, HOST, 8080)
        client.delete("web", container)

    assert (answer, again) == (PAGE, PAGE)


def test_many_containers_in_any_order(world: bench.World, session: bench.Session) -> None:
    """With 20 containers of 20 ports each, exactly those of what is attached are open."""
    client = runtime(session)
    rest = list(range(10000, 10400))
    chance = random.Random(20)
    chance.shuffle(rest)
    wanted = {f"c{n}": set(rest[20 * n : 20 * n + 20]) for n in range(20)}
    containers = {name: session.container() for name in wanted}
    attached: set[str] = set()
    try:
        for name in chance.choices(list(wanted), k=40):
            ports = publishing(*map(mapping, sorted(wanted[name])))
            verb = "DEL" if name in attached else "ADD"
            client.succeed(verb, name, containers[name].netns, conf=ports)
            attached ^= {name}
            assert open_ports(world) == set().union(*(wanted[n] for n in attached))
        for name in attached:
            client.succeed("DEL", name, containers[name].netns)
    finally:
        for container in containers.values():
            container.close()

    assert world.leftovers() == []


def test_two_hundred_ports_at_once(
    world: bench.World, session: bench.Session, uplink: str
) -> None:
    """An attachment can publish 200 ports that are no neighbours."""
    client = runtime(session, uplink=uplink)
    numbers = range(9000, 9400, 2)
    with session.container() as container, answering(world, container):
        client.succeed("ADD", "web", container.netns, conf=publishing(*map(mapping, numbers)))
        opened = open_ports(world)
        answer = ask(world.internet, HOST, 9398)
        client.succeed("DEL", "web", container.netns)

    assert opened == set(numbers)
    assert answer[:1].isdigit(), answer
    assert world.leftovers() == []


def test_gc_of_a_dead_container(world: bench.World, session: bench.Session, uplink: str) -> None:
    """`netns-shim gc` closes the ports of a container whose runtime has lost it."""
    client = runtime(session, uplink=uplink)
    with session.container() as alive:
        client.succeed("ADD", "alive", alive.netns, conf=publishing(mapping(8001)))
        with session.container() as dead:
            client.succeed("ADD", "dead", dead.netns, conf=publishing(mapping(8002)))
        session.run(["/opt/netns-shim/bin/netns-shim", "gc"], check=True)
        left = open_ports(world)
        client.succeed("DEL", "alive", alive.netns)

    assert left == {8001}
    assert world.leftovers() == []


def test_in_place_nothing_is_published(world: bench.World, session: bench.Session) -> None:
    """In the netns of a caller who owns it, the owner publishes: no port of the host is opened."""
    with session.container() as machine, machine.container() as container:
        client = runtime(machine, stateDir="/tmp/in-place")
        client.succeed("ADD", "web", container.netns, conf=publishing(mapping(8080)))
        opened = open_ports(world)
        inside = machine.run(["ss", "--no-header", "-lnt"], check=True).stdout
        client.succeed("DEL", "web", container.netns)

    assert opened == set()
    assert inside == ""


def test_same_attachment_twice_at_once(
    world: bench.World, session: bench.Session, uplink: str
) -> None:
    """Of two ADDs of one attachment at once one succeeds, and its ports stay open."""
    client = runtime(session, uplink=uplink)
    ports = publishing(mapping(8080))
    with session.container() as container, ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(client.call, "ADD", "web", container.netns, conf=ports) for _ in range(2)
        ]
        done = sorted((call.result() for call in calls), key=lambda call: call.returncode)
        opened = open_ports(world)
        client.succeed("DEL", "web", container.netns)

    assert [call.returncode for call in done] == [0, 1]
    assert json.loads(done[1].stdout)["code"] in (11, 104)
    assert opened == {8080}
    assert world.leftovers() == []


def test_many_at_once(world: bench.World, session: bench.Session, uplink: str) -> None:
    """Twelve ADDs and then DELs at once all succeed, and open and close their ports."""
    client = runtime(session, uplink=uplink)
    containers = [session.container() for _ in range(12)]
    try:
        with ThreadPoolExecutor(12) as pool:
            for verb, wanted in (("ADD", set(range(8100, 8112))), ("DEL", set())):
                calls = [
                    pool.submit(
                        client.succeed,
                        verb,
                        f"c{number}",
                        container.netns,
                        conf=publishing(mapping(8100 + number)),
                    )
                    for number, container in enumerate(containers)
                ]
                for call in calls:
                    call.result()
                assert open_ports(world) == wanted
    finally:
        for container in containers:
            container.close()

    assert world.leftovers() == []


# It is slow to open ports, and says when it has begun.
SLOW = """#!/bin/sh
case "$*" in *pub1*) echo begun >/tmp/begun; exec sleep 1000 ;; esac
exec /usr/bin/pasta "$@"
"""


def test_signal_while_ports_are_opened(
    world: bench.World, session: bench.Session, tmp_path: Path
) -> None:
    """SIGTERM while a publisher starts undoes the ADD, and ends the publisher."""
    world.provide(executable(tmp_path / "slow-pasta", SLOW))
    session.run(["mkfifo", "/tmp/begun"], check=True)
    path = f"{bench.TYPED}/slow-pasta"
    client = runtime(session, uplink={"driver": "pasta", "path": path})
    with session.container() as container:
        env = client.environment("ADD", "web", container.netns)
        call = session.popen([PLUGIN], env=env, stdin=-1, stdout=-1)
        call.stdin.write(json.dumps({**client.conf, **publishing(mapping(8080))}))
        call.stdin.close()
        session.run(["cat", "/tmp/begun"], check=True)
        call.terminate()
        error = json.loads(call.stdout.read())
        call.stdout.close()

        assert call.wait(20) == 1
    assert error["code"] == 105
    assert "sleep" not in world.programs()
    session.run(["rm", "/tmp/begun"], check=True)
    assert world.leftovers() == []


def test_full_disk(world: bench.World, session: bench.Session, uplink: str) -> None:
    """Where the journal cannot be written, the ADD fails, and no port is open."""
    client = runtime(session, uplink=uplink)
    fill = "mkdir -p /var/tmp/small; mount -t tmpfs -o size=64k tmpfs /var/tmp/small"
    session.run(["sh", "-euc", fill], check=True)
    client.conf["stateDir"] = "/var/tmp/small/state"
    ports = publishing(mapping(8080))
    with session.container() as one, session.container() as other:
        client.succeed("ADD", "one", one.netns)
        session.run(["sh", "-c", "cat /dev/zero >/var/tmp/small/zeros"])
        error = client.fail("ADD", "web", other.netns, conf=ports)
        opened = open_ports(world)
        session.run(["rm", "/var/tmp/small/zeros"], check=True)
        client.succeed("ADD", "web", other.netns, conf=ports)
        client.succeed("DEL", "web", other.netns, conf=ports)
        client.succeed("DEL", "one", one.netns)

    assert error["code"] == 5, error
    assert opened == set()
    assert open_ports(world) == set()

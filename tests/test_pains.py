# SPDX-License-Identifier: Apache-2.0
"""What has hurt users of rootless networks elsewhere, provoked here; see docs/reliability.md."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import bench
import kills
import naming
import pytest
from fakes import executable
from gate import CONF, Gate
from runtime import PLUGIN, Runtime, bridge, kill_for_good, page, reaches, until

from netns_shim import errors
from netns_shim.proc import start_time


@pytest.fixture
def state(world: bench.World) -> str:
    """The directory of the default netns, as it is called in the machine."""
    return f"{world.state_dir}/default"


@pytest.fixture
def runtime(session: bench.Session) -> Runtime:
    """A runtime with a bridge and pasta."""
    return Runtime(session, delegate=bridge(), uplink="pasta")


def uplink(runtime: Runtime) -> int:
    """Give the process ID of the uplink."""
    return int(runtime.status()[0]["uplink"]["pid"])


# What becomes of others


def test_add_spares_who_has_the_path_now(world: bench.World, session: bench.Session) -> None:
    """An ADD that removes what is left of its container leaves the one alone that has its path."""
    runtime = Runtime(session, delegate={**bridge(), "ipMasq": False}, uplink="none")
    path, new = "/run/netns/reused", "/run/netns/new"
    with session.container(pinned=path) as container:
        runtime.add("first", container)
        # Which keeps its number from being given to one of the next.
        held = os.open(f"/proc/{container.pid}/ns/net", os.O_RDONLY)
    with session.container(pinned=path) as second, session.container(pinned=new) as again:
        runtime.add("second", second)

        runtime.add("first", again)

        # The first packet may be lost on a busy machine.
        assert until(lambda: reaches(second, "10.89.0.1"))
        assert until(lambda: reaches(again, "10.89.0.1"))
        assert sorted(runtime.attached()) == ["first", "second"]
        runtime.delete("first", again)
        runtime.delete("second", second)
    os.close(held)
    assert world.leftovers() == []


def test_a_number_that_the_next_container_has(world: bench.World, session: bench.Session) -> None:
    """A new netns of the same container that has got the number of the old one is attached."""
    runtime = Runtime(session, delegate={**bridge(), "ipMasq": False}, uplink="none")
    with session.container() as container:
        runtime.add("c", container)
        container.run(["ip", "link", "delete", "eth0"], check=True)  # so it is as good as new

        runtime.add("c", container)

        assert reaches(container, "10.89.0.1")
        assert runtime.attached() == ["c"]
        assert runtime.fail("ADD", "c", container.netns)["code"] == errors.ALREADY_ATTACHED
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize("where", ["default", ".in-place"])
def test_the_same_container_after_a_restart_of_the_machine(
    world: bench.World, session: bench.Session, where: str
) -> None:
    """A container with the ID of before, and even the number of its netns, is attached again."""
    top = world.state_dir
    with session.container() as outer, session.container() as container:
        place = session if where == "default" else outer
        runtime = Runtime(place, delegate={**bridge(), "ipMasq": False}, uplink="none")
        runtime.add("c", container)
        for file in ("default/uplink.json", f"{where}/refs/rootless:c:eth0:bridge"):
            path = session.path(f"{top}/{file}")
            if path.exists():
                path.write_text(re.sub('"bootID": ?"', '"bootID":"another', path.read_text()))
        session.run(["umount", "-l", f"{top}/default/netns"])
        container.run(["ip", "link", "delete", "eth0"])  # it is a new one

        done = runtime.call("ADD", "c", container.netns)

        assert done.returncode == 0, done.stdout
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
        assert runtime.attached() == []


BROKEN = """#!/bin/sh
[ $CNI_COMMAND = VERSION ] && echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' && exit
[ ! -e "$0.$CNI_COMMAND" ] || { echo '{"code": 142, "msg": "broken"}'; exit 1; }
[ $CNI_COMMAND != ADD ] || sed 's/.*"prevResult": *\\({.*}\\)}$/\\1/'
"""


@pytest.fixture
def broken(world: bench.World, session: bench.Session) -> str:
    """A directory with a plugin that fails in the verbs for which there is a file."""
    directory = f"{world.env['HOME']}/broken"
    script = 'mkdir "$0"; cat >"$0/broken"; chmod +x "$0/broken"'
    session.run(["sh", "-euc", script, directory], input=BROKEN, check=True)
    return directory


def chain(session: bench.Session, directory: str, uplink: str) -> Runtime:
    """Make a runtime whose chain ends with the plugin of `broken`."""
    path = f"{directory}:{bench.World.plugin_dir}"
    return Runtime(session, path=path, plugins=[bridge(), {"type": "broken"}], uplink=uplink)


def test_a_cleanup_that_fails_and_is_tried_again(
    world: bench.World, session: bench.Session, broken: str
) -> None:
    """However often a DEL fails, no other container loses the netns; in the end it succeeds."""
    runtime = chain(session, broken, "none")
    with session.container() as container, session.container() as other:
        runtime.add("c", container)
        runtime.add("other", other)
        flag = session.path(f"{broken}/broken.DEL")
        flag.touch()

        for _ in range(3):
            assert runtime.fail("DEL", "c", container.netns)["msg"] == "broken"

        assert sorted(runtime.attached()) == ["c", "other"]
        flag.unlink()
        runtime.delete("c", container)
        runtime.delete("c", container)
        assert runtime.attached() == ["other"]
        assert reaches(other, "10.89.0.1")
        runtime.delete("other", other)
    assert world.leftovers() == []


def test_a_reload_whose_teardown_fails(
    world: bench.World, session: bench.Session, broken: str
) -> None:
    """An ADD after a DEL that failed makes one attachment of it, which one DEL ends."""
    runtime = chain(session, broken, "none")
    with session.container() as container:
        runtime.add("c", container)
        flag = session.path(f"{broken}/broken.DEL")
        flag.touch()
        runtime.fail("DEL", "c", container.netns)
        flag.unlink()

        runtime.add("c", container)

        assert runtime.attached() == ["c"]
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_the_cleanup_of_a_start_that_failed(
    world: bench.World, session: bench.Session, broken: str
) -> None:
    """DELs for a container whose ADD has failed take nothing from those who are attached."""
    runtime = chain(session, broken, "none")
    with session.container() as container, session.container() as other:
        runtime.add("other", other)
        session.path(f"{broken}/broken.ADD").touch()
        runtime.fail("ADD", "c", container.netns)

        for netns in (container.netns, container.netns, ""):
            runtime.succeed("DEL", "c", netns)

        assert runtime.attached() == ["other"]
        assert reaches(other, "10.89.0.1")
        runtime.delete("other", other)
    assert world.leftovers() == []


def test_an_add_that_repairs_and_then_fails(
    world: bench.World, session: bench.Session, broken: str
) -> None:
    """A call that started the uplink again does not take it from others when it fails."""
    runtime = chain(session, broken, "pasta")
    with session.container() as container, session.container() as other:
        runtime.add("other", other)
        kill_for_good(runtime.status()[0]["uplink"])
        session.path(f"{broken}/broken.ADD").touch()

        assert runtime.fail("ADD", "c", container.netns)["msg"] == "broken"

        assert page(other, bench.PAGE)
        assert runtime.attached() == ["other"]
        runtime.delete("other", other)
    assert world.leftovers() == []


@pytest.fixture
def routes(world: bench.World) -> Iterator[list[list[str]]]:
    """What takes the machine's default routes away; they are put back afterwards."""
    yield [["ip", "route", "del", "default"], ["ip", "-6", "route", "del", "default"]]
    give_routes(world)


def give_routes(world: bench.World) -> None:
    """Give the machine its default routes, as they were."""
    for family, gateway in (("-4", bench.PAGE), ("-6", bench.PAGE6)):
        argv = ["ip", family, "route", "replace", "default", "via", gateway]
        world.root.run(argv, check=True)


# pasta, unless this file is there.
MOODY = """#!/bin/sh
if [ -e "$0.broken" ]; then echo 'External interface not usable' >&2; exit 1; fi
exec pasta "$@"
"""


def test_a_repair_that_fails(world: bench.World, session: bench.Session) -> None:
    """Where the uplink cannot be started again, who is attached stays so, for the next ADD."""
    program = f"{world.env['HOME']}/moody"
    executable(session.path(program), MOODY)
    uplinks = {"driver": "pasta", "path": program}
    runtime = Runtime(session, delegate=bridge(), uplink=uplinks)
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        kill_for_good(runtime.status()[0]["uplink"])
        session.path(f"{program}.broken").touch()

        error = runtime.fail("ADD", "new", new.netns)

        assert error["code"] == errors.UPLINK_FAILED
        assert "External interface not usable" in error["details"]
        assert runtime.attached() == ["old"]
        assert reaches(old, "10.89.0.1")
        session.path(f"{program}.broken").unlink()
        runtime.add("new", new)
        assert page(old, bench.PAGE_BEYOND)
        runtime.delete("old", old)
        runtime.delete("new", new)
    assert world.leftovers() == []


def test_a_hung_plugin_holds_up_nobody(
    world: bench.World, session: bench.Session, gate: Gate
) -> None:
    """While a plugin hangs, others come and go, and `status` answers."""
    hung = Runtime(session, path=gate.path, plugins=[bridge(), CONF], uplink="none", parallel=True)
    other = Runtime(session, delegate=bridge("10.90.0.0/24", name="cni1"), uplink="none", name="o")
    gate.shut("ADD")
    with session.container() as container, session.container() as beside:
        env = hung.environment("ADD", "c", container.netns)
        call = session.popen([PLUGIN], env=env, stdin=-1, stdout=-1, text=True)
        call.stdin.write(json.dumps(hung.conf))
        call.stdin.close()
        gate.wait()

        other.add("beside", beside, conf={"parallel": True})
        assert other.attached() == ["beside", "c"]
        other.delete("beside", beside)

        gate.open()
        assert call.wait(30) == 0
        hung.delete("c", container)
    assert world.leftovers() == []


def test_undoing_has_time_of_its_own(
    world: bench.World, session: bench.Session, gate: Gate
) -> None:
    """A plugin that hangs until its time is over is undone all the same, its address released."""
    plugins = [bridge(), CONF]
    runtime = Runtime(session, path=gate.path, plugins=plugins, uplink="none", timeout=2)
    gate.shut("ADD")
    with session.container() as container:
        error = runtime.fail("ADD", "c", container.netns)

        assert error["code"] == errors.PLUGIN_TIMED_OUT
        assert gate.calls() == ["ADD", "DEL"]
        assert "eth0" not in container.run(["ip", "link"], check=True).stdout
    assert world.leftovers() == []


# The uplink


def test_a_start_before_there_is_a_network(
    world: bench.World, session: bench.Session, runtime: Runtime, routes: list[list[str]]
) -> None:
    """Containers reach each other then, and the outside as soon as there is a network."""
    for command in routes:
        world.root.run(command, check=True)
    with session.container() as early, session.container() as container:
        runtime.add("early", early)
        assert reaches(early, "10.89.0.1")
        give_routes(world)
        assert page(early, bench.PAGE_BEYOND)

        runtime.add("c", container)

        names = session.run([PLUGIN, "run", "--", "cat", "/etc/resolv.conf"], check=True)
        assert "nameserver 169.254.1.1" in names.stdout
        assert page(container, bench.PAGE_BEYOND)
        assert page(early, bench.PAGE_BEYOND)
        runtime.delete("early", early)
        runtime.delete("c", container)
    assert world.leftovers() == []


FAILING = """#!/bin/sh
while [ $1 != --pid ]; do shift; done
: >"$2"
echo 'External interface not usable' >&2
exit 1
"""


def test_a_failed_uplink_that_leaves_an_empty_pid_file(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """The error is what the uplink said, not that its file is empty; nor is that in the way."""
    program = f"{world.env['HOME']}/pasta"
    session.run(["sh", "-c", 'cat >"$0"; chmod +x "$0"', program], input=FAILING, check=True)
    with session.container() as container:
        uplink = {"driver": "pasta", "path": program}

        error = runtime.fail("ADD", "c", container.netns, conf={"uplink": uplink})

        assert error["details"].startswith("External interface not usable; set")
        assert world.leftovers() == []
        runtime.add("c", container)
        assert page(container, bench.PAGE)
        runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_a_hung_uplink_holds_up_nobody(
    world: bench.World, session: bench.Session, driver: str
) -> None:
    """One that is stopped holds up no call; `refresh` replaces it, and DEL ends it."""
    runtime = Runtime(session, delegate=bridge(), uplink=driver)
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        hung = uplink(runtime)
        os.kill(hung, signal.SIGSTOP)

        runtime.add("new", new)
        assert reaches(new, "10.89.0.1")
        session.run([PLUGIN, "refresh"], check=True)

        assert start_time(hung) == 0
        assert page(old, bench.PAGE)
        os.kill(uplink(runtime), signal.SIGSTOP)
        runtime.delete("old", old)
        runtime.delete("new", new)
    assert world.leftovers() == []


@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_a_route_that_somebody_has_removed_inside(
    world: bench.World, session: bench.Session, driver: str
) -> None:
    """A container that has lost its way out has it again after `refresh`."""
    runtime = Runtime(session, delegate=bridge(), uplink=driver)
    with session.container() as container:
        runtime.add("c", container)
        session.run([PLUGIN, "run", "--", "ip", "route", "del", "default"], check=True)
        assert page(container, bench.PAGE_BEYOND) == ""

        session.run([PLUGIN, "refresh"], check=True)

        assert page(container, bench.PAGE_BEYOND)
        runtime.delete("c", container)
    assert world.leftovers() == []


LAUNCH = """
import sys
del sys.argv[0]
exec(compile(open(sys.argv[0]).read(), sys.argv[0], "exec"))
"""


def call_pretending(
    world: bench.World,
    runtime: Runtime,
    change: str,
    verb: str,
    container: bench.Container,
    **keys: object,
) -> subprocess.CompletedProcess[str]:
    """Make a call for `c` in whose process the text of a program has changed something before."""
    program = f"{world.env['HOME']}/pretending"
    world.path(program).write_text(change + LAUNCH)
    argv = [kills.interpreter(world), "-IS", program, PLUGIN]
    env = runtime.environment(verb, "c", container.netns)
    return runtime.place.run(argv, env=env, input=json.dumps({**runtime.conf, **keys}))


# What a security module does: refuse a signal from this process to an uplink.
REFUSING = """
import _signal, errno
def refuse(*_):
    raise PermissionError(errno.EPERM, "Operation not permitted")
_signal.pidfd_send_signal = refuse
"""


def test_an_uplink_that_must_not_be_ended(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """Where the signal to the uplink is refused the netns is removed all the same, with a line."""
    with session.container() as container:
        runtime.add("c", container)

        done = call_pretending(world, runtime, REFUSING, "DEL", container)

        assert done.returncode == 0, done.stdout
        assert re.search(r"cannot end the process \d+: .*Operation not permitted", done.stderr)
        assert runtime.status() == []
        # pasta goes by itself when the pin does.
        assert until(lambda: world.leftovers() == [])
        runtime.add("c", container)
        assert page(container, bench.PAGE)
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_segments_without_acknowledgement(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """Every page of far away comes behind NAT, also by a pasta that sends what is no TCP."""
    is_old = "--map-guest-addr" not in session.run(["pasta", "--help"]).stdout
    rules = [PLUGIN, "run", "--", "nft", "list", "ruleset"]
    with session.container() as container:
        runtime.add("c", container)

        assert all(page(container, bench.PAGE_BEYOND) for _ in range(5))

        found = re.search(r"counter packets (\d+) .* drop comment", session.run(rules).stdout)
        assert bool(found and int(found[1])) == is_old
        # What another start of the uplink finds, it does not add to.
        session.run([PLUGIN, "refresh"], check=True)
        assert page(container, bench.PAGE_BEYOND)
        assert session.run(rules).stdout.count("drop comment") == is_old
        runtime.delete("c", container)
    assert world.leftovers() == []


# A pasta of before August 2024, whichever is installed.
OLD_PASTA = """#!/bin/sh
case " $* " in
*" --map-guest-addr "*) echo "pasta: unrecognized option '--map-guest-addr'" >&2; exit 1 ;;
esac
exec /usr/bin/pasta "$@"
"""

# What a kernel without nftables says, where plugins use the other iptables.
WITHOUT_NFTABLES = """
import _socket, errno, os
real = _socket.socket
def refuse(family=-1, kind=-1, protocol=-1, *more):
    if (family, protocol) == (_socket.AF_NETLINK, 12):
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
    return real(family, kind, protocol, *more)
_socket.socket = refuse
"""


def test_an_old_pasta_without_nftables(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """Where its segments cannot be dropped it is said what will happen, and what the remedy is."""
    old = f"{world.env['HOME']}/old/pasta"
    session.run(["mkdir", os.path.dirname(old)], check=True)
    session.path(old).write_text(OLD_PASTA)
    session.path(old).chmod(0o755)
    with session.container() as container:
        wanted = {"driver": "pasta", "path": old}

        done = call_pretending(world, runtime, WITHOUT_NFTABLES, "ADD", container, uplink=wanted)

        assert done.returncode == 0, done.stdout
        hanging, host, names = done.stderr.splitlines()
        assert re.search(r"TCP connections .* hang: .*old/pasta .*Protocol not supported", hanging)
        assert re.search(r"cannot reach the host at 169.254.1.2: .*Protocol not supported", host)
        assert "containers do not follow other name servers" in names
        assert page(container, bench.PAGE)
        runtime.delete("c", container)
    assert world.leftovers() == []


SERVER = (
    "import socket; s = socket.create_server(('', 80)); print(flush=True)\n"
    "while True:\n"
    "    c, peer = s.accept(); c.recv(99)\n"
    "    c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n' + peer[0].encode()); c.close()"
)


def test_a_port_of_the_host_is_free_again_at_once(
    world: bench.World, session: bench.Session
) -> None:
    """A restart gets the port that it had, for which the old publisher must have ended; the server
    in the container sees who asks."""
    plugins = [bridge(), {"type": "portmap", "capabilities": {"portMappings": True}}]
    runtime = Runtime(
        session, plugins=plugins, uplink="pasta", capabilities={"portMappings": True}
    )
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    conf = {"runtimeConfig": {"portMappings": [mapping]}}
    with session.container() as container:
        server = container.popen(["python3", "-c", SERVER], stdout=-1, text=True)
        server.stdout.readline()
        for _ in range(4):
            runtime.add("c", container, conf=conf)
            fetch = [bench.INSIDE / "fetch", bench.HOST, "8080"]
            assert world.internet.run(fetch).stdout == bench.PAGE
            runtime.delete("c", container, conf=conf)
            assert world.leftovers() == []


@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_an_uplink_heeds_signals_that_the_caller_ignores(
    world: bench.World, session: bench.Session, driver: str
) -> None:
    """netavark ignores SIGTERM in a teardown; an uplink does not inherit that."""
    runtime = Runtime(session, delegate=bridge(), uplink=driver)
    with session.container() as container:
        env = runtime.environment("ADD", "c", container.netns)
        argv = ["sh", "-c", "trap '' TERM INT; exec \"$0\"", PLUGIN]
        done = session.run(argv, env=env, input=json.dumps(runtime.conf))
        assert done.returncode == 0, done.stdout

        status = session.path(f"/proc/{uplink(runtime)}/status").read_text()
        (ignored,) = (int(found, 16) for found in re.findall(r"^SigIgn:\s+(\w+)", status, re.M))
        assert not ignored & (1 << signal.SIGTERM - 1 | 1 << signal.SIGINT - 1)
        runtime.delete("c", container)
    assert world.leftovers() == []


SMALL = {"/25": "", "/26": "prefix length needs to be 1-25"}


@pytest.mark.parametrize("length", SMALL)
def test_slirp4netns_with_a_small_network(
    world: bench.World, session: bench.Session, length: str
) -> None:
    """Its own least size is the limit: one below is its own error, and leaks no process."""
    uplink = {"driver": "slirp4netns", "options": [f"--cidr=10.9.8.0{length}"]}
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    with session.container() as container:
        if SMALL[length]:
            error = runtime.fail("ADD", "c", container.netns)
            assert SMALL[length] in error["details"]
        else:
            runtime.add("c", container)
            names = session.run([PLUGIN, "run", "--", "cat", "/etc/resolv.conf"], check=True)
            assert "nameserver 10.9.8.3\n" in names.stdout
            assert page(container, bench.PAGE)
            runtime.delete("c", container)
    assert world.leftovers() == []


@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_a_failure_after_the_uplink_was_started(
    world: bench.World, session: bench.Session, state: str, driver: str
) -> None:
    """An uplink that was started and never written down does not become two, nor stay."""
    runtime = Runtime(session, delegate=bridge(), uplink=driver)
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        kill_for_good(runtime.status()[0]["uplink"])
        # What is written when the uplink has been started cannot be.
        session.run(["sh", "-euc", 'rm "$0"; mkdir "$0"', f"{state}/resolv.conf"], check=True)
        for _ in range(3):
            assert runtime.fail("ADD", "new", new.netns)["code"] == errors.IO_FAILURE
            assert len([line for line in world.leftovers() if "process" in line]) <= 1
        session.run(["rmdir", f"{state}/resolv.conf"], check=True)

        runtime.add("new", new)

        assert len([line for line in world.leftovers() if "process" in line]) == 1
        assert page(old, bench.PAGE)
        runtime.delete("old", old)
        runtime.delete("new", new)
    assert world.leftovers() == []


RELAY = """
import socket
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); here.bind(("127.0.0.1", 53))
print(flush=True)
while True:
    question, asker = here.recvfrom(4096)
    there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    there.sendto(question, ("198.51.100.1", 53)); here.sendto(there.recv(4096), asker)
"""


@pytest.fixture
def resolver(world: bench.World) -> Iterator[None]:
    """A name server on the machine's loopback, the only one that its resolv.conf names."""
    path = world.path("/etc/resolv.conf")
    before = path.read_text()
    path.write_text("nameserver 127.0.0.1\n")
    with world.root.popen(["python3", "-c", RELAY], stdout=-1, text=True) as relay:
        relay.stdout.readline()
        yield
        relay.kill()
    path.write_text(before)


@pytest.mark.usefixtures("resolver")
@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_a_resolver_on_the_loopback_of_the_host(
    world: bench.World, session: bench.Session, driver: str
) -> None:
    """Names resolve through the uplink where the host asks a resolver of its own."""
    runtime = Runtime(session, delegate=bridge(), uplink=driver)
    with session.container() as container:
        runtime.add("c", container)
        script = f"import socket; print(socket.gethostbyname('{bench.NAME}'))"
        done = session.run([PLUGIN, "run", "--", "python3", "-c", script])
        assert done.stdout == f"{bench.PAGE_BEYOND}\n", done.stderr
        runtime.delete("c", container)
    assert world.leftovers() == []


# Which of these addresses answer at a port: those that drop what comes are waited for together.
KNOCK = """
import socket, sys, threading
def knock(address):
    try:
        socket.create_connection((address, 8000), timeout=2).close()
    except OSError:
        return
    print(address)
for address in sys.argv[1:]:
    threading.Thread(target=knock, args=[address]).start()
"""


OPEN = {"driver": "pasta", "options": ["--map-gw"]}


@pytest.mark.parametrize("asked", ["pasta", "slirp4netns", OPEN], ids=str)
def test_the_loopback_of_the_host_is_out_of_reach(
    world: bench.World, session: bench.Session, asked: dict[str, Any] | str
) -> None:
    """Nothing on the host's loopback is reached, from inside or from a container, by default."""
    runtime = Runtime(session, delegate=bridge(), uplink=asked)
    script = SERVER.replace("('', 80)", "('127.0.0.1', 8000)")
    gateway = "198.19.110.113"
    addresses = ["127.0.0.1", "10.0.2.2", gateway, bench.PAGE, "169.254.1.2", bench.HOST]
    argv = ["python3", "-c", KNOCK, *addresses]
    with (
        session.container() as container,
        world.root.popen(["python3", "-c", script], stdout=-1, text=True) as server,
    ):
        server.stdout.readline()
        assert world.run(argv).stdout == "127.0.0.1\n"
        runtime.add("c", container)

        reached = f"{gateway}\n" if asked is OPEN else ""
        assert session.run([PLUGIN, "run", "--", *argv], check=True).stdout == reached
        assert container.run(argv, check=True).stdout == reached
        server.kill()
        runtime.delete("c", container)
    assert world.leftovers() == []


# The host


@pytest.fixture
def etc(world: bench.World) -> Iterator[bench.Place]:
    """The machine's root, whose /etc/resolv.conf and /run/systemd are put back afterwards."""
    text = world.path("/etc/resolv.conf").read_text()
    yield world.root
    script = 'rm -rf /run/systemd /etc/resolv.conf; printf %s "$0" >/etc/resolv.conf'
    world.root.run(["sh", "-euc", script, text], check=True)


RESOLVED = """
    mkdir -p /run/systemd/resolve
    cd /run/systemd/resolve
    echo 'nameserver 198.51.100.1' >resolv.conf
    echo 'nameserver 127.0.0.53' >stub-resolv.conf
    ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
"""
REPLACE = """
    cp "$0" "$0.new"
    mv "$0.new" "$0"
"""


def test_systemd_resolved_replaces_its_file(
    world: bench.World, session: bench.Session, etc: bench.Place
) -> None:
    """Who lives inside for long goes on seeing the netns's servers, not the host's stub."""
    etc.run(["sh", "-euc", RESOLVED], check=True)
    script = "echo; read line; cat /etc/resolv.conf"
    argv = [PLUGIN, "run", "--", "sh", "-c", script]
    with session.popen(argv, stdin=-1, stdout=-1, text=True) as command:
        assert command.stdout.readline() == "\n"
        stub = "/run/systemd/resolve/stub-resolv.conf"
        etc.run(["sh", "-euc", REPLACE, stub], check=True)

        text, _ = command.communicate("\n", timeout=30)

    assert text == "nameserver 169.254.1.1\nnameserver 198.51.100.1\n"
    assert world.leftovers() == []


def test_a_regular_resolv_conf_is_replaced(
    world: bench.World, session: bench.Session, etc: bench.Place
) -> None:
    """The next call has the netns's servers again, though the mount on the old file is gone."""
    cat = ["cat", "/etc/resolv.conf"]
    argv = [PLUGIN, "run", "--", "sh", "-c", "echo; read line"]
    with session.popen(argv, stdin=-1, stdout=-1, text=True) as command:
        assert command.stdout.readline() == "\n"
        etc.run(["sh", "-euc", REPLACE, "/etc/resolv.conf"], check=True)

        assert "169.254.1.1" in session.run([PLUGIN, "run", "--", *cat], check=True).stdout
        command.communicate("\n", timeout=30)
    assert world.leftovers() == []


def test_nothing_is_mounted_for_all(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """Where mounts are shared with others, these see the pin alone, and it goes with the DEL."""

    def mounts(place: bench.Place) -> list[str]:
        return place.run(["cat", "/proc/self/mountinfo"], check=True).stdout.splitlines()

    session.run(["mount", "--make-rshared", "/"], check=True)
    peer = session.popen(["unshare", "--mount", "--propagation", "unchanged", "cat"], stdin=-1)
    assert until(lambda: os.readlink(f"/proc/{peer.pid}/exe").endswith("/cat"))
    seen = session.path(f"/proc/{peer.pid}/mountinfo")
    before, of_host = seen.read_text(), mounts(world.root)
    with session.container() as container:
        runtime.add("c", container)
        new = [line for line in seen.read_text().splitlines() if line not in before]
        assert [line.split()[4] for line in new] == [runtime.status()[0]["path"]]
        assert mounts(world.root) == of_host
        runtime.delete("c", container)
    assert seen.read_text() == before
    peer.communicate()
    assert world.leftovers() == []


def test_the_user_namespace_has_died(world: bench.World) -> None:
    """While its uplink lives the netns is not touched from another one; then it is made again."""
    with world.session() as old:
        runtime = Runtime(old, delegate=bridge(), uplink="pasta")
        with old.container() as container:
            runtime.add("c", container)
            found = runtime.status()[0]["uplink"]
    with world.session() as new, new.container() as other:
        runtime = Runtime(new, delegate=bridge(), uplink="pasta", netns="default")
        error = runtime.fail("ADD", "other", other.netns)
        assert error["code"] == errors.CANNOT_ENTER, error
        assert f"PID {found['pid']} is there" in error["details"]
        assert f"guarded by PID {found['guardian']['pid']}" in error["details"]
        kill_for_good(found)

        done = runtime.call("ADD", "other", other.netns)

        assert done.returncode == 0, done.stdout
        assert "was lost and has been made again" in done.stderr
        assert page(other, bench.PAGE)
        runtime.succeed("DEL", "c", "/proc/0/ns/net")
        runtime.delete("other", other)
    assert world.leftovers() == []


def test_the_runtime_directory_vanishes(
    world: bench.World, session: bench.Session, runtime: Runtime, state: str
) -> None:
    """After all state has gone, as at a log-out, DEL succeeds and the next ADD starts over.

    The old uplink has no record then. Its containers stay connected for as long as it lives.
    """
    with session.container() as old, session.container() as new:
        runtime.add("old", old)
        forgotten = runtime.status()[0]["uplink"]
        script = 'umount -l "$0/default/netns"; rm -r "$0"'
        session.run(["sh", "-euc", script, os.path.dirname(state)], check=True)

        runtime.add("new", new)

        assert page(new, bench.PAGE)
        assert runtime.attached() == ["new"]
        assert start_time(forgotten["pid"]) == 0 or page(old, bench.PAGE)
        runtime.delete("old", old)
        runtime.delete("new", new)
    with suppress(ProcessLookupError):
        kill_for_good(forgotten)
    assert world.leftovers() == []


def test_iptables_may_lock_its_file(
    world: bench.World, session: bench.Session, runtime: Runtime, state: str
) -> None:
    """Where SELinux is, the /run of plugins has the label of files that iptables may write."""
    script = "mount -t tmpfs tmpfs /sys/fs; mkdir /sys/fs/selinux; echo 1 >/sys/fs/selinux/enforce"
    session.run(["sh", "-euc", script], check=True)
    with session.container() as container:
        runtime.add("c", container)

        label = os.getxattr(session.path(f"{state}/run"), "security.selinux")
        assert b":iptables_var_run_t:" in label
        runtime.delete("c", container)
    assert world.leftovers() == []


def test_a_name_server_in_the_netns_of_before(
    world: bench.World, session: bench.Session, netavark: dict[str, str], state: str
) -> None:
    """An aardvark-dns that is left in a netns that is lost is ended; the new one answers."""
    delegate = naming.by_netavark(netavark["1.14.0"])
    runtime = Runtime(session, delegate=delegate, uplink="pasta")
    name: dict[str, Any] = {**naming.called("alpha")}

    def servers() -> list[str]:
        return session.run(["pgrep", "-u", "0", "-f", "aardvark-dns.*run"]).stdout.split()

    with session.container() as old, session.container() as new:
        runtime.add("old", old, **name)
        before_it = runtime.status()[0]["uplink"]
        before = servers()
        assert len(before) == 1
        session.run(["umount", "-l", f"{state}/netns"], check=True)
        kill_for_good(before_it)

        done = runtime.call("ADD", "new", new.netns, **name)

        assert done.returncode == 0, done.stdout
        assert "was lost and has been made again" in done.stderr
        after = servers()
        assert len(after) == 1
        assert after != before
        address = json.loads(done.stdout)["ips"][0]["address"].split("/")[0]
        assert naming.ask(new, "alpha") == address
        runtime.delete("old", old)
        runtime.delete("new", new)
    assert world.leftovers() == []


def test_proc_sys_is_read_only(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """As in many containers: the plugin cannot forward, and says so; nothing is left."""
    script = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys"
    with session.container() as container:
        session.run(["sh", "-euc", script], check=True)
        error = runtime.fail("ADD", "c", container.netns)

        assert "ead-only file system" in error["msg"], error
        assert world.leftovers() == []
        # A plugin that changes nothing there has no need to.
        quiet = {**bridge(), "isGateway": False, "ipMasq": False}
        done = runtime.call("ADD", "c", container.netns, conf={"delegate": quiet})
        assert done.returncode == 0, done.stdout
        runtime.delete("c", container, conf={"delegate": quiet})
    assert world.leftovers() == []


@pytest.mark.parametrize("driver", ["pasta", "slirp4netns"])
def test_without_a_tun_device(world: bench.World, session: bench.Session, driver: str) -> None:
    """ADD says that the device is missing, STATUS too; without an uplink none is needed."""
    session.run(["mount", "-t", "tmpfs", "tmpfs", "/dev/net"], check=True)
    runtime = Runtime(session, delegate=bridge(), uplink=driver, cniVersion="1.1.0")
    with session.container() as container:
        error = runtime.fail("ADD", "c", container.netns)

        assert error["code"] == errors.UPLINK_FAILED
        assert error["msg"] == "/dev/net/tun cannot be opened: No such file or directory"
        assert runtime.fail("STATUS")["code"] == errors.NOT_AVAILABLE
        assert world.leftovers() == []
        runtime.add("c", container, conf={"uplink": "none"})
        assert reaches(container, "10.89.0.1")
        runtime.delete("c", container)
    assert world.leftovers() == []

# SPDX-License-Identifier: Apache-2.0
"""Names inside, and in containers: whatever the host's resolv.conf says, over UDP and TCP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import bench
import pytest
from conftest import TOLD
from diagnosis import ask
from runtime import DUAL, PLUGIN, Runtime, bridge, until

NAME, LARGE = "one.example.test", "large.example.test"
FORWARDER, FORWARDER6 = "169.254.1.1", "fd6e:7368:696d::53"


class Names:
    """The machine's resolv.conf, and name servers that answer with addresses of their own."""

    def __init__(self, world: bench.World, undo: ExitStack) -> None:
        self.world = world
        self._undo = undo
        self._path = world.path("/etc/resolv.conf")
        before = self._path.read_text()
        undo.callback(self._restore, before)
        for name in ("nameserver", "lookup"):
            world.provide(bench.INSIDE / name)

    def _restore(self, text: str) -> None:
        script = 'rm -rf /run/systemd/resolve /run/NetworkManager "$0"; printf %s "$1" >"$0"'
        self.world.root.run(["sh", "-euc", script, "/etc/resolv.conf", text], check=True)

    def write(self, *servers: str) -> None:
        """Write into resolv.conf."""
        self._path.write_text("".join(f"nameserver {server}\n" for server in servers))

    def replace(self, *servers: str) -> None:
        """Replace resolv.conf by another file, as most programs do."""
        text = "".join(f"nameserver {server}\n" for server in servers)
        script = 'printf %s "$1" >"$0.new"; mv "$0.new" "$0"'
        argv = ["sh", "-euc", script, "/etc/resolv.conf", text]
        self.world.root.run(argv, check=True)

    def serve(self, place: bench.Place, address: str, answer: str, *kinds: str) -> None:
        """Start a name server."""
        # The internet has no files of its own.
        where = bench.INSIDE if place is self.world.internet else bench.TYPED
        argv = [f"{where}/nameserver", address, answer, *kinds]
        server = self._undo.enter_context(place.popen(argv, stdin=-1, stdout=-1))
        self._undo.callback(server.kill)
        assert server.stdout.readline() == "ready\n"

    def outside(self, address: str, answer: str, *kinds: str) -> None:
        """Start a name server next door, at an address that is added for it."""
        length = 64 if ":" in address else 24
        plain = address.partition("%")[0]
        argv = ["ip", "address", "add", f"{plain}/{length}", "dev", "eth0"]
        self.world.internet.run([*argv, *(["nodad"] if ":" in address else [])], check=True)
        argv[2] = "delete"
        self._undo.callback(self.world.internet.run, argv)
        self.serve(self.world.internet, address, answer, *kinds)


@pytest.fixture
def names(world: bench.World) -> Iterator[Names]:
    """The machine's resolv.conf and name servers."""
    with ExitStack() as undo:
        yield Names(world, undo)


class Asked:
    """What lookups have found, and how long they took."""

    def __init__(self, session: bench.Session, container: bench.Container) -> None:
        self.session, self.container = session, container

    def inside(self, *arguments: str) -> str:
        """Look up a name inside the shared netns."""
        return _timed(self.session, [PLUGIN, "run", "--", "lookup", *arguments])

    def behind(self, *arguments: str) -> str:
        """Look up a name in a container."""
        return _timed(self.container, ["lookup", *arguments])


def _timed(place: bench.Place, argv: list[str]) -> str:
    since = time.monotonic()
    answer = place.run(argv).stdout.strip()
    seconds = time.monotonic() - since
    return answer if seconds < 2.5 else f"{answer} after {seconds:.0f} s"


def attached(
    session: bench.Session, undo: ExitStack, *subnets: str, **keys: Any
) -> tuple[Asked, Any]:
    """Attach a container; give what asks in it, and the answer of the ADD."""
    runtime = Runtime(session, delegate=bridge(*subnets), **keys)
    container = undo.enter_context(session.container())
    result = runtime.add("c", container)
    undo.callback(runtime.delete, "c", container)
    return Asked(session, container), result


def is_old(session: bench.Session) -> bool:
    """Tell whether pasta is of 2023."""
    done = session.run(["pasta", "--help"])
    return "--map-guest-addr" not in done.stdout + done.stderr


def is_answer(wanted: str, asking: Callable[[], str]) -> bool:
    """Ask, and tell whether the answer is the wanted one."""
    return asking() == wanted


UPLINKS = ("pasta", "slirp4netns")


@pytest.mark.parametrize("uplink", UPLINKS)
def test_servers_next_door(session: bench.Session, names: Names, uplink: str) -> None:
    """Each server of the host answers a container that asks it by its own address."""
    names.outside("198.51.100.53", "192.0.2.1")
    names.outside("198.51.100.54", "192.0.2.2")
    names.outside("2001:db8:100::53", "192.0.2.3")
    names.write("198.51.100.53", "198.51.100.54", "2001:db8:100::53")
    with ExitStack() as undo:
        asked, _ = attached(session, undo, *DUAL, uplink=uplink)

        for protocol in ("udp", "tcp"):
            for server, answer in (("53", "192.0.2.1"), ("54", "192.0.2.2")):
                assert asked.behind(NAME, f"198.51.100.{server}", protocol) == answer
            if uplink == "pasta":  # a busy machine may lose a datagram, as any network may
                asking = partial(asked.behind, NAME, "2001:db8:100::53", protocol)
                assert until(partial(is_answer, "192.0.2.3", asking)), protocol
        assert asked.inside(NAME) == asked.inside(LARGE) == "192.0.2.1"


@pytest.mark.parametrize("uplink", UPLINKS)
def test_forwarder(session: bench.Session, names: Names, uplink: str) -> None:
    """The first name server of the netns leads to the host's first, over UDP and TCP."""
    names.outside("198.51.100.53", "192.0.2.1")
    names.write("198.51.100.53")
    with ExitStack() as undo:
        asked, _ = attached(session, undo, uplink=uplink)
        text = session.run([PLUGIN, "run", "--", "cat", "/etc/resolv.conf"], check=True).stdout
        forwarder = text.split()[1]

        assert forwarder == (FORWARDER if uplink == "pasta" else "10.0.2.3")
        # The second is named in every container by Buildah of Debian 12.
        for server in (forwarder, "10.0.2.3"):
            for protocol in ("udp", "tcp"):
                assert asked.behind(NAME, server, protocol) == "192.0.2.1"
                assert asked.inside(NAME, server, protocol) == "192.0.2.1"


@pytest.mark.parametrize("uplink", UPLINKS)
def test_resolver_on_the_hosts_loopback(
    world: bench.World, session: bench.Session, names: Names, uplink: str
) -> None:
    """A resolver that only the host can ask answers over UDP and TCP, and for large answers."""
    names.serve(world.root, "127.0.0.1", "192.0.2.1")
    names.write("127.0.0.1")
    with ExitStack() as undo:
        asked, _ = attached(session, undo, uplink=uplink)
        forwarder = FORWARDER if uplink == "pasta" else "10.0.2.3"

        # The second is named in every container by Buildah of Debian 12.
        for server in (forwarder, "10.0.2.3"):
            for protocol in ("udp", "tcp"):
                assert asked.behind(NAME, server, protocol) == "192.0.2.1"
                assert asked.inside(NAME, server, protocol) == "192.0.2.1"
        assert asked.inside(NAME) == asked.inside(LARGE) == "192.0.2.1"


def test_systemd_resolved(world: bench.World, session: bench.Session, names: Names) -> None:
    """The stub of the host answers, which knows more; its servers do where a pasta cannot ask it.

    A pasta of 2023 cannot over TCP.
    """
    names.serve(world.root, "127.0.0.53", "192.0.2.1")
    names.outside("198.51.100.53", "192.0.2.2")
    script = "mkdir -p /run/systemd/resolve; echo nameserver 198.51.100.53 >$0"
    behind = "/run/systemd/resolve/resolv.conf"
    world.root.run(["sh", "-euc", script, behind], check=True)
    names.write("127.0.0.53")
    with ExitStack() as undo:
        asked, _ = attached(session, undo, uplink="pasta")

        assert asked.behind(NAME, FORWARDER) == asked.inside(NAME) == "192.0.2.1"
        assert asked.behind(NAME, FORWARDER, "tcp") in ("192.0.2.1", "192.0.2.2")
        assert asked.inside(LARGE) in ("192.0.2.1", "192.0.2.2")


@pytest.mark.parametrize("uplink", UPLINKS)
def test_servers_of_ipv6_only(session: bench.Session, names: Names, uplink: str) -> None:
    """A host that names servers of IPv6 only resolves for a container with IPv6."""
    names.outside("2001:db8:100::53", "192.0.2.3")
    names.write("2001:db8:100::53")
    with ExitStack() as undo:
        asked, _ = attached(session, undo, *DUAL, uplink=uplink)
        forwarder = FORWARDER6 if uplink == "pasta" else "fd00::3"

        for protocol in ("udp", "tcp"):
            assert asked.inside(NAME, forwarder, protocol) == "192.0.2.3"
            assert asked.behind(NAME, forwarder, protocol) == "192.0.2.3"
        assert asked.inside(NAME) == asked.inside(LARGE) == "192.0.2.3"


def test_container_of_the_other_family(session: bench.Session, names: Names) -> None:
    """That a container without IPv6 cannot ask the only servers is said, with what to do."""
    names.write("2001:db8:100::53")
    runtime = Runtime(session, delegate=bridge(), uplink="pasta")
    with session.container() as container:
        done = runtime.call("ADD", "c", container.netns)
        runtime.delete("c", container)

    assert done.returncode == 0, done.stdout
    assert "give it a subnet of IPv6" in done.stderr


@pytest.mark.parametrize("uplink", UPLINKS)
def test_server_of_a_link(session: bench.Session, names: Names, uplink: str) -> None:
    """A server that only the host's link leads to answers, or it is said that it cannot.

    An answer that cannot come is not waited for.
    """
    names.outside("fe80::53%eth0", "192.0.2.3")
    names.write("fe80::53%eth0")
    with ExitStack() as undo:
        asked, _ = attached(session, undo, *DUAL, uplink=uplink)
        if uplink == "pasta" and is_old(session):
            assert asked.behind(NAME, FORWARDER6).startswith("no answer")
            assert "after" not in asked.behind(NAME, FORWARDER6, "tcp") + asked.inside(NAME)
            return
        forwarder = FORWARDER6 if uplink == "pasta" else "fd00::3"

        for protocol in ("udp", "tcp"):
            assert asked.behind(NAME, forwarder, protocol) == "192.0.2.3"
        assert asked.inside(NAME) == asked.inside(LARGE) == "192.0.2.3"


@pytest.mark.parametrize("uplink", UPLINKS)
def test_resolver_of_ipv6_on_the_loopback(
    world: bench.World, session: bench.Session, names: Names, uplink: str
) -> None:
    """A resolver at ::1 answers, but not over TCP with a pasta of 2023, which says so at once."""
    names.serve(world.root, "::1", "192.0.2.1")
    names.write("::1")
    with ExitStack() as undo:
        asked, _ = attached(session, undo, *DUAL, uplink=uplink)
        forwarder = FORWARDER6 if uplink == "pasta" else "fd00::3"

        assert asked.behind(NAME, forwarder) == asked.inside(NAME) == "192.0.2.1"
        if uplink == "pasta" and is_old(session):
            assert "refused" in asked.behind(NAME, forwarder, "tcp")
        else:
            assert asked.behind(NAME, forwarder, "tcp") == asked.inside(LARGE) == "192.0.2.1"


def test_answer_of_an_add(session: bench.Session, names: Names) -> None:
    """A runtime is told of the name servers, and of the domains in which the host looks."""
    names.write("198.51.100.1\nsearch one.test two.test")
    with ExitStack() as undo:
        _, result = attached(session, undo, *DUAL)

    assert result["dns"] == {"nameservers": [FORWARDER], "search": ["one.test", "two.test"]}


# How the host's resolv.conf changes. The last one is in place, and of the same size as before.
CHANGES = {
    "replaced": """printf 'nameserver 198.51.100.54\\n' >/etc/x; mv /etc/x /etc/resolv.conf""",
    "a link": """mkdir -p /run/NetworkManager; cd /run/NetworkManager
        echo nameserver 198.51.100.54 >resolv.conf; ln -s "$PWD/resolv.conf" /etc/x
        mv /etc/x /etc/resolv.conf""",
    "gone and back": """rm /etc/resolv.conf; echo nameserver 198.51.100.54 >/etc/resolv.conf""",
    "in place": "echo nameserver 198.51.100.54 >/etc/resolv.conf",
}
# An idle machine needs 0.3 s; a busy one starts programs slowly.
SECONDS = 8.0


@pytest.mark.parametrize("change", CHANGES)
def test_another_resolv_conf(
    session: bench.Session,
    names: Names,
    change: str,
    record_property: Callable[[str, object], None],
) -> None:
    """Containers ask the new server a moment later, without a call; and so again after that."""
    names.outside("198.51.100.53", "192.0.2.1")
    names.outside("198.51.100.54", "192.0.2.2")
    names.write("198.51.100.53")
    with ExitStack() as undo:
        asked, _ = attached(session, undo, uplink="pasta")
        for _ in range(2):
            assert asked.behind(NAME, FORWARDER) == "192.0.2.1"

            names.world.root.run(["sh", "-euc", CHANGES[change]], check=True)
            since = time.monotonic()

            assert until(lambda: asked.behind(NAME, FORWARDER, "tcp") == "192.0.2.2", SECONDS)
            record_property(TOLD, f"after {time.monotonic() - since:.2f} s")
            assert asked.behind(NAME, FORWARDER) == asked.inside(NAME) == "192.0.2.2"
            names.replace("198.51.100.53")
            assert until(lambda: asked.behind(NAME, FORWARDER, "tcp") == "192.0.2.1", SECONDS)


def test_slirp4netns_reads_the_file_again(session: bench.Session, names: Names) -> None:
    """slirp4netns finds the new servers by itself, in its sandbox."""
    names.outside("198.51.100.53", "192.0.2.1")
    names.outside("198.51.100.54", "192.0.2.2")
    names.write("198.51.100.53")
    with ExitStack() as undo:
        asked, _ = attached(session, undo, uplink="slirp4netns")
        assert asked.behind(NAME, "10.0.2.3") == "192.0.2.1"

        names.replace("198.51.100.54")

        assert until(lambda: asked.behind(NAME, "10.0.2.3") == "192.0.2.2", SECONDS)


@pytest.mark.parametrize("link", ["/opt/wsl/resolv.conf", "/var/run/wsl/resolv.conf"])
def test_resolv_conf_outside_of_the_sandbox(
    session: bench.Session, names: Names, link: str
) -> None:
    """slirp4netns gets no sandbox where that would hide the servers from it."""
    names.outside("198.51.100.53", "192.0.2.1")
    script = """
        mkdir -p "${0%/*}"; echo nameserver 198.51.100.53 >"$0"; ln -s "$0" /etc/x
        mv /etc/x /etc/resolv.conf"""
    names.world.root.run(["sh", "-euc", script, link], check=True)
    with ExitStack() as undo:
        asked, _ = attached(session, undo, uplink="slirp4netns")

        assert asked.inside(NAME) == asked.behind(NAME, "10.0.2.3") == "192.0.2.1"
    names.world.root.run(["rm", "-r", link.rpartition("/")[0]], check=True)


def test_sandbox_that_cannot_be_made(session: bench.Session, names: Names) -> None:
    """slirp4netns is started again without it, which is said once."""
    path = names.world.path(f"{bench.TYPED}/slirp")
    path.write_text(
        "#!/bin/sh\n"
        'case "$*" in *--enable-sandbox*) echo create_sandbox failed; exit 1 ;; esac\n'
        'exec slirp4netns "$@"\n'
    )
    path.chmod(0o755)
    runtime = Runtime(
        session,
        delegate=bridge(),
        uplink={"driver": "slirp4netns", "path": f"{bench.TYPED}/slirp"},
    )
    with session.container() as container:
        done = runtime.call("ADD", "c", container.netns)

        assert done.returncode == 0, done.stdout
        assert done.stderr.count("\n") == 1
        assert "runs without one" in done.stderr
        assert Asked(session, container).behind("www.example.test", "10.0.2.3") == "203.0.113.7"
        runtime.delete("c", container)


def test_resolver_on_the_loopback_that_comes_later(
    world: bench.World, session: bench.Session, names: Names
) -> None:
    """A host that begins to ask a resolver of its own, and stops to: containers follow."""
    names.outside("198.51.100.53", "192.0.2.1")
    names.serve(world.root, "127.0.0.1", "192.0.2.2")
    names.write("198.51.100.53")
    with ExitStack() as undo:
        asked, _ = attached(session, undo, uplink="pasta")
        assert asked.behind(NAME, FORWARDER) == "192.0.2.1"

        names.replace("127.0.0.1")

        assert until(lambda: asked.behind(NAME, FORWARDER) == "192.0.2.2", SECONDS)
        assert until(lambda: asked.behind(NAME, FORWARDER, "tcp") == "192.0.2.2", SECONDS)
        names.replace("198.51.100.53")
        assert until(lambda: asked.behind(NAME, FORWARDER) == "192.0.2.1", SECONDS)


def test_no_name_server_yet(session: bench.Session, names: Names) -> None:
    """Where the host has no server yet, a lookup fails at once; later on, there are answers."""
    names.outside("198.51.100.53", "192.0.2.1")
    names.write()
    with ExitStack() as undo:
        asked, result = attached(session, undo, uplink="pasta")
        assert result["dns"] == {"nameservers": [FORWARDER]}
        for protocol in ("udp", "tcp"):
            assert "refused" in asked.behind(NAME, FORWARDER, protocol)

        names.replace("198.51.100.53")

        assert until(lambda: asked.behind(NAME, FORWARDER) == "192.0.2.1", SECONDS)


def doctor(place: bench.Place) -> tuple[str, str, list[str]]:
    """Ask doctor about names: result, message and details."""
    found = ask(place)["names"]
    return found["result"], found["message"], found.get("details", [])


def test_doctor_asks(world: bench.World, session: bench.Session, names: Names) -> None:
    """It asks through the uplink, and tells a host without an answer from a container without."""
    names.outside("198.51.100.53", "192.0.2.1")
    names.write("198.51.100.53")
    is_up = "the host gets answers; no shared network namespace is up"
    assert doctor(world) == ("ok", f"198.51.100.53: {is_up}", [])
    with ExitStack() as undo:
        attached(session, undo, uplink="pasta")
        well = doctor(session)
        drop = "/usr/sbin/nft insert rule inet netns-shim-names leaving udp dport 53 drop"
        session.run([PLUGIN, "run", "--", *drop.split()], check=True)
        ill = doctor(session)
        names.replace("198.51.100.99")
        dead = doctor(session)
        names.replace()
        nothing = doctor(session)

    assert well == ("ok", "198.51.100.53: answers come in default", [])
    assert ill[0] == "problem"
    assert ill[2] == [f"default: {FORWARDER} does not answer over UDP"]
    assert dead[:2] == ("warning", "no name server of the host answers: 198.51.100.99")
    assert nothing[0] == "warning"
    assert "names no server" in nothing[1]


def test_doctor_of_a_user_without_capabilities(
    world: bench.World, session: bench.Session, names: Names
) -> None:
    """It gets into the user's own namespaces for that."""
    names.outside("198.51.100.53", "192.0.2.1")
    names.write("198.51.100.53")
    command = [PLUGIN, "run", "--", "sh", "-c", "echo; read line"]
    with world.popen(command, stdin=-1, stdout=-1) as guest:
        assert guest.stdout.readline() == "\n"

        assert doctor(world) == ("ok", "198.51.100.53: answers come in default", [])
        guest.communicate("\n", timeout=30)

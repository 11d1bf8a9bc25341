# SPDX-License-Identifier: Apache-2.0
"""The bench is what it says: unprivileged, on an internet of its own, and gone without a trace."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import bench
import kinder
import pytest
from userids import UserIds

pytestmark = pytest.mark.netns

NETWORK = {
    "cniVersion": "1.0.0",
    "name": "plain",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]]},
        }
    ],
}


def start_uplink(session: bench.Session, container: bench.Container) -> bench.Child:
    """Join a container to the machine as a shim that never cleans up would."""
    uplink = session.popen(
        ["slirp4netns", "--configure", "--ready-fd=1", container.pid, "tap0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert uplink.stdout.read(1) == "1"
    return uplink


def inode(place: bench.Place, kind: str) -> str:
    """The identity of the namespace that commands run in."""
    return place.run(["readlink", f"/proc/self/ns/{kind}"], check=True).stdout


def test_user_is_unprivileged(world: bench.World) -> None:
    """Outside a session the user has no capabilities and cannot touch the machine's network."""
    assert world.run(["id", "-un"]).stdout == f"{world.user}\n"
    assert "CapEff:\t0000000000000000" in world.run(["cat", "/proc/self/status"]).stdout
    assert "not permitted" in world.run(["ip", "link", "add", "x0", "type", "bridge"]).stderr


def test_session_is_root_without_the_network(world: bench.World, session: bench.Session) -> None:
    """In a session the user is root of every mapped id, but not of the machine's network."""
    assert session.run(["id", "-u"]).stdout == "0\n"
    assert len(session.run(["cat", "/proc/self/uid_map"]).stdout.splitlines()) == 2
    assert "not permitted" in session.run(["ip", "link", "add", "x0", "type", "bridge"]).stderr
    assert inode(session, "user") != inode(world, "user")
    assert inode(session, "net") == inode(world, "net")


def test_environment_is_clean(session: bench.Session, world: bench.World) -> None:
    """Nothing of the caller's environment reaches a command."""
    names = {line.partition("=")[0] for line in session.run(["env"]).stdout.splitlines()}

    assert names == {"HOME", "PATH"}
    assert session.run(["/usr/bin/env"], env={"CNI_COMMAND": "ADD"}).stdout == "CNI_COMMAND=ADD\n"


def test_machine_is_a_stock_one(world: bench.World) -> None:
    """What no test has asked for is as Debian has it: the user owns nothing but a home."""
    script = """
        for place in /var/lib /run /run/user /etc; do [ ! -w $place ]; done
        [ ! -e /var/lib/cni ] && [ ! -e /run/user/$(id -u) ]
        cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv6/conf/eth0/accept_dad
        cat /etc/subuid
    """

    lines = world.run(["sh", "-euc", script], check=True).stdout.splitlines()

    assert lines[0].split() == ["1", "0"]
    assert lines[1:] == ["1", "first:100000:65536", f"shim:{world.subid}:65536"]
    assert world.run(["sh", "-c", "command -v iptables"]).returncode == 127


def test_log_in(world: bench.World) -> None:
    """A log-in brings a runtime directory and the variable, and both go with it."""
    before = world.state_dir
    with kinder.log_in(world):
        script = 'test -w "$XDG_RUNTIME_DIR" && stat -f -c %T "$XDG_RUNTIME_DIR"'
        assert world.run(["sh", "-euc", script]).stdout == "tmpfs\n"
        assert world.state_dir == f"{world.runtime_dir}/netns-shim"
    assert world.state_dir == before == f"/tmp/netns-shim-{world.uid}"
    assert "XDG_RUNTIME_DIR" not in world.env


def test_network_has_just_come_up(world: bench.World) -> None:
    """The IPv6 addresses of a link that has come up are tentative, and in the end none is."""
    tentative = ["ip", "-6", "-oneline", "address", "show", "dev", "eth0", "tentative"]
    assert world.run(tentative).stdout == ""
    with kinder.just_up(world):
        assert bench.HOST6 in world.run(tentative).stdout
    assert world.run(tentative).stdout == ""
    assert world.run(["fetch", bench.PAGE6]).stdout.endswith(f"you are {bench.HOST6}\n")
    assert world.run(["fetch", bench.PAGE_BEYOND]).stdout.endswith(f"you are {bench.HOST}\n")


def test_package_is_installed(world: bench.World, session: bench.Session) -> None:
    """The package under test is a plugin for the user, and knows its libraries without a path."""
    env = {"CNI_COMMAND": "VERSION"}
    version = session.run([f"{world.plugin_dir}/netns-shim"], env=env, check=True).stdout
    assert "1.0.0" in json.loads(version)["supportedVersions"]

    libraries = "import sys, filelock, jsonschema, pyroute2, netns_shim; print(sys.prefix)"
    found = session.run(["/opt/netns-shim/bin/python3", "-c", libraries], check=True)
    assert found.stdout == "/opt/netns-shim\n"


OF_THE_PACKAGE = ("/usr/bin/netns-shim", "/usr/lib/cni/netns-shim", "/usr/lib/netavark/cni")
OF_A_MACHINE = """
mount -t tmpfs tmpfs /mnt
for file in "$@"; do
    directory=${file%/*}
    [ -d "$directory" ] || continue
    mkdir -p "/mnt$directory"
    echo package >"/mnt$file"
    mount -t overlay -o "ro,lowerdir=/mnt$directory:$directory" overlay "$directory"
done
exec "$PYTHON" -c '
import bench, os, sys
assert os.path.exists(sys.argv[1])
with bench.World() as world:
    print(*(name for name in sys.argv[1:] if world.root.path(name).exists()))
    print(world.run([f"{world.plugin_dir}/netns-shim", "version"], check=True).stdout)
' "$@"
"""


def test_package_of_the_administrator_is_hidden() -> None:
    """A machine that has the Debian package can be used: the bench has only what is under test."""
    argv = ["unshare", "--mount", "sh", "-euc", OF_A_MACHINE, "sh", *OF_THE_PACKAGE]
    env = {**os.environ, "PYTHON": sys.executable}

    result = subprocess.run(argv, cwd=bench.TESTS, env=env, stdout=subprocess.PIPE, text=True)

    assert result.returncode == 0
    found, _, version = result.stdout.partition("\n")
    assert found == ""
    assert "/opt/netns-shim" in version


@pytest.mark.parametrize(
    ("page", "client"),
    [
        (bench.PAGE, bench.HOST),
        (bench.PAGE_BEYOND, bench.HOST),
        (bench.PAGE6, bench.HOST6),
    ],
)
def test_internet_answers(session: bench.Session, page: str, client: str) -> None:
    """Every page is reached from the machine, and knows who asked."""
    assert session.run(["fetch", page]).stdout == f"hello from the internet, you are {client}\n"


def test_names_resolve(session: bench.Session) -> None:
    """The machine's resolver asks the bench's name server."""
    v4 = session.run(["getent", "ahostsv4", "www"]).stdout
    v6 = session.run(["getent", "ahostsv6", "www.example.test"]).stdout

    assert v4.startswith(bench.PAGE_BEYOND)
    assert v6.startswith(bench.PAGE6)
    assert session.run(["getent", "hosts", "nobody.example.test"]).returncode == 2


def test_container_is_cut_off(session: bench.Session) -> None:
    """A container is owned by the session and has nothing but its loopback interface."""
    with session.container() as container:
        assert inode(container, "net") != inode(session, "net")
        assert inode(container, "user") == inode(session, "user")
        assert container.run(["ping", "-c1", "127.0.0.1"]).returncode == 0
        assert container.run(["fetch", bench.PAGE]).returncode == 1


def test_container_is_pinned(session: bench.Session) -> None:
    """A pinned container is the same namespace by its path, which goes with it."""
    with session.container(pinned="/run/netns/pinned") as container:
        by_path = ["nsenter", f"--net={container.netns}", "readlink", "/proc/self/ns/net"]
        assert session.run(by_path).stdout == inode(container, "net")

    assert not session.path("/run/netns/pinned").exists()


@pytest.mark.parametrize("state", ["/run/user/{}/netns-shim", "/tmp/netns-shim-{}"])
@pytest.mark.usefixtures("log_in")
def test_leftovers_are_seen(world: bench.World, session: bench.Session, state: str) -> None:
    """Uplinks, files, mounts and interfaces that a shim would leave are reported, in both places.

    What a log-in has let go out of sight is still there.
    """
    state = state.format(world.uid)
    session.run(["mkdir", "-p", f"{state}/default/validated"], check=True)
    assert world.leftovers() == []

    with session.container() as container:
        uplink = start_uplink(session, container)
        session.run(["touch", f"{state}/netns"], check=True)
        session.run(["mount", "--bind", container.netns, f"{state}/netns"], check=True)
        world.root.run(["ip", "link", "add", "veth1", "type", "veth"], check=True)
        found = world.leftovers()
    world.root.run(["ip", "link", "delete", "veth1"], check=True)

    assert f"process {uplink.pid}: slirp4netns" in found
    assert f"mount {state}/netns" in found
    assert f"file {state}/netns" in found
    assert "interface veth1" in found


def test_reset_ends_daemons(world: bench.World, session: bench.Session) -> None:
    """An uplink that made itself a daemon is ended by its user id."""
    with session.container(pinned="/run/netns/pinned") as container:
        pasta = ["pasta", "--config-net", "--quiet", "--netns", container.netns]
        session.run(pasta, check=True)
        assert container.run(["fetch", bench.PAGE_BEYOND]).stdout.endswith(f"{bench.HOST}\n")
        assert any("passt" in line or "pasta" in line for line in world.leftovers())

        world.reset()

    assert world.leftovers() == []


@pytest.mark.usefixtures("libcni_cache")
def test_libcni_attaches_a_container(
    world: bench.World, session: bench.Session, cnidrive: str
) -> None:
    """The Go driver runs Debian's plain plugins in a network namespace of the session."""
    world.path("/etc/cni/net.d").mkdir(parents=True, exist_ok=True)
    world.path("/etc/cni/net.d/plain.conflist").write_text(json.dumps(NETWORK))

    with session.container() as shared, session.container() as container:
        # Plugins that no shim calls need the PATH of root, which has iptables.
        env = {**shared.env, "CNI_PATH": world.plugin_dir, "PATH": bench.ROOT_PATH}
        added = shared.run([cnidrive, "add", "plain", container.netns], env=env, check=True)
        address = json.loads(added.stdout)["ips"][0]["address"]
        seen = container.run(["ip", "-br", "address", "show", "eth0"]).stdout
        assert address in seen
        assert container.run(["ping", "-c1", "10.88.0.1"]).returncode == 0
        shared.run([cnidrive, "check", "plain", container.netns], env=env, check=True)
        shared.run([cnidrive, "del", "plain", container.netns], env=env, check=True)
        assert container.run(["ip", "link", "show", "eth0"]).returncode == 1

        wrong = shared.run([cnidrive, "add", "none", container.netns], env=env)
        assert wrong.returncode == 1
        assert 'no net configuration with name "none"' in wrong.stderr


DOOMED = """
import sys
import bench
with bench.World() as world, world.session() as session:
    container = session.container(pinned="/run/netns/pinned")
    session.run(["pasta", "--config-net", "--quiet", "--netns", container.netns], check=True)
    holders = (world.root.pid, world.internet.pid, session.pid, container.pid)
    print(world.uid, *holders, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_nothing_remains(how: str) -> None:
    """Namespaces and processes go with the bench, even with one that could not clean up."""
    pipe = subprocess.PIPE
    argv = [sys.executable, "-c", DOOMED]
    with subprocess.Popen(argv, cwd=bench.TESTS, stdin=pipe, stdout=pipe) as doomed:
        assert doomed.stdout
        uid, *holders = map(int, doomed.stdout.readline().split())
        watched = [os.pidfd_open(pid) for pid in holders]
        if how == "killed":
            doomed.send_signal(signal.SIGKILL)
    assert doomed.returncode == (-signal.SIGKILL if how == "killed" else 0)

    for fd in watched:
        assert select.select([fd], [], [], 10)[0]
        os.close(fd)
    with ExitStack() as taken:
        while (ids := taken.enter_context(closing(UserIds()))).uid != uid:
            pass
        assert ids.processes() == []
    assert not Path(f"/run/user/{uid}").exists()
    assert not list(Path("/tmp").glob(f"netns-shim-{uid}*"))
    assert f":{uid}:" not in Path("/etc/passwd").read_text()

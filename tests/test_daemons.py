# SPDX-License-Identifier: Apache-2.0
"""Plugins that ask a daemon: of the host, by the key `keep`; or inside, as that of dhcp does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench
import pytest
from runtime import PLUGIN, Runtime, ips, kill, reaches, until

from netns_shim import daemons
from netns_shim.errors import PluginFailed
from netns_shim.validate import explain

CONF = Path(__file__).resolve().parent.parent / "conf" / "daemons"
DHCP: dict[str, Any] = json.loads((CONF / "dhcp.conflist").read_text())["plugins"][0]
# A plugin that sends its container's ID to a daemon, and gives the answer as a search domain.
ASKING = """#!/usr/bin/python3 -IS
import json, os, socket, sys
if os.environ["CNI_COMMAND"] == "VERSION":
    print('{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}')
    sys.exit()
daemon = socket.socket(socket.AF_UNIX)
daemon.connect(json.load(sys.stdin)["socket"])
daemon.sendall(os.environ["CNI_CONTAINERID"].encode())
print(json.dumps({"cniVersion": "1.0.0", "dns": {"search": [daemon.recv(99).decode()]}}))
"""
DAEMON = """
import os, socket, sys
os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True)
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
server.listen()
print(flush=True)
while True:
    client, _ = server.accept()
    client.sendall(b"hello " + client.recv(99))
    client.close()
"""


@pytest.fixture
def asking(world: bench.World) -> str:
    """The directory of the plugin that asks a daemon."""
    world.root.run(["mkdir", "-p", "/opt/asking"], check=True)
    plugin = world.root.path("/opt/asking/asking")
    plugin.write_text(ASKING)
    plugin.chmod(0o755)
    return "/opt/asking"


@pytest.fixture
def daemon(world: bench.World) -> Iterator[str]:
    """A daemon of the host; gives its socket."""
    path = "/run/vendor/daemon.sock"
    child = world.root.popen(["python3", "-c", DAEMON, path], stdout=subprocess.PIPE)
    child.stdout.readline()
    yield path
    child.kill()
    child.wait()
    world.root.run(["rm", "-r", "/run/vendor"], check=True)


@pytest.mark.parametrize("kept", ["/run/vendor", "/run/vendor/daemon.sock", "/var/run/vendor"])
def test_daemon_of_the_host(
    world: bench.World, session: bench.Session, asking: str, daemon: str, kept: str
) -> None:
    """With `keep` a plugin reaches a daemon of the host, and without it does not."""
    world.root.run(["ln", "-sfn", "/run", "/var/run"])  # as on every Debian
    delegate = {"type": "asking", "socket": daemon}
    runtime = Runtime(session, path=asking, delegate=delegate, uplink="none")
    with session.container() as container:
        assert "No such file" in str(runtime.fail("ADD", "one", container.netns))

        runtime.conf["keep"] = [kept]
        assert runtime.add("one", container)["dns"]["search"] == ["hello one"]
        runtime.delete("one", container)
    assert until(lambda: world.leftovers() == [])


def test_daemon_that_is_not_there(world: bench.World, session: bench.Session, asking: str) -> None:
    """A path of `keep` that does not exist is a warning beside the error of the plugin."""
    delegate = {"type": "asking", "socket": "/run/gone/sock"}
    runtime = Runtime(session, path=asking, delegate=delegate, uplink="none", keep=["/run/gone"])
    with session.container() as container:
        done = runtime.call("ADD", "one", container.netns)

    assert done.returncode == 1
    assert "`keep`: /run/gone is not there: its daemon may not be running" in done.stderr
    assert until(lambda: world.leftovers() == [])


def test_command_with_a_daemon_of_the_host(
    world: bench.World, session: bench.Session, daemon: str
) -> None:
    """`run` and `unshare --netns` have the option --keep for the same."""
    test = ["--keep", daemon, "--", "test", "-S", daemon]

    assert session.run([PLUGIN, "run", "--uplink", "none", *test]).returncode == 0
    assert world.run([PLUGIN, "unshare", "--netns", "x", *test]).returncode == 0
    assert session.run([PLUGIN, "run", "--uplink", "none", *test[2:]]).returncode == 1
    assert until(lambda: world.leftovers() == [])


@pytest.mark.parametrize("keep", ["/run", "/run/", "/", "/var/run", "run/x", "", 1])
def test_what_cannot_be_kept(keep: object) -> None:
    """All of /run cannot be kept, as plugins need their own; nor can a relative path."""
    conf = {"cniVersion": "1.0.0", "name": "n", "delegate": {"type": "bridge"}, "keep": [keep]}

    with pytest.raises(Exception, match="keep"):
        explain.validate(conf)


@pytest.mark.parametrize("sample", sorted(path.name for path in CONF.iterdir()))
def test_samples_are_valid(sample: str) -> None:
    """The samples are free of everything that the schema or the shim complains about."""
    network = json.loads((CONF / sample).read_text())

    for entry in network["plugins"]:
        explain.validate({**entry, "cniVersion": "1.0.0", "name": network["name"]})


class Inside:
    """The daemon of dhcp and a server of addresses, both in the shared netns of the sample."""

    def __init__(self, place: bench.Place, world: bench.World) -> None:
        world.provide(bench.INSIDE / "leaser", "leaser")
        run = [PLUGIN, "run", "--netns", "dhcp", "--"]
        pipe = subprocess.PIPE
        leaser = f"{bench.TYPED}/leaser"
        argv = [*run, leaser, "cni-dhcp", "10.89.13.1", "10.89.13."]
        self.server = place.popen(argv, stdin=pipe, stdout=pipe)
        assert self.server.stdout.readline() == "ready\n"
        # The shell tells its number, which becomes that of the daemon, once the socket is there.
        script = (
            "/usr/lib/cni/dhcp daemon & until test -S /run/cni/dhcp.sock; do :; done;"
            "echo $!; exec cat"
        )
        self.daemon = place.popen([*run, "sh", "-c", script], stdin=pipe, stdout=pipe)
        self.pid = int(self.daemon.stdout.readline())

    def close(self) -> None:
        """End both in good order."""
        for child in (self.server, self.daemon):
            child.communicate(timeout=20)


@pytest.mark.usefixtures("log_in")  # runtimes pin namespaces in the runtime directory
def test_dhcp(world: bench.World) -> None:
    """Containers get leases by DHCP, also one whose netns was pinned after the daemon started.

    Without the daemon an ADD says how to start it, and a DEL succeeds all the same.
    """
    with world.unshared() as place:
        inside = Inside(place, world)
        env: dict[str, Any] = {"XDG_RUNTIME_DIR": world.runtime_dir}
        runtime = Runtime(place, **{**DHCP, "name": "dhcp"})
        pinned = f"{world.runtime_dir}/netns/pinned"
        with place.container() as first, place.container(pinned=pinned) as second:
            assert ips(runtime.add("first", first, **env)) == ["10.89.13.2"]
            assert ips(runtime.add("second", second, **env)) == ["10.89.13.3"]
            assert reaches(second, "10.89.13.2")
            runtime.delete("second", second, **env)

            kill(inside.pid)
            failed = runtime.call("ADD", "second", second.netns, **env)
            done = runtime.call("DEL", "first", first.netns, **env)
            gone = first.run(["ip", "link", "show", "eth0"]).returncode
        inside.close()

    assert failed.returncode == 1
    assert "start it with `netns-shim run --netns dhcp -- /usr/lib/cni/dhcp" in failed.stderr
    assert done.returncode == 0
    assert "no lease was released" in done.stderr
    assert gone == 1
    assert until(lambda: world.leftovers() == [])


@pytest.mark.parametrize(
    ("entry", "text", "expected"),
    [
        ({"ipam": {"type": "dhcp"}}, "error dialing DHCP daemon: dial unix", True),
        ({"ipam": {"type": "dhcp"}}, "dial unix /run/cni/dhcp.sock: connect: refused", True),
        ({"ipam": {"type": "dhcp"}}, "link not found", False),
        ({"ipam": {"type": "static"}}, "error dialing DHCP daemon", False),
        ({"ipam": "dhcp"}, "DHCP daemon", False),
        ({}, "DHCP daemon", False),
    ],
)
def test_missing_daemon(entry: dict[str, Any], text: str, expected: bool) -> None:
    """Only an error about the socket of dhcp says that its daemon is gone."""
    error = PluginFailed(999, text, "", "{}")

    assert daemons.is_missing(entry, error) is expected

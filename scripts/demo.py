# SPDX-License-Identifier: Apache-2.0
"""The main job of netns-shim, shown step by step: started by scripts/demo, as root.

It builds a machine with an internet out of namespaces (tests/bench.py) and does there what an
unprivileged user and a container runtime do. What was promised and did not happen is shown in its
place and makes the exit status 1.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import bench

NETWORK = Path(__file__).resolve().parent.parent / "conf" / "20-chain.conflist"
PLUGIN = f"{bench.World.plugin_dir}/netns-shim"
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
WEB_SERVER = """
import socket
server = socket.create_server(("", 80))
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nhello from alice\\n")
    connection.close()
"""

IS_COLOURED = sys.stdout.isatty() and not os.environ.get("NO_COLOR")


class Broken(Exception):
    """A step failed on which the rest depends."""


class Narrator:
    """Writes what happens, and counts what was promised and what of it was not kept."""

    def __init__(self) -> None:
        self.chapters = self.kept = self.missed = 0

    def title(self, text: str) -> None:
        """Begin a chapter."""
        self.chapters += 1
        print(f"\n{_paint('1', f'{self.chapters}. {text}')}\n", flush=True)

    def say(self, text: str) -> None:
        """Write a paragraph."""
        print(textwrap.indent(textwrap.fill(" ".join(text.split()), 84), "   ") + "\n", flush=True)

    def show(self, text: str) -> None:
        """Write something as it is: a command, a file, an answer."""
        print(_paint("2", textwrap.indent(text.rstrip("\n"), "   │ ")), flush=True)

    def promise(self, text: str, is_kept: object, instead: str = "") -> None:
        """Write what was promised, and whether it is so; `instead` is what is so."""
        if is_kept:
            self.kept += 1
            print(f"   {_paint('32', '✓')} {text}", flush=True)
            return
        self.missed += 1
        print(f"   {_paint('1;31', '✗')} {text}", flush=True)
        if instead:
            self.show(instead)


def _paint(style: str, text: str) -> str:
    return f"\033[{style}m{text}\033[0m" if IS_COLOURED else text


def variables(verb: str, name: str, container: bench.Container) -> dict[str, str]:
    """List the variables of a call of a plugin (CNI specification, section 2)."""
    return {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": name,
        "CNI_NETNS": container.netns,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": bench.World.plugin_dir,
    }


class Runtime:
    """Does what a container runtime does for one network: environment and stdin in, JSON out."""

    def __init__(self, session: bench.Session, network: dict[str, Any]) -> None:
        self.session = session
        (entry,) = network["plugins"]
        self.conf = {"cniVersion": network["cniVersion"], "name": network["name"], **entry}
        self.results: dict[str, dict[str, Any]] = {}

    def call(self, verb: str, name: str, container: bench.Container, **keys: object) -> str:
        """Call the plugin; give what it printed. Raises Broken where it failed."""
        conf = {**self.conf, **keys}
        if name in self.results:
            conf["prevResult"] = self.results[name]
        env = {**self.session.env, **variables(verb, name, container)}
        done = self.session.run([PLUGIN], env=env, input=json.dumps(conf))
        if done.returncode:
            raise Broken(f"{verb} of {name} failed:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def add(self, name: str, container: bench.Container, **keys: object) -> list[str]:
        """Attach a container; give its addresses."""
        self.results[name] = json.loads(self.call("ADD", name, container, **keys))
        return [ip["address"].partition("/")[0] for ip in self.results[name]["ips"]]


def main() -> int:
    """Run the demonstration; give its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if why := bench.unusable():
        print(f"scripts/demo: {why}", file=sys.stderr)
        return 1
    tell = Narrator()
    print(_paint("1", "netns-shim: CNI networks for containers, without root"))
    since = time.monotonic()
    try:
        with bench.World() as world, world.session() as session:
            play(tell, world, session)
    except Broken as error:
        tell.promise("every call of the plugin succeeds", False, str(error))
    except bench.BenchError as error:
        tell.promise("the machine can be built and used", False, str(error))
    total = tell.kept + tell.missed
    took = f"{time.monotonic() - since:.1f} s"
    if tell.missed:
        print(f"\n{_paint('1;31', f'{tell.missed} of {total} promises were not kept')} ({took})")
        return 1
    print(f"\n{_paint('1;32', f'All {total} promises were kept')} ({took})")
    return 0


def play(tell: Narrator, world: bench.World, session: bench.Session) -> None:
    """Show every chapter."""
    show_the_problem(tell, world, session)
    network = show_the_network(tell)
    runtime = Runtime(session, network)
    with session.container() as alice, session.container() as bob:
        addresses = attach(tell, runtime, alice, bob)
        show_status(tell, runtime)
        talk(tell, runtime, alice, bob, addresses)
        detach(tell, runtime, alice, bob)
        show_nothing_is_left(tell, world, alice, bob)


def show_the_problem(tell: Narrator, world: bench.World, session: bench.Session) -> None:
    """A plugin alone is refused the machine's network."""
    tell.title("A user without root and without capabilities")
    tell.say(
        """The machine is built for this demonstration out of namespaces, with an internet at the
        end of its cable. Nothing of the real one is changed. The user has no capabilities. The
        containers live in a user namespace of the user's own, as `unshare --user --map-root-user
        --map-auto --mount` makes it. There the user calls a CNI plugin:"""
    )
    bare = {"cniVersion": "1.0.0", "name": "bare", "type": "bridge", "bridge": "cni0", "ipam": {}}
    with session.container() as container:
        env = {**session.env, **variables("ADD", "alice", container)}
        done = session.run([f"{world.plugin_dir}/bridge"], env=env, input=json.dumps(bare))
    tell.show(f"$ CNI_COMMAND=ADD … {world.plugin_dir}/bridge\n{_message(done.stdout)}")
    tell.promise(
        "without netns-shim the plugin is refused: it would change the machine's network",
        done.returncode and "not permitted" in done.stdout,
        done.stdout + done.stderr,
    )


def _message(answer: str) -> str:
    try:
        return str(json.loads(answer)["msg"])
    except (ValueError, LookupError):
        return answer


def show_the_network(tell: Narrator) -> dict[str, Any]:
    """The configuration in which plugins are wrapped."""
    tell.title("One word in a network configuration")
    tell.say(
        f"""The plugins stay as they are. `netns-shim` is put around them, and runs them in a
        network namespace that belongs to the user. This is conf/{NETWORK.name}:"""
    )
    text = NETWORK.read_text()
    tell.show(text)
    network: dict[str, Any] = json.loads(text)
    return network


def attach(
    tell: Narrator, runtime: Runtime, alice: bench.Container, bob: bench.Container
) -> dict[str, list[str]]:
    """ADD for two containers; give their addresses."""
    tell.title("ADD: two containers")
    tell.say("A runtime calls it like any CNI plugin: variables, and the configuration on stdin.")
    given = variables("ADD", "alice", alice)
    tell.show("\n".join(f"{name}={value}" for name, value in given.items()))
    addresses = {}
    for name, container, keys, remark in (
        ("alice", alice, {"runtimeConfig": PORTS}, "made the namespace and started the uplink"),
        ("bob", bob, {}, "found it ready"),
    ):
        since = time.monotonic()
        addresses[name] = runtime.add(name, container, **keys)
        took = f"{(time.monotonic() - since) * 1000:.0f} ms"
        seen = container.run(["ip", "-brief", "address", "show", "eth0"]).stdout
        tell.promise(
            f"{name} has eth0 with {' and '.join(addresses[name])} ({took}: {remark})",
            len(addresses[name]) == 2 and all(a in seen for a in addresses[name]),
            seen,
        )
    return addresses


def show_status(tell: Narrator, runtime: Runtime) -> None:
    """The command for people."""
    tell.title("Who is there: netns-shim status")
    shown = runtime.session.run([PLUGIN, "status"]).stdout
    tell.show(f"$ netns-shim status\n{shown}")
    tell.promise(
        "it shows the uplink and both containers",
        all(word in shown for word in ("uplink pasta", "alice", "bob")),
    )


def talk(
    tell: Narrator,
    runtime: Runtime,
    alice: bench.Container,
    bob: bench.Container,
    addresses: dict[str, list[str]],
) -> None:
    """Containers reach each other and the internet, and a published port is reached."""
    tell.title("They talk")
    for address in addresses["alice"]:
        ping = bob.run(["ping", "-c1", "-W2", address])
        tell.promise(f"bob pings alice at {address}", ping.returncode == 0, ping.stdout)
    for address in addresses["bob"]:
        ping = alice.run(["ping", "-c1", "-W2", address])
        tell.promise(f"alice pings bob at {address}", ping.returncode == 0, ping.stdout)
    for page in (bench.PAGE_BEYOND, bench.PAGE6):
        answer = bob.run(["fetch", page])
        tell.promise(
            f"bob fetches a page from {page}, beyond the uplink",
            "hello from the internet" in answer.stdout,
            answer.stderr,
        )
        tell.show(answer.stdout)
    print()
    server = alice.popen(["python3", "-c", WEB_SERVER], stdout=subprocess.PIPE, text=True)
    server.stdout.readline()
    tell.say("alice serves a page on port 80, published as 8080 by `portmap` in the chain:")
    command = ["netns-shim", "run", "--", "fetch", bench.HOST, "8080"]
    answer = runtime.session.run([PLUGIN, *command[1:]])
    tell.show(f"$ {' '.join(command)}\n{answer.stdout}")
    tell.promise(
        "a command run in the shared namespace reaches it at the published port",
        answer.stdout == "hello from alice\n",
        answer.stderr,
    )


def detach(tell: Narrator, runtime: Runtime, alice: bench.Container, bob: bench.Container) -> None:
    """DEL for both: the namespace stays as long as a container is attached."""
    tell.title("CHECK and DEL")
    runtime.call("CHECK", "bob", bob)
    tell.promise("CHECK finds bob as ADD left him", True)
    runtime.call("DEL", "bob", bob)
    answer = alice.run(["fetch", bench.PAGE_BEYOND])
    tell.promise(
        "DEL of bob: alice is still attached and still reaches the internet",
        "hello from the internet" in answer.stdout,
        answer.stderr,
    )
    runtime.call("DEL", "alice", alice, runtimeConfig=PORTS)
    shown = runtime.session.run([PLUGIN, "status"]).stdout
    tell.show(f"$ netns-shim status\n{shown}")
    tell.promise(
        "DEL of alice, the last one: the namespace goes with her",
        shown.startswith("no shared network namespace is up"),
    )


def show_nothing_is_left(
    tell: Narrator, world: bench.World, alice: bench.Container, bob: bench.Container
) -> None:
    """What could be left is looked for from the outside, as root."""
    tell.title("Nothing is left")
    leftovers = world.leftovers()
    for kind, text in (
        ("process", "no uplink is running"),
        ("mount", "nothing is mounted in the state directory"),
        ("file", "no file is in the state directory"),
        ("interface", "the machine has the interfaces that it had"),
    ):
        found = [line for line in leftovers if line.startswith(kind)]
        tell.promise(text, not found, "\n".join(found))
    links = [c.run(["ip", "-brief", "link"]).stdout for c in (alice, bob)]
    tell.promise(
        "alice and bob have no eth0", not any("eth0" in link for link in links), "".join(links)
    )


if __name__ == "__main__":
    sys.exit(main())

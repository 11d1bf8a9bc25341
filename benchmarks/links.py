# SPDX-License-Identifier: Apache-2.0
"""Links for the data path: networks of the shim, and the same without it."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from subprocess import DEVNULL
from typing import Any

import bench
from runtime import PLUGIN, Runtime, bridge, ips
from stage import BenchmarkError, Stage

from netns_shim.state import State

SLIRP4NETNS = "/usr/bin/slirp4netns"
START_SECONDS = 10
_numbers = itertools.count(1)


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pair what goes through the shim with the same without it, by their names."""
    marks = (" bare", " and bridge"), (", bare", ", shim")
    found = []
    for bare in names:
        for of_bare, of_ours in marks:
            ours = bare.replace(of_bare, of_ours)
            if of_bare in bare and ours in names:
                found.append((ours, bare))
    return found


@contextmanager
def bare_uplink(stage: Stage, driver: str, mtu: int) -> Iterator[bench.Container]:
    """Start an uplink by hand for a container of its own, as the shim starts it."""
    with ExitStack() as undo:
        state = State(stage.state_dir("bare"), f"{driver}{mtu}")
        undo.callback(stage.session.run, ["rm", "-r", state.dir])
        container = undo.enter_context(stage.session.container(pinned=state.pin))
        if driver == "pasta":
            command = stage.pasta(["--mtu", str(mtu)], state)
        else:
            options = ["--configure", f"--mtu={mtu}", "--disable-host-loopback"]
            place = ["--netns-type=path", container.netns, "tap0"]
            command = [SLIRP4NETNS, *options, *place]
        undo.enter_context(_running(stage, command))
        _await_route(container)
        yield container


@contextmanager
def _running(stage: Stage, argv: list[str]) -> Iterator[None]:
    with stage.session.popen(argv, stdout=DEVNULL, stderr=DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def _await_route(container: bench.Container) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not container.run(["ip", "route", "show", "default"], check=True).stdout:
        if time.monotonic() > deadline:
            raise BenchmarkError("an uplink by hand does not start")


class Network:
    """A network of the shim, with the bridge of the first sample; `keys` are of its entry."""

    def __init__(self, stage: Stage, name: str, **keys: Any) -> None:
        self._session = stage.session
        subnet = f"10.80.{next(_numbers)}.0/24"
        # Names of interfaces have 15 characters at most.
        entry = bridge(subnet, name=f"b{name}"[:15])
        self._runtime = Runtime(stage.session, name=name, delegate=entry, **keys)

    @contextmanager
    def attached(self) -> Iterator[tuple[bench.Container, str]]:
        """Attach a container; give it and its address."""
        with self._session.container() as container:
            name = f"c{next(_numbers)}"
            (address,) = ips(self._runtime.add(name, container))
            try:
                yield container, address
            finally:
                self._runtime.delete(name, container)


class PlainBridges:
    """Bridges that the plugin itself makes in a netns without uplink, beside the shim's."""

    def __init__(self, stage: Stage, mtu: int) -> None:
        self._session = stage.session
        self._mtu = mtu
        self._outer = stage.session.container()

    @contextmanager
    def attached(self, number: int) -> Iterator[tuple[bench.Container, str]]:
        """Attach a container to one of the bridges; give it and its address."""
        address = f"10.79.{number}.{next(_numbers) + 1}"
        # Without a lease: nothing has to be kept between calls.
        ipam = {
            "type": "static",
            "addresses": [{"address": f"{address}/24", "gateway": f"10.79.{number}.1"}],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        entry = {**bridge(name=f"plain{number}"), "ipam": ipam, "mtu": self._mtu}
        conf = {"cniVersion": "1.0.0", "name": f"plain{number}", **entry}
        with self._session.container() as container:
            env = {
                "CNI_COMMAND": "ADD",
                "CNI_CONTAINERID": address,
                "CNI_NETNS": container.netns,
                "CNI_IFNAME": "eth0",
                "CNI_PATH": bench.World.plugin_dir,
                "PATH": bench.ROOT_PATH,
            }
            # iptables needs a /run that it can write to.
            script = 'mount -t tmpfs tmpfs /run; exec "$0"'
            argv = [
                "unshare",
                "--mount",
                "sh",
                "-euc",
                script,
                f"{os.path.dirname(PLUGIN)}/bridge",
            ]
            self._outer.run(argv, env=env, input=json.dumps(conf), check=True)
            yield container, address

    def __enter__(self) -> PlainBridges:
        return self

    def __exit__(self, *_: object) -> None:
        self._outer.close()

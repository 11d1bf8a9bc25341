# SPDX-License-Identifier: Apache-2.0
"""A container runtime as the plugin sees it: environment, standard input, one JSON document."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from threading import Event
from typing import Any

import bench

PLUGIN = f"{bench.World.plugin_dir}/netns-shim"


def bridge(subnet: str = "10.89.0.0/24", *more: str, name: str = "cni0") -> dict[str, Any]:
    """Configure Debian's bridge plugin, masquerading, with an address of each subnet."""
    subnets = (subnet, *more)
    return {
        "type": "bridge",
        "bridge": name,
        "isGateway": True,
        "ipMasq": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": s}] for s in subnets],
            "routes": [{"dst": "::/0" if ":" in s else "0.0.0.0/0"} for s in subnets],
        },
    }


# Nothing ever sets it.
PAUSE = Event()

DUAL = ("10.89.0.0/24", "fd00:89::/64")


class Runtime:
    """Calls the shim with one network configuration, and with nothing but CNI_* around it."""

    def __init__(
        self, place: bench.Place, *, path: str = bench.World.plugin_dir, **keys: Any
    ) -> None:
        self.place = place
        self.path = path
        self.conf = {"cniVersion": "1.0.0", "name": "rootless", "type": "netns-shim", **keys}

    def environment(self, verb: str, container_id: str, netns: str, **more: str) -> dict[str, str]:
        """Build the environment of a call."""
        return {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container_id,
            "CNI_NETNS": netns,
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": "",
            "CNI_PATH": self.path,
            **more,
        }

    def call(
        self,
        verb: str,
        container_id: str = "",
        netns: str = "",
        *,
        conf: dict[str, Any] | None = None,
        **more: str,
    ) -> subprocess.CompletedProcess[str]:
        """Make a call; `more` are further variables, `conf` keys to replace."""
        text = json.dumps({**self.conf, **(conf or {})})
        env = self.environment(verb, container_id, netns, **more)
        return self.place.run([PLUGIN], env=env, input=text)

    def succeed(self, verb: str, *arguments: str, **more: Any) -> Any:
        """Make a call that succeeds; give its result, None where it is one without."""
        done = self.call(verb, *arguments, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout) if done.stdout else None

    def fail(self, verb: str, *arguments: str, **more: Any) -> dict[str, Any]:
        """Make a call that fails; give its error object."""
        done = self.call(verb, *arguments, **more)
        assert done.returncode == 1, done.stdout + done.stderr
        error: dict[str, Any] = json.loads(done.stdout)
        assert isinstance(error["code"], int)
        assert error["msg"]
        return error

    def add(self, container_id: str, container: bench.Container, **more: Any) -> Any:
        """Attach a container; give the result."""
        return self.succeed("ADD", container_id, container.netns, **more)

    def delete(self, container_id: str, container: bench.Container, **more: Any) -> None:
        """Detach a container."""
        assert self.succeed("DEL", container_id, container.netns, **more) is None

    def status(self) -> list[dict[str, Any]]:
        """List each shared netns as `status --json` shows them."""
        done = self.place.run([PLUGIN, "status", "--json"], check=True)
        found: list[dict[str, Any]] = json.loads(done.stdout)["netns"]
        return found

    def attached(self) -> list[str]:
        """List the containers that are attached to a shared netns."""
        return [r["containerID"] for netns in self.status() for r in netns["references"]]


def kill(pid: int) -> None:
    """Kill a process that the test has led to, an uplink, and wait until it has ended."""
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)


def kill_for_good(uplink: dict[str, Any]) -> None:
    """Kill an uplink of `status`, or of its record, and first its guardian: it stays dead."""
    if uplink.get("guardian"):
        kill(uplink["guardian"]["pid"])
    kill(uplink["pid"])


def kill_publisher(pid: int) -> None:
    """Kill a pasta that opens ports, and first its guardian, which is its parent."""
    with open(f"/proc/{pid}/status") as file:
        (parent,) = (int(line.split()[1]) for line in file if line.startswith("PPid:"))
    kill(parent)
    kill(pid)


def until(condition: Callable[[], object], seconds: float = 20) -> bool:
    """Wait for what happens in processes that cannot be waited for; tell whether it did."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        PAUSE.wait(0.01)  # which leaves the processor to what is waited for
    return True


def ips(result: dict[str, Any]) -> list[str]:
    """List the addresses of a result, without their prefix length."""
    return [ip["address"].split("/")[0] for ip in result["ips"]]


def reaches(container: bench.Container, address: str) -> bool:
    """Tell whether a container gets an answer to a ping."""
    return container.run(["ping", "-c1", "-W2", address]).returncode == 0


def page(container: bench.Container, address: str) -> str:
    """Fetch a page; give its text, "" where there is no answer."""
    return container.run([f"{bench.TYPED}/fetch", address]).stdout

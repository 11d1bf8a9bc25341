# SPDX-License-Identifier: Apache-2.0
"""netavark's callers as the shim sees them: arguments, standard input, one JSON document."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import bench
from runtime import PLUGIN

from netns_shim import skel
from netns_shim.faces import netavark_plugin

ID = "ab" * 32
NETWORK: dict[str, Any] = {
    "name": "net",
    "id": ID,
    "driver": "cni",
    "dns_enabled": False,
    "internal": False,
    "ipv6_enabled": False,
}


def network(*subnets: str, name: str = "theirs", **options: str) -> dict[str, Any]:
    """Write a network of which Podman allocates the addresses, if there are subnets."""
    return {
        **NETWORK,
        "name": name,
        "ipv6_enabled": any(":" in subnet for subnet in subnets),
        "subnets": [{"subnet": subnet} for subnet in subnets] or None,
        "options": options,
    }


def request(made: dict[str, Any], container_id: str, *ips: str, **more: Any) -> dict[str, Any]:
    """Write what a plugin of netavark is given for a container."""
    options = {"interface_name": "eth0", "static_ips": list(ips) or None, **more}
    ports = options.pop("ports", None)
    return {
        "container_id": container_id,
        "container_name": f"name-of-{container_id}",
        "port_mappings": ports,
        "network": made,
        "network_options": options,
    }


class Answer(NamedTuple):
    """How a call has ended."""

    status: int
    stdout: str

    @property
    def value(self) -> dict[str, Any]:
        """What is on stdout, after a success."""
        assert self.status == 0, self.stdout
        value: dict[str, Any] = json.loads(self.stdout)
        return value

    @property
    def error(self) -> str:
        """The error that is all there is on stdout, after a failure."""
        answer = json.loads(self.stdout)
        assert self.status == 1
        assert list(answer) == ["error"]
        return str(answer["error"])


def serve(words: list[str], given: Any = None, environ: dict[str, str] | None = None) -> Answer:
    """Serve a call in this process."""
    (stdin, to_stdin), (from_stdout, stdout) = os.pipe(), os.pipe()
    os.write(to_stdin, given if isinstance(given, bytes) else json.dumps(given).encode())
    os.close(to_stdin)
    try:
        status = skel.serve(netavark_plugin.Face(words, environ or {}), stdin, stdout)
    finally:
        os.close(stdout)
        os.close(stdin)
    with open(from_stdout) as file:
        return Answer(status, file.read())


def conflist(path: Path, *plugins: dict[str, Any], **keys: Any) -> str:
    """Write a CNI network and return its path."""
    path.write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "other", "plugins": plugins, **keys})
    )
    return str(path)


class Netavark:
    """Calls the shim as a plugin of netavark."""

    def __init__(self, place: bench.Place, plugin: str = PLUGIN) -> None:
        self.place = place
        self.plugin = plugin
        self.env = place.env

    def call(self, *arguments: str, **given: Any) -> subprocess.CompletedProcess[str]:
        """Call it with anything."""
        return self.place.run([self.plugin, *arguments], env=self.env, input=json.dumps(given))

    def succeed(self, *arguments: str, **given: Any) -> Any:
        """Make a call that succeeds; give its answer, None where it is one without."""
        done = self.call(*arguments, **given)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout) if done.stdout else None

    def fail(self, *arguments: str, **given: Any) -> str:
        """Make a call that fails; give its error, which is alone in its object."""
        done = self.call(*arguments, **given)
        assert done.returncode == 1, done.stdout + done.stderr
        answer = json.loads(done.stdout)
        assert list(answer) == ["error"]
        return str(answer["error"])

    def setup(self, container: bench.Container, **given: Any) -> list[str]:
        """Attach a container; give its addresses, without their prefix length."""
        status = self.succeed("setup", container.netns, **given)
        (interface,) = status["interfaces"].values()
        return [subnet["ipnet"].partition("/")[0] for subnet in interface["subnets"]]

    def teardown(self, container: bench.Container, **given: Any) -> None:
        """Detach a container."""
        assert self.succeed("teardown", container.netns, **given) is None

# SPDX-License-Identifier: Apache-2.0
"""The real netavark works in the bench, in each of its versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bench
import pytest
import releases
from fakes import executable
from runtime import reaches

RELEASES = releases.versions()
GATEWAY, ADDRESS = "10.88.1.1", "10.88.1.5"
NETWORK = {
    "name": "plain",
    "id": "ab" * 32,
    "driver": "bridge",
    "network_interface": "nv0",
    "subnets": [{"subnet": "10.88.1.0/24", "gateway": GATEWAY}],
    "dns_enabled": False,
    "internal": False,
    "ipv6_enabled": False,
}
STATUS = {"interfaces": {"eth0": {"mac_address": "02:00:00:00:00:01", "subnets": []}}}
DRIVER = f"""#!/bin/sh
cat >"${{0%/*}}/$1.json"
[ "$1" = teardown ] || echo '{json.dumps(STATUS)}'
"""


def call(
    directory: str,
    outer: bench.Place,
    verb: str,
    container: bench.Container,
    *options: str,
    **changes: object,
) -> Any:
    """Have a netavark in a netns attach or detach a container; give its answer, if it has one."""
    network = {**NETWORK, **changes}
    name = network["name"]
    request = {
        "container_id": "c" * 64,
        "container_name": "web",
        "networks": {name: {"interface_name": "eth0", "static_ips": [ADDRESS]}},
        "network_info": {name: network},
    }
    config = f"{outer.env['HOME']}/networks"
    outer.run(["mkdir", "-p", config], check=True)
    argv = [f"{directory}/netavark", f"--config={config}", "--rootless=true"]
    argv += [f"--aardvark-binary={directory}/aardvark-dns", *options, verb, container.netns]
    # No shim is between: netavark needs the PATH of root, which has iptables and nft.
    env = {**outer.env, "PATH": bench.ROOT_PATH}
    done = outer.run(argv, env=env, input=json.dumps(request), check=True)
    return json.loads(done.stdout)[name] if done.stdout else None


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("program", releases.PROGRAMS)
def test_release_is_what_it_says(
    world: bench.World, netavark: dict[str, str], release: str, program: str
) -> None:
    """Both programs run for the unprivileged user, and are of the release they are kept under."""
    done = world.run([f"{netavark[release]}/{program}", "version"], check=True)

    major, minor, _ = json.loads(done.stdout)["version"].split(".")
    assert f"{release}.".startswith(f"{major}.{minor}.")


@pytest.mark.parametrize("release", RELEASES)
def test_bridge(
    world: bench.World, session: bench.Session, netavark: dict[str, str], release: str
) -> None:
    """The user attaches a container to a bridge in a netns of their own, and detaches it."""
    with session.container() as outer, session.container() as container:
        status = call(netavark[release], outer, "setup", container)

        subnets = [{"ipnet": f"{ADDRESS}/24", "gateway": GATEWAY}]
        assert status["interfaces"]["eth0"]["subnets"] == subnets
        assert reaches(container, GATEWAY)

        assert call(netavark[release], outer, "teardown", container) is None
        assert "nv0" not in outer.run(["ip", "-br", "link"], check=True).stdout
        assert "eth0" not in container.run(["ip", "-br", "link"], check=True).stdout
    assert world.leftovers() == []


@pytest.mark.parametrize("release", RELEASES)
def test_aardvark_dns(
    world: bench.World, session: bench.Session, netavark: dict[str, str], release: str
) -> None:
    """The name server is started from beside netavark, is seen as a leftover, and is ended."""
    with session.container() as outer, session.container() as container:
        call(netavark[release], outer, "setup", container, dns_enabled=True)
        found = world.leftovers()
        call(netavark[release], outer, "teardown", container, dns_enabled=True)

    assert [line.split()[0] for line in found] == ["process"]
    assert world.leftovers() == []


@pytest.mark.parametrize("release", [v for v in RELEASES if v != "1.4.0"])  # it has no drivers
def test_driver(session: bench.Session, netavark: dict[str, str], release: str) -> None:
    """netavark runs a driver of a plugin directory, with the netns and the network it is for."""
    drivers = f"{session.env['HOME']}/drivers"
    session.run(["mkdir", drivers], check=True)
    executable(session.path(f"{drivers}/tiny"), DRIVER)
    more = f"--plugin-directory={drivers}"

    with session.container() as outer, session.container() as container:
        status = call(netavark[release], outer, "setup", container, more, driver="tiny")
        call(netavark[release], outer, "teardown", container, more, driver="tiny")

    assert status["interfaces"] == STATUS["interfaces"]
    setup, teardown = (
        json.loads(session.path(f"{drivers}/{verb}.json").read_text())
        for verb in ("setup", "teardown")
    )
    assert setup == teardown
    assert setup["network"]["driver"] == "tiny"
    assert setup["network_options"]["static_ips"] == [ADDRESS]


def test_fetch_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has been unpacked is used without any program."""
    monkeypatch.setattr(releases, "TREES", tmp_path)
    monkeypatch.setenv("PATH", "")
    (tmp_path / "trixie").mkdir()

    assert releases.fetch("trixie") == tmp_path / "trixie"


def test_failed_fetch_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without apt there is an error, and no half of a tree that the next fetch would take."""
    monkeypatch.setattr(releases, "TREES", tmp_path)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(OSError, match="apt-get"):
        releases.fetch("trixie")
    assert list(tmp_path.iterdir()) == []

# SPDX-License-Identifier: Apache-2.0
"""Bad input of every kind, to the installed plugin: one valid error, and nothing is changed."""

from __future__ import annotations

import json
from typing import Any

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge

from netns_shim import errors

ENVIRONMENT = errors.INVALID_ENVIRONMENT
DECODING = errors.DECODING_FAILURE
CONFIG = errors.INVALID_NETWORK_CONFIG
VERSION = errors.INCOMPATIBLE_VERSION


@pytest.fixture
def runtime(session: bench.Session) -> Runtime:
    """A runtime whose configuration is good."""
    return Runtime(session, delegate=bridge(), uplink="none")


def check_nothing_happened(world: bench.World, session: bench.Session) -> None:
    """Assert that there is no trace of the call."""
    assert not session.path(world.state_dir).exists()
    assert world.leftovers() == []


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"CNI_CONTAINERID": ""}, "CNI_CONTAINERID"),
        ({"CNI_IFNAME": "", "CNI_NETNS": "", "CNI_PATH": ""}, "CNI_NETNS,CNI_IFNAME,CNI_PATH"),
        ({"CNI_CONTAINERID": "a\n"}, "CNI_CONTAINERID"),
        ({"CNI_CONTAINERID": "../../etc"}, "CNI_CONTAINERID"),
        ({"CNI_CONTAINERID": "a b"}, "CNI_CONTAINERID"),
        ({"CNI_CONTAINERID": "é"}, "CNI_CONTAINERID"),
        ({"CNI_CONTAINERID": "c" * 300}, "too long"),
        ({"CNI_IFNAME": "sixteen-bytes-xx"}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "a/b"}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "a:b"}, "CNI_IFNAME"),
        ({"CNI_IFNAME": "eth0\n"}, "CNI_IFNAME"),
        ({"CNI_IFNAME": ".."}, "CNI_IFNAME"),
        ({"CNI_COMMAND": "add"}, "unknown CNI_COMMAND: add"),
    ],
)
def test_environment(
    world: bench.World,
    session: bench.Session,
    runtime: Runtime,
    variables: dict[str, str],
    text: str,
) -> None:
    """A variable that is missing or malformed is named in an error with the code 4."""
    env = {**runtime.environment("ADD", "c", "/proc/1/ns/net"), **variables}
    done = session.run([PLUGIN], env=env, input=json.dumps(runtime.conf))

    error = json.loads(done.stdout)
    assert done.returncode == 1
    assert error["code"] == ENVIRONMENT
    assert text in error["msg"]
    check_nothing_happened(world, session)


@pytest.mark.parametrize(
    ("stdin", "code"),
    [
        ("", DECODING),
        ("garbage", DECODING),
        ("[]", DECODING),
        ("null", DECODING),
        ('{"name": "a"}{"name": "b"}', DECODING),
        ('{"name": "a", "name": "b"}', DECODING),
        ('{"name": NaN}', DECODING),
        ("[" * 100_000, DECODING),
        ('{"cniVersion": "1.0.0"}', CONFIG),
        ('{"cniVersion": "9.9.9", "name": "n"}', VERSION),
        ('{"cniVersion": "1.0.0", "name": "../n"}', CONFIG),
        ('{"cniVersion": "1.0.0", "name": "n\\n"}', CONFIG),
    ],
)
def test_stdin(
    world: bench.World, session: bench.Session, runtime: Runtime, stdin: str, code: int
) -> None:
    """What is no network configuration is refused with the code of what is wrong."""
    env = runtime.environment("ADD", "c", "/proc/1/ns/net")
    done = session.run([PLUGIN], env=env, input=stdin)

    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == code
    check_nothing_happened(world, session)


@pytest.mark.spread
@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"delegate": None}, "$.delegate"),
        ({"delegate": {}}, "type"),
        ({"delegate": {"type": "../bridge"}}, "$.delegate.type"),
        ({"delegate": {"type": "/bin/sh"}}, "$.delegate.type"),
        ({"delegate": {"type": "netns-shim"}}, "cannot delegate to itself"),
        ({"delegate": {"type": "no-such-plugin"}}, "failed to find plugin 'no-such-plugin'"),
        ({"plugins": []}, "plugins"),
        ({"plugins": [{"type": "bridge"}]}, "plugins"),
        ({"uplink": "wireguard"}, "$.uplink"),
        ({"uplnk": "pasta"}, "did you mean 'uplink'"),
        ({"netns": "../x"}, "$.netns"),
        ({"netns": ".hidden"}, "$.netns"),
        ({"stateDir": "relative"}, "$.stateDir"),
        ({"timeout": 0}, "$.timeout"),
        ({"timeout": "10"}, "$.timeout"),
        ({"enter": "maybe"}, "$.enter"),
        ({"runtimeConfig": []}, "$.runtimeConfig"),
        ({"ipam": {"type": "host-local"}}, "inside 'delegate'"),
        ({"uplink": {"driver": "pasta", "options": ["--foreground"]}}, "--foreground"),
    ],
)
def test_configuration(
    world: bench.World,
    session: bench.Session,
    runtime: Runtime,
    keys: dict[str, Any],
    text: str,
) -> None:
    """A wrong configuration is refused with the code 7 and the path of what is wrong."""
    with session.container() as container:
        error = runtime.fail("ADD", "c", container.netns, conf=keys)

    assert error["code"] == CONFIG
    assert text in error["msg"] + error.get("details", "")
    check_nothing_happened(world, session)


def test_all_problems_at_once(
    world: bench.World, session: bench.Session, runtime: Runtime
) -> None:
    """Every problem of a configuration is in the one answer."""
    keys = {"netns": "..", "timeout": -1, "uplink": "no", "delegate": {"type": ""}}
    error = runtime.fail("ADD", "c", "/proc/1/ns/net", conf=keys)

    for path in ("$.netns", "$.timeout", "$.uplink", "$.delegate.type"):
        assert path in error["details"]
    check_nothing_happened(world, session)


@pytest.mark.parametrize(
    "netns",
    ["/nowhere", "/etc/passwd", "/etc", "relative", "/dev/null", "/proc/self/ns/mnt", "a\nb"],
)
def test_what_is_no_netns(
    world: bench.World, session: bench.Session, runtime: Runtime, netns: str
) -> None:
    """An ADD whose CNI_NETNS is none is refused with the code 8 before anything is made."""
    assert runtime.fail("ADD", "c", netns)["code"] == errors.INVALID_NETNS
    check_nothing_happened(world, session)


def test_a_pipe_as_netns(world: bench.World, session: bench.Session, runtime: Runtime) -> None:
    """A CNI_NETNS that is a pipe does not keep the runtime waiting."""
    pipe = f"{world.env['HOME']}/pipe"
    session.run(["mkfifo", pipe], check=True)

    assert runtime.fail("ADD", "c", pipe)["code"] == errors.INVALID_NETNS
    check_nothing_happened(world, session)


FAKES = {
    "silent": ("exit 0", errors.PLUGIN_MISBEHAVED, "without printing a result"),
    "failing": ("exit 3", errors.PLUGIN_MISBEHAVED, "exit status 3"),
    "garbage": ("echo hello; exit 1", errors.PLUGIN_MISBEHAVED, "no JSON"),
    "killed": ("kill -SEGV $$", errors.PLUGIN_MISBEHAVED, "SIGSEGV"),
    "hanging": ("exec tail -f /dev/null", errors.PLUGIN_TIMED_OUT, "did not end within"),
}


@pytest.mark.parametrize("name", FAKES)
def test_a_plugin_that_misbehaves(world: bench.World, session: bench.Session, name: str) -> None:
    """The error names the plugin and what it did; what its ADD left is undone."""
    script, code, text = FAKES[name]
    directory = f"{world.env['HOME']}/plugins"
    # VERSION answers, so that it is ADD that goes wrong.
    version = '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}'
    lines = f"#!/bin/sh\n[ $CNI_COMMAND = VERSION ] && echo '{version}' && exit\n{script}\n"
    session.run(
        ["sh", "-euc", f'mkdir "{directory}"; cat >"$0"; chmod +x "$0"', f"{directory}/fake"],
        input=lines,
        check=True,
    )
    runtime = Runtime(session, path=directory, delegate={"type": "fake"}, uplink="none", timeout=1)
    with session.container() as container:
        error = runtime.fail("ADD", "c", container.netns)

    assert error["code"] == code
    assert "'fake'" in error["msg"]
    assert text in error["msg"]
    assert world.leftovers() == []


def test_a_plugin_that_cannot_be_executed(world: bench.World, session: bench.Session) -> None:
    """A file without the executable bit is named, with what the kernel said."""
    directory = f"{world.env['HOME']}/plugins"
    session.run(["sh", "-euc", 'mkdir "$0"; echo >"$0/fake"', directory], check=True)
    runtime = Runtime(session, path=directory, delegate={"type": "fake"}, uplink="none")
    with session.container() as container:
        error = runtime.fail("ADD", "c", container.netns)

    assert error["code"] == errors.PLUGIN_MISBEHAVED
    assert "'fake' cannot be executed" in error["msg"]
    assert "Permission denied" in error["details"]
    assert world.leftovers() == []


def test_the_error_of_a_real_plugin(world: bench.World, session: bench.Session) -> None:
    """What the plugin says is wrong reaches the runtime as the plugin said it."""
    plain = {"type": "bridge", "bridge": "cni0", "vlan": 99999}
    runtime = Runtime(session, delegate=plain, uplink="none")
    with session.container() as container:
        error = runtime.fail("ADD", "c", container.netns)

        direct = Runtime(session, delegate=plain, enter="never")
        assert error == direct.fail("ADD", "c", container.netns)
    assert error["code"] == 999
    assert "99999" in error["msg"]
    assert world.leftovers() == []

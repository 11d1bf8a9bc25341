# SPDX-License-Identifier: Apache-2.0
"""What is set in the netns of a container, and over which ones there is no power."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import bench
import pytest
from ports import mapping, publishing
from ports import runtime as runtime_of_ports
from runtime import PLUGIN, Runtime, bridge, ips, reaches, until

from netns_shim import netns

RTO = f"{netns.SYSCTLS}tcp_rto_min_us"
FRTO = f"{netns.SYSCTLS}tcp_frto"
CONGESTION = f"{netns.SYSCTLS}tcp_congestion_control"
has_rto = pytest.mark.skipif(not os.path.exists(RTO), reason="Linux before 6.11")


def value(place: bench.Place, path: str = RTO) -> str:
    """Tell a sysctl; by default the shortest time until TCP repeats a packet, in microseconds."""
    text: str = place.run(["cat", path], check=True).stdout
    return text.strip()


@has_rto
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "50000"),
        ({"uplink": "slirp4netns"}, "200000"),
        ({"uplink": "none"}, "200000"),
        ({"enter": "never"}, "200000"),
    ],
)
def test_containers_repeat_sooner_behind_pasta(
    session: bench.Session, keys: dict[str, str], expected: str
) -> None:
    """Behind pasta, and only there, what it has dropped is sent again after 50 ms."""
    runtime = Runtime(session, delegate=bridge(), stateDir="/run/netns/state", **keys)
    with session.container() as outer, session.container() as container:
        if keys.get("enter"):
            runtime.place = outer
        runtime.add("c", container)

        assert value(container) == expected
        runtime.delete("c", container)


@has_rto
def test_containers_repeat_sooner_behind_a_pasta_for_their_ports(session: bench.Session) -> None:
    """Without an uplink, answers leave by the pasta that opens the ports: it is as behind one."""
    client = runtime_of_ports(session, uplink="none")
    with session.container() as container, session.container() as other:
        client.succeed("ADD", "web", container.netns, conf=publishing(mapping(8080)))
        client.succeed("ADD", "other", other.netns)

        assert (value(container), value(other)) == ("50000", "200000")
        client.succeed("DEL", "other", other.netns)
        client.succeed("DEL", "web", container.netns)


@has_rto
def test_who_says_otherwise_about_repeating(session: bench.Session) -> None:
    """A value that is there already is left alone, and `tuning` has the last word."""
    tuning = {"type": "tuning", "sysctl": {"net.ipv4.tcp_rto_min_us": "200000"}}
    plain = Runtime(session, delegate=bridge())
    tuned = Runtime(session, name="tuned", plugins=[bridge("10.90.0.0/24", name="b1"), tuning])
    with session.container() as first, session.container() as second:
        first.run(["sh", "-euc", f"echo 77000 >{RTO}"], check=True)
        plain.add("first", first)
        tuned.add("second", second)
        # The next entry of a network whose plugins are wrapped one by one.
        after = Runtime(session, name="tuned", delegate={"type": "tuning"})
        result = {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}], "ips": []}
        after.add("second", second, conf={"prevResult": result})

        assert (value(first), value(second)) == ("77000", "200000")


@has_rto
def test_programs_in_the_shared_netns_repeat_sooner(session: bench.Session) -> None:
    """So do programs that run in the shared netns itself."""
    argv = [PLUGIN, "run", "--uplink", "pasta", "--", "cat", RTO]

    assert session.run(argv, check=True).stdout.strip() == "50000"


@pytest.mark.parametrize(
    ("uplink", "expected"), [("pasta", "0"), ("slirp4netns", "0"), ("none", "2")]
)
def test_containers_recover_from_losses_of_their_uplink(
    session: bench.Session, uplink: str, expected: str
) -> None:
    """Behind an uplink, F-RTO is off; so it is in the shared netns itself."""
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    with session.container() as container:
        runtime.add("c", container)
        argv = [PLUGIN, "run", "--netns", "default", "--", "cat", FRTO]

        assert value(container, FRTO) == expected
        assert session.run(argv, check=True).stdout.strip() == expected
        runtime.delete("c", container)


@pytest.mark.parametrize("uplink", ["pasta", "slirp4netns"])
def test_bbr_is_the_hosts_affair(session: bench.Session, uplink: str) -> None:
    """What a container has of the host is BBR or not; behind an uplink it is never BBR."""
    runtime = Runtime(session, delegate=bridge(), uplink=uplink)
    with session.container() as container:
        before = value(container, CONGESTION)
        runtime.add("c", container)

        assert value(container, CONGESTION) == ("reno" if before == "bbr" else before)
        runtime.delete("c", container)


def test_which_values_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only values of the kernel, and BBR, are replaced; the timer only behind pasta."""
    monkeypatch.setattr(netns, "SYSCTLS", f"{tmp_path}/")
    values = {"tcp_rto_min_us": "200000", "tcp_frto": "2", "tcp_congestion_control": "bbr"}
    ours = {"tcp_rto_min_us": "50000", "tcp_frto": "0", "tcp_congestion_control": "reno"}
    others = {"tcp_rto_min_us": "5000", "tcp_frto": "1", "tcp_congestion_control": "cubic"}

    def after(before: dict[str, str], *, behind_pasta: bool) -> dict[str, str]:
        for name, text in before.items():
            (tmp_path / name).write_text(f"{text}\n")
        netns.tune_tcp(behind_pasta=behind_pasta)
        # The kernel takes a shorter value as a whole, a file does not.
        return {name: (tmp_path / name).read_text().split("\n")[0] for name in before}

    assert after(values, behind_pasta=True) == ours
    assert after(values, behind_pasta=False) == {**ours, "tcp_rto_min_us": "200000"}
    assert after(others, behind_pasta=True) == others


def test_nothing_is_tuned_where_sysctls_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel without the values, and ones that cannot be written, are no error."""
    (tmp_path / "tcp_frto").mkdir()
    monkeypatch.setattr(netns, "SYSCTLS", f"{tmp_path}/")

    netns.tune_tcp(behind_pasta=True)


@pytest.mark.usefixtures("log_in")  # the runtime directory is the same in a nested namespace
@pytest.mark.parametrize("options", [["-Ur"], ["-Urm"]])
def test_nested_user_namespace(world: bench.World, options: list[str]) -> None:
    """Without power over a shared netns no call changes anything: neither ports nor journals."""
    with world.unshared() as place, place.container() as container:
        env: dict[str, Any] = {"XDG_RUNTIME_DIR": world.runtime_dir}
        runtime = Runtime(place, delegate=bridge())
        (address,) = ips(runtime.add("one", container, **env))
        nested = ["unshare", *options, PLUGIN]
        run = place.run([*nested, "run", "--", "true"])
        calls = []
        for verb in ("ADD", "DEL", "CHECK"):
            call = runtime.environment(verb, "one", container.netns, **env, PATH=bench.PATH)
            calls.append(place.run(nested, env=call, input=json.dumps(runtime.conf)))
        (shown,) = runtime.status()

        assert [json.loads(done.stdout)["code"] for done in calls] == [103] * 3
        assert "no power over the shared netns" in calls[1].stdout
        assert "netns-shim unshare" in calls[1].stdout
        assert run.returncode == 1
        assert [reference["phase"] for reference in shown["references"]] == ["live"]
        assert reaches(container, address)
        runtime.delete("one", container, **env)
    assert until(lambda: world.leftovers() == [])


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_nested_without_mounts(world: bench.World, session: bench.Session, verb: str) -> None:
    """In a mount namespace of another user namespace an ADD makes nothing, and a DEL succeeds.

    Runtimes undo a failed ADD by a DEL: there is nothing to detach, which it says.
    """
    runtime = Runtime(session, delegate=bridge(), stateDir="/tmp/mine")
    script = 'unshare --net sleep 60 & CNI_NETNS=/proc/$!/ns/net "$0"; s=$?; kill $!; exit $s'
    env = {**runtime.environment(verb, "one", "/x"), "PATH": bench.PATH}

    done = session.run(
        ["unshare", "-Ur", "sh", "-c", script, PLUGIN], env=env, input=json.dumps(runtime.conf)
    )

    if verb == "ADD":
        assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 103)
    else:
        assert (done.returncode, done.stdout) == (0, "")
        assert "'one' was not attached" in done.stderr
    assert "this user namespace cannot mount" in done.stdout + done.stderr
    assert not world.path("/tmp/mine").exists()


def test_in_place_without_mounts(world: bench.World, session: bench.Session) -> None:
    """In place, where nothing can be mounted, plugins run all the same, and say what they lack."""
    runtime = Runtime(session, delegate=bridge(), stateDir="/tmp/mine", enter="never")
    script = (
        'unshare --net sleep 60 & until test "$(readlink /proc/$!/ns/net)" != '
        '"$(readlink /proc/self/ns/net)"; do :; done;'
        'CNI_NETNS=/proc/$!/ns/net "$0"; s=$?; ip -br link; kill $!; exit $s'
    )
    env = {**runtime.environment("ADD", "one", "/x"), "PATH": bench.ROOT_PATH}

    done = session.run(
        ["unshare", "-Urn", "sh", "-c", script, PLUGIN], env=env, input=json.dumps(runtime.conf)
    )

    assert "/var/lib/cni" in done.stdout
    assert "permission denied" in done.stdout
    assert "veth" not in done.stdout

# SPDX-License-Identifier: Apache-2.0
"""What is set in the network namespace of a container, and by whom it is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import bench
import pytest
from runtime import PLUGIN, Runtime, bridge

from netns_shim import netns


def rto(place: bench.Place) -> str:
    """Tell the shortest time after which TCP repeats a packet, in microseconds."""
    text: str = place.run(["cat", netns.MINIMUM_RTO], check=True).stdout
    return text.strip()


@pytest.mark.skipif(not os.path.exists(netns.MINIMUM_RTO), reason="Linux before 6.11")
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

        assert rto(container) == expected
        runtime.delete("c", container)


@pytest.mark.skipif(not os.path.exists(netns.MINIMUM_RTO), reason="Linux before 6.11")
def test_who_says_otherwise_about_repeating(session: bench.Session) -> None:
    """A value that is there already is left alone, and `tuning` has the last word."""
    tuning = {"type": "tuning", "sysctl": {"net.ipv4.tcp_rto_min_us": "200000"}}
    plain = Runtime(session, delegate=bridge())
    tuned = Runtime(session, name="tuned", plugins=[bridge("10.90.0.0/24", name="b1"), tuning])
    with session.container() as first, session.container() as second:
        first.run(["sh", "-euc", f"echo 77000 >{netns.MINIMUM_RTO}"], check=True)
        plain.add("first", first)
        tuned.add("second", second)
        # The next entry of a network whose plugins are wrapped one by one.
        after = Runtime(session, name="tuned", delegate={"type": "tuning"})
        result = {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}], "ips": []}
        after.add("second", second, conf={"prevResult": result})

        assert (rto(first), rto(second)) == ("77000", "200000")


@pytest.mark.skipif(not os.path.exists(netns.MINIMUM_RTO), reason="Linux before 6.11")
def test_programs_in_the_shared_netns_repeat_sooner(session: bench.Session) -> None:
    """So do programs that run in the shared netns itself."""
    argv = [PLUGIN, "run", "--uplink", "pasta", "--", "cat", netns.MINIMUM_RTO]

    assert session.run(argv, check=True).stdout.strip() == "50000"


def test_nothing_is_repeated_sooner_where_sysctls_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel without the value, and one that cannot be written, are no error."""
    for path in (tmp_path / "missing", tmp_path):
        monkeypatch.setattr(netns, "MINIMUM_RTO", str(path))

        netns.repeat_sooner()

# SPDX-License-Identifier: Apache-2.0
"""The links of a netns are what `ip` has made, and each is known by where its other end is."""

from __future__ import annotations

import subprocess

import bench
import pytest

from netns_shim.errors import ShimError
from netns_shim.shared import links, rtnetlink
from netns_shim.shared.nsenter import run_in

DEVICES = """
ip link add br0 type bridge
ip address add 10.1.0.1/24 dev br0
ip address add fd00::1/64 dev br0 nodad
ip address add fe80::7/64 dev br0 nodad
ip link set br0 up
ip link add near0 type veth peer name near1
ip link add far0 type veth peer name eth0 netns {first}
ip link add far1 type veth peer name eth0 netns {second}
ip link set far0 master br0
ip link add link near0 name vlan0 type macvlan
"""


def test_links_and_where_they_lead(session: bench.Session) -> None:
    """Kind, addresses, bridge, parent and the container at the other end; no loopback."""
    with session.container() as place, session.container() as one, session.container() as two:
        script = DEVICES.format(first=one.pid, second=two.pid)
        session.run(["nsenter", f"--net={place.netns}", "sh", "-euc", script], check=True)

        found = links.links(place.netns, [one.netns, "/proc/0/ns/net", "/dev/null"])
        ends = links.veths(place.netns, [one.netns, "/proc/0/ns/net", "/dev/null"])

        nothing = {
            "kind": "veth",
            "mtu": 1500,
            "up": False,
            "addresses": [],
            "master": None,
            "parent": None,
            "leadsTo": None,
        }
        assert {link.pop("name"): link for link in found} == {
            "br0": {
                **nothing,
                "kind": "bridge",
                "up": True,
                "addresses": ["10.1.0.1/24", "fd00::1/64"],
            },
            "near0": {**nothing, "parent": "near1"},
            "near1": {**nothing, "parent": "near0"},
            "far0": {**nothing, "master": "br0", "leadsTo": one.netns},
            "far1": nothing,
            "vlan0": {**nothing, "kind": "macvlan", "parent": "near0"},
        }
        assert list(ends) == [["far0", "far1", "near0", "near1"], ["far1"]]


def test_more_links_than_one_answer(session: bench.Session) -> None:
    """A list that takes the kernel more than one answer is read to its end."""
    script = 'for i in $(seq 150); do echo "link add b$i type veth peer name c$i"; done | ip -b -'
    with session.container() as place:
        place.run(["sh", "-euc", script], check=True)

        names, elsewhere = links.veths(place.netns, [])

    assert sorted(names) == sorted(f"{end}{n}" for end in "bc" for n in range(1, 151))
    assert elsewhere == []


def test_a_netns_that_cannot_be_entered() -> None:
    """A path that leads nowhere is an error that names it."""
    with pytest.raises(ShimError, match="/proc/0/ns/net"):
        links.veths("/proc/0/ns/net", [])


def test_a_list_that_has_changed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a list may lack a link that was there all the time: it is asked for again."""
    answers: list[object] = [None, None, [((), {})]]
    monkeypatch.setattr(rtnetlink, "_dump", lambda *_: answers.pop(0))

    assert rtnetlink.dump(rtnetlink.RTM_GETLINK, rtnetlink.LINK) == [((), {})]

    monkeypatch.setattr(rtnetlink, "_dump", lambda *_: None)
    with pytest.raises(ShimError, match="keep changing"):
        rtnetlink.dump(rtnetlink.RTM_GETLINK, rtnetlink.LINK)


def test_links_that_come_and_go(session: bench.Session) -> None:
    """The kernel says of a list that it has changed, and then it is not taken."""
    churn = "while :; do ip link add x type veth peer name y; ip link delete x; done"
    script = 'for i in $(seq 100); do echo "link add b$i type bridge"; done | ip -b -'

    def is_ever_refused() -> bool:
        return any(
            rtnetlink._dump(rtnetlink.RTM_GETLINK, rtnetlink.LINK) is None for _ in range(5000)
        )

    with session.container() as place:
        place.run(["sh", "-euc", script], check=True)
        beside = place.popen(["sh", "-c", churn], stderr=subprocess.DEVNULL)
        try:
            assert run_in(place.netns, is_ever_refused)
        finally:
            beside.kill()
            beside.wait()

# SPDX-License-Identifier: Apache-2.0
"""What a runtime offers, in whatever case it writes the names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from netns_shim import cni
from netns_shim.attachment import AttachmentRecord, ReferenceName
from netns_shim.offered import canonical

# What go-cni writes: its types have no JSON tags (types.go).
OF_GO_CNI = {
    "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
    "ipRanges": [[{"Subnet": "10.0.0.0/24", "RangeStart": "", "RangeEnd": "", "Gateway": ""}]],
    "bandwidth": {"IngressRate": 1, "IngressBurst": 2, "EgressRate": 3, "EgressBurst": 4},
    "dns": {"Servers": ["10.0.0.1"], "Searches": ["example.org"], "Options": ["ndots:1"]},
    "cgroupPath": "/Slice",
}
CANONICAL = {
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}],
    "ipRanges": [[{"subnet": "10.0.0.0/24", "rangeStart": "", "rangeEnd": "", "gateway": ""}]],
    "bandwidth": {"ingressRate": 1, "ingressBurst": 2, "egressRate": 3, "egressBurst": 4},
    "dns": {"servers": ["10.0.0.1"], "searches": ["example.org"], "options": ["ndots:1"]},
    "cgroupPath": "/Slice",
}


@pytest.mark.parametrize("offered", [OF_GO_CNI, CANONICAL])
def test_names_of_the_conventions(offered: Any) -> None:
    """What go-cni writes gets the names of the conventions; what has them stays."""
    assert canonical(offered) == CANONICAL


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        ({"PORTMAPPINGS": [{"hostport": 1}]}, {"portMappings": [{"hostPort": 1}]}),
        ({"MAC": "02::", "Ips": ["1"]}, {"mac": "02::", "ips": ["1"]}),
    ],
)
def test_any_case(offered: Any, expected: Any) -> None:
    """Every case will do, at every level."""
    assert canonical(offered) == expected


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ({"hostPort": 1, "HostPort": 2}, {"hostPort": 2}),
        ({"HostPort": 2, "hostPort": 1}, {"hostPort": 1}),
    ],
)
def test_given_twice(port: Any, expected: Any) -> None:
    """Of two names that differ in case only the last one counts, as in Go."""
    assert canonical({"portMappings": [port]}) == {"portMappings": [expected]}


@pytest.mark.parametrize(
    "offered",
    [
        {"X-Own": {"HostPort": 1}, "Device": 1},
        {"aliases": {"Servers": ["Options"]}},
        {"portMappings": [{"X": 1, "ﬀ": 2, "ß": 3}, None, 1, "HostPort", ["HostPort"]]},
        {"portMappings": {"HostPort": 1}},
        {"ipRanges": [{"Subnet": 1}, None]},
        {"dns": [{"Servers": 1}]},
        {"bandwidth": None, "ips": 1, "mac": ["02::"]},
        {},
        [{"portMappings": []}],
        "portMappings",
    ],
)
def test_what_stays(offered: Any) -> None:
    """Unknown names, names of networks, and values of another kind stay as they are."""
    assert canonical(offered) == offered


def environment(verb: str) -> dict[str, str]:
    """Give the variables of a call."""
    return {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c",
        "CNI_NETNS": "/n",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/p",
    }


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
def test_a_request_has_them(verb: str) -> None:
    """A request is read so, and nothing of it but runtimeConfig: other keys are the user's."""
    args = {"Cni": {"HostPort": 1}, "cni": {"Mac": 1}}
    conf = {"cniVersion": "1.0.0", "name": "n", "args": args, "runtimeConfig": OF_GO_CNI}

    request = cni.parse(environment(verb), json.dumps(conf).encode())

    assert request.conf == {**conf, "runtimeConfig": CANONICAL}


@pytest.mark.parametrize("empty", [None, {}, []])
def test_a_request_without(empty: Any) -> None:
    """One that offers nothing is as it was."""
    conf = {"cniVersion": "1.0.0", "name": "n", "runtimeConfig": empty}

    assert cni.parse(environment("ADD"), json.dumps(conf).encode()).conf == conf


def test_a_record_of_before_has_them() -> None:
    """The record of an attachment that an earlier version has written is read so as well."""
    conf = {"cniVersion": "1.0.0", "name": "n", "runtimeConfig": OF_GO_CNI}
    journal = json.dumps({"phase": "live", "conf": conf}).encode() + b"\n"

    record = AttachmentRecord.parse(ReferenceName.of("n", "c", "eth0", ["x"]), journal)

    assert record.conf == {**conf, "runtimeConfig": CANONICAL}

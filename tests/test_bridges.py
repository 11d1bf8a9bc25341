# SPDX-License-Identifier: Apache-2.0
"""The bridge of an attachment is found by its link, its configuration or its address."""

from __future__ import annotations

from typing import Any

import pytest

from netns_shim.attachment import AttachmentRecord, ReferenceName
from netns_shim.cli.bridges import Bridges


def link(name: str, *addresses: str, kind: str = "bridge", master: str = "") -> dict[str, Any]:
    """Describe a link as `links.links` does."""
    return {"name": name, "kind": kind, "addresses": [*addresses], "master": master or None}


LINKS = [
    link("wide", "10.0.0.1/8", "fd00::1/16"),
    link("narrow", "10.1.0.1/16"),
    link("cni0", "192.168.0.1/24"),
    link("tap0", "172.16.0.1/12", kind="tun"),
    link("port", kind="veth", master="narrow"),
    link("lone", kind="veth"),
]


@pytest.mark.parametrize(
    ("interfaces", "conf", "ips", "bridge"),
    [
        (["port"], {"delegate": {"type": "bridge"}}, ["10.2.0.2/24"], "narrow"),
        (["lone", "gone"], {"delegate": {"type": "bridge"}}, ["10.2.0.2/24"], "cni0"),
        ([], {"delegate": {"type": "bridge", "bridge": "gone"}}, ["192.168.0.2/24"], "cni0"),
        ([], {}, ["10.1.0.2/24"], "wide"),
        ([], {}, ["odd", "192.168.0.9/32", "10.1.0.2/24"], "wide"),
        ([], {}, ["192.168.0.9/32"], "cni0"),
        ([], {}, ["fd00:0:7::2/64"], "wide"),
        ([], {}, ["172.16.0.2/24"], None),
        ([], {}, ["192.168.1.2/16"], None),
        ([], {}, [], None),
    ],
)
def test_of_links(interfaces: list[str], conf: Any, ips: list[str], bridge: str | None) -> None:
    """The link decides, then the configuration, then the first bridge in whose range it is."""
    result = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": name} for name in interfaces],
        "ips": [{"address": ip} for ip in ips],
    }
    record = AttachmentRecord(ReferenceName("n:c:eth0:x"), {"conf": conf, "result": result})

    assert Bridges(LINKS).of(record) == bridge


def test_without_links() -> None:
    """Where links cannot be seen, only the configuration tells; without links it tells nothing."""
    conf = {"delegate": {"type": "bridge"}}
    record = AttachmentRecord(ReferenceName("n:c:eth0:x"), {"conf": conf})

    assert Bridges(None).of(record) == "cni0"
    assert Bridges([]).of(record) is None

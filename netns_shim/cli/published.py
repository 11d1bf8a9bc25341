# SPDX-License-Identifier: Apache-2.0
"""The facts about published ports: as they are recorded, and as they are on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ports.choice import PublisherRecord
from ..ports.look import CLOSED, REFUSED
from ..ports.mappings import Port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..attachment import AttachmentRecord
    from ..decoding import Json
    from ..ports.look import Host, Seen


def of_attachment(host: Host, records: list[AttachmentRecord]) -> list[Json]:
    """List the ports that an attachment publishes, and those that it was only asked for.

    Of these there is no state: the owner of the netns has opened them, or an earlier version of
    the shim, or they are of a kind that cannot be opened on a host.
    """
    found = {_key(entry): entry for record in records for entry in _recorded(host, record)}
    for record in records:
        for entry in map(_asked, _entries(record)):
            found.setdefault(_key(entry), entry)
    return list(found.values())


def of_netns(host: Host) -> list[Json]:
    """List the ports of the shared netns itself that are published."""
    return [_facts(seen) for seen in host.netns()]


def publisher(host: Host, ports: list[Json], made: Json | None) -> Json | None:
    """Tell who has these ports open; None where no program has them, or it is not known yet."""
    process = host.process(made)
    if process is None or all(entry["address"] is None for entry in ports):
        return None
    record = PublisherRecord(made)
    return {
        "driver": record.driver or process.text("driver"),
        "pid": process.pid or None,
        "alive": process.is_running,
        "interface": record.interface or None,
    }


def _recorded(host: Host, record: AttachmentRecord) -> list[Json]:
    return [_facts(seen) for seen in host.attachment(record)]


def _facts(seen: Seen) -> Json:
    return {
        "hostPort": seen.port.host_port,
        "containerPort": seen.port.container_port,
        "protocol": seen.port.protocol,
        "hostIP": seen.port.host_ip,
        "address": seen.address or None,
        "state": seen.state,
        "holder": seen.who or None,
    }


def _entries(record: AttachmentRecord) -> Iterator[Port]:
    """Read what a runtime has asked for, by the conventions of CNI for `portMappings`."""
    offered = (record.conf or {}).get("runtimeConfig")
    entries = offered.get("portMappings") if isinstance(offered, dict) else None
    for port in map(Port.read, entries if isinstance(entries, list) else []):
        if port is not None:
            yield port


def _asked(port: Port) -> Json:
    return {
        "hostPort": port.host_port,
        "containerPort": port.container_port,
        "protocol": port.protocol,
        "hostIP": port.host_ip,
        "address": None,
        "state": None,
        "holder": None,
    }


def _key(entry: Json) -> tuple[object, ...]:
    return entry["protocol"], entry["hostIP"], entry["hostPort"]


def count_shut(facts: Json) -> int:
    """Count the ports of an attachment, or of a netns, that are certainly not open."""
    return sum(entry["state"] in (REFUSED, CLOSED) for entry in facts["ports"])

# SPDX-License-Identifier: Apache-2.0
"""The record of an uplink: made and changed; whether what it says is there.

What every call reads of it is in `records`.
"""

from __future__ import annotations

import os

from .. import encoding, netns, proc
from ..records import UplinkRecord
from . import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..decoding import Json
    from ..records import ProcessRecord
    from ..state import State


def of(
    *,
    driver: str,
    wanted: Mapping[str, Any],
    pid: int | None,
    guardian: int | None,
    tap_descriptor: int | None,
    pin: str,
    interface: str,
    addresses: list[str],
    mtu: int | None,
    forwarders: list[str],
    forwards: list[str] | None,
    host_addresses: list[str],
    host: Json,
    copies_addresses: bool = False,
    control: str = "",
    lacks_ports: bool = False,
    pending: str = "",
) -> UplinkRecord:
    """Write down an uplink that this process has started, or None as its `pid`.

    `guardian` is the process ID of its guardian, None where it has none.

    `wanted` is the configuration it was chosen by, `pin` the path of the shared netns, and
    `host` the host's network as `hostnet` saw it. For the others see below.
    """
    return UplinkRecord(
        {
            "driver": driver,
            "wanted": dict(wanted),
            "pid": pid,
            "startTime": proc.start_time(pid) if pid else None,
            **({"guardian": _process(guardian)} if guardian else {}),
            "tapDescriptor": tap_descriptor,
            "bootID": proc.boot_id(),
            "pidNamespace": proc.pid_namespace(),
            "mountNamespace": os.stat("/proc/self/ns/mnt").st_ino,
            "userNamespace": os.stat("/proc/self/ns/user").st_ino,
            "netns": os.stat(pin).st_ino,
            "hostNetns": os.stat("/proc/self/ns/net").st_ino,
            "interface": interface,
            "addresses": addresses,
            **({} if mtu is None else {"mtu": mtu}),
            "dnsForwarders": [],
            "names": {"forwarders": forwarders, "forwards": forwards},
            "hostAddresses": host_addresses,
            "host": host,
            "copiesAddresses": copies_addresses,
            "control": control,
            "lacksPorts": lacks_ports,
            **({"pending": pending} if pending else {}),
        }
    )


def note_guardian(record: UplinkRecord, pid: int, problem: str = "") -> None:
    """Note its present guardian, and why that could not start the uplink again so far."""
    said = {"problem": problem[:500]} if problem else {}
    record.fields["guardian"] = {**_process(pid), **said}


def _process(pid: int) -> Json:
    return {"pid": pid, "startTime": proc.start_time(pid)}


def note_names(
    record: UplinkRecord, forwarders: list[str], rules: list[list[str]], search: list[str]
) -> None:
    """Note where questions go at present."""
    record.fields["dnsForwarders"] = forwarders
    names = {"rules": rules, "search": search}
    record.fields["names"] = {**(record.object("names") or {}), **names}


def note_ports(record: UplinkRecord) -> None:
    """Note that it has opened the ports that attachments publish."""
    record.fields["lacksPorts"] = False


def note_publisher(record: UplinkRecord, publisher: Json) -> None:
    """Note who has opened the ports of the shared netns itself."""
    record.fields["publisher"] = publisher


def note_host(record: UplinkRecord, host: Json) -> None:
    """Note the host's network as it is now; other keys of an earlier look stay."""
    record.fields["host"] = {**(record.host or {}), **host}


def move(record: UplinkRecord, there: ProcessRecord) -> None:
    """Note that it is in the namespaces of another record."""
    for key in ("mountNamespace", "userNamespace"):
        record.fields[key] = there.fields[key]


def write(state: State, record: UplinkRecord) -> None:
    """Write the record of the uplink of a netns."""
    files.write_atomically(state.path("uplink.json"), encoding.pretty(record.fields) + "\n")


def is_up(state: State, record: UplinkRecord) -> bool:
    """Tell whether the uplink of a record lives, and belongs to the pinned netns.

    One in another PID namespace has its interface in there as long as it lives.
    """
    if not _is_pinned(state, record):
        return False
    if record.is_alive:
        return True
    return record.is_hidden and netns.has_interface(state.pin, record.interface)


def is_awaited(state: State, record: UplinkRecord) -> bool:
    """Tell whether the pinned netns is to get the uplink of a record later."""
    return _is_pinned(state, record) and bool(record.pending)


def _is_pinned(state: State, record: UplinkRecord) -> bool:
    try:
        return record.netns == os.stat(state.pin).st_ino
    except OSError:
        return False

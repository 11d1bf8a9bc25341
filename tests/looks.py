# SPDX-License-Identifier: Apache-2.0
"""What `netns-shim status`, `show` and `graph` are given to draw: facts, and state on disk."""

from __future__ import annotations

import calendar
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from netns_shim.state import MARK

SINCE = "2026-01-02T03:04:05Z"
NOW = float(calendar.timegm((2026, 1, 2, 3, 7, 10)))
LIVE = {
    "phase": "live",
    "network": "net",
    "containerID": "c",
    "ifname": "eth0",
    "netns": "/proc/7/ns/net",
    "since": SINCE,
    "result": {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}]},
}


def make(base: Path, name: str, uplink: Any = None, **refs: Any) -> Path:
    """Make the state of a netns; a reference that is no text is its only line."""
    directory = base / name
    directory.mkdir(mode=0o700)
    (directory / MARK).touch()
    (directory / "refs").mkdir()
    if uplink is not None:
        (directory / "uplink.json").write_text(json.dumps(uplink))
    for file, content in refs.items():
        text = content if isinstance(content, str) else json.dumps(content) + "\n"
        (directory / "refs" / file).write_text(text)
    return directory


def uplink(**keys: Any) -> dict[str, Any]:
    """Describe an uplink that lives."""
    return {
        "driver": "pasta",
        "pid": 4711,
        "alive": True,
        "pending": None,
        "since": "2026-01-02T01:02:00Z",
        "interface": "tap0",
        "mtu": 65520,
        "guardian": {"pid": 4712, "alive": True, "problem": None},
        "changes": [],
        "problems": [],
        **keys,
    }


def attachment(container_id: str, *ips: str, **keys: Any) -> dict[str, Any]:
    """Describe an attachment at a bridge that lives."""
    return {
        "network": "net",
        "containerID": container_id,
        "ifname": "eth0",
        "netns": "/proc/7/ns/net",
        "ips": [*ips],
        "since": SINCE,
        "phase": "live",
        "plugins": ["bridge"],
        "ports": [],
        "publisher": None,
        "names": [],
        "bridge": "cni0",
        "hostInterfaces": [],
        "alive": True,
        "sign": "its network namespace is /proc/7/ns/net",
        **keys,
    }


def command(*words: str, **keys: Any) -> dict[str, Any]:
    """Describe a command that runs."""
    return {"pid": 9, "command": [*words], "since": SINCE, "alive": True, **keys}


def port(host: int, container: int, **keys: Any) -> dict[str, Any]:
    """Describe a published port that is open."""
    given = {"hostPort": host, "containerPort": container, "protocol": "tcp", "hostIP": ""}
    return {**given, "address": "0.0.0.0", "state": "open", "holder": None, **keys}


def asked(host: int, container: int, **keys: Any) -> dict[str, Any]:
    """Describe a port of which only the request is known."""
    return port(host, container, address=None, state=None, **keys)


def link(name: str, kind: str | None, *addresses: str, **keys: Any) -> dict[str, Any]:
    """Describe a link of a netns that is up."""
    base = {"name": name, "kind": kind, "mtu": 65520, "up": True, "addresses": [*addresses]}
    return {**base, "master": None, "parent": None, "leadsTo": None, **keys}


def netns(name: str = "default", **keys: Any) -> dict[str, Any]:
    """Describe a netns in which there is nothing but its uplink."""
    return {
        "name": name,
        "path": f"/base/{name}/netns",
        "uplink": uplink(),
        "addresses": ["192.0.2.7"],
        "ports": [],
        "publisher": None,
        "names": None,
        "references": [],
        "commands": [],
        "links": [link("tap0", "tun", "192.0.2.7/24")],
        "problem": None,
        **keys,
    }


def facts(*found: dict[str, Any], in_place: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Describe all that is up."""
    return {
        "stateDir": "/base",
        "netns": [*found],
        "inPlace": [*in_place],
        "pauseProcess": None,
    }


def plain(renderable: Any, width: int = 99) -> list[str]:
    """Print something as on a screen without colours; give the lines."""
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, highlight=False)
    console.print(renderable)
    return file.getvalue().splitlines()

# SPDX-License-Identifier: Apache-2.0
"""`netns-shim status`: what is up and who is attached."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from .. import references, result, state

if TYPE_CHECKING:
    import argparse

SUMMARY = "Show the shared network namespaces and what is attached to them."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.add_argument(
        "--state-dir", default="", metavar="DIR", help="the `stateDir` of the configuration"
    )


def main(arguments: argparse.Namespace) -> int:
    """Print the status, as JSON or as text."""
    found = collect(state.base_dir(os.environ, arguments.state_dir))
    print(json.dumps(found, indent=2) if arguments.json else describe(found))
    return 0


def collect(base: str) -> dict[str, Any]:
    """Gather what is up below a state directory; nothing is entered, locked or changed."""
    found = []
    names = sorted(os.listdir(base)) if state.is_private(base) else []
    for name in names:
        where = state.State(base, name)
        # Names with a dot first are locks and what is remembered for plugins run in place.
        if not name.startswith(".") and where.exists():
            found.append(_netns(where))
    return {"stateDir": base, "netns": found}


def _netns(where: state.State) -> dict[str, Any]:
    record = where.uplink()
    attachments: dict[tuple[str, str, str], dict[str, Any]] = {}
    commands = []
    for reference in references.references(where):
        if reference["file"].startswith(references.RUN_PREFIX):
            commands.append({key: reference.get(key) for key in ("pid", "command", "since")})
        elif "network" in reference:
            # Plugins wrapped one by one in a list have a reference each for the same attachment.
            key = (reference["network"], reference["containerID"], reference["ifname"])
            known = attachments.setdefault(key, _attachment(reference))
            known["ips"] = known["ips"] or _ips(reference)
    return {
        "name": where.name,
        "path": where.pin,
        "uplink": {
            "driver": record.get("driver"),
            "pid": record.get("pid"),
            "alive": state.is_alive(record),
        },
        "addresses": record.get("addresses", []),
        "references": list(attachments.values()),
        "commands": commands,
    }


def _attachment(reference: dict[str, Any]) -> dict[str, Any]:
    keys = ("network", "containerID", "ifname", "netns")
    return {
        **{key: reference.get(key) for key in keys},
        "ips": _ips(reference),
        "since": reference.get("since"),
        "phase": reference.get("phase"),
    }


def _ips(reference: dict[str, Any]) -> list[str]:
    return result.addresses(reference.get("result") or {})


def describe(found: dict[str, Any]) -> str:
    """Write the status for people."""
    if not found["netns"]:
        return f"no shared network namespace is up ({found['stateDir']})"
    lines = []
    for netns in found["netns"]:
        uplink = netns["uplink"]
        pid = (
            f" (PID {uplink['pid']}{'' if uplink['alive'] else ', gone'})" if uplink["pid"] else ""
        )
        lines.append(f"{netns['name']}: uplink {uplink['driver']}{pid}")
        if netns["addresses"]:
            lines.append(f"  addresses {', '.join(netns['addresses'])}")
        for entry in netns["references"]:
            phase = "" if entry["phase"] == references.LIVE else f" [{entry['phase']}]"
            lines.append(
                f"  {entry['network']}: {entry['containerID']} {entry['ifname']} "
                f"{', '.join(entry['ips']) or 'no address'} since {entry['since']}{phase}"
            )
        for command in netns["commands"]:
            words = " ".join(command["command"] or [])
            lines.append(f"  command {words} (PID {command['pid']}) since {command['since']}")
    return "\n".join(lines)

# SPDX-License-Identifier: Apache-2.0
"""`netns-shim status`: what is up and who is attached."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from .. import holder, references, result, state
from ..netns import is_privileged

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
    # The kernel takes interface names that are no text.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    base = state.base_dir(os.environ, arguments.state_dir)
    if not is_privileged():
        holder.look(base)
    found = collect(base)
    print(json.dumps(found, indent=2) if arguments.json else describe(found))
    return 0


def collect(base: str) -> dict[str, Any]:
    """Gather what is up below a state directory; nothing is entered, locked or changed."""
    found = [_netns(where) for where in state.all_in(base) if where.name != state.IN_PLACE]
    return {"stateDir": base, "netns": found}


def _netns(where: state.State) -> dict[str, Any]:
    record = where.uplink()
    attachments: dict[tuple[str, ...], dict[str, Any]] = {}
    commands = []
    for reference in references.references(where):
        # The name of the file is believed: its content may be damaged or not be there yet.
        key = tuple(reference["file"].split(":")[:3])
        if reference["file"].startswith(references.RUN_PREFIX):
            command = _strings(reference.get("command"))
            commands.append(
                {"pid": reference.get("pid"), "command": command, "since": reference.get("since")}
            )
        elif len(key) == 3 and key[0]:
            # Plugins wrapped one by one in a list have a reference each for the same attachment.
            known = attachments.setdefault(key, _attachment(key, reference))
            known["ips"] = known["ips"] or _ips(reference)
    return {
        "name": where.name,
        "path": where.pin,
        "uplink": {
            "driver": record.get("driver"),
            "pid": record.get("pid"),
            "alive": state.is_alive(record),
        },
        "addresses": _strings(record.get("addresses")),
        "references": list(attachments.values()),
        "commands": commands,
    }


def _attachment(key: tuple[str, ...], reference: dict[str, Any]) -> dict[str, Any]:
    return {
        **dict(zip(("network", "containerID", "ifname"), key, strict=True)),
        "netns": reference.get("netns"),
        "ips": _ips(reference),
        "since": reference.get("since"),
        "phase": reference.get("phase", references.ADDING),
    }


def _ips(reference: dict[str, Any]) -> list[str]:
    return result.addresses(reference.get("result"))


def _strings(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


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
                f"{', '.join(entry['ips']) or 'no address'} since {entry['since'] or '?'}{phase}"
            )
        for command in netns["commands"]:
            words = " ".join(command["command"])
            since = command["since"] or "?"
            lines.append(f"  command {words} (PID {command['pid']}) since {since}")
    return "\n".join(lines)

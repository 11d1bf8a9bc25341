# SPDX-License-Identifier: Apache-2.0
"""The facts about shared netns's, for those who show them: files, links and signs of life.

Nothing is locked, made or changed. What cannot be seen from where this is called is null in the
facts, and said: the files tell the rest. Texts are as they were found, whatever they hold.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Any

from . import holder, host, netlink, netns, references, result, state
from .errors import ShimError
from .place import Shared
from .signs import Signs, host_side, identity_of

Json = dict[str, Any]

# What the plugin `bridge` calls its bridge where it is not told.
DEFAULT_BRIDGE = "cni0"
ELSEWHERE = "more is seen where the container runtime runs"


def collect(base: str) -> Json:
    """Gather what is up below a state directory.

    Raises ShimError where that directory could be somebody else's.
    """
    if not netns.is_privileged():
        holder.look(base)  # where a user who is nobody sees more
    found = [look(where) for where in state.all_in(base) if where.name != state.IN_PLACE]
    return {"stateDir": base, "netns": found}


def made_from(base: str, name: str, attachment: Json) -> list[Json]:
    """List what each reference of an attachment says of the call that made it.

    Plugins that are wrapped one by one have a reference each.
    """
    key = tuple(attachment[part] for part in ("network", "containerID", "ifname"))
    where = state.State(base, name)
    records = references.of_interface(where, attachment["containerID"], attachment["ifname"])
    return [
        {
            "reference": f"{where.refs}/{record['file']}",
            "args": record.get("args"),
            "path": record.get("path"),
            "configuration": record.get("conf"),
            "result": record.get("result"),
        }
        for record in records
        if _key(record) == key
    ]


def look(where: state.State) -> Json:
    """Gather what is known of one shared netns."""
    record = where.uplink()
    place = Shared(where, {}, {})
    attachments: dict[tuple[str, ...], list[Json]] = {}
    commands = []
    for reference in references.references(where):
        if reference["file"].startswith(references.RUN_PREFIX):
            commands.append(_command(reference))
        elif key := _key(reference):
            attachments.setdefault(key, []).append(reference)
    all_records = [record for records in attachments.values() for record in records]
    links, problem = _links(place, [r["netns"] for r in all_records if _leads_there(r)])
    signs = _signs(place, all_records)
    return {
        "name": where.name,
        "path": where.pin,
        "uplink": _uplink(record),
        "addresses": _strings(record.get("addresses")),
        "references": [
            _attachment(key, records, links, signs) for key, records in attachments.items()
        ],
        "commands": commands,
        "links": links,
        "problem": problem,
    }


def _key(reference: Json) -> tuple[str, ...]:
    """Tell which attachment a reference is of; empty if of none.

    The name of the file is believed: its content may be damaged or not be there yet.
    """
    key = tuple(reference["file"].split(":")[:3])
    return key if len(key) == 3 and key[0] else ()


def _uplink(record: Json) -> Json:
    is_alive = state.is_alive(record)
    interface = record.get("interface")
    return {
        "driver": record.get("driver"),
        "pid": record.get("pid"),
        "alive": is_alive,
        "since": _started(record["startTime"]) if is_alive and record.get("pid") else None,
        "interface": interface if isinstance(interface, str) else "",
        "changes": _changes(record),
    }


def _started(ticks: int) -> str:
    """Write when a process started, of which the kernel knows how long after boot, proc(5)."""
    with open("/proc/stat", encoding="ascii") as file:
        (boot,) = (line.split()[1] for line in file if line.startswith("btime "))
    return state.rfc3339(int(boot) + ticks // os.sysconf("SC_CLK_TCK"))


def _changes(record: Json) -> list[str] | None:
    """List what of the host's network has changed; None where this is not the host's netns."""
    before = record.get("host")
    ours = os.stat("/proc/self/ns/net").st_ino
    if not isinstance(before, dict) or record.get("hostNetns") != ours:
        return None
    return host.changes(before)


def _links(place: Shared, paths: list[str]) -> tuple[list[Json] | None, str | None]:
    """List the links of a netns; None where it cannot be entered, and why."""
    pin = place.state.pin
    try:
        fd = place.open_as_is()
        if fd is None:
            return None, "the network namespace is lost; the next ADD makes it anew"
        os.close(fd)
        if not netns.is_privileged():
            return None, f"no capabilities over the network namespace; {ELSEWHERE}"
        return netlink.links(pin, paths), None
    except ShimError as error:
        # Its details are for runtimes: what they should do instead.
        return None, f"{error.message}; {ELSEWHERE}"
    except OSError as error:
        return None, str(error)


def _signs(place: Shared, records: list[Json]) -> Signs | None:
    try:
        return Signs(place, records)
    except (ShimError, OSError):
        return None  # `_links` tells why


def _attachment(
    key: tuple[str, ...], records: list[Json], links: list[Json] | None, signs: Signs | None
) -> Json:
    first = records[0]
    phases = [record.get("phase", references.ADDING) for record in records]
    lives = [_life(record, signs) for record in records]
    alive, sign = next((life for life in lives if life[0]), lives[0])
    return {
        **dict(zip(("network", "containerID", "ifname"), key, strict=True)),
        "netns": first.get("netns"),
        "ips": next(filter(None, map(_ips, records)), []),
        "since": first.get("since"),
        "phase": next((phase for phase in phases if phase != references.LIVE), references.LIVE),
        "plugins": [kind for record in records for kind in _kinds(record)],
        "ports": next(filter(None, map(_ports, records)), []),
        "bridge": next(filter(None, (_bridge(record, links) for record in records)), None),
        "hostInterfaces": sorted(set().union(*map(host_side, records))),
        "alive": alive,
        "sign": sign,
    }


def _life(record: Json, signs: Signs | None) -> tuple[bool | None, str]:
    """Tell whether a container lives, None where that is not known, and what says so."""
    identity = identity_of(record)
    if identity is None:
        return None, ""
    if signs is None:
        # What is not seen here says nothing; what is seen does.
        is_there = _leads_there(record)
        return (True, f"its network namespace is {record['netns']}") if is_there else (None, "")
    if sign := signs.of(record):
        return True, sign
    doubt = signs.doubt(record)
    return (None, doubt) if doubt else (False, "")


def _leads_there(record: Json) -> bool:
    """Tell whether the path of a container leads to the network namespace that ADD was given."""
    identity = identity_of(record)
    return identity is not None and netns.identity(record["netns"]) == [*identity]


def _ips(record: Json) -> list[str]:
    return result.addresses(record.get("result"))


def _kinds(record: Json) -> list[str]:
    # `references.reference_name` has put them there.
    parts = record["file"].split(":", 3)
    return [kind for kind in parts[3].split("+") if kind] if len(parts) == 4 else []


def _conf(record: Json) -> Json:
    conf = record.get("conf")
    return conf if isinstance(conf, dict) else {}


def _ports(record: Json) -> list[Json]:
    """Read the published ports, by the conventions of CNI for `portMappings`."""
    offered = _conf(record).get("runtimeConfig")
    entries = offered.get("portMappings") if isinstance(offered, dict) else None
    return [
        {
            "hostPort": entry["hostPort"],
            "containerPort": entry["containerPort"],
            "protocol": str(entry.get("protocol") or "tcp"),
            "hostIP": str(entry.get("hostIP") or ""),
        }
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
        and all(type(entry.get(key)) is int for key in ("hostPort", "containerPort"))
    ]


def _bridge(record: Json, links: list[Json] | None) -> str | None:
    """Tell at which bridge an attachment is: by its link, its configuration or its address."""
    known = {link["name"]: link for link in links or []}
    for name in sorted(host_side(record) & set(known)):
        if known[name]["master"]:
            return str(known[name]["master"])
    configured = _configured_bridge(_conf(record))
    if configured and (links is None or configured in known):
        return configured
    for link in known.values():
        if link["kind"] == "bridge" and _shares_network(link["addresses"], _ips(record)):
            return str(link["name"])
    return None


def _configured_bridge(conf: Json) -> str:
    plugins = conf.get("plugins")
    entries = [conf.get("delegate"), *(plugins if isinstance(plugins, list) else [])]
    for entry in entries:
        if isinstance(entry, dict) and entry.get("type") == "bridge":
            name = entry.get("bridge")
            return name if isinstance(name, str) and name else DEFAULT_BRIDGE
    return ""


def _shares_network(ours: list[str], theirs: list[str]) -> bool:
    for address in theirs:
        try:
            ip = ipaddress.ip_interface(address).ip
        except ValueError:
            continue
        if any(ip in ipaddress.ip_interface(own).network for own in ours):
            return True
    return False


def _command(reference: Json) -> Json:
    pid = reference.get("pid")
    return {
        "pid": pid,
        "command": _strings(reference.get("command")),
        "since": reference.get("since"),
        # What is no process ID is not looked for.
        "alive": state.start_time(pid) != 0 if isinstance(pid, int) and pid > 0 else None,
    }


def _strings(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

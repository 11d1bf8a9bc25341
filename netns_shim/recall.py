# SPDX-License-Identifier: Apache-2.0
"""Calls made of what an ADD was given, which its reference has, whatever its network says by now.

People edit, rename and move networks while containers are attached to them, and runtimes send a
DEL with what the network is then.
"""

from __future__ import annotations

from . import cni, conf, encoding
from .errors import ShimError, warn
from .request import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .attachment import AttachmentRecord
    from .decoding import Json

# The keys that say how a call waits: what they are by now counts, or an edit would not help.
_WAITING = ("parallel", "timeout")
# How many changes of a network a message names.
MENTIONED = 5
# How long a value is that a message quotes, in characters.
QUOTED = 40


def request_of(record: AttachmentRecord, environ: Mapping[str, str]) -> Request | None:
    """Make the DEL of an attachment from what its ADD was given; None where that is not known.

    A reference without a first line belongs to an ADD that was cut off before it did anything,
    and a damaged one cannot be relied on.
    """
    given: Json = {key: record.fields.get(key) for key in _GIVEN}
    configuration = record.conf
    if configuration is None or not all(isinstance(text, str) for text in given.values()):
        return None
    version = configuration.get("cniVersion") or cni.OLDEST_VERSION
    if version not in cni.SUPPORTED_VERSIONS or not _are_names(given):
        return None
    if not _fits(given, configuration, record):
        return None
    variables = {name: given[key] for key, name in _GIVEN.items() if name}
    return Request(
        "DEL",
        network=given["network"],
        cni_version=version,
        conf={k: v for k, v in configuration.items() if k != "prevResult"},
        environ={**environ, **variables},
        container_id=given["containerID"],
        netns=given["netns"],
        ifname=given["ifname"],
        args=given["args"],
        path=given["path"],
    )


# The parts of a call that are recorded besides its configuration, and their variables.
_GIVEN = {
    "network": "",
    "containerID": "CNI_CONTAINERID",
    "netns": "CNI_NETNS",
    "ifname": "CNI_IFNAME",
    "args": "CNI_ARGS",
    "path": "CNI_PATH",
}


def _are_names(given: dict[str, str]) -> bool:
    # They become parts of a file name again, and variables for plugins.
    return (
        cni.is_name(given["network"])
        and not cni.container_id_problem(given["containerID"])
        and not cni.ifname_problem(given["ifname"])
        and not any("\0" in given[key] for key in ("netns", "args", "path"))
    )


def _fits(given: Json, configuration: Json, record: AttachmentRecord) -> bool:
    """Tell whether a record says what the name of its reference says, which no call changes."""
    if tuple(given[key] for key in ("network", "containerID", "ifname")) != record.name.attachment:
        return False
    try:
        return record.name.fits(conf.read(configuration).types)
    except (AttributeError, KeyError, ShimError, TypeError):
        return False


def undoing(record: AttachmentRecord, environ: Mapping[str, str]) -> Request | None:
    """Make the DEL of an attachment as `request_of` does; None also where it would be refused.

    Plugins are looked for where `environ` says, then where they were at the ADD. A configuration
    that ADD accepted is valid, unless its record was damaged.
    """
    request = request_of(record, environ)
    if request is None or not _is_valid(request.conf):
        return None
    # Plugins may have moved since.
    both = filter(None, (environ.get("CNI_PATH"), request.path))
    request.path = ":".join(dict.fromkeys(both))
    request.environ = {**request.environ, "CNI_PATH": request.path}
    return request


def call_of(request: Request, record: AttachmentRecord) -> Request:
    """Make a DEL or CHECK of a runtime one of what the ADD was given, and say what differs.

    The runtime's word counts for what it alone can know: where the container and the plugins are
    by now, and its result. It counts for how the call waits, too. What it asked for at the ADD is
    not left to it: `portmap` removes nothing unless it is told of ports. Where the reference does
    not have what the ADD was given, the request is what there is.
    """
    made = undoing(record, request.environ)
    if made is None:
        return request
    given = {key: value for key, value in made.conf.items() if key not in _WAITING}
    renewed = {**given, **{key: request.conf[key] for key in _WAITING if key in request.conf}}
    if renewed != made.conf and _is_valid(renewed):
        made.conf = renewed
    if edited := changes(conf.static(made.conf), conf.static(request.conf)):
        more = f" and {len(edited) - MENTIONED} more" if len(edited) > MENTIONED else ""
        warn(
            f"the network has been edited since container {request.container_id!r} was attached; "
            f"{request.verb} goes by what it was: {', '.join(edited[:MENTIONED])}{more}"
        )
    made.verb = request.verb
    made.netns = request.netns
    made.environ = {**made.environ, "CNI_NETNS": made.netns}
    if result := request.conf.get("prevResult"):
        made.conf["prevResult"] = result
    return made


def _is_valid(configuration: Json) -> bool:
    try:
        conf.check(configuration, None)
    except ShimError:
        return False
    return True


def changes(before: Any, now: Any, path: str = "$") -> list[str]:
    """List what differs between two values, by JSON paths, with short values."""
    if before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted({*before, *now})
        return [c for k in keys for c in changes(before.get(k), now.get(k), f"{path}.{k}")]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [c for n, (old, new) in pairs for c in changes(old, new, f"{path}[{n}]")]
    # As JSON, so that no text of a network is more than a text on a terminal.
    where = encoding.compact(path)[1:-1]
    return [f"{where} was {_quoted(before)} and is {_quoted(now)}"]


def _quoted(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = encoding.compact(value)
    return text if len(text) <= QUOTED else f"{text[: QUOTED - 1]}…"

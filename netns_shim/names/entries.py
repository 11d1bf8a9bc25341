# SPDX-License-Identifier: Apache-2.0
"""What an attachment is called, and the files that say so to aardvark-dns. No I/O.

A file is a network. Its first line has the addresses at which the server listens, and the servers
that it asks about all other names. Each further line is a container: ID, IPv4, IPv6, names, and
servers of its own. The ID says in which networks a container is: it finds the names of all.
"""

from __future__ import annotations

import binascii

from .. import result
from ..cni import CURRENT_VERSION, is_name
from ..decoding import shorten
from ..errors import warn
from . import buildah

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..attachment import AttachmentRecord
    from ..decoding import Json
    from ..request import Request

# The domain of all names, which aardvark-dns takes off them; that of Podman.
DOMAIN = "dns.podman"
# How many digits of an ID are a name; and how long a name, and a part of one, may be: RFC 1035.
SHORT = 12
MAXIMUM_NAME, MAXIMUM_LABEL = 253, 63
# aardvark-dns since 1.5 answers no questions about other names in a network of this suffix.
INTERNAL = "%int"
# So a network cannot be called as a file of the server's own.
SUFFIX = ".net"
# Clients of containerd put its namespace before an ID: `default-web`. This variable names another.
NAMESPACE, OF_CONTAINERD = "CONTAINERD_NAMESPACE", "default"
# What Podman and Docker call the host.
HOST_NAMES = "host.containers.internal,host.docker.internal"
# The entry by whose name we see which files the server has read, and that of the host. They are in
# all networks, so no container must be able to have such an ID.
MARKER, HOST = "-netns-shim", "-netns-shim-host"
# How the name of the first begins.
MARK = "netns-shim"


def of_request(request: Request, more: Sequence[str] = ()) -> list[str]:
    """List the names of a container, its own first; what is no name is left out, and said.

    `more` are names of which the runtime has not told the plugins; they come first.
    """
    pairs = [pair.partition("=") for pair in request.args.split(";")]
    own = next((value for key, _, value in pairs if key == "K8S_POD_NAME" and value), "")
    namespace = request.environ.get(NAMESPACE) or OF_CONTAINERD
    own_id = request.container_id.removeprefix(f"{namespace}-")
    short = "" if buildah.is_of_buildah(request) else own_id[:SHORT]
    told = [*more, *([own] if own else ()), *_aliases(request.conf, request.network)]
    # The dot of an absolute name, and the domain, which the server takes off questions.
    given = [text.lower().removesuffix(".").removesuffix(f".{DOMAIN}") for text in told]
    wrong = [text for text in given if not _is_host_name(text)]
    if wrong:
        warn(f"these cannot be names of a container: {', '.join(map(repr, wrong[:5]))}")
    if not own:
        given[len(more) : len(more)] = own_id, request.container_id
    names = [text.lower() for text in (*given, short) if _is_host_name(text)]
    return list(dict.fromkeys(names))


def _aliases(conf: Json, network: str) -> list[str]:
    """List the other names that a runtime gives, in both shapes that exist, and in `args`."""
    given = (conf.get("runtimeConfig") or {}).get("aliases")
    if isinstance(given, dict):  # as Podman wrote them for its plugin dnsname
        given = given.get(network)
    of_cni = (conf.get("args") or {}).get("cni")
    more = of_cni.get("aliases") if isinstance(of_cni, dict) else None
    found = []
    for each in (given, more):
        texts = [text for text in each if isinstance(text, str)] if isinstance(each, list) else []
        if each is not None and texts != each:
            warn(f"aliases of a container must be a list of names, not {shorten(repr(each))}")
        found += texts
    return list(filter(None, found))


def _is_host_name(text: str) -> bool:
    labels = text.split(".")
    is_short = len(text) <= MAXIMUM_NAME and all(len(each) <= MAXIMUM_LABEL for each in labels)
    return is_short and is_name(text) and all(labels)


def of_result(answer: Json) -> tuple[list[str], list[str], bool]:
    """Give addresses and gateways of a result, and whether no default route leads out of it.

    The addresses have their prefix lengths.
    """
    known = result.convert(answer, CURRENT_VERSION)
    ips = known.get("ips") or []
    gateways = [ip["gateway"] for ip in ips if ip.get("gateway")]
    return result.addresses(known), list(dict.fromkeys(gateways)), not result.default_routes(known)


def allowed(records: Iterable[AttachmentRecord]) -> dict[str, list[str]]:
    """List the subnets whose containers may ask the server, by the address where it listens.

    An address is left out if the subnets of a network are not known, as before there were walls.
    """
    found: dict[str, set[str]] = {}
    open_to_all = set()
    for record in records:
        entry = record.naming
        subnets = entry.texts("subnets")
        for gateway in entry.texts("gateways"):
            found.setdefault(gateway, set()).update(
                subnet for subnet in subnets if (":" in subnet) == (":" in gateway)
            )
            if not subnets:
                open_to_all.add(gateway)
    return {each: sorted(found[each]) for each in sorted(found) if each not in open_to_all}


def files(
    records: Iterable[AttachmentRecord], servers: list[str], hosts: list[str], *, is_cut_off: bool
) -> tuple[dict[str, str], str, list[str]]:
    """Write the files for these attachments; give the marker in them, and who listens, too.

    `servers` answer questions about other names, `hosts` are addresses of the host; nothing else
    can be asked where the netns `is_cut_off`.
    """
    networks: dict[str, dict[str, AttachmentRecord]] = {}
    for record in records:
        container = ":".join(record.name.attachment[1:])  # several entries may be of one network
        networks.setdefault(record.name.network, {})[container] = record
    found, listening = {}, list[str]()
    for network, attached in sorted(networks.items()):
        entries = [record.naming for record in attached.values()]
        gateways = sorted({gateway for entry in entries for gateway in entry.texts("gateways")})
        is_internal = is_cut_off or all(entry.fields.get("internal") is True for entry in entries)
        more = f" {','.join(servers)}" if servers and not is_internal else ""
        lines = [",".join(gateways) + more]
        if hosts and not is_internal:
            lines.append(_line(HOST, hosts, HOST_NAMES))
        lines += sorted(_of_record(record) for record in attached.values())
        found[f"{network}{SUFFIX}{INTERNAL if is_internal else ''}"] = "\n".join(lines) + "\n"
        listening += gateways
    marker = f"{MARK}-{binascii.crc32(repr(sorted(found.items())).encode()):08x}"
    mark = _line(MARKER, ["127.0.0.1"], marker) + "\n"
    found = {name: text + mark for name, text in found.items()}
    return found, marker, sorted(dict.fromkeys(listening), key=lambda each: ":" in each)


def _of_record(record: AttachmentRecord) -> str:
    entry = record.naming
    names, servers = ",".join(entry.texts("names")), entry.texts("servers")
    line = _line(record.name.container_id, entry.texts("ips"), names)
    return f"{line} {','.join(servers)}" if servers else line


def _line(container_id: str, addresses: list[str], names: str) -> str:
    four = ",".join(each for each in addresses if ":" not in each)
    six = ",".join(each for each in addresses if ":" in each)
    return f"{container_id} {four} {six} {names}"

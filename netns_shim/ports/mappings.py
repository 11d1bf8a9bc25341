# SPDX-License-Identifier: Apache-2.0
"""The ports that an attachment publishes, and what has to be open on the host for them. No I/O.

The source are the port mappings of the CNI conventions, `runtimeConfig.portMappings`.
"""

from __future__ import annotations

import _socket as socket  # not `socket`: it imports `enum` and `selectors`

from ..errors import PORT_UNAVAILABLE, ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self

    from ..decoding import Json

PROTOCOLS = ("tcp", "udp")
# Every address of one family; ANY: what stands for more than one address.
ANY4, ANY6 = "0.0.0.0", "::"
ANY = ("", ANY4, ANY6)
# How inet_ntop(3) begins an IPv4 address that is written as one of IPv6.
MAPPED = "::ffff:"


class Port:
    """One port of the host that leads to one port of a container.

    `protocol` is tcp or udp; `host_ip` is an address of the host, "" for all of both families;
    `inside` is the port of the shared netns from which the plugins lead on to the container.
    """

    __slots__ = ("container_port", "host_ip", "host_port", "inside", "protocol")

    def __init__(self, protocol: str, host_ip: str, host_port: int, container_port: int) -> None:
        self.protocol = protocol
        self.host_ip = host_ip
        self.host_port = host_port
        self.container_port = container_port
        self.inside = host_port

    @classmethod
    def read(cls, entry: object) -> Self | None:
        """Read a port mapping; None for one that no host can open.

        A wrong mapping is for the plugin to refuse, which knows its own rules.
        """
        if not isinstance(entry, dict):
            return None
        host_ip = canonical(entry.get("hostIP") or "")
        protocol = entry.get("protocol") or "tcp"
        ports = entry.get("hostPort"), entry.get("containerPort")
        if host_ip is None or not isinstance(protocol, str) or not all(map(_is_port, ports)):
            return None
        return cls(protocol.lower(), host_ip, entry["hostPort"], entry["containerPort"])

    @classmethod
    def recall(cls, entry: object) -> Self | None:
        """Read what `fields` has written; None where that is damaged."""
        port = cls.read(entry)
        if port is None or not isinstance(entry, dict) or not _is_port(entry.get("insidePort")):
            return None
        port.inside = entry["insidePort"]
        return port

    @property
    def fields(self) -> Json:
        """Write it for the record of an attachment."""
        return {
            "protocol": self.protocol,
            "hostIP": self.host_ip,
            "hostPort": self.host_port,
            "containerPort": self.container_port,
            "insidePort": self.inside,
        }

    def __str__(self) -> str:
        """Write it as people do: `8080/tcp`, `127.0.0.1:8080/tcp`, `[::1]:53/udp`."""
        return name(self.protocol, self.host_ip, self.host_port)


def name(protocol: str, address: str, port: int) -> str:
    """Write a port of the host as people do; `address` is "" for all."""
    bracketed = f"[{address}]" if ":" in address else address
    return f"{bracketed}:{port}/{protocol}" if address else f"{port}/{protocol}"


class Binding:
    """A socket that has to be open on the host: `address` is "" for one of both families."""

    __slots__ = ("address", "inside", "port", "protocol")

    def __init__(self, protocol: str, address: str, port: int, inside: int) -> None:
        self.protocol = protocol
        self.address = address
        self.port = port
        self.inside = inside

    def __str__(self) -> str:
        return name(self.protocol, self.address, self.port)


def read(mappings: object) -> list[Port]:
    """Read the ports that can be opened on a host; other entries are left to the plugins.

    One that is there twice is one port.
    """
    found: dict[tuple[str, int], Port] = {}
    for port in map(Port.read, mappings if isinstance(mappings, list) else []):
        if port is not None and port.protocol in PROTOCOLS:
            found.setdefault((str(port), port.container_port), port)
    return list(found.values())


def check(mappings: Iterable[object], ports: Iterable[Port]) -> list[str]:
    """Name the port mappings that are not opened and that no plugin refuses; `ports` are the rest.

    Raises ShimError (code 106) for what is no address, and for two ports that cannot both be
    open.
    """
    for entry in mappings:
        if isinstance(entry, dict) and canonical(entry.get("hostIP") or "") is None:
            what = f"port {entry.get('hostPort')} of the host cannot be published"
            raise ShimError(PORT_UNAVAILABLE, what, f"{entry['hostIP']!r} is not an IP address")
    seen: dict[tuple[str, int], list[Port]] = {}
    for port in ports:
        beside = seen.setdefault((port.protocol, port.host_port), [])
        for other in beside:
            if overlap(other.host_ip, port.host_ip):
                what = f"ports {other} and {port} of the host cannot both be published"
                raise ShimError(PORT_UNAVAILABLE, what, "they are the same port of one address")
        beside.append(port)
    others = [port for port in map(Port.read, mappings) if port is not None]
    return [str(port) for port in others if port.protocol not in PROTOCOLS]


def for_plugins(mappings: list[Json], ports: Iterable[Port]) -> list[Json]:
    """Write the mappings as the plugins in the shared netns need them.

    Behind the publisher every packet has an address of the shared netns, so a mapping for one
    address of the host would never see it: it is made for all. Where another attachment has the
    same port of another address, there is a second mapping, from a port of the shared netns.
    """
    moved = {(p.protocol, p.host_ip, p.host_port): p for p in ports if p.host_ip not in ANY}
    found: list[Json] = []
    for entry in mappings:
        given = Port.read(entry)
        port = given and moved.get((given.protocol, given.host_ip, given.host_port))
        if not port:
            found.append(entry)
            continue
        for_all = {k: v for k, v in entry.items() if k != "hostIP"}
        if port.inside != port.host_port:
            found.append(entry)
            for_all["hostPort"] = port.inside
        found.append(for_all)
    return found


def recall(mappings: list[Json], recorded: Iterable[object]) -> list[Json]:
    """Write mappings as `for_plugins` did when the record was written."""
    return for_plugins(mappings, [p for p in map(Port.recall, recorded) if p is not None])


def families(result: Json) -> set[int]:
    """Tell which families of addresses a result of CNI gives to the container: 4, 6 or both."""
    listed = result.get("ips")
    found = [e.get("address") for e in listed if isinstance(e, dict)] if listed else []
    return {6 if ":" in address else 4 for address in found if isinstance(address, str)} | {
        family
        for family in (4, 6)
        if result.get(f"ip{family}")  # before version 0.3.0
    }


def bindings(ports: Iterable[Port], has: set[int]) -> list[Binding]:
    """List what has to be open on the host for a container that has these families.

    A port is open in the families that the container has: a client that tries the other one first
    would be connected, and then cut off.
    """
    found = []
    for port in ports:
        address = port.host_ip
        if not address and has != {4, 6}:
            address = ANY6 if has == {6} else ANY4
        if has and (not address or (6 if ":" in address else 4) in has):
            found.append(Binding(port.protocol, address, port.host_port, port.inside))
    return found


def joined(wanted: Iterable[Binding]) -> list[Binding]:
    """Write all of IPv4 and all of IPv6 as one, where both are there: pasta took a port once."""
    found = {(b.protocol, b.address, b.port, b.inside): b for b in wanted}
    for protocol, _, port, inside in [key for key in found if key[1] == ANY6]:
        if found.pop((protocol, ANY4, port, inside), None):
            del found[protocol, ANY6, port, inside]
            found[protocol, "", port, inside] = Binding(protocol, "", port, inside)
    return list(found.values())


def ranges(wanted: Iterable[Binding]) -> list[tuple[str, str]]:
    """Write bindings as options of pasta(1): protocol and `ADDRESS/FIRST-LAST:TO-TO`.

    Neighbours become one range, because a pasta has room for 255 of them.
    """
    found: list[tuple[str, str]] = []
    run: list[Binding] = []
    for binding in sorted(wanted, key=lambda b: (b.protocol, b.address, b.port)):
        if run and not _follows(run[-1], binding):
            found.append(_option(run))
            run = []
        run.append(binding)
    return [*found, _option(run)] if run else found


def _follows(one: Binding, other: Binding) -> bool:
    return (one.protocol, one.address, one.port + 1, one.inside + 1) == (
        other.protocol,
        other.address,
        other.port,
        other.inside,
    )


def _option(run: list[Binding]) -> tuple[str, str]:
    first, last = run[0], run[-1]
    text = f"{first.port}" if first is last else f"{first.port}-{last.port}"
    if first.port != first.inside:
        text += f":{first.inside}" if first is last else f":{first.inside}-{last.inside}"
    return first.protocol, f"{first.address}/{text}" if first.address else text


def overlap(one: str, other: str) -> bool:
    """Tell whether two addresses to listen on, "" for all, want the same port of the host."""
    if not one or not other or one == other:
        return True
    is_same_family = (":" in one) == (":" in other)
    return is_same_family and (one in (ANY4, ANY6) or other in (ANY4, ANY6))


def canonical(address: object) -> str | None:
    """Write an address in its one form, "" as it is; None where it is no address.

    An IPv4 address in the form of IPv6 is one of IPv4, as for Go's plugins.
    """
    if not isinstance(address, str):
        return None
    if not address:
        return ""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        written = socket.inet_ntop(family, socket.inet_pton(family, address))
        return written.removeprefix(MAPPED)
    except (OSError, ValueError):
        return None


def _is_port(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 16

# SPDX-License-Identifier: Apache-2.0
"""The resolv.conf of the shared netns, resolv.conf(5)."""

from __future__ import annotations

from ..hostnet import BEHIND_STUBS, RESOLV_CONF
from . import addresses


def compose(forwarders: list[str], *, has_ipv6: bool) -> str:
    """Write a resolv.conf: the uplink's servers first, then the host's that can be reached.

    Search domains and options are the host's. No other servers are ever put in.
    """
    lines = _read(RESOLV_CONF)
    if any(_is_loopback(server) for server in _values(lines, "nameserver")):
        for path in BEHIND_STUBS:
            real = _read(path)
            if _values(real, "nameserver"):
                lines = real
                break
    servers = [*forwarders, *_values(lines, "nameserver")]
    wanted = [s for s in dict.fromkeys(servers) if _is_reachable(s, has_ipv6=has_ipv6)]
    # The last `search` counts; `domain` is its older form. Options add up.
    search = [v for keyword, v in lines if keyword in ("search", "domain")][-1:]
    options = [v for keyword, v in lines if keyword == "options"]
    return "".join(
        [f"search {value}\n" for value in search]
        + [f"nameserver {server}\n" for server in wanted]
        + [f"options {value}\n" for value in options]
    )


def _read(path: str) -> list[tuple[str, str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        content = line.split("#", 1)[0].split(";", 1)[0].split(None, 1)
        if len(content) == 2:
            lines.append((content[0], content[1].strip()))
    return lines


def _values(lines: list[tuple[str, str]], keyword: str) -> list[str]:
    return [value.split()[0] for found, value in lines if found == keyword]


def _is_loopback(server: str) -> bool:
    return addresses.is_own(addresses.packed(server.partition("%")[0]))


def _is_reachable(server: str, *, has_ipv6: bool) -> bool:
    # An address with a zone is of no use here: it names an interface of the host.
    address = addresses.packed(server)
    return len(address) in (addresses.IPV4, addresses.IPV6 if has_ipv6 else 0) and (
        not addresses.is_own(address)
    )

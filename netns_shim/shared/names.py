# SPDX-License-Identifier: Apache-2.0
"""Which server answers a question about a name that is asked in the shared netns.

Inside, there is one address a family, which stays the same as long as the netns: the forwarder.
Where it leads, follows the host's resolv.conf. If the first server there can be reached from the
netns, rules of nftables lead to it (`redirection`), over UDP and TCP, with each release of pasta.
Only the host itself can ask a server on its loopback. Then no rule is in the way, and the uplink
forwards. slirp4netns reads the host's file again by itself, so it needs no rule.
"""

from __future__ import annotations

import os

from .. import hostnet
from ..errors import ShimError, warn
from . import register, resolvconf
from .nsenter import run_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..records import UplinkRecord
    from ..state import State
    from .resolvconf import HostNames

FORWARDER = "169.254.1.1"
# The bytes after the prefix `fd` spell `nshim`.
FORWARDER6 = "fd6e:7368:696d::53"
# The forwarder of slirp4netns. Buildah before 1.31 names it first in every rootless container.
ALIAS = "10.0.2.3"
PROTOCOLS = ("udp", "tcp")


class Plan:
    """Where questions go: see `plan`.

    `forwarders` can be asked, the best first. Each rule is a forwarder, a protocol, and the server
    that it leads to, or "" to refuse at once. `lost` are the servers of the host that cannot be
    asked by any way, if there is no other.
    """

    __slots__ = ("forwarders", "lost", "rules")

    def __init__(self) -> None:
        self.forwarders = list[str]()
        self.lost = list[str]()
        self.rules = list[list[str]]()


def plan(host: HostNames, forwarders: list[str], forwards: list[str] | None) -> Plan:
    """Tell where questions have to go.

    `forwarders` are those of the families that the netns has. `forwards` is what the uplink
    forwards, such as `udp 127.0.0.1`; with `local` in the place of the protocol, it passes on what
    comes to that address inside. None is an uplink that finds the host's servers without us.
    """
    found = Plan()
    first = host.listed[0] if host.listed else ""
    for forwarder in sorted(forwarders, key=lambda one: (":" in one) != (":" in first)):
        listed, behind = _of(forwarder, host.listed), _of(forwarder, host.behind)
        if forwards is None:
            if listed or not host.listed:
                found.forwarders.append(forwarder)
            continue
        leads = {one: _lead(one, listed, behind, forwards) for one in PROTOCOLS}
        found.rules += [[forwarder, one, to] for one, to in leads.items() if to is not None]
        if forwarder == FORWARDER and ALIAS not in (*host.listed, *host.behind):
            leads_on = {one: forwarder if to is None else to for one, to in leads.items()}
            found.rules += [[ALIAS, one, to] for one, to in leads_on.items()]
        if leads["udp"] != "":
            found.forwarders.append(forwarder)
    if not found.forwarders and not any(_of(one, host.servers) for one in forwarders):
        found.lost = list(dict.fromkeys(host.listed))
        # With nothing to ask yet, containers get the address at which there will be an answer.
        found.forwarders = [] if host.listed else forwarders[:1]
    return found


def _of(forwarder: str, servers: list[str]) -> list[str]:
    return [server for server in servers if (":" in server) == (":" in forwarder)]


def _lead(protocol: str, listed: list[str], behind: list[str], forwards: list[str]) -> str | None:
    """Tell to which server a rule has to lead, "" to refuse; None where the uplink forwards."""
    first = listed[0] if listed else ""
    if first and not resolvconf.is_reachable(first):
        if f"{protocol} {first}" in forwards:
            return None
        if f"local {first}" in forwards and not any(map(resolvconf.is_reachable, behind)):
            return first
    return next(filter(resolvconf.is_reachable, [*behind, *listed]), "")


def follow(state: State, record: UplinkRecord, *, is_new: bool = False) -> Plan:
    """Lead questions to the host's present servers, and write the resolv.conf of the netns.

    The record is changed, and not written. `is_new` is an uplink that has just been started.
    """
    seen, time = hostnet.look_at_names(), hostnet.time_of_names()
    host = resolvconf.HostNames()
    found = look(record, host)
    is_other = record.forwards is not None and (is_new or found.rules != record.name_rules)
    if is_other and (why := _redirect(state, found.rules)):
        # What an uplink forwards may be another server than the first one.
        found.forwarders = [] if host.servers else found.forwarders
        found.rules = []
        warn(f"containers do not follow other name servers of the host: nftables refused ({why})")
    if found.lost and record.forwarders and not record.pending:
        warn(f"names do not resolve in the shared netns {state.name!r}: {explain(found.lost)}")
    has_ipv6 = any(":" in address for address in record.addresses)
    resolvconf.write(state, resolvconf.compose(host, found.forwarders, has_ipv6=has_ipv6))
    search = " ".join(host.search).split()
    register.note_names(record, found.forwarders, found.rules, search)
    register.note_host(record, seen)
    if time:
        os.utime(state.path("resolv.conf"), ns=(time, time))  # see `watch`
    return found


def look(record: UplinkRecord, host: HostNames | None = None) -> Plan:
    """Tell where questions have to go in the netns of a record, by what the host says now."""
    families = {":" in address for address in record.addresses}
    forwarders = [one for one in record.forwarders if (":" in one) in families]
    return plan(host or resolvconf.HostNames(), forwarders, record.forwards)


def explain(lost: list[str]) -> str:
    """Say why servers cannot be asked, and what to do about it."""
    if any("%" in server for server in lost):
        advice = "install a passt of October 2024 or later, or set `uplink` to slirp4netns"
    elif any(map(resolvconf.is_loopback, lost)):
        advice = "`netns-shim refresh` has the uplink look for it again"
    else:
        advice = "the shared netns has no address of that family"
    return f"the host asks {', '.join(lost)} only, and its uplink cannot: {advice}"


def _redirect(state: State, rules: list[list[str]]) -> str:
    """Put the rules into the netns; say why that cannot be, or ""."""
    from . import redirection  # which slirp4netns does not need

    try:
        run_in(state.pin, lambda: redirection.lead(rules))
    except ShimError as error:
        return error.details
    return ""

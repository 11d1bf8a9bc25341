# SPDX-License-Identifier: Apache-2.0
"""Entering an attachment under its names, and taking them out again.

The reference says the names before the server does, so a call that was killed is undone by the
next one for this attachment.
"""

from __future__ import annotations

import os
import time

from .. import interrupt
from ..attachment import ADDING, naming
from ..errors import NAMES_UNAVAILABLE, ShimError, warn
from ..shared.addresses import is_address, is_reachable, subnet
from ..shared.nsenter import run_in
from . import buildah, entries, look, server
from .table import Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..attachment import AttachmentRecord
    from ..decoding import Json
    from ..references import Reference
    from ..request import Request
    from ..state import State

# How long a new address of a gateway may be tentative, in seconds: RFC 4862.
TENTATIVE_SECONDS = 3.0
PAUSE = 0.05


def check(environ: Mapping[str, str]) -> None:
    """Check, before anything is done, that there is a server. Raises ShimError (code 107)."""
    server.find(environ)


def enter(state: State, path: str, reference: Reference, request: Request, answer: Json) -> Json:
    """Enter an attachment with a result; give the result that names the server.

    `path` is that of the netns in which the plugins have run. Raises ShimError (code 107) where
    no server can be asked in this network.
    """
    addresses, gateways, is_internal = entries.of_result(answer)
    listening = _listening(path, gateways)
    if not listening:
        at = ", ".join(gateways) or "none"
        raise ShimError(
            NAMES_UNAVAILABLE,
            f"names: no server can listen for the network {request.network!r}: no gateway of it "
            f"is in the network namespace of the plugins (gateway: {at})",
            "use bridge with isGateway, or ptp; or set names to false",
        )
    dns = answer.get("dns") or {}
    link = state.uplink()
    own = _servers(dns, (*gateways, *link.forwarders, *link.dns_forwarders))
    home = os.stat(path).st_ino
    reference.write(
        ADDING,
        **naming(
            home=home,
            names=entries.of_request(request, buildah.names(request)),
            ips=[address.partition("/")[0] for address in addresses],
            subnets=sorted({subnet(address) for address in addresses} - {""}),
            gateways=listening,
            internal=is_internal,
            servers=own,
        ),
    )
    Table(state, path, home).follow()
    more = [] if is_internal or link.driver == "none" else link.search
    search = [entries.DOMAIN, *dns.get("search", []), *more]
    named = {**dns, "nameservers": listening, "search": list(dict.fromkeys(search))}
    return {**answer, "dns": named}


def _servers(dns: Json, ours: Sequence[str]) -> list[str]:
    """List the servers that a result names, which the server asks; one that it cannot is said.

    It ends over what is no address, and a zone is an interface of another netns.
    """
    given = [each for each in dns.get("nameservers") or [] if each and each not in ours]
    own = list(filter(is_address, given))
    if wrong := [each for each in given if each not in own]:
        warn(f"names: the server cannot ask these about other names: {', '.join(wrong[:5])}")
    return own


def _listening(path: str, gateways: list[str]) -> list[str]:
    """Choose the gateways that are addresses of the netns; the first may be new."""
    gateways = list(filter(is_reachable, gateways))
    deadline = time.monotonic() + (TENTATIVE_SECONDS if any(":" in g for g in gateways) else 0)
    while True:
        found: list[str] = run_in(path, lambda: [g for g in gateways if server.can_listen(g)])
        if found or time.monotonic() >= deadline:
            return found
        interrupt.check("waiting for the address of a gateway")
        time.sleep(PAUSE)


def leave(state: State, pin: str, reference: Reference) -> None:
    """Take an attachment out, whether or not it was entered; what fails is a warning.

    `pin` is the path of the netns that the caller knows, which may be another one.
    """
    home = strike(reference)
    try:
        _table(state, pin, home).follow(reference.record.name.file)
    except (ShimError, OSError) as error:
        warn(f"names: {error}")


def strike(reference: Reference) -> int:
    """Write into the reference that it has no names any more; give the netns that had them."""
    home = reference.record.naming.number("home")
    try:
        reference.note(naming=None)
    except OSError as error:
        warn(f"cannot write down that names are gone: {error}")
    return home


def settle(state: State, pin: str, homes: set[int]) -> None:
    """Do what `leave` does for many at once, after `strike`: in these namespaces and in ours.

    Call it only where there are names: the directory says so.
    """
    for home in homes | {_home(pin)}:
        try:
            _table(state, pin, home).follow()
        except (ShimError, OSError) as error:
            warn(f"names: {error}")


def restore(state: State, pin: str) -> None:
    """Make files and server of a netns as its references say; what fails is a warning.

    Call it only where there are names: the directory says so.
    """
    try:
        Table(state, pin, os.stat(pin).st_ino).follow()
    except (ShimError, OSError) as error:
        warn(f"names: {error}")


def verify(state: State, pin: str, record: AttachmentRecord) -> None:
    """Check that the server answers for an attachment (CHECK). Raises ShimError (code 107)."""
    if not _table(state, pin, record.naming.number("home")).is_served:
        raise ShimError(NAMES_UNAVAILABLE, "the server of names is gone", "the next ADD starts it")
    if missed := run_in(pin, lambda: look.silent([record])):
        raise ShimError(
            NAMES_UNAVAILABLE,
            f"the name {missed[0]!r} does not resolve",
            "the next ADD repairs it",
        )


def _table(state: State, pin: str, home: int) -> Table:
    return Table(state, pin if _home(pin) == home else "", home)


def _home(pin: str) -> int:
    """Give the inode of the netns at a path, 0 where that is missing."""
    try:
        return os.stat(pin).st_ino
    except FileNotFoundError:
        return 0

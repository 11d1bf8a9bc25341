# SPDX-License-Identifier: Apache-2.0
"""Whether an uplink works: it answers, and the shared netns has default routes that lead to it.

A process that is there proves neither. Nothing here needs the outside, so a host that is offline
has a healthy uplink.
"""

from __future__ import annotations

import os

from .. import hostnet
from ..errors import UPLINK_FAILED, ShimError, warn
from . import neighbour, routes
from .nsenter import run_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..records import UplinkRecord
    from ..state import State

# How long an uplink may take to answer, in seconds; a healthy one needs a tenth of a millisecond.
# On a busy machine it waits for the processor, unless it is stopped.
SECONDS, PATIENCE = 1.0, 4.0
# Options of pasta(1) with which it answers no neighbour solicitation.
SILENCING = ("--no-ndp", "--no-icmp")
# Options of pasta(1) with which it leaves one family out.
ONE_FAMILY = ("-4", "--ipv4-only", "-6", "--ipv6-only")


def check(state: State, record: UplinkRecord, code: int = UPLINK_FAILED) -> None:
    """Check the uplink of a record; ShimError, with this code, where it does not work."""
    found = problems(state, record)
    if found:
        raise ShimError(code, *_broken(state, record, "; ".join(found)))


def warn_of_stopped(state: State, record: UplinkRecord) -> None:
    """Warn that nothing leads out for the moment, as the process of an uplink is stopped."""
    warn(": ".join(_broken(state, record, f"the process {record.pid} is stopped")))


def _broken(state: State, record: UplinkRecord, why: str) -> tuple[str, str]:
    what = f"the uplink {record.driver} of the shared netns {state.name!r} does not work"
    return what, f"{why}: `{cure(state)}` starts it again"


def cure(state: State) -> str:
    """Give the command that starts the uplink of a netns again."""
    return f"netns-shim refresh --netns {state.name}"


def problems(state: State, record: UplinkRecord) -> list[str]:
    """List what is wrong with the uplink of a record whose process is there.

    Call it in the netns that the uplink was started in, else its routes are not looked at. Raises
    ShimError (code 102) where the netns cannot be entered.
    """
    if not record.pid or not record.interface:
        return []
    is_host = record.host_netns == os.stat("/proc/self/ns/net").st_ino
    wanted = routes.families(hostnet.routes()) if is_host else set()
    found = run_in(state.pin, lambda: _look(record, wanted))
    return [text for text in found if isinstance(text, str)]


def lacks(record: UplinkRecord) -> list[int]:
    """List the families of which the uplink of a record gave no address, though the host has them.

    Call it in the netns that the uplink was started in. Only pasta(1) depends on the host there.
    """
    if record.driver != "pasta" or not record.pid:
        return []
    if any(option in ONE_FAMILY for option in record.options):
        return []
    return sorted(routes.families(hostnet.routes()) - set(map(routes.family, record.addresses)))


def _look(record: UplinkRecord, wanted: set[int]) -> list[str]:
    """List what is wrong, from inside the netns."""
    name = record.interface
    answer = _ask(record)
    if answer == neighbour.DOWN:
        return [f"its interface {name} is down or gone"]
    if answer == neighbour.SILENT or (answer == neighbour.UNKNOWN and record.is_stopped):
        why = "is stopped" if record.is_stopped else "does not answer"
        return [f"the process {record.pid} {why}"]
    lost = routes.missing(name, record.addresses, wanted)
    return [f"the shared netns has lost its default route of IPv{kind}" for kind in lost]


def _ask(record: UplinkRecord) -> str:
    name, own = record.interface, record.addresses
    known = routes.gateways(hostnet.routes(), name)
    targets = [*filter(None, known.values()), *record.dns_forwarders]
    if record.driver == "pasta":
        targets += routes.ANY_GATEWAY.values()
        if any(option in SILENCING for option in record.options):
            own = [address for address in own if ":" not in address]
    answer = neighbour.ask(name, own, targets, SECONDS)
    if answer == neighbour.SILENT and not record.is_stopped:
        answer = neighbour.ask(name, own, targets, PATIENCE)
    return answer

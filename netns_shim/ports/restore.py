# SPDX-License-Identifier: Apache-2.0
"""Opening again what is published and not open: after a new uplink, or the end of a publisher."""

from __future__ import annotations

from .. import references
from ..attachment import LIVE, publishing
from ..errors import ShimError, warn
from ..shared import listing, register
from . import choice, claims, mappings, reservation
from .claims import Claims
from .probe import Probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..attachment import ReferenceName
    from ..records import UplinkRecord
    from ..references import Reference
    from ..state import State
    from .mappings import Binding, Port
    from .publisher import Publisher

# The publisher of a record while Podman has still to reserve the ports.
LATER = "later"


def restore(state: State, environ: Mapping[str, str]) -> None:
    """Open all that is published in a shared netns and is not open.

    What cannot be opened any more is a warning. A reference that is locked belongs to a call that
    sees to its own ports.
    """
    for name in listing.names(state):
        try:
            _open_idle(state, name, environ)
        except (ShimError, OSError) as error:
            warn(f"a published port is not open: {error}")
    link = state.uplink()
    if link.lacks_ports:
        register.note_ports(link)
        register.write(state, link)
    try:
        _open_listed(state, environ)
    except (ShimError, OSError) as error:
        warn(f"a port of the shared netns is not open: {error}")


def _open_idle(state: State, name: ReferenceName, environ: Mapping[str, str]) -> None:
    reference = references.find_idle(state, name)
    if reference is None:
        return
    try:
        if reference.record.ports and reference.phase == LIVE:
            _open_attached(state, reference, environ)
    finally:
        reference.close()


def _open_attached(
    state: State, reference: Reference, environ: Mapping[str, str], *, is_lifted: bool = False
) -> None:
    record = reference.record
    # In a netns that has replaced a lost one, nothing leads to what was attached to that.
    ports = [port for port in choice.ports_of(record) if claims.is_held(state, record.name, port)]
    is_late = choice.PublisherRecord(record.publisher).driver == LATER
    wanted = mappings.bindings(ports, record.families)
    if not wanted or (is_late and not is_lifted and lift(record.name, ports) is None):
        return  # or Podman has not started the container yet
    publisher = choice.recall(state, record)
    if publisher is None:
        publisher = choice.choose(state, environ, 0)
        if publisher.is_own:
            with Claims(state) as claimed:
                publisher.number = claimed.number(record.name)
            # Before it is started, so that it can be ended if this process is killed.
            reference.write(LIVE, **publishing(choice.fields_of(ports), publisher.fields))
    elif publisher.is_running if publisher.is_own else not (is_late or state.uplink().lacks_ports):
        return
    _open_again(publisher, wanted)
    reference.write(LIVE, **publishing(choice.fields_of(ports), publisher.fields))


def _open_again(publisher: Publisher, wanted: list[Binding]) -> None:
    try:
        publisher.open(wanted)
    except ShimError:
        # It has closed what a call that was killed had opened, so that it can work now.
        publisher.open(wanted)


def _open_listed(state: State, environ: Mapping[str, str]) -> None:
    """Open the ports of the shared netns itself, unless they are open."""
    link = state.uplink()
    made = choice.PublisherRecord(link.publisher)
    if not link.listed or (made and (not made.serial or made.is_running)):
        return
    publisher = choice.of_uplink(state, link) if link.control else choice.own(state, link, environ)
    publisher.number = claims.LISTED
    families = {6 if ":" in address else 4 for address in link.addresses} or {4, 6}
    ports = _listed(link)
    wanted = mappings.bindings(ports, families)
    if publisher.is_own:
        publisher.close(wanted)  # one that a killed call has started and not written down
    # Where one family is taken, pasta of 2025 opens the other one, and says nothing.
    Probe(ports).check(wanted)
    _open_again(publisher, wanted)
    # Only now: what could not be opened is tried again by the next ADD.
    register.note_publisher(link, publisher.fields)
    register.write(state, link)


def _listed(link: UplinkRecord) -> list[Port]:
    from . import listed  # imports `re`

    return [port for text in link.listed for port in listed.parse(text)]


def open_later(
    state: State,
    name: ReferenceName,
    ports: list[Port],
    environ: Mapping[str, str],
    caller: int,
) -> None:
    """Wait until Podman, the caller, has reserved the ports, and open them then."""
    if reservation.lift_later(name.container_id, _as_reserved(ports), caller) is None:
        return  # Podman has failed
    reference = references.find(state, name)
    if reference is not None and reference.phase == LIVE:
        # A second look may find no conmon, while it goes to the background.
        _open_attached(state, reference, environ, is_lifted=True)


def lift(name: ReferenceName, ports: list[Port]) -> int | None:
    """Make Podman's conmon give up the ports; None where the container has no conmon yet."""
    return reservation.lift(name.container_id, _as_reserved(ports))


def lift_now(name: ReferenceName, ports: list[Port], caller: int) -> bool:
    """Make conmon and Podman, the caller, give up the ports; tell whether one has them."""
    wanted = _as_reserved(ports)
    lifted = reservation.lift(name.container_id, wanted) or 0
    return bool(lifted + reservation.lift_of_caller(caller, wanted))


def _as_reserved(ports: list[Port]) -> list[tuple[str, str, int]]:
    return [(port.protocol, port.host_ip, port.host_port) for port in ports]

# SPDX-License-Identifier: Apache-2.0
"""Publishing the ports of an attachment on the host, exactly as long as it is attached.

What an attachment wants is in its reference, before anything is opened. So a call that was killed
is undone by the next one for this attachment, and a new uplink gets all ports again: `restore`.
"""

from __future__ import annotations

import os

from ..attachment import ADDING, LIVE, AttachmentRecord, published, publishing
from ..errors import warn
from . import choice, claims, mappings, reservation, restore
from .claims import Claims
from .later import Later
from .probe import Probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..decoding import Json
    from ..references import Reference
    from ..state import State
    from .mappings import Port


def prepare(
    state: State, reference: Reference, wanted: object, environ: Mapping[str, str]
) -> Publication | None:
    """Prepare to open the ports of an attachment; None where there is no port to open.

    See `Publication`. Raises ShimError (code 106) for what no host can open as well.
    """
    if not isinstance(wanted, list):
        return None
    ports = mappings.read(wanted)
    left = mappings.check(wanted, ports)
    if left:
        warn(f"not opened on the host, because it is neither TCP nor UDP: {_names(left)}")
    name = reference.record.name
    ports = [port for port in ports if not claims.is_siblings(state, name, port)]
    return Publication(state, reference, wanted, ports, environ) if ports else None


class Publication:
    """The ports of one attachment, from before its plugins run until it is live."""

    def __init__(
        self,
        state: State,
        reference: Reference,
        wanted: list[Json],
        ports: list[Port],
        environ: Mapping[str, str],
    ) -> None:
        """See whether the ports are free, and who can open them.

        Call it in the host's netns, with the reference held. Raises ShimError (code 106) where no
        program can open ports.
        """
        self._state = state
        self._reference = reference
        self._wanted = wanted
        self._ports = ports
        name = reference.record.name
        self._later: Later | None = None
        caller = os.getppid()
        if not reservation.is_podman(caller):
            self._probe = Probe(self._ports)
        elif not restore.lift_now(name, self._ports, caller):
            self._probe = Probe(self._ports)
            self._later = Later(lambda: restore.open_later(state, name, ports, environ, caller))
        else:
            self._probe = Probe([])  # what is lifted is free for a publisher
        self._publisher = choice.choose(state, environ, len(self._ports))
        if self._later is None:
            self._publisher.prepare()

    @property
    def fields(self) -> Json:
        """What a DEL has to know: for the first line of the reference."""
        publisher = self._publisher.fields if self._later is None else {"driver": restore.LATER}
        return publishing(choice.fields_of(self._ports), publisher)

    @property
    def are_of_uplink(self) -> bool:
        """Whether the uplink opens them, and so closes them when it ends."""
        return not self._publisher.is_own

    @property
    def are_by_pasta(self) -> bool:
        """Whether a pasta of their own opens them, which drops what it cannot send on at once."""
        return self._publisher.is_own

    def claim(self) -> list[Json]:
        """Claim the ports in the shared netns; give the mappings for the plugins.

        Call it once `fields` are written down. Raises ShimError (code 106) where another
        attachment publishes one of the ports.
        """
        name = self._reference.record.name
        with Claims(self._state) as claimed:
            self._ports = claimed.take(name, self._ports)
            if self._ports and self._publisher.is_own and self._later is None:
                self._publisher.number = claimed.number(name)
        self._reference.write(ADDING, **self.fields)
        return mappings.for_plugins(self._wanted, self._ports)

    def open(self, result: Json) -> None:
        """Open the ports on the host, for a container with the addresses of a result.

        Raises ShimError (code 106) where one cannot be opened; then none is left open.
        """
        families = mappings.families(result)
        wanted = mappings.bindings(self._ports, families)
        closed = [str(port) for port in self._ports if not mappings.bindings([port], families)]
        if closed:
            warn(
                f"not opened, because the container has no address of that kind: {_names(closed)}"
            )
        self._probe.check(wanted)
        self._reference.write(ADDING, **published(families))
        if self._later is None and wanted:
            self._publisher.open(wanted)
            self._reference.write(ADDING, **self.fields)

    def leave(self) -> None:
        """End what waits to be told to open, or tell it if it is live. Call it in every case."""
        self._publisher.cancel()
        if self._later is not None:
            if self._reference.phase == LIVE:
                self._later.start()
            else:
                self._later.cancel()


def _names(ports: list[str]) -> str:
    return ", ".join(ports[:5]) + (", …" if len(ports) > 5 else "")


def withdraw(state: State, record: AttachmentRecord) -> None:
    """Close the ports of an attachment, whether or not they are open.

    Raises ShimError (code 106) where the uplink does not answer.
    """
    publisher = choice.recall(state, record)
    if publisher is not None:
        publisher.close(mappings.bindings(choice.ports_of(record), record.families))
    claims.drop(state, record.name)

# SPDX-License-Identifier: Apache-2.0
"""Who opens the ports of an attachment: chosen by what the uplink can do, and found again."""

from __future__ import annotations

from ..errors import PORT_UNAVAILABLE, ShimError
from ..records import ProcessRecord
from ..shared import uplink
from . import claims
from .mappings import Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..attachment import AttachmentRecord
    from ..decoding import Json
    from ..records import UplinkRecord
    from ..state import State
    from .publisher import Publisher

# pesto(1) has room for 255 rules. With more claims, an attachment gets a pasta of its own.
MANY_RULES = 250
# How the interface of a pasta of its own is named, before its number.
INTERFACE = "pub"


class PublisherRecord(ProcessRecord):
    """What the record of an attachment says of its publisher."""

    __slots__ = ()

    @property
    def driver(self) -> str:
        """`pesto`, `slirp4netns` or `pasta`; "" where nothing is published."""
        return self.text("driver")

    @property
    def serial(self) -> int:
        """The number of a pasta of its own, else 0."""
        number = self.number("number")
        return number if number <= claims.LISTED else 0

    @property
    def interface(self) -> str:
        """The interface of that pasta in the shared netns, else ""."""
        return f"{INTERFACE}{self.serial}" if self.serial else ""

    @property
    def path(self) -> str:
        """The path of that pasta."""
        return self.text("path")


def choose(state: State, environ: Mapping[str, str], more: int) -> Publisher:
    """Choose who opens so many ports more, by what the uplink that runs can do."""
    link = state.uplink()
    has_room = link.driver != "pasta" or claims.count(state) + more <= MANY_RULES
    return of_uplink(state, link) if link.control and has_room else own(state, link, environ)


def own(state: State, link: UplinkRecord, environ: Mapping[str, str]) -> Publisher:
    """Give a pasta that has no number yet."""
    path = str(link.wanted.get("path") or "") if link.driver == "pasta" else ""
    program = uplink.program_path(path or "pasta", environ)
    if not program:
        raise ShimError(
            PORT_UNAVAILABLE,
            f"no program opens ports on the host for the uplink {link.driver}",
            'install passt, or set "publish" to false',
        )
    from .own_pasta import OwnPasta

    return OwnPasta(state, program)


def recall(state: State, record: AttachmentRecord) -> Publisher | None:
    """Give the publisher of an attachment, None where what it opened is gone with its uplink."""
    made = PublisherRecord(record.publisher)
    if made.serial:
        from .own_pasta import OwnPasta

        return OwnPasta(state, made.path, made.serial, made.pid, made.start_time)
    link = state.uplink()
    has_any = record.families and link.control and link.is_running
    return of_uplink(state, link) if has_any else None


def of_uplink(state: State, record: UplinkRecord) -> Publisher:
    """Give the publisher that is the uplink itself."""
    if record.driver == "slirp4netns":
        from .hostfwd import HostForward

        return HostForward(state)
    from .pesto import Pesto

    return Pesto(state, record.control)


def ports_of(record: AttachmentRecord) -> list[Port]:
    """Read the ports of a record; what is damaged is left out."""
    return [port for port in map(Port.recall, record.ports) if port is not None]


def fields_of(ports: list[Port]) -> list[Json]:
    """Write ports for a record."""
    return [port.fields for port in ports]

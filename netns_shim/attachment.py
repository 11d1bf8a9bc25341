# SPDX-License-Identifier: Apache-2.0
"""The record of an attachment: the name of its reference, and the keys in it.

No other module spells a name or a key. A reference may be damaged, or written by another version:
so a key that is missing or of a wrong kind reads as nothing.
"""

from __future__ import annotations

import os

from . import cni, decoding, result
from .errors import ShimError
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self

    from .decoding import Json

ADDING = "adding"
LIVE = "live"
DELETING = "deleting"
# For a command, which is no attachment.
RUNNING = "running"

# Why a call that is no attachment needs a reference.
COMMAND, COLLECTING, STOPPING = "run", "gc", "stop"
# The names of the three parts that identify an attachment in the specification.
PARTS = ("network", "containerID", "ifname")
# How many bytes of a name the types of the plugins may take: the whole name is a file name.
MAXIMUM_KINDS = 60
# What stands before the number, in hexadecimal digits, that tells entries of the same types apart.
MARK = "~"
LENGTH_OF_NUMBER = 8


class ReferenceName:
    """The name of a file in `refs/`: `NETWORK:CONTAINER:IFNAME:TYPE+TYPE`, or `:PURPOSE:…`.

    The first form is an attachment. Its network, container ID and interface name hold no colon, as
    the wire has checked. The types tell apart entries of one network that are wrapped one by one;
    where the types are the same, `~NUMBER` follows in the name of the later one. The second form
    is a *guard*, with which a process keeps the netns while it works. A file with any other name
    is neither, and its parts are empty.
    """

    __slots__ = ("container_id", "file", "ifname", "kinds", "network", "purpose")

    def __init__(self, file: str) -> None:
        """Parse a name."""
        self.file = file
        self.network = self.container_id = self.ifname = self.kinds = self.purpose = ""
        if file[:1] == ":":
            self.purpose = file[1:].partition(":")[0]
        elif file.count(":") >= 3:
            self.network, self.container_id, self.ifname, kinds = file.split(":", 3)
            end = -LENGTH_OF_NUMBER - len(MARK)
            self.kinds = kinds[:end] if kinds[end:].startswith(MARK) else kinds

    @classmethod
    def of(cls, network: str, container_id: str, ifname: str, types: Sequence[str]) -> Self:
        """Name the reference of an attachment."""
        kinds = _cut("+".join(types), MAXIMUM_KINDS)
        return cls(f"{network}:{container_id}:{ifname}:{kinds}")

    def numbered(self, number: int) -> ReferenceName:
        """Name another entry of the same attachment with plugins of the same types."""
        text = f"{MARK}{number:0{LENGTH_OF_NUMBER}x}"
        kinds = _cut(self.kinds, MAXIMUM_KINDS - len(text))
        return ReferenceName(f"{':'.join(self.attachment)}:{kinds}{text}")

    def fits(self, types: Sequence[str]) -> bool:
        """Tell whether it is a name for an attachment by these plugins."""
        name = self.of(*self.attachment, types)
        return self.kinds in (name.kinds, name.numbered(0).kinds)

    @classmethod
    def guard(cls, purpose: str) -> Self:
        """Name a new reference of this process, for COMMAND, COLLECTING or STOPPING."""
        return cls(f":{purpose}:{os.getpid()}-{os.urandom(4).hex()}")

    @staticmethod
    def part(container_id: str, ifname: str) -> str:
        """Give the part of the name that all references of one interface of a container share."""
        return f":{container_id}:{ifname}:"

    def __str__(self) -> str:
        return self.file

    @property
    def is_guard(self) -> bool:
        """Whether it belongs to a process, not to an attachment."""
        return self.file[:1] == ":"

    @property
    def is_command(self) -> bool:
        """Whether it belongs to a command that runs in the netns."""
        return self.purpose == COMMAND

    @property
    def is_attachment(self) -> bool:
        """Whether it belongs to an attachment."""
        return bool(self.network)

    @property
    def attachment(self) -> tuple[str, str, str]:
        """Network, container and interface, the values of PARTS."""
        return self.network, self.container_id, self.ifname

    @property
    def pid(self) -> str:
        """The ID of the process that a guard belongs to, as text."""
        return self.file.rpartition(":")[2].partition("-")[0] if self.is_guard else ""


def _cut(text: str, size: int) -> str:
    return text.encode(errors="replace")[:size].decode(errors="ignore")


def publishing(ports: list[Json], publisher: Json | None) -> Json:
    """Write which ports an attachment publishes on the host, and who opens them."""
    return {"ports": ports, "publisher": publisher}


def published(families: set[int]) -> Json:
    """Write for which families of addresses the ports are opened, before they are."""
    return {"families": sorted(families)}


def naming(**entry: Any) -> Json:
    """Write under which names an attachment is entered, as `names.membership` does."""
    return {"naming": entry}


class AttachmentRecord(Record):
    """The content of a reference, of an attachment or of a command."""

    __slots__ = ("name",)

    def __init__(self, name: ReferenceName, fields: Json | None = None) -> None:
        super().__init__(fields)
        self.name = name

    @classmethod
    def parse(cls, name: ReferenceName, journal: bytes) -> Self:
        """Read a journal; leave out a last line that was cut off, and any unreadable one."""
        fields: Json = {}
        for line in filter(None, journal.split(b"\n")):
            try:
                entry = decoding.one(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                fields.update(entry)
        answer = fields.get("result")
        if answer is not None and not _is_result(answer):
            # It would make every DEL fail, and there would be no way left to undo the ADD.
            del fields["result"]
        return cls(name, fields)

    @property
    def phase(self) -> str:
        """The phase it is in; ADDING where the call was cut off before its first line."""
        return str(self.fields.get("phase", ADDING))

    @property
    def netns(self) -> str:
        """The path of the container's netns that ADD was given, "" where it is not known."""
        return self.text("netns")

    @property
    def netns_id(self) -> tuple[int, int] | None:
        """Device and inode of that netns; None where they are not known."""
        numbers = self._numbers("netnsID", 2)
        return (numbers[0], numbers[1]) if numbers else None

    @property
    def place(self) -> tuple[int, int] | None:
        """Device and inode of the netns in which plugins worked in place; None if not known."""
        numbers = self._numbers("place", 4)
        return (numbers[0], numbers[1]) if numbers else None

    @property
    def place_of_caller(self) -> tuple[int, int]:
        """Inodes of the PID and user namespace of a caller in place, 0 if not known."""
        numbers = self._numbers("place", 4)
        return (numbers[2], numbers[3]) if numbers else (0, 0)

    def _numbers(self, key: str, count: int) -> list[int]:
        """Give the numbers of a list that has as many; else none."""
        value = self.fields.get(key)
        numbers = [n for n in value if type(n) is int] if isinstance(value, list) else []
        return numbers if len(numbers) == count == len(value or ()) else []

    def is_of(self, netns: tuple[int, int]) -> bool:
        """Tell whether ADD was given this netns, or the record does not say which.

        An attachment of an earlier boot has lost its namespace: the answer is always no.
        """
        is_it = not self.fields.get("netnsID") or self.netns_id == netns
        return is_it and not self.is_of_other_boot

    @property
    def args(self) -> str | None:
        """CNI_ARGS of the ADD; None where it is not known."""
        return self.text("args") if "args" in self.fields else None

    @property
    def path(self) -> str | None:
        """CNI_PATH of the ADD; None where it is not known."""
        return self.text("path") if "path" in self.fields else None

    @property
    def conf(self) -> Json | None:
        """The configuration that ADD was given; the setup of the `netavark` binary has none.

        Earlier versions wrote `runtimeConfig` in the spelling of the runtime.
        """
        conf = self.object("conf")
        if conf is None or not conf.get("runtimeConfig"):
            return conf
        from . import offered  # only where a runtime has offered something

        return {**conf, "runtimeConfig": offered.canonical(conf["runtimeConfig"])}

    @property
    def asked(self) -> Json | None:
        """What the setup of the `netavark` binary was given for this network."""
        return self.object("asked")

    @property
    def mtu(self) -> int:
        """The MTU that ADD has given to plugins without one of their own, 0 for none."""
        return self.number("mtu")

    @property
    def since(self) -> str:
        """When ADD began, RFC 3339; "" where that is not known."""
        return self.text("since")

    @property
    def began(self) -> int:
        """When ADD began, in nanoseconds since 1970, 0 where that is not known: for the order."""
        return self.number("began")

    @property
    def result(self) -> Json | None:
        """The result of the ADD, or of those plugins that it has run; None before there is one."""
        return self.object("result")

    @property
    def previous(self) -> Json | None:
        """What the ADD gave its plugins last: its result, or that of the entries before it."""
        given = self.result or (self.object("conf") or {}).get("prevResult")
        return given if isinstance(given, dict) and _is_result(given) else None

    @property
    def ports(self) -> list[Any]:
        """The ports that it publishes on the host, as `ports.mappings` writes them."""
        value = self.fields.get("ports")
        return value if isinstance(value, list) else []

    @property
    def families(self) -> set[int]:
        """The families of addresses that the container has; empty before a port was opened."""
        value = self.fields.get("families")
        found = [v for v in value if type(v) is int] if isinstance(value, list) else []
        return {4, 6}.intersection(found)

    @property
    def publisher(self) -> Json | None:
        """Who opens the ports, as `ports.publication` writes it."""
        return self.object("publisher")

    @property
    def naming(self) -> Record:
        """Under which names it is entered; empty where it is under none."""
        return Record(self.object("naming"))

    @property
    def pid(self) -> int:
        """The process of a command, 0 where it is not known."""
        return self.number("pid")

    @property
    def command(self) -> list[str]:
        """The words of a command."""
        return self.texts("command")

    @property
    def is_of_netavark(self) -> bool:
        """Whether `netavark` made it: Podman, and no other caller, brings all a teardown needs."""
        return "conf" not in self.fields and self.netns_id is not None


def _is_result(answer: Any) -> bool:
    try:
        result.convert(answer, cni.CURRENT_VERSION, assume=cni.CURRENT_VERSION)
    except ShimError:
        return False
    return True

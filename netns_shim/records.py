# SPDX-License-Identifier: Apache-2.0
"""The record of an uplink, and what all records have in common: the keys.

A file may be damaged, or written by another version: so a key that is missing or of a wrong kind
reads as nothing, and an unknown key stays when the record is written again. What makes and changes
the record of an uplink is in `shared.register`; no other module spells its keys. The record of an
attachment is in `attachment`.
"""

from __future__ import annotations

from . import decoding, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from .decoding import Json
# The largest ID that fits into a C int; the kernel takes larger ones for something else.
MAXIMUM_PID = (1 << 31) - 1


class Record:
    """One JSON object that is ours. `fields` is all of it; a record can be empty."""

    __slots__ = ("fields",)

    def __init__(self, fields: Json | None = None) -> None:
        self.fields: Json = {} if fields is None else fields

    def __bool__(self) -> bool:
        return bool(self.fields)

    @property
    def is_of_this_boot(self) -> bool:
        """Whether it says that it was written in this boot."""
        return self.fields.get("bootID") == proc.boot_id()

    @property
    def is_of_other_boot(self) -> bool:
        """Whether it says that it was written in an earlier boot."""
        return self.fields.get("bootID") is not None and not self.is_of_this_boot

    def text(self, key: str) -> str:
        """Give a text, "" where it is missing."""
        value = self.fields.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int:
        """Give a positive number, 0 where it is missing."""
        value = self.fields.get(key)
        return value if type(value) is int and 0 < value < 1 << 63 else 0

    def object(self, key: str) -> Json | None:
        """Give an object, None where it is missing."""
        value = self.fields.get(key)
        return value if isinstance(value, dict) else None

    def texts(self, key: str) -> list[str]:
        """Give the texts of a list; other elements are left out."""
        value = self.fields.get(key)
        return [t for t in value if isinstance(t, str)] if isinstance(value, list) else []


class ProcessRecord(Record):
    """The record of a process of ours and of the namespaces that it was started in."""

    __slots__ = ()

    @property
    def pid(self) -> int:
        """The ID of the process, 0 where it is missing."""
        pid = self.number("pid")
        return pid if pid <= MAXIMUM_PID else 0

    @property
    def start_time(self) -> int:
        """When it started, see `proc.start_time`; 0 where that is not known."""
        return self.number("startTime")

    @property
    def mount_namespace(self) -> int:
        """The inode of its mount namespace, 0 where that is not known."""
        return self.number("mountNamespace")

    @property
    def user_namespace(self) -> int:
        """The inode of its user namespace, 0 where that is not known."""
        return self.number("userNamespace")

    @property
    def is_hidden(self) -> bool:
        """Whether it says that the process is in another PID namespace than we: its ID is no use.

        0.1.0 did not write that down.
        """
        return self.number("pidNamespace") not in (0, proc.pid_namespace())

    @property
    def is_running(self) -> bool:
        """Whether the process is there, is still the same one, and has not been killed."""
        return proc.lives(self.pid, self.start_time)

    @property
    def is_stopped(self) -> bool:
        """Whether the process, which is running, does nothing until it gets SIGCONT."""
        return bool(self.pid) and not self.is_hidden and proc.is_stopped(self.pid)


class UplinkRecord(ProcessRecord):
    """`uplink.json`: the process of an uplink, and the addresses that it has brought.

    They are in one file because a new uplink can have other addresses.
    """

    __slots__ = ()

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Read what is in the file; empty where it makes no sense."""
        try:
            fields = decoding.one(text)
        except ValueError:
            return cls()
        if not isinstance(fields, dict) or not isinstance(fields.get("driver"), str):
            return cls()
        record = cls(fields)
        has_process = any(fields.get(key) is not None for key in ("pid", "startTime"))
        # Any other number means something else to the kernel, or cannot be given to it.
        if has_process and not (record.pid and type(fields.get("startTime")) is int):
            return cls()
        return record

    @property
    def driver(self) -> str:
        """`pasta`, `slirp4netns` or `none`; "" where there is no record."""
        return self.text("driver")

    @property
    def guardian(self) -> ProcessRecord:
        """The process that starts it again when it ends; empty where it has none."""
        return ProcessRecord(self.object("guardian"))

    @property
    def lacks_guardian(self) -> bool:
        """Whether its guardian has ended, and another one can take its place."""
        return "guardian" in self.fields and not (self.is_hidden or self.guardian.is_running)

    @property
    def wanted(self) -> Json:
        """What it was chosen by, with the chosen driver, on which its addresses depend."""
        return {**(self.object("wanted") or {}), "driver": self.driver}

    @property
    def options(self) -> list[str]:
        """The options that the configuration gave it."""
        value = self.wanted.get("options")
        return [o for o in value if isinstance(o, str)] if isinstance(value, list) else []

    @property
    def listed(self) -> list[str]:
        """The ports of the shared netns itself that are published, as they were configured."""
        value = self.wanted.get("publish")
        return [t for t in value if isinstance(t, str)] if isinstance(value, list) else []

    @property
    def netns(self) -> int:
        """The inode of the shared netns that it was started for, 0 where that is not known."""
        return self.number("netns")

    @property
    def host_netns(self) -> int:
        """The inode of the netns that it was started in, 0 where that is not known."""
        return self.number("hostNetns")

    @property
    def interface(self) -> str:
        """The name of its interface in the shared netns, "" where it has none."""
        return self.text("interface")

    @property
    def addresses(self) -> list[str]:
        """The addresses of that interface, without prefix lengths."""
        return self.texts("addresses")

    @property
    def mtu(self) -> int | None:
        """The MTU of that interface, 0 where it has none; None where networks have another."""
        return self.number("mtu") if "mtu" in self.fields else None

    @property
    def dns_forwarders(self) -> list[str]:
        """The addresses at which questions get to the host's name servers."""
        return self.texts("dnsForwarders")

    @property
    def _names(self) -> Record:
        return Record(self.object("names"))

    @property
    def forwarders(self) -> list[str]:
        """All addresses that may be one of these at a time, see `names`."""
        return self._names.texts("forwarders") or self.dns_forwarders

    @property
    def forwards(self) -> list[str] | None:
        """What it forwards by itself, see `names.plan`; None where it finds servers by itself."""
        names = self._names
        return names.texts("forwards") if isinstance(names.fields.get("forwards"), list) else None

    @property
    def name_rules(self) -> list[Any]:
        """The rules by which questions are led on, see `names.Plan`."""
        rules = self._names.fields.get("rules")
        return rules if isinstance(rules, list) else []

    @property
    def search(self) -> list[str]:
        """The domains in which the host looks for short names."""
        return self._names.texts("search")

    @property
    def host(self) -> Json | None:
        """The host's network as it was then, see `hostnet`; None where that is not known."""
        return self.object("host")

    @property
    def host_addresses(self) -> list[str]:
        """The addresses at which the netns reaches the host, whatever its own are now."""
        return self.texts("hostAddresses")

    @property
    def copies_addresses(self) -> bool:
        """Whether the netns has addresses and routes of the host, as every pasta gave in 0.1.0."""
        copies = self.fields.get("copiesAddresses")
        return self.driver == "pasta" if copies is None else copies is True

    def outdated(self, changes: list[str]) -> list[str]:
        """Choose from the changes of the host's network those that a new uplink would follow."""
        followed = () if self.copies_addresses else ("routes", "addresses")
        return [change for change in changes if change not in followed]

    @property
    def control(self) -> str:
        """The program that changes its ports by its socket, "" where it has none."""
        return self.text("control")

    @property
    def lacks_ports(self) -> bool:
        """Whether ports that attachments publish are still to be opened by it."""
        return self.fields.get("lacksPorts") is True

    @property
    def pending(self) -> str:
        """Why it waits for a network of the host, instead of a process; "" where it does not."""
        return "" if self.pid else self.text("pending")

    @property
    def publisher(self) -> Json | None:
        """Who opens the ports of the shared netns itself, where it is not this uplink."""
        return self.object("publisher")

    @property
    def lacks_listed(self) -> bool:
        """Whether the ports of the shared netns itself are still to be opened."""
        return bool(self.listed) and self.publisher is None

    @property
    def is_alive(self) -> bool:
        """Whether its process lives; a netns that wants no uplink has all that it needs.

        An uplink without its interface is dead, though slirp4netns(1) goes on running.
        """
        if self.fields.get("pid") is None:
            return self.driver == "none"
        tap = self.fields.get("tapDescriptor")
        return self.is_running and proc.has_interface(self.pid, tap)

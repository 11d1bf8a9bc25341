# SPDX-License-Identifier: Apache-2.0
"""A pasta of its own opens the ports of one attachment: for uplinks that cannot open any later.

It puts a second interface into the shared netns. Connections that come in by it carry a mark, and
replies to them go out by it: see `routing`. So the container sees the client's address, and the
uplink's own connections are not touched. It costs 40 ms, and 29 MB of memory while it runs.
Its parent is its guardian, which opens the ports again if it is killed.
"""

from __future__ import annotations

import _signal as signal  # see `child`
import os

from .. import hostnet, interrupt, netns
from ..errors import PORT_UNAVAILABLE, ShimError
from ..proc import is_stopped, start_time
from ..shared import background, guardian, processes, tap
from ..shared.files import make_private, remove_special
from ..shared.nsenter import run_in
from ..state import PORTS, read_file
from . import routing
from .gate import Gate
from .mappings import joined, ranges
from .publisher import Publisher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..decoding import Json
    from ..state import State
    from .mappings import Binding

START_SECONDS = 30
# Releases that do not know this option, of before August 2024, do not end every handshake.
NEWER = "--map-guest-addr"
# Of a gateway, on a host that has none to take one from.
MAC, GATEWAY4, GATEWAY6 = "9a:55:9a:55:9a:55", "169.254.0.1", "fe80::1"
# Addresses of the interfaces, from what is for this link only: RFC 3927, and RFC 4193.
ADDRESS4, ADDRESS6 = "169.254.{}.{}", "fd6e:6574:6e73::{:x}"


class OwnPasta(Publisher):
    """The pasta of one attachment, with a number of its own in the shared netns.

    `program` is its path. Where it runs, `pid` and `since` are its process ID and start time.
    """

    driver = "pasta"
    is_own = True

    def __init__(
        self, state: State, program: str, number: int = 0, pid: int = 0, since: int = 0
    ) -> None:
        self._state = state
        self._program = program
        self.number = number
        self.pid = pid
        self.since = since
        self._gate: Gate | None = None
        self._host: list[str] | None = None

    @property
    def _name(self) -> str:
        return f"pub{self.number}"

    @property
    def _log(self) -> str:
        return self._state.path(f"{PORTS}/{self._name}.log")

    @property
    def _pid_file(self) -> str:
        return self._state.path(f"{PORTS}/{self._name}.pid")

    @property
    def fields(self) -> Json:
        """Write it for the record of an attachment."""
        process = {"pid": self.pid, "startTime": self.since} if self.pid else {}
        return {"driver": self.driver, "number": self.number, "path": self._program, **process}

    @property
    def is_running(self) -> bool:
        """Whether its process is there, and is not stopped."""
        is_there = bool(self.pid) and start_time(self.pid) == self.since
        return is_there and not is_stopped(self.pid)

    def prepare(self) -> None:
        """Get ready, while this process is in the host's netns, to start it later."""
        self._gate = Gate()
        self._host = _of_host()

    def cancel(self) -> None:
        """End what `prepare` has made, if it is still waiting."""
        if self._gate is not None:
            self._gate.cancel()
            self._gate = None

    def open(self, wanted: Sequence[Binding]) -> None:
        """Start it. Raises ShimError (code 106) where it does not open all of the ports."""
        try:
            self._route()
            self.pid = self._start(wanted)
            if not self.pid:
                raise ShimError(
                    PORT_UNAVAILABLE,
                    f"cannot publish {', '.join(map(str, wanted[:5]))}",
                    _said(self._log),
                )
            self.since = start_time(self.pid)
            os.unlink(self._pid_file)
        except BaseException:
            interrupt.disregard()
            self.close(wanted)
            raise

    def _start(self, wanted: Sequence[Binding]) -> int:
        """Start it, below its guardian, and wait until it is ready; give its ID, 0 if it fails."""
        make_private(self._state.path(PORTS))
        remove_special(self._log)
        fifo = background.open_fifo(self._pid_file)
        if self._gate is None:
            self.prepare()  # this process is still in the host's netns
        gate, self._gate = self._gate or Gate(), None
        command = guardian.guarded(self._state, self._command(wanted), self._log)
        pid = gate.start(command, self._log)
        try:
            said = background.ready(fifo, pid, START_SECONDS, "opening ports")
            if said is None:
                raise ShimError(PORT_UNAVAILABLE, f"pasta is not ready after {START_SECONDS} s")
        except BaseException:
            os.killpg(pid, signal.SIGKILL)  # both, for it leads a session
            background.end(pid)
            raise
        finally:
            os.close(fifo)
        if not said:
            background.end(pid)
        return int(said or 0)

    def _command(self, wanted: Sequence[Binding]) -> list[str]:
        rules = ranges(joined(wanted))
        options = [word for kind, text in rules for word in (f"-{kind[0]}", text)]
        has = {kind for kind, _ in rules}
        options += [word for k in ("tcp", "udp") if k not in has for word in (f"-{k[0]}", "none")]
        address4, address6 = _addresses(self.number)
        host = _of_host() if self._host is None else self._host
        own = ["-a", address4] if tap.ONLY_IPV4[0] in host else ["-a", address4, "-a", address6]
        return [
            self._program,
            *options,
            *("-T", "none", "-U", "none", "--no-map-gw", "--quiet"),
            *("--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra"),
            *(*own, "-I", self._name, *host),
            *(
                "--foreground",
                "--pid",
                self._pid_file,
                "--log-file",
                self._log,
                "--netns",
                self._state.pin,
            ),
        ]

    def _route(self) -> None:
        """Make its interface, which leads to containers, and answers back to it."""
        is_old = self._is_old()
        run_in(
            self._state.pin,
            lambda: routing.prepare(
                self._name, self.number, *_addresses(self.number), is_old=is_old
            ),
        )

    def _is_old(self) -> bool:
        """Tell whether it needs help with the handshake of a connection, see `handshake`."""
        return NEWER not in "".join(background.usage(self._program, "pasta"))

    def close(self, wanted: Sequence[Binding]) -> None:
        """End it, whether or not it is known which process it is."""
        found = processes.stray(self._state, self._log)
        if self.pid:
            found.add((self.pid, self.since))
        for pid, since in sorted(found):  # the parent, its guardian, first
            processes.stop(pid, since)
        if netns.identity(self._state.pin, is_ours=True) is not None:
            run_in(self._state.pin, lambda: routing.remove(self._name, self.number))
        for path in (self._log, self._pid_file):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass


def _of_host() -> list[str]:
    """List what pasta is told of the host's network, seen from there."""
    told = tap.without_network()
    if hostnet.has_ipv6():
        return told
    # On a kernel without IPv6, it cannot open sockets for it, and gives up.
    while tap.GATEWAY6 in told:
        place = told.index(tap.GATEWAY6)
        del told[place - 1 : place + 1]
    return [tap.ONLY_IPV4[0], *told]


def _addresses(number: int) -> tuple[str, str]:
    return ADDRESS4.format(64 + number // 256, number % 256), ADDRESS6.format(number)


def _said(log: str) -> str:
    text = read_file(log)[-2000:].decode(errors="replace").strip()
    return "; ".join(background.essence(text))

# SPDX-License-Identifier: Apache-2.0
"""The uplink itself opens the ports: pesto(1) changes the table of a pasta that runs.

A pasta has it since May 2026. One call takes 5 ms. It reads the whole table and sends it back, and
pasta takes or refuses that as a whole: where one port cannot be opened, none of the new ones is.
pesto succeeds all the same, before pasta is ready, and the reason is in the log of pasta. A rule
that cannot be opened would spoil every later change, so it has to go at once, and no other call
may change the table meanwhile.
"""

from __future__ import annotations

import os

from .. import child, interrupt
from ..errors import PORT_UNAVAILABLE, ShimError, warn
from ..invoke import with_path
from ..locks import Lock
from ..shared.background import CONTROL
from ..state import read_file
from . import control
from .mappings import ranges
from .publisher import Publisher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..state import State
    from .mappings import Binding

# How pesto says that there is no rule to delete, and pasta that it cannot open a port.
NO_RULE = "Couldn't find forwarding rule"
REFUSED = "Listen failed for "
# How long to wait for other calls that change the table, in seconds; each takes well below one.
WAIT_SECONDS = 10.0


class Pesto(Publisher):
    """The table of a pasta; `program` is the path of pesto."""

    driver = "pesto"

    def __init__(self, state: State, program: str) -> None:
        self._state = state
        self._program = program

    def open(self, wanted: Sequence[Binding]) -> None:
        """Open ports. Raises ShimError (code 106) where one cannot be, and leaves none open."""
        with self._alone():
            self._open(wanted)

    def _open(self, wanted: Sequence[Binding]) -> None:
        log = self._state.path("uplink.log")
        known = os.stat(log).st_size
        problem = self._call("-A", wanted)
        if not problem:
            self._settle()
            said = read_file(log)[known:].decode(errors="replace").splitlines()
            refused = [line.partition(REFUSED)[2] for line in said if REFUSED in line]
            if not refused:
                return
            problem = "; ".join(refused)
        interrupt.disregard()
        self._close(wanted)
        names = ", ".join(map(str, wanted[:5])) + (", …" if len(wanted) > 5 else "")
        raise ShimError(PORT_UNAVAILABLE, f"cannot publish {names}", problem)

    def close(self, wanted: Sequence[Binding]) -> None:
        """Close ports; it does not matter whether they are open.

        Raises ShimError (code 106) where pasta does not answer.
        """
        with self._alone():
            try:
                self._close(wanted)
            except control.Ended:
                pass  # it was killed at this moment

    def _close(self, wanted: Sequence[Binding]) -> None:
        # With one that is missing, pesto deletes none.
        if self._call("-D", wanted):
            self._settle()  # one that has ended does not complain of each port
            for binding in wanted:
                problem = self._call("-D", [binding])
                if problem and NO_RULE not in problem:
                    warn(f"cannot close {binding}: {problem}")
        self._settle()

    def _alone(self) -> Lock:
        what = "another call changes the ports of the uplink"
        return Lock(self._state.path("control.lock"), WAIT_SECONDS, "changing ports", what=what)

    def _settle(self) -> None:
        """Wait until pasta has done what it was told: it greets the next client only then."""
        control.ask(self._state, b"")

    def _call(self, action: str, wanted: Iterable[Binding]) -> str:
        """Have pesto add (-A) or delete (-D) rules; give its complaint, "" where it has none."""
        options = [word for kind, text in ranges(wanted) for word in (f"-{kind[0]}", text)]
        if not options:
            return ""
        with control.Beside(self._state):
            try:
                status, _, stderr = child.run(
                    self._program,
                    with_path(os.environ),
                    b"",
                    arguments=[action, *options, CONTROL],
                    name="pesto",
                    what="changing the ports of the uplink",
                    timeout=control.SECONDS,
                )
            except ShimError as error:
                raise control.silent(self._state, str(error)) from None
        return stderr.decode(errors="replace").strip().partition("\n")[0] if status else ""

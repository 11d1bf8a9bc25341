# SPDX-License-Identifier: Apache-2.0
"""Results for people: one line each, and below it what to do."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from ...errors import shown
from .. import printing
from .check import OK, PROBLEM, SKIPPED, WARNING, Check, Result

if TYPE_CHECKING:
    from collections.abc import Callable

STYLES = {OK: "green", WARNING: "yellow", PROBLEM: "bold red", SKIPPED: "dim"}
STATUS_WIDTH = max(map(len, STYLES))


class Report:
    """Prints each result as soon as it is there; on a terminal with a progress bar."""

    def __init__(self, checks: list[Check]) -> None:
        self._console = printing.console()
        self._width = max(len(check.name) for check in checks)
        self._counts: Counter[str] = Counter()

    def run(self, checks: list[Check], look: Callable[[Check], Result]) -> None:
        """Do the checks and print what they find."""
        # Refreshed by hand: a thread would not survive the forks.
        progress = Progress(
            TextColumn("{task.description}", style="dim"),
            BarColumn(bar_width=20),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        # rich before 14 prints an empty line at its end, even when it is off.
        with progress if self._console.is_terminal else nullcontext():
            task = progress.add_task("", total=len(checks))
            for check in checks:
                progress.update(task, description=f"checking {check.name}")
                if self._console.is_terminal:
                    progress.refresh()
                self._print(check.name, look(check))
                progress.advance(task)
        self._console.print(self._summary(), soft_wrap=True)

    def _print(self, name: str, result: Result) -> None:
        self._counts[result.status] += 1
        style = STYLES[result.status]
        self._row(
            Text(result.status, style=style),
            Text(name),
            _text(result.message, style="dim" if result.status == SKIPPED else ""),
        )
        for line in result.details:
            self._row(Text(), Text(), _text(line, style="dim"))
        if result.advice:
            self._row(Text(), Text(), _text(f"-> {result.advice}", style="cyan"))

    def _row(self, status: Text, name: Text, message: Text) -> None:
        if not self._console.is_terminal:
            # A program as the reader wants one line for one thing, at any length.
            line = f"{status.plain:{STATUS_WIDTH}}  {name.plain:{self._width}}  {message.plain}"
            self._console.print(Text(line), soft_wrap=True)
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(width=STATUS_WIDTH)
        table.add_column(width=self._width)
        table.add_column(overflow="fold")
        table.add_row(status, name, message)
        self._console.print(table)

    def _summary(self) -> Text:
        parts = []
        for kind in (PROBLEM, WARNING):
            if count := self._counts[kind]:
                text = f"{count} {kind}{'s' if count > 1 else ''}"
                parts.append(Text(text, style=STYLES[kind]))
        return Text(", ").join(parts) if parts else Text("all is well", style=STYLES[OK])


def _text(text: str, style: str) -> Text:
    """Write a quoted text so that the terminal shows it and does nothing else."""
    return Text(shown(text), style=style)

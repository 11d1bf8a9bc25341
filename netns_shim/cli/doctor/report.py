# SPDX-License-Identifier: Apache-2.0
"""Results as people read them: a line each, and below it what to do."""

from __future__ import annotations

import io
import sys
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from .check import OK, PROBLEM, SKIPPED, WARNING, Check, Result

if TYPE_CHECKING:
    from collections.abc import Callable

STYLES = {OK: "green", WARNING: "yellow", PROBLEM: "bold red", SKIPPED: "dim"}
STATUS_WIDTH = max(map(len, STYLES))


class Report:
    """Prints each result when it is there; on a terminal with a bar of how far it is."""

    def __init__(self, checks: list[Check]) -> None:
        # Paths and what programs print may be no text.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._width = max(len(check.name) for check in checks)
        self._counts: Counter[str] = Counter()

    def run(self, checks: list[Check], look: Callable[[Check], Result]) -> None:
        """Do the checks and print what they find."""
        # Refreshed by hand: a thread would not survive the forks in between.
        progress = Progress(
            TextColumn("{task.description}", style="dim"),
            BarColumn(bar_width=20),
            console=self._console,
            auto_refresh=False,
            transient=True,
            disable=not self._console.is_terminal,
        )
        with progress:
            task = progress.add_task("", total=len(checks))
            for check in checks:
                progress.update(task, description=f"checking {check.name}")
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
            Text(result.message, style="dim" if result.status == SKIPPED else ""),
        )
        for line in result.details:
            self._row(Text(), Text(), Text(line, style="dim"))
        if result.advice:
            self._row(Text(), Text(), Text(f"-> {result.advice}", style="cyan"))

    def _row(self, status: Text, name: Text, message: Text) -> None:
        if not self._console.is_terminal:
            # A reader that is a program wants one line for one thing, however long.
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

# SPDX-License-Identifier: Apache-2.0
"""The rows as a table for people, in plain text and in Markdown, and as a plot."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from measure import Row, Spread

from netns_shim import __version__

HEADER = ("figure", "what", "wall", "quartiles", "CPU", "quartiles", "goal", "")
MARKS = {True: "reached", False: "NOT reached", None: ""}
COLOURS = {True: "#2b8a3e", False: "#c92a2a", None: "#4263eb"}


def machine() -> str:
    """Say in one line on what it was measured."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    facts = (
        f"netns-shim {_revision()}",
        f"Python {platform.python_version()}",
        f"Linux {platform.release()}",
        f"{os.cpu_count()} CPUs",
        f"load {load}",
        now,
    )
    return "; ".join(facts)


def _revision() -> str:
    """Give the commit that is measured, or the version where git cannot tell."""
    if not shutil.which("git"):
        return __version__
    argv = ["git", "describe", "--always", "--dirty"]
    here = Path(__file__).parent
    done = subprocess.run(argv, cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip() or __version__


def _verdict(row: Row) -> str:
    wall, cpu = row.is_reached, row.is_reached_in_cpu
    same = cpu is None or cpu == wall
    return MARKS[wall] if same else f"{MARKS[wall]} (CPU: {MARKS[cpu]})"


def _value(row: Row, spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{_number(spread.median)} {row.unit}".strip()


def _number(value: float) -> str:
    if value == int(value):
        return str(int(value))
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _quartiles(spread: Spread | None) -> str:
    if spread is None or spread.low == spread.high:
        return ""
    return f"{_number(spread.low)}-{_number(spread.high)}"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.figure,
        row.what,
        _value(row, row.wall),
        _quartiles(row.wall),
        _value(row, row.cpu),
        _quartiles(row.cpu),
        ""
        if row.goal is None
        else f"{'≥' if row.is_least else '≤'} {_number(row.goal)} {row.unit}".strip(),
        _verdict(row),
    )


def text(rows: Sequence[Row]) -> str:
    """Write the table with aligned columns, an empty line between the figures."""
    table = [HEADER, *map(_cells, rows)]
    widths = [max(len(cells[column]) for cells in table) for column in range(len(HEADER))]
    lines, before = [], HEADER[0]
    for cells in table:
        if cells[0] != before:
            lines.append("")
        shown = cells[0] if cells[0] != before or cells is table[0] else ""
        before = cells[0]
        aligned = [
            cell.rjust(width) if 2 <= column <= 6 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip((shown, *cells[1:]), widths, strict=True))
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines) + "\n"


def markdown(rows: Iterable[Row]) -> str:
    """Write the table for Markdown."""
    aligned = "|---|---|--:|--:|--:|--:|--:|---|"
    lines = [f"| {' | '.join(HEADER)} |", aligned]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], paths: Iterable[Path]) -> None:
    """Draw the ratios with their quartiles, and the goals, in formats named by the files."""
    import matplotlib

    matplotlib.use("Agg")
    # Else each run writes other names, and letters as drawings.
    matplotlib.rcParams |= {"svg.hashsalt": "netns-shim", "svg.fonttype": "none"}
    from matplotlib import pyplot

    shown = [row for row in rows if row.unit == "×"][::-1]
    if not shown:
        return
    figure, axes = pyplot.subplots(figsize=(9, 0.8 + 0.32 * len(shown)), layout="constrained")
    for place, row in enumerate(shown):
        width = row.wall.median
        errors = [[width - row.wall.low], [row.wall.high - width]]
        colour = COLOURS[row.is_reached]
        axes.barh(place, width, xerr=errors, color=colour, height=0.6, ecolor="#495057")
        if row.cpu is not None:
            axes.plot(row.cpu.median, place, "o", color="white", markeredgecolor="#212529", ms=5)
        if row.goal is not None:
            axes.plot([row.goal] * 2, [place - 0.42, place + 0.42], color="black", lw=2)
    axes.axvline(1, color="#868e96", lw=0.8, ls=":")
    labels = [f"{row.what}  [{row.figure}]" for row in shown]
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    axes.set_xlim(left=0)
    legend = "ratio, wall time: median and quartiles; ○ CPU time; ┃ goal"
    axes.set_xlabel(legend, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    for path in paths:
        figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)

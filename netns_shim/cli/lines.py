# SPDX-License-Identifier: Apache-2.0
"""Lines of a terminal, made of cells: words with a style, in columns that are aligned."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

Cell = tuple[str, str]  # a text and its style
GAP = "  "


def line(words: list[Cell]) -> Text:
    """Put words into one line."""
    return aligned([words])[0]


def aligned(rows: list[list[Cell]]) -> list[Text]:
    """Put rows into lines with aligned columns; leave out empty columns."""
    count = max(map(len, rows), default=0)
    widths = [
        max((cell_len(row[n][0]) for row in rows if n < len(row)), default=0) for n in range(count)
    ]
    lines = []
    for row in rows:
        made = Text()
        for (text, style), width in zip(row, widths, strict=False):
            if not width:
                continue
            # A mark is one cell, and belongs to what comes after it.
            gap = "" if not made.plain else " " if cell_len(made.plain) == 1 else GAP
            made.append(gap).append(text, style).append(" " * (width - cell_len(text)))
        made.rstrip()
        lines.append(made)
    return lines

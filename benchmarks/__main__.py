# SPDX-License-Identifier: Apache-2.0
"""Measure what netns-shim costs. Started by benchmarks/run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import bench
import datapath
import instructions
import many
import measure
import published
import report
import rootlessnetns
from figures import AT_ONCE, FIGURES
from stage import BenchmarkError, Stage

ROUNDS, QUICK = 40, 8
ALL = {
    **FIGURES,
    "data-path": datapath.data_path,
    published.CARRIED: published.carried,
    "many": many.many,
    instructions.FIGURE: instructions.instructions,
    "seed": rootlessnetns.seed,
}
# How many containers a figure attaches, besides the one that is kept; the others have one.
CONTAINERS = {"at-once": max(AT_ONCE), "seed": rootlessnetns.KEPT}
RESULTS = Path(__file__).resolve().parent / "results"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__)
    parser.add_argument(
        "--rounds",
        type=int,
        default=ROUNDS,
        metavar="N",
        help="how often all have their turn; what takes long has a part of that [%(default)s]",
    )
    parser.add_argument("--quick", action="store_true", help=f"the same as --rounds {QUICK}")
    parser.add_argument(
        "--only",
        action="append",
        choices=ALL,
        metavar="NAME",
        help=f"one of the figures; may be repeated: {', '.join(ALL)}",
    )
    parser.add_argument(
        "--seed",
        type=Path,
        metavar="PATH",
        help="the program that benchmarks/seed/build makes; without it there is no figure seed",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help="where table.txt, table.md, figures.json, plot.png and plot.svg go [%(default)s]",
    )
    given = parser.parse_args()
    given.only = given.only or [*FIGURES, *(["seed"] if given.seed else [])]
    if "seed" in given.only and not given.seed:
        parser.exit(2, "benchmarks/run: the figure seed needs --seed PATH\n")
    if given.seed and not given.seed.is_file():
        parser.exit(2, f"benchmarks/run: --seed: {given.seed}: no such file\n")
    return given


def main() -> int:
    """Measure, print the table, write the files; 1 where something does not work."""
    given = arguments()
    rows: list[measure.Row] = []
    try:
        with Stage(1 + max(CONTAINERS.get(name, 1) for name in given.only)) as stage:
            if given.seed:
                rootlessnetns.provide(stage, given.seed)
            for name in given.only:
                if sys.stderr.isatty():
                    print(f"{name}: {(ALL[name].__doc__ or '').strip()}", file=sys.stderr)
                rows += ALL[name](stage, QUICK if given.quick else max(1, given.rounds))
    except (BenchmarkError, bench.BenchError) as error:
        print(f"benchmarks/run: {error}", file=sys.stderr)
        return 1
    about = report.machine()
    print(f"{report.text(rows)}\n{about}")
    write(given.output, rows, about)
    return 0


def write(directory: Path, rows: list[measure.Row], about: str) -> None:
    """Write the tables, the figures for programs and the plots."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "table.txt").write_text(f"{report.text(rows)}\n{about}\n")
    (directory / "table.md").write_text(f"{report.markdown(rows)}\n{about}.\n")
    content = {"about": about, "rows": measure.as_json(rows)}
    (directory / "figures.json").write_text(json.dumps(content, indent=2) + "\n")
    report.plot(rows, [directory / "plot.png", directory / "plot.svg"])


if __name__ == "__main__":
    sys.exit(main())

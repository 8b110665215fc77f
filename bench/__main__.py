"""Measure what valska adds; print a table and check it against limits.

Run it with ``make bench``, or a part of it: ``python -m bench sweeps``. Nearly every figure comes
from pairs of processes run in turn, floor and valska, so that a machine whose speed drifts slows
both; the median of the pairs counts.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.archives import archives
from bench.bundles import bundles
from bench.images import images
from bench.measuring import Figure
from bench.start import start
from bench.sweeps import sweeps

PARTS: Mapping[str, Callable[[Path, int], Iterator[Figure]]] = {
    "start": start,
    "bundles": bundles,
    "sweeps": sweeps,
    "images": images,
    "archives": archives,
}


def main() -> int:
    """Measure, print, and return 1 if a limit is not kept."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}  [all]")
    parser.add_argument("--pairs", type=int, default=15, help="pairs of runs for a small figure")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    parts = options.parts or list(PARTS)
    if unknown := set(parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="valska-bench-") as name:
        figures = [item for part in parts for item in PARTS[part](Path(name), options.pairs)]
    if options.json:
        print(as_json(figures))
    else:
        print_table(figures)
    return 0 if all(figure.kept for figure in figures) else 1


def as_json(figures: Sequence[Figure]) -> str:
    """Return the figures for a program."""
    listed = [{**asdict(figure), "kept": figure.kept} for figure in figures]
    return json.dumps({"load": os.getloadavg(), "figures": listed}, indent=2)


def print_table(figures: Sequence[Figure]) -> None:
    """Print the figures for a person."""
    width = max(len(figure.name) for figure in figures)
    print(f"{'':{width}}   median      min      max      cpu    limit")
    for item in figures:
        numbers = "".join(map(_number, (item.value, item.low, item.high, item.cpu, item.limit)))
        print(f"{item.name:{width}}{numbers} {item.unit:5} {_verdict(item)} ({item.pairs})")
    print("Load of the machine: " + ", ".join(f"{load:.1f}" for load in os.getloadavg()))


def _number(value: float | None) -> str:
    return f"{'-':>9}" if value is None else f"{value:9.3f}"


def _verdict(item: Figure) -> str:
    if item.limit is None:
        return "for comparison"
    if item.value is None:
        return "NOT MEASURED"
    return "kept" if item.kept else "NOT KEPT"


if __name__ == "__main__":
    raise SystemExit(main())

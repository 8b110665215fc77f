"""The start of the command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from bench.measuring import VALSKA, Figure, Measured, figure, ratio, run_pairs, timed


def start(scratch: Path, pairs: int) -> Iterator[Figure]:
    """Compare the CLI's start with that of the library that it is made of."""

    def pair(_: int) -> Measured:
        return timed([sys.executable, "-c", "import click"]), timed([VALSKA, "--version"])

    name = "valska --version / python -c 'import click'"
    yield figure(name, run_pairs(pair, pairs), ratio, limit=2.0)

"""Indices of a job array as sbatch reads them."""

from __future__ import annotations

from collections.abc import Iterable


def write_ranges(indices: Iterable[int]) -> str:
    """Return indices in ascending order, runs of them as their ends.

    >>> write_ranges([5, 0, 1, 2, 7, 8])
    '0-2,5,7-8'
    """
    runs: list[list[int]] = []
    for index in sorted(set(indices)):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def read_ranges(text: str) -> list[int]:
    """Return the indices in what `write_ranges` wrote.

    >>> read_ranges("0-2,5")
    [0, 1, 2, 5]
    """
    found: list[int] = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found

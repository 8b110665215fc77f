"""Indices of a job array as Slurm writes them (``0-8,11``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def compress(indices: Iterable[int]) -> str:
    """Return indices in ascending order, runs of them as their ends."""
    ordered = sorted(indices)
    runs: list[str] = []
    start = 0
    for end in range(1, len(ordered) + 1):
        if end == len(ordered) or ordered[end] != ordered[end - 1] + 1:
            first, last = ordered[start], ordered[end - 1]
            runs.append(f"{first}-{last}" if last > first else str(first))
            start = end
    return ",".join(runs)


def expand(text: str) -> Iterator[int]:
    """Yield the indices that `compress` wrote down.

    Raises
    ------
    ValueError
        If it did not write this.
    """
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)

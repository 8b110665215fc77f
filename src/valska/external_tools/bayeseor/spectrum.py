"""The power spectrum that was inferred: the posterior of each k bin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from valska.external_tools.bayeseor.chains import (
    K_VALUES,
    MODES,
    SAMPLES,
    ChainsError,
    read_column,
    read_rows,
)

PERCENTS = (16.0, 50.0, 84.0, 95.0)


@dataclass(frozen=True, slots=True)
class Bin:
    """The posterior of log10 of the dimensionless power in mK² of one k bin.

    Parameters
    ----------
    k
        Mean length of the bin's modes in 1/Mpc.
    modes
        How many modes it has; None where that is not known.
    samples
        How many samples of the posterior there are.
    mean, std
        Of the samples.
    percentiles
        At `PERCENTS`.
    """

    k: float
    modes: int | None
    samples: int
    mean: float
    std: float
    percentiles: tuple[float, ...]


def read_spectrum(chains: Path, log_priors: bool) -> tuple[Bin, ...]:
    """Read the posterior of each k bin from the samples of equal weight.

    Parameters
    ----------
    chains
        A directory of chains.
    log_priors
        Whether the samples are logarithms already.

    Raises
    ------
    ChainsError
        If a file is missing or damaged, or files do not fit each other.
    """
    bins = read_column(chains / K_VALUES)
    rows = read_rows(chains / SAMPLES)
    if len(rows[0]) != len(bins) + 1:
        raise ChainsError(
            f"{SAMPLES} has {len(rows[0]) - 1} parameters, {K_VALUES} {len(bins)} k bins"
        )
    modes = _modes(chains / MODES, len(bins))
    columns = list(zip(*rows, strict=True))[:-1]
    samples = columns if log_priors else [_logs(column) for column in columns]
    return tuple(_bins(bins, modes, samples))


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return a percentile of sorted numbers, between two of them in proportion."""
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _bins(
    ks: Sequence[float], modes: Sequence[int | None], columns: Sequence[Sequence[float]]
) -> Iterator[Bin]:
    for k, count, column in zip(ks, modes, columns, strict=True):
        ordered = sorted(column)
        mean = math.fsum(ordered) / len(ordered)
        yield Bin(
            k=k,
            modes=count,
            samples=len(ordered),
            mean=mean,
            std=math.sqrt(math.fsum((x - mean) ** 2 for x in ordered) / len(ordered)),
            percentiles=tuple(percentile(ordered, percent) for percent in PERCENTS),
        )


def _modes(path: Path, bins: int) -> Sequence[int | None]:
    try:
        found = [round(value) for value in read_column(path)]
    except ChainsError:
        found = []
    return found if len(found) == bins else [None] * bins


def _logs(column: Sequence[float]) -> list[float]:
    if min(column) <= 0:
        raise ChainsError(f"{SAMPLES} has powers that are not positive: they have no logarithm")
    return [math.log10(value) for value in column]

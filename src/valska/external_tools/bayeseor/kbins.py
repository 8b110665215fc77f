"""How many k bins a configuration has, worked out as BayesEoR does.

Its model is a grid of (eta, v, u) modes without eta = 0 and without (u, v) = (0, 0). Their lengths
fall into spherical bins whose edges are 0 and twice the spacing along the line of sight, from there
on each 1.35 times the one before; empty bins do not count.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import UsageError

_log = logging.getLogger(__name__)

_FIRST_EDGE, _GROWTH, _BINS = 2.0, 1.35, 50
_LINE_HZ = 1420.40575177e6
"""Frequency of the 21-cm line."""
_MATTER, _RADIATION = 0.30966, 9.2e-5
"""Density parameters today (Planck 2018), radiation with three neutrinos."""
_STEPS = 512
_TOLERANCE = 2e-3
"""Relative error of the ratio of the spacings that must not change the answer."""


@dataclass(frozen=True, slots=True)
class Band:
    """The frequency channels that BayesEoR keeps.

    Parameters
    ----------
    channels
        How many.
    width
        Of a channel, in Hz.
    mean
        Mean frequency, in Hz.
    """

    channels: int
    width: float
    mean: float


def count_bins(values: Mapping[str, Any], data: Path) -> int | None:
    """Return the number of k bins, or None where it cannot be told before BayesEoR runs.

    Parameters
    ----------
    values
        The configuration.
    data
        The visibilities: UVH5 (needs h5py), or a vector whose channels the configuration tells.

    Raises
    ------
    UsageError
        If the configuration asks for channels that the data do not have.
    """
    band = _band(values, data)
    if band is None:
        return None
    nu, across = values["nu"], values["fov_ra_eor"]
    along = values.get("fov_dec_eor")
    return _count(
        nu,
        nu if values.get("nv") is None else values["nv"],
        band.channels if values.get("neta") is None else values["neta"],
        across,
        across if along is None else along,
        band,
    )


@lru_cache(maxsize=1024)
def _count(nu: int, nv: int, neta: int, across: float, along: float, band: Band) -> int | None:
    """Count bins for both ends of the error of the ratio of spacings; they have to agree."""
    redshift = _LINE_HZ / band.mean - 1
    depth = _depth_per_hz(redshift) * band.width * band.channels
    distance = _distance(redshift)
    x, y = (depth / (distance * math.radians(angle)) for angle in (across, along))
    found = {
        _occupied(nu // 2, nv // 2, neta, x * error, y * error)
        for error in (1 - _TOLERANCE, 1 + _TOLERANCE)
    }
    return found.pop() if len(found) == 1 else None


def _occupied(half_u: int, half_v: int, neta: int, x: float, y: float) -> int:
    planes = {abs(z) for z in range(-(neta // 2), neta // 2 + neta % 2)} - {0}
    transverse = {
        (u * x) ** 2 + (v * y) ** 2 for u in range(half_u + 1) for v in range(half_v + 1) if u or v
    }
    return len({_bin(math.sqrt(z * z + square)) for z in planes for square in transverse} - {-1})


def _bin(k: float) -> int:
    if k <= _FIRST_EDGE:
        return 0
    number = math.ceil(math.log(k / _FIRST_EDGE) / math.log(_GROWTH))
    return number if number < _BINS else -1


def _expansion(redshift: float) -> float:
    """Return H(z) / H0 of a flat universe."""
    a = 1 + redshift
    return math.sqrt(_MATTER * a**3 + _RADIATION * a**4 + 1 - _MATTER - _RADIATION)


def _distance(redshift: float) -> float:
    """Return the comoving distance in Hubble distances, by Simpson's rule."""
    step = redshift / _STEPS
    weights = [1, *([4, 2] * (_STEPS // 2))[:-1], 1]
    return sum(w / _expansion(i * step) for i, w in enumerate(weights)) * step / 3


def _depth_per_hz(redshift: float) -> float:
    """Return the comoving depth of 1 Hz, in Hubble distances."""
    return (1 + redshift) ** 2 / _expansion(redshift) / _LINE_HZ


def _band(values: Mapping[str, Any], data: Path) -> Band | None:
    if data.suffix == ".npy":
        return _written_band(values)
    header = _header(data) if data.suffix == ".uvh5" else None
    if not header:
        return None
    first, count = _selection(values, header)
    kept = header[first : first + count]
    if count < 2 or len(kept) < count:
        raise UsageError(
            f"{data.name} has {len(header)} channels, fewer than the configuration asks for",
            "Change nf and freq_idx_min, freq_min or freq_center.",
        )
    return Band(count, kept[1] - kept[0], math.fsum(kept) / count)


def _written_band(values: Mapping[str, Any]) -> Band | None:
    count, width = values.get("nf"), values.get("df")
    first, centre = values.get("freq_min"), values.get("freq_center")
    if not count or not width or (first is None and centre is None):
        return None
    if first is not None:
        centre = first + (count - 1) / 2 * width
    return Band(count, float(width), float(centre or 0))


def _selection(values: Mapping[str, Any], channels: tuple[float, ...]) -> tuple[int, int]:
    """Return the first channel that is kept and how many; ``nf`` alone selects none."""
    wanted, first = values.get("nf"), values.get("freq_idx_min")
    lowest, centre = values.get("freq_min"), values.get("freq_center")
    if centre is not None:
        count = wanted or len(channels)
        nearest = min(range(len(channels)), key=lambda i: abs(channels[i] - centre))
        return max(nearest - count // 2, 0), count
    if lowest is not None:
        first = sum(1 for channel in channels if channel < lowest)
    if first is None:
        return 0, len(channels)
    return first, wanted or len(channels) - first


@cache
def _header(data: Path) -> tuple[float, ...] | None:
    """Return the channels of a UVH5 file in Hz, or None where it cannot be read."""
    try:
        import h5py
    except ImportError:
        _log.info("without h5py the number of k bins is only known when the job runs")
        return None
    try:
        with h5py.File(data) as file:
            return tuple(map(float, file["Header/freq_array"][()].ravel()))
    except (OSError, KeyError, ValueError):
        return None

"""Two simulations in UVFITS compared: visibilities, flags, weights, axes, each by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from valska.external_tools.core.comparison.arrays import compare_arrays
from valska.external_tools.core.comparison.fits import (
    cards_of,
    compare_cards,
    compare_data,
    compare_fits,
)
from valska.external_tools.core.comparison.formats import (
    cannot_compare,
    differ_in_bytes,
    same_values,
)
from valska.external_tools.core.comparison.values import UnreadableError
from valska.external_tools.core.comparison.verdict import (
    OutputComparison,
    OutputFile,
    Part,
    Tolerances,
    judged,
)
from valska.external_tools.core.errors import PrerequisiteError

_ROUNDING = 1e-15
"""What axes may differ by, of their value, unless the user says otherwise."""
_TIMES = ("DATE", "_DATE", "PZERO")
"""Columns and cards that are days since 4713 BC."""
_NAMES = {
    "UU": "baselines (u)",
    "VV": "baselines (v)",
    "WW": "baselines (w)",
    "BASELINE": "baselines",
    "DATE": "times",
    "_DATE": "times (rest)",
}


def compare_uvfits(
    reference: OutputFile, new: OutputFile, tolerances: Tolerances
) -> OutputComparison:
    """Compare two UVFITS files whose bytes differ; the history is told and does not count."""
    if reference.file is None or new.file is None:
        return differ_in_bytes(reference, new, "a file is no longer there")
    try:
        parts = compare_fits(reference.file, new.file, tolerances, _primary)
    except PrerequisiteError as error:
        return cannot_compare(reference, new, error)
    except UnreadableError as error:
        return differ_in_bytes(reference, new, f"not readable as UVFITS: {error.message}")
    return judged(reference, new, "UVFITS", parts, notes=same_values(parts))


def _primary(reference: Any, new: Any, tolerances: Tolerances) -> Iterator[Part]:
    """Compare the unit of random groups: a group is a baseline at a time."""
    axes = tolerances if tolerances.rtol is not None else replace(tolerances, rtol=_ROUNDING)
    times = replace(tolerances, rtol=0.0 if tolerances.rtol is not None else _ROUNDING)
    cards = cards_of(reference), cards_of(new)
    for name, allowed, is_time in (("header", axes, False), ("zero of times", times, True)):
        a, b = ({k: v for k, v in one.items() if _is_time(k) is is_time} for one in cards)
        yield compare_cards(name, a, b, allowed)
    if not _is_visibilities(reference.data) or not _is_visibilities(new.data):
        yield from compare_data("data", reference.data, new.data, tolerances)
        return
    yield from _visibilities(reference.data["DATA"], new.data["DATA"], tolerances)
    columns = [one for one in reference.data.dtype.names if one != "DATA"]
    if columns != [one for one in new.data.dtype.names if one != "DATA"]:
        yield from compare_data("axes", reference.data, new.data, axes)
        return
    for column in columns:
        allowed = times if _is_time(column) else axes
        pair = reference.data.field(column), new.data.field(column)
        yield compare_arrays(_NAMES.get(column, column), *pair, allowed)


def _is_time(name: str) -> bool:
    return name.startswith(_TIMES)


def _is_visibilities(data: Any) -> bool:
    names = getattr(getattr(data, "dtype", None), "names", None) or ()
    return "DATA" in names and data["DATA"].shape[-1:] == (3,)


def _visibilities(reference: Any, new: Any, tolerances: Tolerances) -> Iterator[Part]:
    """Compare real and imaginary parts, and weights: none or a negative one is a flag."""
    yield compare_arrays("data", _complex(reference), _complex(new), tolerances)
    weights = reference[..., 2], new[..., 2]
    yield compare_arrays("flags", weights[0] <= 0, weights[1] <= 0, tolerances)
    yield compare_arrays("nsamples", abs(weights[0]), abs(weights[1]), tolerances)


def _complex(data: Any) -> Any:
    """Return the visibilities; a sum would spread what is no number in one part to the other."""
    import numpy as np

    whole = np.empty(data.shape[:-1], np.result_type(data.dtype, np.complex64))
    whole.real, whole.imag = data[..., 0], data[..., 1]
    return whole

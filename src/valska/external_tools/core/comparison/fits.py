"""FITS files, UVFITS among them, compared header by header and array by array."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from valska.external_tools.core.comparison.arrays import compare_arrays
from valska.external_tools.core.comparison.tally import Tally, shown
from valska.external_tools.core.comparison.values import reading
from valska.external_tools.core.comparison.verdict import Part, Tolerances, Verdict
from valska.external_tools.core.errors import PrerequisiteError

Primary = Callable[[Any, Any, Tolerances], Iterator[Part]]

_FEW = 5
_HISTORY = ("HISTORY", "COMMENT", "DATE", "CHECKSUM", "DATASUM", "")
"""Cards that say how and when a file was written, not what is in it."""


def compare_fits(
    reference: Path, new: Path, tolerances: Tolerances, primary: Primary | None = None
) -> list[Part]:
    """Compare two FITS files; history, comments, check sums and the date of writing do not count.

    Parameters
    ----------
    reference, new, tolerances
        The files, and what numbers in them may differ by.
    primary
        Compares the first unit of both, where its arrays mean something; else as any other.

    Raises
    ------
    UnreadableError
        If one cannot be read.
    PrerequisiteError
        If astropy is not installed.
    """
    try:
        fits = import_module("astropy.io.fits")
    except ImportError as error:
        raise PrerequisiteError(
            "to read FITS takes a package that is not installed: astropy", "pip install astropy"
        ) from error
    with (
        reading(f"one of the two {reference.name} is not readable as FITS"),
        fits.open(reference, memmap=False) as mine,
        fits.open(new, memmap=False) as theirs,
    ):
        return list(_units(mine, theirs, tolerances, primary))


def _units(
    reference: Any, new: Any, tolerances: Tolerances, primary: Primary | None
) -> Iterator[Part]:
    if len(reference) != len(new):
        detail = f"{len(reference)} and {len(new)} parts"
        yield Part(name="file", verdict=Verdict.DIFFERENT, detail=detail, differing=1)
    for number, (mine, theirs) in enumerate(zip(reference, new, strict=False)):
        name = mine.name or str(number)
        if number == 0 and primary is not None:
            yield from primary(mine, theirs, tolerances)
        else:
            yield compare_cards(f"{name} header", cards_of(mine), cards_of(theirs), tolerances)
            yield from compare_data(name, mine.data, theirs.data, tolerances)
        yield from _history(name, mine.header, theirs.header)


def cards_of(unit: Any) -> dict[str, Any]:
    """Return what the header of a unit says, but for how and when it was written.

    A card of a name that stands there already has a number beside it.
    """
    found: dict[str, Any] = {}
    counts: Counter[str] = Counter()
    for key, value in unit.header.items():
        if key not in _HISTORY:
            counts[key] += 1
            found[key if counts[key] == 1 else f"{key} ({counts[key]})"] = value
    return found


def compare_cards(
    name: str, reference: Mapping[str, Any], new: Mapping[str, Any], tolerances: Tolerances
) -> Part:
    """Compare what two headers say."""
    tally = Tally(tolerances)
    for key in dict.fromkeys((*reference, *new)):
        tally.add(reference.get(key, "missing"), new.get(key, "missing"), (key,))
    return tally.part(name)


def _history(name: str, reference: Any, new: Any) -> Iterator[Part]:
    differ = [key for key in _HISTORY[:-1] if str(reference.get(key, "")) != str(new.get(key, ""))]
    if differ:
        yield Part(
            name=f"{name} history",
            verdict=Verdict.EQUIVALENT,
            detail="; ".join(_told(key, reference, new) for key in differ),
            counted=False,
            differing=len(differ),
            total=len(_HISTORY) - 1,
        )


def _told(key: str, reference: Any, new: Any) -> str:
    """Say which words of a card, or of all cards of that name, are others."""
    mine, theirs = (" ".join(str(one.get(key, "")).split()).split(" ") for one in (reference, new))
    codes = difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes()
    pairs = [(mine[i:j], theirs[k:m]) for tag, i, j, k, m in codes if tag != "equal"][:_FEW]
    words = [f"{shown(' '.join(a)) or 'none'} and {shown(' '.join(b)) or 'none'}" for a, b in pairs]
    return f"{key}: {', '.join(words)}"


def compare_data(name: str, reference: Any, new: Any, tolerances: Tolerances) -> Iterator[Part]:
    """Compare the arrays of two units, tables column by column."""
    if reference is None or new is None:
        if reference is not None or new is not None:
            yield Part(name=f"{name} data", verdict=Verdict.DIFFERENT, detail="one has none")
        return
    if not reference.dtype.names or not new.dtype.names:
        yield compare_arrays(f"{name} data", reference, new, tolerances)
    elif reference.dtype.names != new.dtype.names:
        detail = f"columns {reference.dtype.names} and {new.dtype.names}"
        yield Part(name=f"{name} data", verdict=Verdict.DIFFERENT, detail=detail)
    else:
        for number, column in enumerate(reference.dtype.names):
            mine, theirs = reference.field(number), new.field(number)
            yield compare_arrays(f"{name} {column}", mine, theirs, tolerances)

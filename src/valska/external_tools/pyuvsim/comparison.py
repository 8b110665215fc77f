"""Two simulations compared: visibilities, flags, axes and metadata, each by itself."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from valska.external_tools.core.comparison.arrays import largest
from valska.external_tools.core.comparison.formats import cannot_compare, differ_in_bytes
from valska.external_tools.core.comparison.hdf5 import (
    compare_dataset,
    datasets,
    opened,
    text_of,
)
from valska.external_tools.core.comparison.tally import shown
from valska.external_tools.core.comparison.values import UnreadableError
from valska.external_tools.core.comparison.verdict import (
    RTOL,
    OutputComparison,
    OutputFile,
    Part,
    RunFiles,
    Tolerances,
    Verdict,
    judged,
    worst,
)
from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.pyuvsim.uvfits_comparison import compare_uvfits

_SUFFIX, _UVFITS = ".uvh5", ".uvfits"
_HISTORY = "Header/history"
_KEYWORDS = "Header/extra_keywords/"
_DATA, _TIMES = "Data/visdata", "Header/time_array"
_ROUNDING, _ROUNDING_OF_TIMES = 1e-12, 1e-15
"""What an array may differ by, of its largest value. Times are days since 4713 BC."""
_NAMED = {
    _DATA: "data",
    "Data/flags": "flags",
    "Data/nsamples": "nsamples",
    _TIMES: "times",
    "Header/freq_array": "frequencies",
    "Header/ant_1_array": "baselines (first antenna)",
    "Header/ant_2_array": "baselines (second antenna)",
    "Header/uvw_array": "baselines (uvw)",
    "Header/polarization_array": "polarizations",
    "Header/antenna_positions": "antenna positions",
}
"""Datasets of a UVH5 file that are always told by themselves, by what they are."""

_RANKS = re.compile(r"Npus\s*=\s*(\d+)")
_VERSION = re.compile(r"(\S+) version:? v?(\d[\w.+-]*?)(?=\.?(?:\s|$))")


def compare_outputs(
    reference: RunFiles, new: RunFiles, tolerances: Tolerances
) -> Iterator[OutputComparison]:
    """Compare the UVH5 and UVFITS files of two runs; see `Compares`."""
    for path, mine in reference.files.items():
        theirs = new.files.get(path)
        if theirs is not None and path.endswith(_SUFFIX):
            yield compare_uvh5(mine, theirs, tolerances)
        elif theirs is not None and path.endswith(_UVFITS):
            yield compare_uvfits(mine, theirs, tolerances)


def compare_uvh5(
    reference: OutputFile, new: OutputFile, tolerances: Tolerances
) -> OutputComparison:
    """Compare two UVH5 files whose bytes differ.

    The history does not count, nor the directories in names of configuration files: both are
    told and explained.
    """
    if reference.file is None or new.file is None:
        return differ_in_bytes(reference, new, "a file is no longer there")
    try:
        with opened(reference.file, new.file) as (mine, theirs):
            parts = list(_parts(datasets(mine), datasets(theirs), tolerances))
    except PrerequisiteError as error:
        return cannot_compare(reference, new, error)
    except UnreadableError as error:
        return differ_in_bytes(reference, new, f"not readable as UVH5: {error.message}")
    notes = (*_notes(parts), *_allowed(parts, tolerances))
    return judged(reference, new, "UVH5", parts, notes=notes)


def _parts(
    reference: Mapping[str, Any], new: Mapping[str, Any], tolerances: Tolerances
) -> Iterator[Part]:
    if _DATA not in reference:
        raise UnreadableError("the reference has no visibilities")
    for name, title in _NAMED.items():
        if name in reference or name in new:
            yield _one(name, title, reference, new, tolerances)
    if _HISTORY in reference and _HISTORY in new:
        yield compare_history(text_of(reference[_HISTORY]), text_of(new[_HISTORY]))
    yield from _metadata(reference, new, tolerances)


def _metadata(
    reference: Mapping[str, Any], new: Mapping[str, Any], tolerances: Tolerances
) -> Iterator[Part]:
    """Yield what differs of the rest, and one part for all that does not."""
    rest = dict.fromkeys(
        name for name in (*reference, *new) if name not in _NAMED and name != _HISTORY
    )
    parts = [_one(name, name, reference, new, tolerances) for name in rest]
    same = [part for part in parts if part.verdict is Verdict.IDENTICAL]
    yield from (part for part in parts if part.verdict is not Verdict.IDENTICAL)
    if same:
        yield Part(
            name="metadata",
            verdict=Verdict.IDENTICAL,
            detail=f"{len(same)} of {len(parts)} other entries of the file are the same",
            total=len(same),
        )


def _one(
    name: str,
    title: str,
    reference: Mapping[str, Any],
    new: Mapping[str, Any],
    tolerances: Tolerances,
) -> Part:
    if name not in reference or name not in new:
        side = "reference" if name in reference else "new run"
        return Part(name=title, verdict=Verdict.DIFFERENT, detail=f"only the {side} has it")
    mine, theirs = reference[name], new[name]
    if name.startswith(_KEYWORDS) and mine.shape == () == theirs.shape:
        return _keyword(title, text_of(mine), text_of(theirs))
    return _compared(name, title, (mine, theirs), tolerances)


def _compared(name: str, title: str, pair: tuple[Any, Any], tolerances: Tolerances) -> Part:
    """Compare two datasets; what rounding leaves of an array's largest value is allowed."""
    if tolerances.rtol is not None:
        given = replace(tolerances, rtol=0.0) if name == _TIMES else tolerances
        return compare_dataset(title, *pair, given)
    exact = replace(tolerances, rtol=RTOL if name == _DATA else 0.0)
    part = compare_dataset(title, *pair, exact)
    if part.verdict is not Verdict.DIFFERENT or part.absolute is None:
        return part
    rounding = (_ROUNDING_OF_TIMES if name == _TIMES else _ROUNDING) * largest(pair[0])
    if not 0 < rounding < math.inf:
        return part
    return compare_dataset(title, *pair, replace(exact, atol=max(exact.atol, rounding)))


def _keyword(name: str, reference: str, new: str) -> Part:
    """Compare what may name a configuration file: its directory says nothing of the science."""
    if reference == new:
        return Part(name=name, verdict=Verdict.IDENTICAL, total=1)
    names = PurePosixPath(reference).name, PurePosixPath(new).name
    same = names[0] == names[1] and _is_file(names[0])
    return Part(
        name=name,
        verdict=Verdict.EQUIVALENT if same else Verdict.DIFFERENT,
        detail=(f"the same name in another directory: {shown(reference)} and {shown(new)}"
                if same else f"{shown(reference)} and {shown(new)}"),
        counted=not same,
        differing=1,
        total=1,
    )  # fmt: skip


def compare_history(reference: str, new: str) -> Part:
    """Say what differs between two histories, and why it is not counted.

    A history tells versions, the number of MPI ranks, and names of files: how a file was made,
    not what it holds.
    """
    if reference == new:
        return Part(name="history", verdict=Verdict.IDENTICAL, total=1, counted=False)
    told = [*_ranks(reference, new), *_versions(reference, new), *_words(reference, new)]
    return Part(
        name="history",
        verdict=Verdict.EQUIVALENT,
        detail="; ".join(told) or "only blanks differ",
        counted=False,
        differing=1,
        total=1,
    )


def _ranks(reference: str, new: str) -> Iterator[str]:
    mine, theirs = _RANKS.findall(reference), _RANKS.findall(new)
    if mine != theirs:
        yield f"MPI ranks: {', '.join(mine) or 'not told'} and {', '.join(theirs) or 'not told'}"


def _versions(reference: str, new: str) -> Iterator[str]:
    mine, theirs = dict(_VERSION.findall(reference)), dict(_VERSION.findall(new))
    for name in dict.fromkeys((*mine, *theirs)):
        if mine.get(name) != theirs.get(name):
            yield (
                f"version of {name}: {mine.get(name, 'not told')} and "
                f"{theirs.get(name, 'not told')}"
            )


def _words(reference: str, new: str) -> Iterator[str]:
    """Yield the words that differ and are neither ranks nor versions: paths, and others."""
    mine, theirs = (_plain(text).split() for text in (reference, new))
    for tag, first, last, start, end in difflib.SequenceMatcher(
        None, mine, theirs, autojunk=False
    ).get_opcodes():
        if tag == "equal":
            continue
        a, b = " ".join(mine[first:last]), " ".join(theirs[start:end])
        what = "paths" if "/" in f"{a}{b}" or _is_file(a, b) else "words"
        yield f"{what}: {shown(a) or 'none'} and {shown(b) or 'none'}"


def _plain(text: str) -> str:
    return _VERSION.sub(r"\1 version", _RANKS.sub("Npus", text))


def _is_file(*words: str) -> bool:
    suffixes = (".yaml", ".yml", ".txt", ".csv", ".vot", ".skyh5")
    return any(suffix in word for word in words for suffix in suffixes)


def _allowed(parts: list[Part], tolerances: Tolerances) -> Iterator[str]:
    """Say what was allowed, where something differs by no more."""
    if not any(part.counted and part.verdict is Verdict.EQUIVALENT for part in parts):
        return
    if tolerances.rtol is None:
        yield (
            f"allowed: {RTOL:g} of each visibility, and of an array's largest value {_ROUNDING:g} "
            f"({_ROUNDING_OF_TIMES:g} of the times)"
        )
    else:
        yield f"allowed: {tolerances.rtol:g} of each number; times by --atol alone"


def _notes(parts: list[Part]) -> Iterator[str]:
    counted = [part for part in parts if part.counted]
    aside = [
        part.name for part in parts if not part.counted and part.verdict is not Verdict.IDENTICAL
    ]
    if aside and worst(part.verdict for part in counted) is Verdict.IDENTICAL:
        yield (
            f"only {' and '.join(aside)} differs: it tells how the file was made; every "
            "visibility, flag, axis and other entry is the same"
        )
    elif all(part.verdict is Verdict.IDENTICAL for part in parts):
        yield "all values are the same; the bytes differ in how they are written"

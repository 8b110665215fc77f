"""Which comparison fits a file: by its name, and bytes where nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from valska.external_tools.core.comparison.fits import compare_fits
from valska.external_tools.core.comparison.hdf5 import compare_hdf5, compare_numpy
from valska.external_tools.core.comparison.values import (
    UnreadableError,
    compare_csv,
    compare_json,
    compare_text,
    compare_yaml,
)
from valska.external_tools.core.comparison.verdict import (
    OutputComparison,
    OutputFile,
    Part,
    Tolerances,
    Verdict,
    judged,
)
from valska.external_tools.core.errors import PrerequisiteError

BYTES = "bytes"

_Compare = Callable[[Path, Path, Tolerances], Part | list[Part]]

_FORMATS: Mapping[str, tuple[str, _Compare]] = {
    **dict.fromkeys((".json",), ("JSON", compare_json)),
    **dict.fromkeys((".yaml", ".yml"), ("YAML", compare_yaml)),
    **dict.fromkeys((".csv",), ("CSV", compare_csv)),
    **dict.fromkeys((".txt", ".dat", ".log", ".md"), ("text", compare_text)),
    **dict.fromkeys((".npy", ".npz"), ("numpy", compare_numpy)),
    **dict.fromkeys((".fits", ".uvfits"), ("FITS", compare_fits)),
    **dict.fromkeys((".h5", ".hdf5", ".hdf"), ("HDF5", compare_hdf5)),
}

_UNKNOWN = "nothing here reads this format: only its bytes were compared"


def compare_file(
    reference: OutputFile, new: OutputFile, tolerances: Tolerances
) -> OutputComparison:
    """Compare two files by what their format holds.

    Parameters
    ----------
    reference, new
        The files.
    tolerances
        Of the numbers in them.
    """
    early = compare_bytes(reference, new)
    if early is not None:
        return early
    assert reference.file is not None  # noqa: S101 - compare_bytes has seen to it
    assert new.file is not None  # noqa: S101
    name, compare = _FORMATS.get(Path(reference.path).suffix.lower(), (BYTES, None))
    if compare is None:
        return differ_in_bytes(reference, new, _UNKNOWN)
    try:
        found = compare(reference.file, new.file, tolerances)
    except PrerequisiteError as error:
        return cannot_compare(reference, new, error)
    except UnreadableError as error:
        return differ_in_bytes(reference, new, f"{error.message}: only bytes were compared")
    parts = found if isinstance(found, list) else [found]
    return judged(reference, new, name, parts, notes=same_values(parts))


def compare_bytes(reference: OutputFile, new: OutputFile) -> OutputComparison | None:
    """Return the comparison of two files if their bytes decide it.

    They do if they are the same, or if one of the two is no longer there. What the new run wrote
    has to be there: a digest alone is believed of the reference only.
    """
    same = reference.sha256 is not None and reference.sha256 == new.sha256
    if same and new.file is not None:
        return OutputComparison(
            path=reference.path,
            verdict=Verdict.IDENTICAL,
            method=BYTES,
            reference=reference,
            new=new,
        )
    gone = "reference" if reference.file is None else "new run" if new.file is None else None
    if gone is None:
        return None
    told = (
        "its job recorded the same bytes, and the file of the new run is not there as recorded"
        if same
        else f"the bytes differ, and the file of the {gone} is not there to see how"
    )
    return OutputComparison(
        path=reference.path,
        verdict=Verdict.INCOMPLETE,
        method=BYTES,
        notes=(told,),
        reference=reference,
        new=new,
    )


def cannot_compare(
    reference: OutputFile, new: OutputFile, error: PrerequisiteError
) -> OutputComparison:
    """Return the comparison of two files whose values cannot be read here."""
    hint = f" ({error.hint})" if error.hint else ""
    return OutputComparison(
        path=reference.path,
        verdict=Verdict.INCOMPLETE,
        method=BYTES,
        notes=(f"the bytes differ, and not how is known: {error.message}{hint}",),
        reference=reference,
        new=new,
    )


def differ_in_bytes(reference: OutputFile, new: OutputFile, note: str) -> OutputComparison:
    """Return the comparison of two files of which only the bytes could be compared."""
    sizes = f"{reference.size} and {new.size} bytes"
    part = Part(name=BYTES, verdict=Verdict.DIFFERENT, detail=f"they differ ({sizes})")
    return judged(reference, new, BYTES, [part], notes=(note,))


def same_values(parts: list[Part]) -> tuple[str, ...]:
    """Return what to say where all values are the same and the bytes are not."""
    if parts and all(part.verdict is Verdict.IDENTICAL for part in parts):
        return ("all values are the same; the bytes differ in how they are written",)
    return ()

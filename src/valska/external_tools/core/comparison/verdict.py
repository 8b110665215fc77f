"""What a comparison says: a verdict on each part, each output and the whole run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

RTOL = 1e-9
"""Relative tolerance, where neither the user nor the tool has one."""
SIGMA = 3.0
"""Standard errors by which statistical results may differ."""


class Verdict(StrEnum):
    """What is said of a part, an output or a run."""

    IDENTICAL = "identical"
    """Of outputs: the same bytes. Of parts: the same values."""
    EQUIVALENT = "equivalent"
    """The same science, within the tolerances; it is said what differs."""
    INCOMPLETE = "incomplete"
    """Something to compare is missing."""
    DIFFERENT = "different"
    """Not the same; it is said what, where and by how much."""

    @property
    def holds(self) -> bool:
        """Whether it is the same answer."""
        return self in (Verdict.IDENTICAL, Verdict.EQUIVALENT)


_ORDER = tuple(Verdict)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of some verdicts; `Verdict.INCOMPLETE` if there is none."""
    return max(verdicts, key=_ORDER.index, default=Verdict.INCOMPLETE)


@dataclass(frozen=True, slots=True)
class Tolerances:
    """By how much numbers may differ.

    A new number ``b`` agrees with a reference ``a`` if ``|b - a| <= atol + rtol * |a|``. Whole
    numbers, flags and words have to be the same.

    Parameters
    ----------
    rtol
        Relative tolerance; None: `RTOL`, or what the tool finds right.
    atol
        Absolute tolerance, in the unit of what is compared.
    sigma
        Standard errors by which statistical results may differ.
    """

    rtol: float | None = None
    atol: float = 0.0
    sigma: float = SIGMA

    @property
    def relative(self) -> float:
        """The relative tolerance that holds."""
        return RTOL if self.rtol is None else self.rtol

    def exact(self) -> Tolerances:
        """Return them for what has to be the same unless the user says otherwise."""
        return Tolerances(0.0 if self.rtol is None else self.rtol, self.atol, self.sigma)

    def allow(self, reference: float, difference: float) -> bool:
        """Return whether a number may differ by so much from one of that size."""
        return math.isfinite(difference) and difference <= self.atol + self.relative * reference


@dataclass(frozen=True, slots=True)
class Largest:
    """The largest difference of a part.

    Parameters
    ----------
    value
        How large; None if it is not finite.
    index
        Where: indices of an array, or keys and indices of a document, or line and word of a text.
    reference, new
        The two values, as text.
    """

    value: float | None
    index: tuple[int | str, ...]
    reference: str
    new: str

    @property
    def size(self) -> float:
        """How large, also where that is not finite."""
        return math.inf if self.value is None else self.value

    @property
    def place(self) -> str:
        """Where, as a person would write it."""
        return f"[{', '.join(map(str, self.index))}]" if self.index else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of an output: an array, a document's values, a number with its error.

    Parameters
    ----------
    name
        What it is.
    verdict
        On this part.
    detail
        What differs, as a sentence.
    counted
        Whether it counts; what does not is explained in `detail`.
    differing, total
        How many values are not the same, and how many there are.
    absolute, relative
        The largest differences; the relative one in units of the reference.
    sigma
        The difference in standard errors, of statistical results.
    """

    name: str
    verdict: Verdict
    detail: str = ""
    counted: bool = True
    differing: int = 0
    total: int = 0
    absolute: Largest | None = None
    relative: Largest | None = None
    sigma: float | None = None


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that a run wrote, by what its job wrote down.

    Parameters
    ----------
    path
        Below ``outputs/``.
    size
        In bytes.
    sha256
        Its digest.
    file
        Where it lies; None if only its digest is left.
    """

    path: str
    size: int
    sha256: str | None
    file: Path | None


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What a run wrote, as far as it is to be compared.

    Parameters
    ----------
    outputs
        The directory of all that it wrote.
    section
        The tool's own section of the manifest.
    files
        Path below ``outputs/`` to the file.
    """

    outputs: Path
    section: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, OutputFile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputComparison:
    """An output of the reference and the same of the new run, compared.

    Parameters
    ----------
    path
        Below ``outputs/``.
    verdict
        On this output.
    method
        How it was compared.
    parts
        What was looked at.
    notes
        What else there is to say.
    reference, new
        The files.
    covers
        Further outputs, of either run, that are judged with this one.
    """

    path: str
    verdict: Verdict
    method: str
    parts: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()
    reference: OutputFile | None = None
    new: OutputFile | None = None
    covers: tuple[str, ...] = ()


def judged(
    reference: OutputFile,
    new: OutputFile,
    method: str,
    parts: Iterable[Part],
    *,
    notes: tuple[str, ...] = (),
    covers: tuple[str, ...] = (),
) -> OutputComparison:
    """Return the comparison of two files whose bytes differ, from that of their parts.

    Parameters
    ----------
    reference, new, method, notes, covers
        See `OutputComparison`.
    parts
        Those that count decide; if they are all the same, the files are equivalent.
    """
    found = tuple(parts)
    verdict = worst(
        [Verdict.EQUIVALENT, *(part.verdict for part in found if part.counted)]
        if found
        else [Verdict.DIFFERENT]
    )
    return OutputComparison(
        path=reference.path,
        verdict=verdict,
        method=method,
        parts=found,
        notes=notes,
        reference=reference,
        new=new,
        covers=covers,
    )

"""A count of what differs between two sets of values, and the largest differences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from valska.external_tools.core.comparison.verdict import Largest, Part, Tolerances, Verdict

Index = tuple[int | str, ...]

_SHOWN = 60
"""Characters of a value that a sentence shows."""


@dataclass(slots=True)
class Tally:
    """Counts values that differ, and keeps the largest differences.

    Parameters
    ----------
    tolerances
        Of floating-point numbers.
    total, differing, beyond
        Values; those that are not the same; those that differ by more than the tolerances.
    absolute, relative
        The largest differences.
    words
        The first values that differ and are no numbers: place, reference, new.
    """

    tolerances: Tolerances
    total: int = 0
    differing: int = 0
    beyond: int = 0
    absolute: Largest | None = None
    relative: Largest | None = None
    words: list[tuple[Index, str, str]] = field(default_factory=list)

    def add(self, reference: Any, new: Any, index: Index) -> None:
        """Count two values: numbers, or anything else that has to be the same."""
        self.total += 1
        if _same(reference, new):
            return
        if _is_number(reference) and _is_number(new):
            self._number(reference, new, index)
        else:
            self.differ(reference, new, index)

    def differ(self, reference: Any, new: Any, index: Index) -> None:
        """Count two values that should be the same and are not."""
        self.differing += 1
        self.beyond += 1
        if len(self.words) < 5:
            self.words.append((index, shown(reference), shown(new)))

    def found(self, absolute: Largest | None, relative: Largest | None) -> None:
        """Take a largest difference, if it is larger than what there is."""
        if absolute and (self.absolute is None or absolute.size > self.absolute.size):
            self.absolute = absolute
        if relative and (self.relative is None or relative.size > self.relative.size):
            self.relative = relative

    def part(self, name: str, detail: str = "") -> Part:
        """Return what was counted as a part."""
        return Part(
            name=name,
            verdict=self.verdict,
            detail=detail or self.sentence(),
            differing=self.differing,
            total=self.total,
            absolute=self.absolute,
            relative=self.relative,
        )

    @property
    def verdict(self) -> Verdict:
        """Identical, equivalent or different."""
        if not self.differing:
            return Verdict.IDENTICAL
        return Verdict.DIFFERENT if self.beyond else Verdict.EQUIVALENT

    def sentence(self) -> str:
        """Say what differs, where and by how much."""
        if not self.differing:
            return ""
        of = f"{self.differing} of {self.total} values differ"
        if self.beyond < self.differing:
            of += f", {self.beyond or 'none'} by more than the tolerances"
        return "; ".join([of, *self._largest(), *map(_told, self.words[:1])])

    def _largest(self) -> Iterator[str]:
        if self.absolute is None:
            return
        told = _told_of("largest difference", self.absolute)
        if self.relative is None or self.relative.value is None:
            yield told
        elif self.relative.index == self.absolute.index:
            yield f"{told} (relative: {_size(self.relative)})"
        else:
            yield told
            yield _told_of("largest relative difference", self.relative)

    def _number(self, reference: complex, new: complex, index: Index) -> None:
        self.differing += 1
        size, difference = _sizes(reference, new)
        if math.isnan(difference):
            difference = math.inf
        whole = isinstance(reference, int) and isinstance(new, int)
        if whole or not self.tolerances.allow(size, difference):
            self.beyond += 1
        pair = (index, shown(reference), shown(new))
        relative = Largest(finite(difference / size), *pair) if size and not whole else None
        self.found(Largest(finite(difference), *pair), relative)


def shown(value: Any) -> str:
    """Return a value as a sentence shows it."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def finite(value: float) -> float | None:
    """Return a number that JSON can have; None for any other."""
    return float(value) if math.isfinite(value) else None


def _sizes(reference: complex, new: complex) -> tuple[float, float]:
    """Return how large the reference and the difference are; infinite beyond what a float holds."""
    try:
        return float(abs(reference)), float(abs(new - reference))
    except OverflowError:
        return math.inf, math.inf


def _same(reference: Any, new: Any) -> bool:
    if reference == new:
        return isinstance(reference, bool) == isinstance(new, bool)
    if isinstance(reference, complex) or isinstance(new, complex):
        if not (_is_number(reference) and _is_number(new)):
            return False
        return _same(reference.real, new.real) and _same(reference.imag, new.imag)
    return bool(reference != reference and new != new)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex) and not isinstance(value, bool)


def _told_of(what: str, one: Largest) -> str:
    place = f" at {one.place}" if one.place else ""
    return f"{what} {_size(one)}{place}: {one.reference} and {one.new}"


def _size(one: Largest) -> str:
    return "not finite" if one.value is None else f"{one.value:.3g}"


def _told(word: tuple[Index, str, str]) -> str:
    index, reference, new = word
    place = f" at [{', '.join(map(str, index))}]" if index else ""
    return f"{reference!r} and {new!r}{place}"

"""Many simulations that differ in plain numbers: planned once, then written as often as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.overrides import is_number, perturbed, value_at
from valska.external_tools.core.tool import Input, Read, RunPlan, RunSpec
from valska.external_tools.pyuvsim.discovery import TELESCOPE_PREFIX, load_configuration
from valska.external_tools.pyuvsim.keys import is_possible

_ABSENT = object()

Planned = tuple[tuple[Input, ...], RunPlan]

_NUMERIC = ("freq.", "time.", "sources.", TELESCOPE_PREFIX)
"""Where a number has no part in the names of files, stages and directories."""

_MARK = 7.123456789012e77
"""A number that stands in no configuration; the n-th swept key gets it times n."""


class PointPlanner:
    """Plans points like a first one; whole, wherever it is not sure of the short way.

    The short way holds if the swept keys have numbers: then the points' configurations differ from
    one another in these numbers alone.

    Parameters
    ----------
    first
        The first point.
    read
        Reads a file.
    whole
        Plans one run.
    """

    def __init__(self, first: RunSpec, read: Read, whole: Callable[[RunSpec], Planned]) -> None:
        self._first = first
        self._read = read
        self._whole = whole
        self._planned = whole(first)
        self._documents: Mapping[Any, Any] | None = None

    def plan(self, specs: Sequence[RunSpec]) -> Iterator[Planned]:
        """Yield the plan of each spec; the first of them is the first point."""
        yield self._planned
        swept = _swept(specs)
        pieces = self._pieces(swept) if len(specs) > 2 else None
        for spec in specs[1:]:
            numbers = self._numbers(spec, swept)
            if pieces is None or numbers is None:
                yield self._whole(spec)
            else:
                inputs, plan = self._planned
                yield inputs, replace(plan, configs=_joined(pieces, numbers))

    def _pieces(self, swept: tuple[str, ...]) -> dict[str, list[str | int]] | None:
        """Return each configuration as text with the positions of the swept numbers in it."""
        numbers = self._numbers(self._first, swept)
        if numbers is None or not all(key.startswith(_NUMERIC) for key in swept):
            return None
        marks = [_MARK * (n + 1) for n in range(len(swept))]
        overrides = {**self._first.overrides, **dict(zip(swept, marks, strict=True))}
        perturbations = {k: f for k, f in self._first.perturbations.items() if k not in swept}
        marked = replace(self._first, overrides=overrides, perturbations=perturbations)
        try:
            inputs, plan = self._whole(marked)
        except ValskaError:
            return None
        pieces = {name: _cut(data.decode(), marks) for name, data in plan.configs.items()}
        found = [piece for parts in pieces.values() for piece in parts if isinstance(piece, int)]
        same = (inputs, replace(plan, configs={})) == (
            self._planned[0],
            replace(self._planned[1], configs={}),
        )
        sure = same and sorted(found) == list(range(len(swept)))
        return pieces if sure and _joined(pieces, numbers) == self._planned[1].configs else None

    def _numbers(self, spec: RunSpec, swept: tuple[str, ...]) -> list[int | float] | None:
        """Return the numbers that a spec has at the swept keys, or None if they are not such."""
        numbers: list[int | float] = []
        for key in swept:
            value: Any = spec.overrides.get(key)
            if key in spec.perturbations and key not in self._first.overrides:
                value = perturbed(self._base(key), spec.perturbations[key], key)
            if not is_number(value) or not is_possible(key, value):
                return None
            numbers.append(value)
        return numbers

    def _base(self, key: str) -> Any:
        """Return the value of a key that is perturbed, before that."""
        if self._documents is None:
            plain = load_configuration(replace(self._first, perturbations={}), self._read)
            self._documents = {**plain.obsparam, "telescope_config": plain.telescope}
        return value_at(self._documents, key)


def _swept(specs: Sequence[RunSpec]) -> tuple[str, ...]:
    """Return the keys in which specs differ."""
    first = specs[0]
    found: dict[str, None] = {}
    for spec in specs[1:]:
        for mine, theirs in (
            (spec.overrides, first.overrides),
            (spec.perturbations, first.perturbations),
        ):
            for key in mine.keys() | theirs.keys():
                if repr(mine.get(key, _ABSENT)) != repr(theirs.get(key, _ABSENT)):
                    found[key] = None
    return tuple(found)


def _cut(text: str, marks: Sequence[float]) -> list[str | int]:
    pieces: list[str | int] = [text]
    for number, mark in enumerate(marks):
        shown = scalar(mark)
        cut: list[str | int] = []
        for piece in pieces:
            if isinstance(piece, int):
                cut.append(piece)
                continue
            first, *rest = piece.split(shown)
            cut.append(first)
            for part in rest:
                cut += [number, part]
        pieces = cut
    return pieces


def _joined(
    pieces: Mapping[str, Sequence[str | int]], numbers: Sequence[int | float]
) -> dict[str, bytes]:
    shown = [scalar(number) for number in numbers]
    return {
        name: "".join([shown[p] if isinstance(p, int) else p for p in parts]).encode()
        for name, parts in pieces.items()
    }


def scalar(value: int | float) -> str:
    """Return a number as YAML writes it."""
    text = repr(value)
    if isinstance(value, float) and "." not in text and "e" in text:
        return text.replace("e", ".0e", 1)
    return text

"""Whether two sweeps were to do the same: what points share, axes, points, and each point."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from valska.external_tools.core.comparison.intent import Difference, Kind, Side, compare_intent
from valska.external_tools.core.comparison.sweeps import SweepSide
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.sweep.document import PointEntry, read_unit_document
from valska.external_tools.core.sweep.planning.points import Point, content_key, described

_PERTURBED = " times 1 +"

Axes = Mapping[str, Mapping[str, Any]]
"""Key to the values that points have of it, by their texts."""


def compare_sweep_intent(a: SweepSide, b: SweepSide) -> tuple[Difference, ...]:
    """Compare what two sweeps were to do.

    Points are joined by what they set, whatever their names are. What differs in the same way
    in all of these is told once. A point that only one has is told unless an axis says it.

    Parameters
    ----------
    a, b
        The sweeps.

    Raises
    ------
    ValskaError
        If a sealed file of one cannot be read.
    """
    return (
        *compare_intent(*(Side(side.sweep.bundle, side.common) for side in (a, b))),
        *_axes(a, b),
        *_points(a, b),
        *_configurations(a, b),
    )


def same_sciences(a: SweepSide, b: SweepSide) -> bool:
    """Return whether two sweeps have points of the same bundle ids."""
    one, other = (sorted(p.bundle_id for p in side.manifest.points) for side in (a, b))
    return one == other


def _values_of(side: SweepSide) -> dict[str, dict[str, Any]]:
    """Return the axes of a sweep: key to its values, by their texts."""
    found: dict[str, dict[str, Any]] = {}
    for point in side.manifest.points:
        for key, value in _set_by(point).items():
            found.setdefault(key, {})[json.dumps(value, sort_keys=True)] = value
    return found


def _set_by(point: PointEntry) -> dict[str, Any]:
    perturbed = {f"{key}{_PERTURBED}": f for key, f in point.perturbations.items()}
    return {**point.values, **perturbed}


def _axes(a: SweepSide, b: SweepSide) -> Iterator[Difference]:
    mine, theirs = _values_of(a), _values_of(b)
    for key in dict.fromkeys((*mine, *theirs)):
        one, other = mine.get(key), theirs.get(key)
        if one is None or other is None or one.keys() != other.keys():
            yield Difference(Kind.AXIS, key, _listed(one), _listed(other), science=True)


def _listed(values: Mapping[str, Any] | None) -> str | None:
    return None if values is None else ", ".join(values)


def _points(a: SweepSide, b: SweepSide) -> Iterator[Difference]:
    mine, theirs = _by_content(a), _by_content(b)
    axes = [_values_of(side) for side in (a, b)]
    for key, point in mine.items():
        if key not in theirs and not _told_by_axes(point, axes[0], axes[1]):
            yield Difference(Kind.POINT, _described(point), point.label, None, science=True)
    for key, point in theirs.items():
        if key not in mine and not _told_by_axes(point, axes[1], axes[0]):
            yield Difference(Kind.POINT, _described(point), None, point.label, science=True)


def _told_by_axes(point: PointEntry, own: Axes, other: Axes) -> bool:
    """Return whether an axis says why the other sweep does not have a point."""
    given = _set_by(point)
    lacking = any(
        json.dumps(value, sort_keys=True) not in other.get(key, {}) for key, value in given.items()
    )
    return lacking or not other.keys() - given.keys() <= own.keys()


def _described(point: PointEntry) -> str:
    return described(Point(point.label, point.values, point.perturbations))


def _by_content(side: SweepSide) -> dict[str, PointEntry]:
    return {content_key(p.values, p.perturbations): p for p in side.manifest.points}


def _configurations(a: SweepSide, b: SweepSide) -> Iterator[Difference]:
    mine, theirs = _by_content(a), _by_content(b)
    joined = [(point, theirs[key]) for key, point in mine.items() if key in theirs]
    counts: dict[Difference, list[str]] = {}
    for one, other in joined:
        for found in _of_point(a, one, b, other):
            counts.setdefault(found, []).append(one.label)
    for found, labels in counts.items():
        if len(labels) == len(joined):
            yield found
        else:
            yield from _named(found, labels)


def _named(found: Difference, labels: Iterable[str]) -> Iterator[Difference]:
    for label in labels:
        yield Difference(found.kind, f"{label}: {found.key}", found.a, found.b, found.science)


def _of_point(
    a: SweepSide, one: PointEntry, b: SweepSide, other: PointEntry
) -> Iterator[Difference]:
    """Yield how the configurations of a point differ; what its common part is, is told already."""
    units = a.sweep.point(one.label), b.sweep.point(other.label)
    there = ["is there" if unit.manifest.is_file() else None for unit in units]
    if None in there:
        yield Difference(Kind.POINT, units[0].manifest.name, there[0], there[1], science=True)
        return
    said = read_unit_document(a.sweep, one.place), read_unit_document(b.sweep, other.place)
    digests = [{file["path"]: file["sha256"] for file in each["files"]} for each in said]
    if digests[0] == digests[1] and _same_bytes(units, digests[0]):
        return
    sides = [Side(unit, read_manifest(unit)) for unit in units]
    yield from (each for each in compare_intent(*sides) if each.kind is Kind.PARAMETER)


def _same_bytes(units: tuple[Bundle, Bundle], paths: Iterable[str]) -> bool:
    """Return whether files are the same on the disk too; they may not be as they were sealed."""
    return all(_content(units[0], path) == _content(units[1], path) for path in paths)


def _content(unit: Bundle, path: str) -> bytes | None:
    try:
        with open(f"{unit.path}/{path}", "rb", buffering=0) as file:  # noqa: PTH123 - there are many
            return file.read()
    except OSError:
        return None

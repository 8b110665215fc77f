"""What a comparison says of outputs that the reference's archive left out."""

from __future__ import annotations

from dataclasses import replace

from valska.external_tools.core.comparison.runs import Comparison
from valska.external_tools.core.comparison.sweeps import SweepComparison, UnitComparison
from valska.external_tools.core.comparison.written import NO_LONGER_THERE
from valska.external_tools.core.reproduction.replay import Parent

_GONE = f"reference: {NO_LONGER_THERE}:"
_NOT_PACKED = "reference: not packed:"


def told_of(parent: Parent, found: Comparison) -> Comparison:
    """Return a comparison that says of such outputs that they were not packed, not that they went.

    Parameters
    ----------
    parent
        The reference.
    found
        The comparison.
    """
    return found if parent.has_outputs else replace(found, notes=_notes(found.notes))


def told_of_sweep(parent: Parent, found: SweepComparison) -> SweepComparison:
    """Return the same for a sweep, of its points and of the work that they share."""
    if parent.has_outputs:
        return found
    points, shared = tuple(map(_unit, found.points)), tuple(map(_unit, found.shared))
    return replace(found, points=points, shared=shared)


def _unit(unit: UnitComparison) -> UnitComparison:
    return replace(unit, notes=_notes(unit.notes))


def _notes(notes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        _NOT_PACKED + note.removeprefix(_GONE) if note.startswith(_GONE) else note for note in notes
    )

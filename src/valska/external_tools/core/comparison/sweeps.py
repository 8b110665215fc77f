"""Two sweeps of the same points: whether the new one gave the answers of the reference."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import valska
from valska.external_tools.core.comparison.intent import (
    Difference,
    Side,
    compare_intent,
    require_same_tool,
)
from valska.external_tools.core.comparison.runs import (
    NO_OUTPUTS,
    StageStates,
    comparer_of,
    is_fault,
    judge,
    software_of,
)
from valska.external_tools.core.comparison.verdict import (
    OutputComparison,
    Tolerances,
    Verdict,
    worst,
)
from valska.external_tools.core.comparison.written import COMPLETED, Written, read_unit
from valska.external_tools.core.manifest import Manifest
from valska.external_tools.core.sweep.document import (
    PointEntry,
    SharedEntry,
    SweepManifest,
    read_common,
    read_sweep_manifest,
)
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.utils import load_json, utc_now_iso

AT_ONCE = 4
"""Units that are read together."""

NOT_THERE = "not there"
"""How far a stage came of a point that one of the sweeps does not have."""

_MOST_NOTES = 10

Entry = PointEntry | SharedEntry
Reasons = Mapping[str, Mapping[str, str]]
"""Place of a unit to stage to why that has not completed in the new sweep."""


@dataclass(frozen=True, slots=True)
class SweepSide:
    """A sweep that is compared.

    Parameters
    ----------
    sweep
        The sweep.
    manifest
        Its manifest.
    common
        What its points have in common.
    """

    sweep: Sweep
    manifest: SweepManifest
    common: Manifest

    @property
    def units(self) -> tuple[Entry, ...]:
        """Its points, and the work that they share."""
        return (*self.manifest.points, *self.manifest.shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepIdentity:
    """Which sweep was compared, so that it can be found and checked.

    Parameters
    ----------
    place
        Its directory.
    sweep_id, instance, created_utc, valska_version
        See its manifest.
    seal
        SHA-256 of its ``SHA256SUMS``, which covers what its points share.
    software
        See `valska.external_tools.core.comparison.runs.RunIdentity`.
    """

    place: str
    sweep_id: str
    instance: str
    seal: str
    created_utc: str
    valska_version: str
    software: str | None


@dataclass(frozen=True, slots=True)
class UnitIdentity:
    """Bundle id and seal of a point, or of shared work."""

    bundle_id: str
    seal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitComparison:
    """A point of two sweeps, or work that points share, compared.

    Parameters
    ----------
    label, place
        Its name, and its path relative to the sweep.
    verdict
        On it; of a point also on the shared work that it uses.
    reference, new
        The two; None where the sweep does not have it.
    values, perturbations, shared
        Of a point, see `PointEntry`.
    stages, outputs
        What it does itself.
    notes
        What else there is to say.
    """

    label: str
    place: str
    verdict: Verdict
    reference: UnitIdentity
    new: UnitIdentity | None
    values: Mapping[str, Any] = field(default_factory=dict)
    perturbations: Mapping[str, float] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[StageStates, ...] = ()
    outputs: tuple[OutputComparison, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepComparison:
    """Two sweeps, compared.

    Parameters
    ----------
    verdict
        The worst of all points.
    tool, tolerances, intent, notes, created_utc, valska_version
        See `valska.external_tools.core.comparison.runs.Comparison`.
    reference, new
        The sweeps.
    points
        In the order of the reference.
    shared
        The work that they share.
    left_out
        Labels of points of the reference that were not asked for.
    """

    verdict: Verdict
    tool: str
    tolerances: Tolerances
    reference: SweepIdentity
    new: SweepIdentity
    points: tuple[UnitComparison, ...]
    shared: tuple[UnitComparison, ...]
    left_out: tuple[str, ...] = ()
    intent: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    created_utc: str
    valska_version: str


def read_side(sweep: Sweep) -> SweepSide:
    """Read what of a sweep is compared.

    Raises
    ------
    ManifestError
        If one of its manifests cannot be read.
    """
    return SweepSide(sweep, read_sweep_manifest(sweep), read_common(sweep))


def compare_sweeps(
    reference: SweepSide,
    new: SweepSide,
    tolerances: Tolerances | None = None,
    *,
    labels: Iterable[str] | None = None,
    missing: Mapping[str, str] | None = None,
    reasons: Reasons | None = None,
    now: str | None = None,
) -> SweepComparison:
    """Compare what the points of two sweeps wrote; neither is changed.

    Parameters
    ----------
    reference, new
        The sweeps; the new one has points of the reference, which share the same work.
    tolerances
        What numbers may differ by.
    labels
        Only these points; all, if not given.
    missing
        Label of a point that the new sweep does not have to why.
    reasons
        Why stages have not completed in the new sweep, as far as that is known.
    now
        Time of the comparison in ISO 8601.

    Raises
    ------
    ValskaError
        If the two are not sweeps of one tool, or one cannot be read.
    """
    require_same_tool(reference.common, new.common)
    allowed = tolerances or Tolerances()
    wanted = None if labels is None else set(labels)
    points = [one for one in reference.manifest.points if wanted is None or one.label in wanted]
    used = {label for point in points for label in point.shared.values()}
    lent = [one for one in reference.manifest.shared if one.label in used]
    pairs = _Pairs(reference, new, allowed, missing or {}, reasons or {})
    shared = {one.label: one for one in pairs.compare(lent)}
    compared = tuple(_with_shared(one, shared) for one in pairs.compare(points))
    return SweepComparison(
        verdict=worst(one.verdict for one in compared),
        tool=reference.common.tool,
        tolerances=allowed,
        reference=_identity(reference),
        new=_identity(new),
        points=compared,
        shared=tuple(shared.values()),
        left_out=tuple(
            one.label
            for one in reference.manifest.points
            if wanted is not None and one.label not in wanted
        ),
        intent=compare_intent(*(Side(one.sweep.bundle, one.common) for one in (reference, new))),
        notes=tuple(_notes((*shared.values(), *compared))),
        created_utc=now or utc_now_iso(),
        valska_version=valska.__version__,
    )


def _notes(units: Iterable[UnitComparison]) -> Iterator[str]:
    """Yield what is wrong with outputs and records of units: a verdict may not show it."""
    told = [f"{one.place}: {note}" for one in units for note in one.notes if is_fault(note)]
    yield from told[:_MOST_NOTES]
    if len(told) > _MOST_NOTES:
        yield f"{len(told) - _MOST_NOTES} more notes like these are in comparison.json"


class _Pairs:
    """Compares units of two sweeps by their labels."""

    def __init__(
        self,
        reference: SweepSide,
        new: SweepSide,
        tolerances: Tolerances,
        missing: Mapping[str, str],
        reasons: Reasons,
    ) -> None:
        self._reference = reference
        self._new = new
        self._comparing = comparer_of(reference.common.tool)
        self._tolerances = tolerances
        self._missing = missing
        self._reasons = reasons
        self._there = {entry.place: entry for entry in new.units}

    def compare(self, entries: Iterable[Entry]) -> Iterator[UnitComparison]:
        """Compare each unit; several are read at once, and compared one after the other."""
        every = list(entries)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for entry, read in zip(every, pool.map(self._read, every), strict=True):
                yield self._lost(entry) if read is None else self._judged(entry, *read)

    def _read(self, entry: Entry) -> tuple[Written, Written] | None:
        if entry.place not in self._there:
            return None
        return _written(self._reference, entry), _written(self._new, entry)

    def _judged(self, entry: Entry, old: Written, fresh: Written) -> UnitComparison:
        found = judge(
            self._comparing,
            old,
            fresh,
            self._tolerances,
            self._reasons.get(entry.place),
        )
        there = self._there[entry.place]
        nothing = not found.outputs and _all_completed(found.stages)
        return UnitComparison(
            verdict=Verdict.IDENTICAL if nothing else found.verdict,
            new=UnitIdentity(there.bundle_id, there.seal),
            stages=found.stages,
            outputs=found.outputs,
            notes=tuple(one for one in found.notes if one != NO_OUTPUTS or not nothing),
            **_described(entry),
        )

    def _lost(self, entry: Entry) -> UnitComparison:
        stages = _own_stages(self._reference.common, entry)
        return UnitComparison(
            verdict=Verdict.INCOMPLETE,
            new=None,
            stages=tuple(StageStates(one.name, NOT_THERE, NOT_THERE) for one in stages),
            notes=(self._missing.get(entry.label, "the new sweep does not have it"),),
            **_described(entry),
        )


def _described(entry: Entry) -> dict[str, Any]:
    known: dict[str, Any] = {
        "label": entry.label,
        "place": entry.place,
        "reference": UnitIdentity(entry.bundle_id, entry.seal),
    }
    if isinstance(entry, PointEntry):
        names = ("values", "perturbations", "shared")
        known |= {name: getattr(entry, name) for name in names}
    return known


def _written(side: SweepSide, entry: Entry) -> Written:
    unit = side.sweep.unit(entry.place)
    manifest = replace(
        side.common,
        run_id=entry.label,
        bundle_id=entry.bundle_id,
        stages=_own_stages(side.common, entry),
        section=load_json(unit.manifest).get(side.common.tool, {}),
    )
    return read_unit(unit, manifest)


def _own_stages(common: Manifest, entry: Entry) -> tuple[Any, ...]:
    if isinstance(entry, SharedEntry):
        return (common.stage(entry.stage),)
    return tuple(stage for stage in common.stages if stage.name not in entry.shared)


def _all_completed(stages: Iterable[StageStates]) -> bool:
    return all({one.reference, one.new} == {COMPLETED} for one in stages)


def _with_shared(point: UnitComparison, shared: Mapping[str, UnitComparison]) -> UnitComparison:
    """Return a point with the verdicts of the work that it shares; one of them has outputs."""
    used = [shared[label] for label in dict.fromkeys(point.shared.values())]
    if not any(one.outputs for one in (point, *used)) and point.verdict is Verdict.IDENTICAL:
        point = replace(point, verdict=Verdict.INCOMPLETE, notes=(*point.notes, NO_OUTPUTS))
    bad = [one for one in used if one.verdict is not Verdict.IDENTICAL]
    if not bad:
        return point
    said = tuple(f"what it shares is {one.verdict.value}: {one.place}" for one in bad)
    verdict = worst([point.verdict, *(one.verdict for one in bad)])
    return replace(point, verdict=verdict, notes=(*point.notes, *said))


def _identity(side: SweepSide) -> SweepIdentity:
    manifest = side.manifest
    return SweepIdentity(
        place=os.fspath(side.sweep.path),
        sweep_id=manifest.sweep_id,
        instance=manifest.instance,
        seal=manifest.common_seal,
        created_utc=manifest.created_utc,
        valska_version=manifest.valska_version,
        software=software_of(side.common),
    )

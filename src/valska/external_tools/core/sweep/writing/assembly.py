"""From planned points to units on disk: which work is shared, and under which ids and seals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from valska.external_tools.core.contents import software_sha256
from valska.external_tools.core.manifest import BorrowedEntry, Science
from valska.external_tools.core.sweep.document import PointEntry, SharedEntry
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.sweep.planning.drafting import (
    DraftedPoint,
    SweepDraft,
    stage_of,
)
from valska.external_tools.core.sweep.planning.points import with_point
from valska.external_tools.core.sweep.writing.units import Unit, UnitWriter
from valska.external_tools.core.tool import Input, Stage
from valska.external_tools.core.utils import sha256_file


class Sciences:
    """Bundle ids of planned points.

    Parameters
    ----------
    draft
        The sweep.
    digests
        Name of an input below ``inputs/`` to its SHA-256.
    borrowed
        Directories that every point reads.
    """

    def __init__(
        self, draft: SweepDraft, digests: Mapping[str, str], borrowed: Iterable[BorrowedEntry]
    ) -> None:
        self._tool = draft.request.base.tool.name
        self._software = software_sha256(draft.request.base)
        self._digests = digests
        self._borrowed = {entry.path: entry.sha256 for entry in borrowed}
        self._known: dict[tuple[int, int], tuple[tuple[Input, ...], Science]] = {}

    def bundle_id(self, drafted: DraftedPoint, stages: tuple[Stage, ...]) -> str:
        """Return the id that a bundle of a point's science has.

        Parameters
        ----------
        drafted
            The point.
        stages
            What it runs; always the same object for the same stages.
        """
        key = (id(drafted.inputs), id(stages))
        known = self._known.get(key)
        if known is None:
            inputs = {item.name: self._digests[item.target] for item in drafted.inputs}
            science = Science(self._tool, stages, {**inputs, **self._borrowed}, self._software)
            known = self._known[key] = (drafted.inputs, science)
        return known[1].bundle_id({config.name: config.sha256 for config in drafted.configs})


class Work(NamedTuple):
    """Which work of some points is shared.

    Parameters
    ----------
    there
        Labels of shared work that the sweep has already.
    new
        Labels of shared work to be made.
    """

    there: frozenset[str] = frozenset()
    new: frozenset[str] = frozenset()

    def shared(self, drafted: DraftedPoint) -> dict[str, str]:
        """Return the stages that shared work does for a point."""
        return {s: label for s, label in drafted.work.items() if self.is_shared(label)}

    def alone(self, drafted: DraftedPoint) -> dict[str, str]:
        """Return the stages that a point does for itself though they could be shared."""
        return {s: label for s, label in drafted.work.items() if not self.is_shared(label)}

    def is_shared(self, label: str) -> bool:
        """Return whether work is shared."""
        return label in self.new or label in self.there


class Assembly:
    """Writes units of points, and of the work that they share.

    Parameters
    ----------
    draft
        The sweep.
    sciences
        Bundle ids.
    work
        Which work is shared.
    common_seal
        SHA-256 of the sweep's ``SHA256SUMS``.
    """

    def __init__(self, draft: SweepDraft, sciences: Sciences, work: Work, common_seal: str) -> None:
        self._draft = draft
        self._sciences = sciences
        self._work = work
        self._writer = UnitWriter(draft.request.base.tool.name, common_seal, draft.spool)
        self._manifests: dict[str, str] = {}

    def find_shared(self, sweep: Sweep) -> None:
        """Read what points have to know of shared work that is there already."""
        for label in self._work.there:
            self._manifests[label] = sha256_file(sweep.shared_unit(label).manifest)

    def write_shared(self, folder: Path, points: Sequence[DraftedPoint]) -> tuple[SharedEntry, ...]:
        """Write the new shared work of some points, each as its first point configures it.

        What the draft says of its configuration goes before.
        """
        first: dict[str, DraftedPoint] = dict(self._draft.lent)
        for drafted in points:
            for label in drafted.work.values():
                if label in self._work.new:
                    first.setdefault(label, drafted)
        stages = {stage.name: (stage,) for stage in self._draft.stages}
        return tuple(
            self._write_one_shared(folder, label, drafted, stages[stage_of(label)])
            for label, drafted in first.items()
        )

    def _write_one_shared(
        self, folder: Path, label: str, drafted: DraftedPoint, stages: tuple[Stage, ...]
    ) -> SharedEntry:
        bundle_id = self._sciences.bundle_id(drafted, stages)
        unit = Unit(
            label,
            bundle_id,
            drafted.point,
            drafted.configs,
            drafted.inputs,
            drafted.section,
            {},
            stages[0].name,
        )
        sealed = self._writer.write(str(folder), unit, {})
        self._manifests[label] = sealed.manifest_sha256
        key = self._draft.keys[label]
        return SharedEntry(label, stages[0].name, key, bundle_id, sealed.seal)

    def write_points(self, folder: Path, points: Iterable[DraftedPoint]) -> tuple[PointEntry, ...]:
        """Write points; the work that they share has been written."""
        parent = str(folder)
        return tuple([with_point(d.point, self._write_point, parent, d) for d in points])

    def _write_point(self, parent: str, drafted: DraftedPoint) -> PointEntry:
        point = drafted.point
        bundle_id = self._sciences.bundle_id(drafted, self._draft.stages)
        shared = self._work.shared(drafted) if drafted.work else {}
        unit = Unit(
            point.label,
            bundle_id,
            point,
            drafted.configs,
            drafted.inputs,
            drafted.section,
            shared,
        )
        sealed = self._writer.write(parent, unit, self._manifests)
        return PointEntry(
            point.label,
            point.values,
            point.perturbations,
            bundle_id,
            sealed.seal,
            shared,
            self._work.alone(drafted) if drafted.work else {},
        )

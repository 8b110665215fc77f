"""A sweep that can be reproduced: sealed, intact, and each point what its bundle id says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valska.external_tools.core.comparison.runs import software_of
from valska.external_tools.core.comparison.sweeps import SweepSide
from valska.external_tools.core.errors import PrerequisiteError, UsageError, VerificationError
from valska.external_tools.core.manifest import Manifest, Science
from valska.external_tools.core.reproduction.reference import (
    LocatedSweep,
    not_as_made,
    outside_of,
    parent_of,
    unless_left_out,
)
from valska.external_tools.core.reproduction.replay import Parent
from valska.external_tools.core.seal import (
    Finding,
    check_file,
    check_listed,
    check_outside,
    read_sums,
)
from valska.external_tools.core.sweep.dispatch.intact import altered_units
from valska.external_tools.core.sweep.dispatch.slices import Work, choose_labels
from valska.external_tools.core.sweep.document import (
    PointEntry,
    SharedEntry,
    SweepManifest,
    read_unit_document,
)
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.utils import sha256_file

_SHOWN = 20
"""So many units that are not as they were made are named."""

Entry = PointEntry | SharedEntry


@dataclass(frozen=True, slots=True)
class SweepParent:
    """A sealed sweep that is to be reproduced, or some points of it.

    Parameters
    ----------
    side
        The sweep.
    common
        What its points share, as if that were a bundle: scripts, inputs, image.
    points, shared
        Those that are reproduced, in the sweep's order.
    missing
        Label of a point that is asked for and not there to why.
    """

    side: SweepSide
    common: Parent
    points: tuple[PointEntry, ...]
    shared: tuple[SharedEntry, ...]
    missing: Mapping[str, str]

    @property
    def sweep(self) -> Sweep:
        """Where it lies."""
        return self.side.sweep

    @property
    def units(self) -> tuple[Entry, ...]:
        """All that is reproduced."""
        return (*self.points, *self.shared)

    @property
    def labels(self) -> list[str]:
        """What is asked for, whether it is there or not."""
        wanted = {*(point.label for point in self.points), *self.missing}
        return [one.label for one in self.side.manifest.points if one.label in wanted]


def open_sweep_parent(located: LocatedSweep, store: Path, only: Sequence[str] = ()) -> SweepParent:
    """Return a sweep that can be reproduced.

    A point whose directory is not there is left out, and told as missing.

    Parameters
    ----------
    located
        The sweep.
    store
        The image store, which may hold inputs that were left out.
    only
        Labels of points, or patterns of labels; all, if there are none.

    Raises
    ------
    UsageError
        If there is no such point.
    VerificationError
        If a sealed file or an input is altered, or a bundle id is not that of its content.
    PrerequisiteError
        If no such point is there, an input was left out of the archive, or is no longer there.
    """
    sweep, manifest, common = located.sweep, located.manifest, located.common
    wanted = set(_chosen(manifest, only))
    asked = [point for point in manifest.points if point.label in wanted]
    missing = dict(_missing(located, asked))
    points = tuple(point for point in asked if point.label not in missing)
    if not points:
        raise PrerequisiteError(
            f"no point that is asked for is there: {next(iter(missing.values()), 'there is none')}",
            "Choose others with --only LABEL.",
        )
    used = {label for point in points for label in point.shared.values()}
    shared = tuple(entry for entry in manifest.shared if entry.label in used)
    outside = outside_of(located, sweep.bundle.site_env, common, store)
    found = _common_findings(sweep, manifest, common, outside) if located.whole else ()
    bad = unless_left_out(located, found)
    if bad:
        raise not_as_made(sweep.path, bad)
    parent = parent_of(located, sweep.bundle, common, outside)
    _require_units(sweep, common, (*points, *shared))
    return SweepParent(SweepSide(sweep, manifest, common), parent, points, shared, missing)


def _chosen(manifest: SweepManifest, only: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that are asked for; what an archive holds is listed nowhere else."""
    try:
        return choose_labels(manifest, only)
    except UsageError as error:
        labels = [point.label for point in manifest.points]
        more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
        raise UsageError(
            error.message, f"Its points: {', '.join(labels[:_SHOWN])}{more}."
        ) from error


def read_unit_manifest(sweep: Sweep, entry: Entry) -> dict[str, Any]:
    """Return what a point's, or shared work's, own manifest holds.

    Raises
    ------
    VerificationError
        If it is not valid, or the sweep's manifest says otherwise of it.
    """
    data = read_unit_document(sweep, entry.place)
    names = ("label", "bundle_id", "stage", "values", "perturbations", "shared")
    wrong = [
        name for name in names if hasattr(entry, name) and data.get(name) != getattr(entry, name)
    ]
    if wrong:
        raise VerificationError(
            f"{entry.place}: {sweep.manifest.name} has another {', '.join(wrong)}",
            "Its manifests contradict each other; take the sweep from its origin.",
        )
    return data


def _missing(located: LocatedSweep, points: Iterable[PointEntry]) -> Iterator[tuple[str, str]]:
    packed = located.document.units if located.document else None
    for point in points:
        for place in (point.place, *(f"shared/{label}" for label in point.shared.values())):
            if packed is not None and place not in packed:
                yield point.label, f"{place} was left out of the archive"
                break
            if not located.sweep.unit(place).path.is_dir():
                yield point.label, f"{place} of the reference is not there"
                break


def _common_findings(
    sweep: Sweep, manifest: SweepManifest, common: Manifest, outside: Mapping[str, str]
) -> Iterator[Finding]:
    """Find what is wrong with the files that all points share, and what they reference."""
    sums = sweep.bundle.sums
    listed = read_sums(sweep.bundle)
    found = check_file(sums, sums.name, manifest.common_seal, None, False)
    if found:
        yield found
    sizes = {entry.path: entry.size for entry in common.files}
    yield from check_listed(sweep.path, listed, sizes, False)
    yield from check_outside(sweep.bundle, common, False, outside)


def _require_units(sweep: Sweep, common: Manifest, entries: Sequence[Entry]) -> None:
    """Refuse units that are not as they were made, or not what their bundle ids stand for."""
    altered = altered_units(sweep, (Work(one.place, one.seal, ()) for one in entries))
    if altered:
        told = [f"{place}: {why}" for place, why in altered.items()]
        more = [f"and {len(told) - _SHOWN} more"] if len(told) > _SHOWN else []
        raise not_as_made(sweep.path, [*told[:_SHOWN], *more])
    sciences = _Sciences(sweep, common)
    for entry in entries:
        sciences.check(entry)


class _Sciences:
    """Works out the bundle ids of units from what they hold."""

    def __init__(self, sweep: Sweep, common: Manifest) -> None:
        self._sweep = sweep
        self._common = common
        self._digests = {(one.name, one.path): one.sha256 for one in common.inputs}
        self._known: dict[tuple[str | None, tuple[tuple[str, str], ...]], Science] = {}

    def check(self, entry: Entry) -> None:
        """Refuse a unit whose bundle id is not that of its content."""
        data = read_unit_manifest(self._sweep, entry)
        folder = f"{self._sweep.unit(entry.place).config.name}/"
        configs = {
            file["path"].removeprefix(folder): sha256_file(
                self._sweep.unit(entry.place).path / file["path"]
            )
            for file in data["files"]
        }
        if self._science(data).bundle_id(configs) != entry.bundle_id:
            raise VerificationError(
                f"{entry.place} is not what its bundle id {entry.bundle_id[:12]} stands for",
                "Its manifest contradicts itself; take the sweep from its origin.",
            )

    def _science(self, data: Mapping[str, Any]) -> Science:
        common, used = self._common, tuple(sorted(data["inputs"].items()))
        key = (data.get("stage"), used)
        if key not in self._known:
            stages = tuple(s for s in common.stages if key[0] in (None, s.name))
            borrowed = {one.path: one.sha256 for one in common.borrowed}
            inputs = {name: self._digest(name, path) for name, path in used}
            self._known[key] = Science(
                common.tool, stages, {**inputs, **borrowed}, software_of(common)
            )
        return self._known[key]

    def _digest(self, name: str, path: str) -> str:
        if (name, path) not in self._digests:
            raise UsageError(f"the sweep has no input {name} at {path}")
        return self._digests[name, path]

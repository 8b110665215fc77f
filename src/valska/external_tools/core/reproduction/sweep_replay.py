"""A sweep of the same intent, made from a sealed sweep alone; see `replay` for bundles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from valska.external_tools.core.bundling import BundledImage
from valska.external_tools.core.comparison.sweeps import SweepSide
from valska.external_tools.core.conda import CondaEnvironment
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.reproduction.replay import must_agree, request_again
from valska.external_tools.core.reproduction.sweep_reference import (
    Entry,
    SweepParent,
    read_unit_manifest,
)
from valska.external_tools.core.site import Site
from valska.external_tools.core.sweep.document import PointEntry, read_common
from valska.external_tools.core.sweep.planning.drafting import Config, DraftedPoint
from valska.external_tools.core.sweep.planning.points import Point
from valska.external_tools.core.sweep.planning.spool import Spool
from valska.external_tools.core.sweep.writing.making import SweepDraft, SweepRequest, create_sweep
from valska.external_tools.core.tool import Input


def recreate_sweep(
    parent: SweepParent,
    place: Path,
    *,
    site: Site,
    image: BundledImage | None = None,
    environment: CondaEnvironment | None = None,
    ranks: Mapping[str, int] | None = None,
) -> SweepSide:
    """Make a sweep of the same points, with the seal of the parent's common part as its parent.

    Points have the names and the order of the parent, and share the work that they share there.

    Parameters
    ----------
    parent
        What to reproduce.
    place
        Directory of the new sweep.
    site, image, environment, ranks
        See `valska.external_tools.core.reproduction.replay.recreate`.

    Raises
    ------
    RunDirectoryError
        If the place is taken or cannot be made.
    UsageError
        If a stage cannot have so many ranks.
    VerificationError
        If a configuration is not what its manifest says, or the same software did not give the
        same bundle ids.
    """
    request, replayed = request_again(parent.common, place, site, image, environment, ranks or {})
    drafting = _Drafting(parent, replayed.inputs)
    points = tuple([drafting.draft(entry) for entry in parent.points])
    draft = SweepDraft(
        request=SweepRequest(
            base=replace(request, parent=parent.side.manifest.common_seal),
            points=tuple([drafted.point for drafted in points]),
        ),
        path=place.absolute(),
        taxonomy=replayed.planned.taxonomy,
        stages=replayed.planned.stages,
        borrowed=replayed.planned.borrowed,
        points=points,
        inputs=replayed.inputs,
        keys={entry.label: entry.key_sha256 for entry in parent.shared},
        spool=drafting.spool,
        lent={entry.label: drafting.draft(entry) for entry in parent.shared},
    )
    made = create_sweep(draft)
    found = SweepSide(made.sweep, made.manifest, read_common(made.sweep))
    if must_agree(parent.side.common, found.common, ranks):
        _require_same_ids(parent, found)
    return found


def other_units(parent: SweepParent, made: SweepSide) -> Iterator[Entry]:
    """Yield what is reproduced and has not the same bundle id in a sweep that was made."""
    new = {one.place: one.bundle_id for one in made.units}
    yield from (entry for entry in parent.units if new.get(entry.place) != entry.bundle_id)


def _require_same_ids(parent: SweepParent, made: SweepSide) -> None:
    for entry in other_units(parent, made):
        raise VerificationError(
            f"{made.sweep.path}/{entry.place} has not the bundle id {entry.bundle_id[:12]} "
            "of what it reproduces",
            "Something changed while it was made; remove it and try again.",
        )


class _Drafting:
    """Turns sealed units into planned points."""

    def __init__(self, parent: SweepParent, inputs: tuple[Input, ...]) -> None:
        self._parent = parent
        self._inputs = {(item.name, item.target): item for item in inputs}
        self._same: dict[tuple[tuple[str, str], ...], tuple[Input, ...]] = {}
        self.spool = Spool()

    def draft(self, entry: Entry) -> DraftedPoint:
        """Return a unit as planned; its configurations are read and compared with its manifest."""
        data = read_unit_manifest(self._parent.sweep, entry)
        return DraftedPoint(
            Point(entry.label, data["values"], data["perturbations"]),
            self._configs(entry, data),
            self._inputs_of(data),
            data.get(self._parent.side.common.tool, {}),
            entry.shared if isinstance(entry, PointEntry) else {},
        )

    def _configs(self, entry: Entry, data: Mapping[str, Any]) -> tuple[Config, ...]:
        unit = self._parent.sweep.unit(entry.place)
        found = []
        for file in data["files"]:
            content = (unit.path / file["path"]).read_bytes()
            config = Config(
                file["path"].removeprefix(f"{unit.config.name}/"), *self.spool.add(content)
            )
            if config.sha256 != file["sha256"]:
                raise VerificationError(
                    f"{entry.place}/{file['path']} was altered", "Take it from its origin."
                )
            found.append(config)
        return tuple(found)

    def _inputs_of(self, data: Mapping[str, Any]) -> tuple[Input, ...]:
        folder = f"{self._parent.sweep.bundle.inputs.name}/"
        used = tuple((name, path.removeprefix(folder)) for name, path in data["inputs"].items())
        if used not in self._same:
            self._same[used] = tuple(self._inputs[one] for one in used)
        return self._same[used]

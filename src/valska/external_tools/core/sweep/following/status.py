"""What became of a sweep: one look at each scheduler, and at what the jobs wrote down."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from valska.external_tools.core.scheduler import Scheduler
from valska.external_tools.core.status import StageState, StageStatus, follow, overall
from valska.external_tools.core.sweep.document import (
    PointEntry,
    SharedEntry,
    SweepManifest,
    read_common,
)
from valska.external_tools.core.sweep.following.evidence import Evidence, StageFacts, gather
from valska.external_tools.core.sweep.layout import Sweep

DETAILED = 50
"""Up to so many points, every record is read."""
SHARED = Sweep(Path()).shared.name
_NOTES = 20


@dataclass(frozen=True, slots=True)
class SweepStatus:
    """What became of a sweep.

    Parameters
    ----------
    stages
        Names, in the order of the manifest.
    points
        Label to stage to status. A stage that a point shares is that of the shared work. Places
        of logs and records are relative to the sweep.
    shared
        Label of shared work to its status.
    notes
        What else there is to say: a scheduler that does not answer, an unreadable record.
    silent
        Whether a scheduler that has or had a job of it did not answer.
    """

    stages: tuple[str, ...]
    points: Mapping[str, Mapping[str, StageStatus]]
    shared: Mapping[str, StageStatus] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    silent: bool = False

    @property
    def counts(self) -> dict[str, dict[StageState, int]]:
        """Stage to state to number of points."""
        found: dict[str, Counter[StageState]] = {stage: Counter() for stage in self.stages}
        for row in self.points.values():
            for stage, status in row.items():
                found[stage][status.state] += 1
        return {stage: dict(counter) for stage, counter in found.items()}

    @property
    def state(self) -> StageState:
        """The state of the whole: live if a stage is, else the worst."""
        return overall(status.state for row in self.points.values() for status in row.values())

    @property
    def live(self) -> bool:
        """Whether something of it waits or runs."""
        return any(status.state.live for row in self.points.values() for status in row.values())

    def state_of(self, label: str) -> StageState:
        """Return the state of a point as a whole."""
        return overall(status.state for status in self.points[label].values())

    def failures(self) -> Iterator[tuple[str, StageStatus]]:
        """Yield each label and stage that ended without success."""
        for label, row in self.points.items():
            for status in row.values():
                if status.state.failed:
                    yield label, status

    def failed_units(self) -> Iterator[tuple[str, StageStatus]]:
        """Yield what failed, work that points share once: label or ``shared/…``, and stage."""
        lent = {id(one) for one in self.shared.values()}
        for label, one in self.shared.items():
            if one.state.failed:
                yield f"{SHARED}/{label}", one
        yield from ((label, one) for label, one in self.failures() if id(one) not in lent)


def sweep_status(
    sweep: Sweep,
    manifest: SweepManifest,
    scheduler: Scheduler,
    labels: Iterable[str] | None = None,
) -> SweepStatus:
    """Return what became of each stage of each point.

    Each scheduler is asked once, however many points there are. Of more than `DETAILED` points
    only those records are read that say something the scheduler does not: times of a stage that
    completed are then those of the scheduler.

    Parameters
    ----------
    sweep
        The sweep.
    manifest
        Its manifest.
    scheduler
        The scheduler of the jobs; another one in jobs.json is found by its name.
    labels
        Only these points; all, if not given.

    Raises
    ------
    UsageError
        If there is no such point.
    JobsError
        If jobs.json is damaged.
    """
    points = _chosen(manifest, labels)
    stages = _stages(sweep)
    used = {label for point in points for label in point.shared.values()}
    lent = [one for one in manifest.shared if one.label in used and one.stage in stages]
    look = gather(sweep, scheduler, _units(stages, points, lent), len(points) <= DETAILED)
    shared = {entry.label: look.stage(entry.place, stages[entry.stage], {}) for entry in lent}
    rows = {point.label: look.point(point, stages.values(), shared) for point in points}
    return SweepStatus(tuple(stages), rows, shared, _notes(look), look.silent)


def wait_sweep(
    sweep: Sweep,
    manifest: SweepManifest,
    scheduler: Scheduler,
    *,
    labels: Iterable[str] | None = None,
    stages: Sequence[str] | None = None,
    poll: float = 2.0,
    longest_poll: float = 60.0,
    on_change: Callable[[SweepStatus], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> SweepStatus:
    """Wait until nothing of a sweep waits or runs.

    Parameters
    ----------
    sweep, manifest, scheduler, labels
        See `sweep_status`.
    stages
        Wait for these only.
    poll, longest_poll
        Seconds between two looks, at first and at most.
    on_change
        Is told the first status and each that differs from the one before.
    sleep
        Waits a number of seconds.
    """
    chosen = None if labels is None else tuple(labels)

    def wanted(status: SweepStatus) -> Iterator[StageState]:
        for row in status.points.values():
            for stage, one in row.items():
                if stages is None or stage in stages:
                    yield one.state

    return follow(
        lambda: sweep_status(sweep, manifest, scheduler, chosen),
        wanted,
        _gist,
        poll=poll,
        longest_poll=longest_poll,
        on_change=on_change,
        sleep=sleep,
    )


def _gist(status: SweepStatus) -> object:
    """Return a status without what changes by the mere passing of time."""
    rows = status.points.items()
    states = [
        (label, one.stage, one.state, one.job_id, one.reason)
        for label, row in rows
        for one in row.values()
    ]
    return states, status.notes


def _notes(look: Evidence) -> tuple[str, ...]:
    notes = list(dict.fromkeys(look.notes))
    more = [f"and {len(notes) - _NOTES} more of the kind"] if len(notes) > _NOTES else []
    return tuple(notes[:_NOTES] + more)


def _stages(sweep: Sweep) -> dict[str, StageFacts]:
    return {
        stage.name: StageFacts(
            stage.name,
            stage.after,
            stage.directives,
            StageStatus(stage=stage.name, state=StageState.NOT_SUBMITTED),
        )
        for stage in read_common(sweep).stages
    }


def _chosen(manifest: SweepManifest, labels: Iterable[str] | None) -> Sequence[PointEntry]:
    if labels is None:
        return manifest.points
    known = manifest.by_label()
    return [known.get(label) or manifest.point(label) for label in dict.fromkeys(labels)]


def _units(
    stages: Iterable[str], points: Iterable[PointEntry], lent: Iterable[SharedEntry]
) -> dict[str, tuple[str, ...]]:
    """Return the place of each unit and the stages that run there."""
    every = tuple(stages)
    units = {
        point.place: tuple(stage for stage in every if stage not in point.shared)
        if point.shared
        else every
        for point in points
    }
    return units | {entry.place: (entry.stage,) for entry in lent}

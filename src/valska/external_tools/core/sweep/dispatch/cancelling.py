"""Cancelling a sweep, or some of its points: by array where all of it ends, else by task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.lock import directory_lock
from valska.external_tools.core.scheduler import (
    JobRef,
    Scheduler,
    SchedulerError,
    scheduler_named,
)
from valska.external_tools.core.status import StageState, StageStatus
from valska.external_tools.core.submission.chain import select_stages, with_descendants
from valska.external_tools.core.submission.intents import SETTLE_S, Clock
from valska.external_tools.core.submission.ledger import now_text
from valska.external_tools.core.sweep.dispatch.jobsfile import (
    ArrayEntry,
    read_arrays,
    update_arrays,
)
from valska.external_tools.core.sweep.dispatch.slices import choose_labels
from valska.external_tools.core.sweep.dispatch.submission import take_up
from valska.external_tools.core.sweep.document import SweepManifest, read_common
from valska.external_tools.core.sweep.following.status import SweepStatus, sweep_status
from valska.external_tools.core.sweep.following.tasks import require_lists
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.timelimit import grace_of


@dataclass(frozen=True, slots=True)
class SweepCancellation:
    """What a cancel of a sweep ended, or would end.

    Parameters
    ----------
    cancelled
        Stage to the places of the units whose job was ended.
    refs
        The jobs that the scheduler was asked to end: arrays, and single tasks.
    """

    cancelled: dict[str, list[str]] = field(default_factory=dict)
    refs: tuple[JobRef, ...] = ()


@dataclass(frozen=True, slots=True)
class _Target:
    """A job to be ended: which unit's, and what is known of it."""

    place: str
    status: StageStatus


def cancel_sweep(
    sweep: Sweep,
    manifest: SweepManifest,
    scheduler: Scheduler,
    *,
    stages: Sequence[str] | None = None,
    only: Sequence[str] = (),
    grace_s: float | None = None,
    dry_run: bool = False,
    settle_s: float = SETTLE_S,
    clock: Clock | None = None,
) -> SweepCancellation:
    """End what waits or runs of a sweep, and what waits for that.

    Shared work is ended if all points that use it are.

    Parameters
    ----------
    sweep, manifest, scheduler, settle_s, clock
        See `submit_sweep`.
    stages
        Names; all, if not given.
    only
        Labels of points, or patterns of labels; all, if not given.
    grace_s
        Seconds between TERM and the end; what the stages' directives say, if not given.
    dry_run
        Touch nothing, and only say what would be ended.

    Raises
    ------
    LockedError
        If another process is submitting this sweep.
    UsageError
        If there is no such point or stage.
    OutcomeUnknownError
        If it is not known whether an array was sent.
    PrerequisiteError
        If somebody started one without valska and no scheduler has it.
    SchedulerError
        If the scheduler does not answer.
    JobsError
        If jobs.json, or the list of an array, is damaged.
    """
    common = read_common(sweep)
    wanted = with_descendants(common, select_stages(common, stages))
    labels = choose_labels(manifest, only)
    if dry_run:
        require_lists(sweep, read_arrays(sweep))
        targets = _targets(sweep, manifest, scheduler, labels, wanted)
        return _cancellation(targets, _refs(read_arrays(sweep), targets, whole=not only))
    time_source = clock or Clock()
    with directory_lock(sweep.bundle.submit_lock):
        arrays = read_arrays(sweep)
        require_lists(sweep, arrays)
        take_up(sweep, arrays, scheduler, settle_s, time_source)
        targets = _targets(sweep, manifest, scheduler, labels, wanted)
        _refuse_unreachable(targets)
        if targets:
            update_arrays(sweep, _marked(arrays, targets, now_text(time_source)))
    refs = _refs(arrays, targets, whole=not only)
    directives = [common.stage(name).directives for name in {one.status.stage for one in targets}]
    longest = max((grace_of(given) for given in directives), default=0)
    for name in dict.fromkeys(refs.values()):
        of = [ref for ref, owner in refs.items() if owner == name]
        chosen = scheduler_named(name, scheduler)
        chosen.cancel(sweep.bundle, of, longest if grace_s is None else grace_s)
    return _cancellation(targets, refs)


def _targets(
    sweep: Sweep,
    manifest: SweepManifest,
    scheduler: Scheduler,
    labels: Sequence[str],
    wanted: Sequence[str],
) -> list[_Target]:
    """Return what may run of these points, parents before those that wait for them."""
    status = sweep_status(sweep, manifest, scheduler, labels)
    found = list(_shared_targets(manifest, status, frozenset(labels), wanted))
    known = manifest.by_label()
    for stage in wanted:
        for label in labels:
            point, one = known[label], status.points[label][stage]
            if stage not in point.shared and one.may_run:
                found.append(_Target(point.place, one))
    return found


def _shared_targets(
    manifest: SweepManifest, status: SweepStatus, labels: frozenset[str], wanted: Sequence[str]
) -> Iterable[_Target]:
    kept = {
        lent
        for point in manifest.points
        if point.label not in labels
        for lent in point.shared.values()
    }
    for entry in manifest.shared:
        one = status.shared.get(entry.label)
        if one is not None and entry.stage in wanted and entry.label not in kept and one.may_run:
            yield _Target(entry.place, one)


def _refs(
    arrays: Sequence[ArrayEntry], targets: Sequence[_Target], whole: bool
) -> dict[JobRef, str]:
    """Return the jobs to end and their schedulers: arrays of which nothing may go on, or tasks."""
    counts = {array.job_id: array.count for array in arrays}
    tasks: dict[str, list[StageStatus]] = {}
    for target in targets:
        one = target.status
        if one.ref is not None and one.scheduler is not None:
            tasks.setdefault(one.ref.job_id.partition("_")[0], []).append(one)
    refs: dict[JobRef, str] = {}
    for base, of in tasks.items():
        if base in counts and (whole or len(of) == counts[base]):
            refs[JobRef(base, of[0].job_name, of[0].cluster)] = of[0].scheduler or ""
        else:
            refs |= {one.ref: one.scheduler or "" for one in of if one.ref}
    return refs


def _marked(
    arrays: Sequence[ArrayEntry], targets: Sequence[_Target], when: str
) -> list[ArrayEntry]:
    indices: dict[str, list[int]] = {}
    for target in targets:
        base, _, index = (target.status.job_id or "").partition("_")
        if index.isdecimal():
            indices.setdefault(base, []).append(int(index))
    return [
        array.cancel(indices[array.job_id], when) if array.job_id in indices else array
        for array in arrays
    ]


def _refuse_unreachable(targets: Sequence[_Target]) -> None:
    for target in targets:
        one = target.status
        if one.ref is None:
            raise PrerequisiteError(
                f"{one.stage} of {target.place} was not started by valska: {one.reason}",
                "End its process on that host.",
            )
        if one.state is StageState.UNKNOWN:
            raise SchedulerError(
                f"whether {one.stage} of {target.place} still runs is not known: {one.reason}",
                "Try again once the scheduler answers.",
            )


def _cancellation(targets: Sequence[_Target], refs: Iterable[JobRef]) -> SweepCancellation:
    cancelled: dict[str, list[str]] = {}
    for target in targets:
        cancelled.setdefault(target.status.stage, []).append(target.place)
    return SweepCancellation(cancelled, tuple(refs))

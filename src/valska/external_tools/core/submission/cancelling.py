"""Cancelling the stages of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.lock import directory_lock
from valska.external_tools.core.manifest import Manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import Scheduler, SchedulerError, scheduler_named
from valska.external_tools.core.status import RunStatus, StageState, StageStatus, run_status
from valska.external_tools.core.submission.chain import select_stages, with_descendants
from valska.external_tools.core.submission.intents import SETTLE_S, Clock
from valska.external_tools.core.submission.interrupted import take_up
from valska.external_tools.core.submission.jobsfile import load_jobs_json, read_entries
from valska.external_tools.core.submission.ledger import now_text, update_entries
from valska.external_tools.core.timelimit import grace_of


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Which stages a cancel ended, and which of those asked for had ended or never begun.

    After a dry run `cancelled` are those that would have been ended.
    """

    cancelled: tuple[str, ...]
    not_live: tuple[str, ...]


def cancel(
    bundle: Bundle,
    manifest: Manifest,
    scheduler: Scheduler,
    *,
    stages: Sequence[str] | None = None,
    grace_s: float | None = None,
    dry_run: bool = False,
    settle_s: float = SETTLE_S,
    clock: Clock | None = None,
) -> Cancellation:
    """End stages that wait or run, and those that wait for them.

    A running job is sent TERM, which its script passes on and writes down; what still runs
    after the grace is killed.

    Parameters
    ----------
    bundle, manifest, scheduler, settle_s, clock
        See `submit`.
    stages
        Names; all, if not given.
    grace_s
        Seconds between TERM and the end; what the stages' directives say, if not given.
    dry_run
        Touch nothing, and only say what would be ended.

    Raises
    ------
    LockedError
        If another process is submitting this bundle.
    UsageError
        If there is no such stage.
    OutcomeUnknownError
        If it is not known whether a stage was sent.
    SchedulerError
        If the scheduler does not answer.
    """
    wanted = with_descendants(manifest, select_stages(manifest, stages))
    if dry_run:
        status = run_status(bundle, manifest, scheduler)
        return _cancellation(wanted, _targets(status, wanted))
    time_source = clock or Clock()
    with directory_lock(bundle.submit_lock):
        entries = read_entries(load_jobs_json(bundle.path))
        take_up(bundle, entries, scheduler, settle_s, time_source)
        status = run_status(bundle, manifest, scheduler)
        targets = _targets(status, wanted)
        _refuse_unreachable(targets)
        marked = {
            one.stage: replace(entries[one.stage], cancelled_utc=now_text(time_source))
            for one in targets
            if one.stage in entries
        }
        if marked:
            update_entries(bundle, entries | marked)
    directives = [manifest.stage(one.stage).directives for one in targets]
    longest = max((grace_of(given) for given in directives), default=0)
    for name in dict.fromkeys(one.scheduler for one in targets if one.scheduler):
        refs = [one.ref for one in targets if one.scheduler == name and one.ref]
        scheduler_named(name, scheduler).cancel(
            bundle, refs, longest if grace_s is None else grace_s
        )
    return _cancellation(wanted, targets)


def _targets(status: RunStatus, wanted: Sequence[str]) -> list[StageStatus]:
    return [one for one in status.stages if one.stage in wanted and one.may_run]


def _cancellation(wanted: Sequence[str], targets: Sequence[StageStatus]) -> Cancellation:
    cancelled = tuple(one.stage for one in targets)
    return Cancellation(cancelled, tuple(name for name in wanted if name not in cancelled))


def _refuse_unreachable(targets: Sequence[StageStatus]) -> None:
    for one in targets:
        if one.ref is None:
            raise PrerequisiteError(
                f"stage {one.stage} was not started by valska: {one.reason}",
                "End its process on that host.",
            )
        if one.state is StageState.UNKNOWN:
            raise SchedulerError(
                f"whether stage {one.stage} still runs is not known: {one.reason}",
                "Try again once the scheduler answers.",
            )

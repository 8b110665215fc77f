"""Submitting a sweep: never a point twice, never a point lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from valska.external_tools.core.errors import SubmissionError, UsageError
from valska.external_tools.core.lock import directory_lock
from valska.external_tools.core.manifest import Manifest
from valska.external_tools.core.records import read_records
from valska.external_tools.core.scheduler import JobRef, Scheduler
from valska.external_tools.core.slurm.text import check_extra
from valska.external_tools.core.submission.chain import select_stages
from valska.external_tools.core.submission.intents import SETTLE_S, Clock, Intent, reconcile
from valska.external_tools.core.sweep.dispatch.intact import altered_units
from valska.external_tools.core.sweep.dispatch.jobsfile import (
    ArrayEntry,
    read_arrays,
    update_arrays,
)
from valska.external_tools.core.sweep.dispatch.ledger import SweepLedger
from valska.external_tools.core.sweep.dispatch.limits import limits_of
from valska.external_tools.core.sweep.dispatch.requests import Drafter, options
from valska.external_tools.core.sweep.dispatch.sending import Sender
from valska.external_tools.core.sweep.dispatch.slices import (
    Choice,
    Kind,
    Work,
    WorkPlan,
    choose_labels,
    plan_work,
)
from valska.external_tools.core.sweep.document import SweepManifest, read_common
from valska.external_tools.core.sweep.following.status import SweepStatus, sweep_status
from valska.external_tools.core.sweep.following.tasks import (
    current_tasks,
    read_places,
    require_lists,
)
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.utils import random_hex

log = logging.getLogger(__name__)

KINDS = (Kind.FAILED.value, Kind.MISSING.value)
"""Words of ``--only`` that are not labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSubmission:
    """What a submit of a sweep did, or would do.

    Parameters
    ----------
    scheduler
        ``slurm`` or ``local``.
    token
        Of this submission; it is in the names of its arrays.
    dry_run
        Whether nothing was sent.
    arrays
        Those sent now, in order.
    commands
        The exact command of each.
    planned
        In a dry run: stage to how many tasks in how many arrays would be sent.
    found
        Arrays that an interrupted submit had sent already; they were not sent again.
    unsent
        What does not fit: stage to number of units.
    why_unsent
        Whose limit that is.
    completed, live
        How many stages of units were left alone since they are so.
    blocked
        Place and stage to the reason why it could not be sent.
    """

    scheduler: str
    token: str
    dry_run: bool
    arrays: tuple[ArrayEntry, ...]
    commands: tuple[tuple[str, ...], ...]
    planned: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    found: tuple[ArrayEntry, ...] = ()
    unsent: dict[str, int] = field(default_factory=dict)
    why_unsent: str | None = None
    completed: int = 0
    live: int = 0
    blocked: dict[tuple[str, str], str] = field(default_factory=dict)


def submit_sweep(
    sweep: Sweep,
    manifest: SweepManifest,
    scheduler: Scheduler,
    *,
    stages: Sequence[str] | None = None,
    only: Sequence[str] = (),
    resume: bool = False,
    resubmit: bool = False,
    throttle: int | None = None,
    extra: Sequence[str] = (),
    dry_run: bool = False,
    ready: Callable[[], object] | None = None,
    settle_s: float = SETTLE_S,
    clock: Clock | None = None,
    new_token: Callable[[], str] = lambda: random_hex(4),
) -> SweepSubmission:
    """Send points to a scheduler: one job array per slice and stage.

    Without `resume`, `resubmit` and `only`, what was never sent is sent. An intent is on disk
    before each array is sent. A submit that was killed is taken up where it stopped: its arrays
    are found by their names, and only what was never sent is sent.

    What the scheduler has no room for is left for the next call, and counted.

    Parameters
    ----------
    sweep
        The sweep. Its common files have been checked.
    manifest
        Its manifest.
    scheduler
        Where to send them.
    stages
        Names; all, if not given.
    only
        ``failed``, ``missing``, labels of points, or patterns of labels.
    resume
        Send all that is neither completed nor live; stages that can go on from where they were.
    resubmit
        Send all that is not live afresh.
    throttle
        How many tasks of an array may run at once.
    extra
        sbatch options for this submission.
    dry_run
        Touch nothing, and only say what would be run.
    ready
        Called under the lock, after every refusal and before the first array is sent.
    settle_s, clock, new_token
        See `valska.external_tools.core.jobs.submit`.

    Raises
    ------
    LockedError
        If another process is submitting this sweep.
    UsageError
        If there is no such point, stage or sbatch option.
    SubmissionError
        If there is nothing to send.
    OutcomeUnknownError
        If it is not known whether the scheduler took an array. Nothing is sent again until it is.
    JobsError
        If jobs.json, or the list of an array, is damaged.
    """
    if resume and resubmit:
        raise UsageError("--resume and --resubmit do not go together", "Choose one of them.")
    common = read_common(sweep)
    asked = _Asked(
        sweep,
        manifest,
        common,
        scheduler,
        Choice(
            choose_labels(manifest, [word for word in only if word not in KINDS]),
            select_stages(common, stages),
            _kinds(only, resume, resubmit),
            scheduler.name,
        ),
        resume,
        throttle,
        check_extra(extra),
        new_token(),
        dry_run,
    )
    lock = nullcontext() if dry_run else directory_lock(sweep.bundle.submit_lock)
    with lock:
        return _perform(asked, ready, settle_s, clock or Clock())


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a submit was asked for."""

    sweep: Sweep
    manifest: SweepManifest
    common: Manifest
    scheduler: Scheduler
    choice: Choice
    resume: bool
    throttle: int | None
    extra: tuple[str, ...]
    token: str
    dry_run: bool

    @property
    def directives(self) -> dict[str, str]:
        """Directives of the first stage that is sent, with those of this submission."""
        stage = self.common.stage(self.choice.stages[0])
        return {**stage.directives, **options(self.extra)}


def _kinds(only: Sequence[str], resume: bool, resubmit: bool) -> frozenset[Kind]:
    named = frozenset(Kind(word) for word in only if word in KINDS)
    if resubmit:
        return named or frozenset(Kind)
    if resume:
        return named or frozenset({Kind.MISSING, Kind.FAILED})
    return named or frozenset({Kind.MISSING})


def _perform(
    asked: _Asked, ready: Callable[[], object] | None, settle_s: float, clock: Clock
) -> SweepSubmission:
    arrays = read_arrays(asked.sweep)
    require_lists(asked.sweep, arrays)
    found = () if asked.dry_run else take_up(asked.sweep, arrays, asked.scheduler, settle_s, clock)
    plan = _plan(asked, arrays, found)
    if not plan.works and not found:
        _refuse_nothing(asked, plan)
    sender = _sender(asked, arrays, clock)
    if plan.works and ready is not None and not asked.dry_run:
        ready()
    sender.send(plan.works)
    unsent = sender.unsent
    return SweepSubmission(
        scheduler=asked.scheduler.name,
        token=asked.token,
        dry_run=asked.dry_run,
        arrays=sender.ledger.sent,
        commands=sender.commands,
        planned=sender.planned,
        found=tuple(found),
        unsent=dict(unsent.stages),
        why_unsent=unsent.why if unsent.stages else None,
        completed=plan.completed,
        live=plan.live,
        blocked={**plan.blocked, **unsent.refused},
    )


def _plan(asked: _Asked, arrays: Sequence[ArrayEntry], found: Sequence[ArrayEntry]) -> WorkPlan:
    tasks = current_tasks(asked.sweep, found)
    sent = frozenset((place, stage) for stage in tasks for place in tasks[stage].current)
    choice = replace(asked.choice, found=sent)
    plan = plan_work(asked.manifest, asked.common.stages, _status(asked), arrays, choice)
    altered = altered_units(asked.sweep, plan.works)
    if altered:
        kept = []
        for work in plan.works:
            if reason := _why_altered(work, altered):
                plan.blocked |= {(work.place, stage): reason for stage in work.stages}
            else:
                kept.append(work)
        plan.works, plan.altered = kept, True
    return plan


def _why_altered(work: Work, altered: Mapping[str, str]) -> str | None:
    """Return what is wrong with a unit, or with the shared work that it waits for."""
    needed = (f"it needs {place}: {altered[place]}" for _, place in work.after if place in altered)
    return altered.get(work.place) or next(needed, None)


def _status(asked: _Asked) -> SweepStatus:
    every = Kind.COMPLETED in asked.choice.kinds
    few = None if every else asked.choice.labels
    return sweep_status(asked.sweep, asked.manifest, asked.scheduler, few)


def _sender(asked: _Asked, arrays: list[ArrayEntry], clock: Clock) -> Sender:
    ledger = SweepLedger(
        sweep=asked.sweep,
        scheduler=asked.scheduler,
        token=asked.token,
        clock=clock,
        arrays=arrays,
        resume=asked.resume,
    )
    directives = asked.directives
    cluster = directives.get("clusters") if asked.scheduler.name == "slurm" else None
    drafter = Drafter(
        sweep=asked.sweep,
        scheduler=asked.scheduler,
        token=asked.token,
        stages={stage.name: stage for stage in asked.common.stages},
        earlier=lambda: ledger.arrays,
        throttle=asked.throttle,
        extra=asked.extra,
        resume=asked.resume,
    )
    limits = limits_of(asked.scheduler, directives, cluster)
    return Sender(ledger=ledger, drafter=drafter, limits=limits, dry_run=asked.dry_run)


def _refuse_nothing(asked: _Asked, plan: WorkPlan) -> None:
    """Refuse to send nothing, unless all is well: what is to be resumed has completed or lives."""
    if plan.blocked:
        (place, stage), reason = next(iter(plan.blocked.items()))
        more = f" (and {len(plan.blocked) - 1} more)" if len(plan.blocked) > 1 else ""
        raise SubmissionError(
            f"nothing can be sent: {stage} of {place}: {reason}{more}",
            _hint(asked, plan),
        )
    if not asked.resume and Kind.MISSING in asked.choice.kinds:
        raise SubmissionError(
            f"nothing is left to send: all of it was sent before, {_live(plan.live)}",
            "`--resume` sends what has failed again, `--resubmit` all that has ended.",
        )


def _live(count: int) -> str:
    if count == 0:
        return "and has ended"
    return f"{count} still {'waits or runs' if count == 1 else 'wait or run'}"


def _hint(asked: _Asked, plan: WorkPlan) -> str:
    """Return what may help where nothing can be sent."""
    if plan.altered:
        return "`valska verify` names what was altered. Restore it, or make the sweep again."
    if Kind.FAILED not in asked.choice.kinds:
        return "See `valska status`; `--resume` sends what has failed too."
    return "`valska status` says what became of its jobs."


def take_up(
    sweep: Sweep,
    arrays: list[ArrayEntry],
    scheduler: Scheduler,
    settle_s: float,
    clock: Clock,
) -> list[ArrayEntry]:
    """Settle the intents of an interrupted submit, in `arrays` and in jobs.json.

    Returns
    -------
    list of ArrayEntry
        The arrays of that submission that had been sent.

    Raises
    ------
    OutcomeUnknownError
        If the scheduler does not answer.
    """
    doubtful = [array for array in arrays if array.job_id is None]
    if not doubtful:
        return []
    known = {array.name: array for array in doubtful}

    def seen(intent: Intent) -> JobRef | None:
        return _seen(sweep, known[intent.name])

    result = reconcile(sweep.bundle, doubtful, scheduler, seen, settle_s=settle_s, clock=clock)
    adopted = result.adopted
    for name, ref in adopted.items():
        log.warning("%s had been sent already, as job %s", name, ref.job_id)
    arrays[:] = [
        replace(array, job_id=adopted[array.name].job_id, cluster=adopted[array.name].cluster)
        if array.name in adopted
        else array
        for array in arrays
        if array.name not in result.never_sent
    ]
    update_arrays(sweep, arrays)
    tokens = {array.token for array in doubtful}
    return [array for array in arrays if array.token in tokens]


def _seen(sweep: Sweep, array: ArrayEntry) -> JobRef | None:
    """Return the array if one of its tasks has left a record."""
    for record in _records_of(sweep, array):
        return JobRef(record, array.name, array.cluster)
    return None


def _records_of(sweep: Sweep, array: ArrayEntry) -> Iterator[str]:
    for place in read_places(sweep, array):
        unit = sweep.unit(place)
        if any(unit.records.glob(f"{array.stage}-*.json")):
            record = read_records(unit).named(array.name)
            if record is not None and record.scheduler == array.scheduler:
                yield record.job_id.partition("_")[0]

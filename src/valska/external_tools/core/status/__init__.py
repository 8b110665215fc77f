"""What became of each stage: jobs.json, the scheduler and the jobs' own records, put together."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.manifest import Manifest
from valska.external_tools.core.records import Records, StageRecord, read_records
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import (
    JobRef,
    Scheduler,
    scheduler_named,
)
from valska.external_tools.core.status.judgement import (
    FAILURES,
    Answer,
    StageState,
    StageStatus,
    judge,
    run_by_hand,
)
from valska.external_tools.core.submission.jobsfile import JobEntry, load_jobs_json, read_entries

__all__ = ["RunStatus", "StageState", "StageStatus", "follow", "overall", "run_status", "wait"]

Status = TypeVar("Status")

_OVERALL = (
    StageState.RUNNING,
    StageState.PENDING,
    StageState.UNCONFIRMED,
    *FAILURES,
    StageState.UNKNOWN,
    StageState.NOT_SUBMITTED,
    StageState.COMPLETED,
)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What became of a run.

    Parameters
    ----------
    stages
        In the manifest's order.
    notes
        What else there is to say: a scheduler that does not answer, an unreadable record.
    silent
        Whether a scheduler that has or had a job of it did not answer.
    """

    stages: tuple[StageStatus, ...]
    notes: tuple[str, ...] = ()
    silent: bool = False

    @property
    def state(self) -> StageState:
        """The state of the whole: live if one stage is, else the worst."""
        return overall(stage.state for stage in self.stages)

    @property
    def live(self) -> bool:
        """Whether something of it waits or runs."""
        return any(stage.state.live for stage in self.stages)

    def stage(self, name: str) -> StageStatus:
        """Return the status of a stage."""
        return next(stage for stage in self.stages if stage.stage == name)


def overall(states: Iterable[StageState]) -> StageState:
    """Return the state of a whole: live if a part of it is, else that of its worst part."""
    found = set(states)
    return next((state for state in _OVERALL if state in found), StageState.NOT_SUBMITTED)


def run_status(bundle: Bundle, manifest: Manifest, scheduler: Scheduler) -> RunStatus:
    """Return what became of each stage.

    Each scheduler is asked at most once. What it does not answer is told in the notes.

    Parameters
    ----------
    bundle
        The bundle.
    manifest
        Its manifest.
    scheduler
        The scheduler of the jobs; another one in jobs.json is found by its name.

    Raises
    ------
    JobsError
        If jobs.json is damaged.
    """
    entries = read_entries(load_jobs_json(bundle.path))
    records = read_records(bundle)
    answers = ask(bundle, entries, records, scheduler)
    notes = [answer.error for answer in answers.values() if answer.error]
    notes += [f"unreadable record: {bad.reason}" for bad in records.unreadable]
    stages: list[StageStatus] = []
    for stage in manifest.stages:
        entry = entries.get(stage.name)
        record = record_of(stage.name, entry, records, answers)
        answer = answers.get(_scheduler_of(entry, record), Answer({}))
        found = judge(stage.name, entry, record, answer, stage.directives)
        if record is None and waited_in_vain(found):
            found = never_started(found, stage.after, stages)
        stages.append(_with_files(bundle, found, record))
    silent = any(answer.error for answer in answers.values())
    return RunStatus(tuple(stages), tuple(dict.fromkeys(notes)), silent)


def wait(
    bundle: Bundle,
    manifest: Manifest,
    scheduler: Scheduler,
    *,
    poll: float = 1.0,
    longest_poll: float = 30.0,
    on_change: Callable[[RunStatus], None] | None = None,
    stages: Sequence[str] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> RunStatus:
    """Wait until no stage waits or runs.

    A state that nobody knows, or a lost job, is looked at a few times more before it is believed
    and told: files and accounts can lag behind.

    Parameters
    ----------
    bundle, manifest, scheduler
        See `run_status`.
    poll, longest_poll
        Seconds between two looks, at first and at most.
    on_change
        Is told the first status and each that differs from the one before.
    stages
        Wait for these only.
    sleep
        Waits a number of seconds.
    """

    def wanted(status: RunStatus) -> list[StageState]:
        chosen = (one for one in status.stages if stages is None or one.stage in stages)
        return [one.state for one in chosen]

    return follow(
        lambda: run_status(bundle, manifest, scheduler),
        wanted,
        _timeless,
        poll=poll,
        longest_poll=longest_poll,
        on_change=on_change,
        sleep=sleep,
    )


def follow(
    look: Callable[[], Status],
    wanted: Callable[[Status], Iterable[StageState]],
    gist: Callable[[Status], object],
    *,
    poll: float,
    longest_poll: float,
    on_change: Callable[[Status], None] | None,
    sleep: Callable[[float], None],
) -> Status:
    """Look again and again until nothing of what is wanted waits or runs; see `wait`.

    Parameters
    ----------
    look
        Finds the status out.
    wanted
        Returns the states that are waited for.
    gist
        Returns what has to differ for a status to be told anew.
    poll, longest_poll, on_change, sleep
        See `wait`.
    """
    told: object = None
    pause, doubts = poll, 0
    while True:
        status = look()
        states = frozenset(wanted(status))
        doubts = doubts + 1 if states & _UNSETTLED else 0
        in_doubt = 0 < doubts <= _LOOKS
        if not in_doubt and (seen := gist(status)) != told:
            told, pause = seen, poll
            if on_change:
                on_change(status)
        if not in_doubt and not any(state.live for state in states):
            return status
        sleep(pause)
        pause = min(pause * 1.3, longest_poll)


_LOOKS = 5
_UNSETTLED = frozenset({StageState.UNKNOWN, StageState.LOST})


def _timeless(status: RunStatus) -> object:
    """Return a status without what changes by the mere passing of time."""
    return replace(status, stages=tuple(replace(one, elapsed_s=None) for one in status.stages))


def ask(
    bundle: Bundle, entries: Mapping[str, JobEntry], records: Records, scheduler: Scheduler
) -> dict[str, Answer]:
    """Ask each scheduler that has jobs of this bundle, once."""
    refs: dict[str, dict[str, JobRef]] = {}
    for entry in entries.values():
        if entry.ref:
            refs.setdefault(entry.scheduler, {})[entry.ref.job_id] = entry.ref
    for record in records.records:
        if record.stage not in entries and not record.ended and record.scheduler != "none":
            ref = JobRef(record.job_id, record.job_name)
            refs.setdefault(record.scheduler, {}).setdefault(record.job_id, ref)
    return ask_each(bundle, {name: list(of.values()) for name, of in refs.items()}, scheduler)


def ask_each(
    bundle: Bundle, refs: Mapping[str, Sequence[JobRef]], scheduler: Scheduler
) -> dict[str, Answer]:
    """Ask schedulers, by name, about their jobs."""
    return {
        name: _ask(bundle, scheduler_named(name, scheduler), of) for name, of in refs.items() if of
    }


def waited_in_vain(status: StageStatus) -> bool:
    """Return whether a job may have been removed because another one did not succeed.

    Slurm removes it as CANCELLED; its accounts give the reason Dependency, or none. What somebody
    cancelled is CANCELLED by a user there. The local scheduler says what did not succeed.
    """
    removed = status.state is StageState.CANCELLED and _REMOVED.match(status.reason or "")
    return status.state is StageState.LOST or bool(removed)


_REMOVED = re.compile(r"CANCELLED($|, Dependency|, .* did not succeed$)")
NEVER_STARTED = "never started: "
"""The reason of a stage begins so if one that it waited for did not succeed."""


def never_started(
    status: StageStatus, after: Sequence[str], before: Iterable[StageStatus]
) -> StageStatus:
    """Return a stage that was lost as never started, if one that it waited for did not succeed.

    Parameters
    ----------
    status
        Of the stage.
    after
        The stages that it waited for.
    before
        What became of the stages before it.
    """
    bad = [one.stage for one in before if one.stage in after and one.state.failed]
    if not bad:
        return status
    reason = f"{NEVER_STARTED}{bad[0]} did not succeed"
    return replace(status, state=StageState.CANCELLED, reason=reason)


def _with_files(bundle: Bundle, status: StageStatus, record: StageRecord | None) -> StageStatus:
    log = bundle.logs / f"{status.job_name}-{status.job_id}.log"
    path = bundle.records / record.path if record else None
    return replace(
        status,
        log=str(log.relative_to(bundle.path)) if log.is_file() else None,
        record=str(path.relative_to(bundle.path)) if path else None,
    )


def record_of(
    stage: str, entry: JobEntry | None, records: Records, answers: Mapping[str, Answer]
) -> StageRecord | None:
    """Return the newest record of a stage's job; without one, of what runs, or ran, by hand."""
    if entry is not None:
        return records.latest(stage, entry.job_id) if entry.job_id else None
    running = [record for record in records.of(stage) if not record.ended]
    live = [record for record in running if _may_run(record, answers)]
    return live[-1] if live else records.latest(stage)


def _may_run(record: StageRecord, answers: Mapping[str, Answer]) -> bool:
    if record.scheduler == "none":
        return run_by_hand(record)[0] is not StageState.LOST
    answer = answers.get(record.scheduler, Answer({}))
    info = answer.jobs.get(record.job_id)
    return info.state.live if info else answer.error is not None


def _scheduler_of(entry: JobEntry | None, record: StageRecord | None) -> str:
    return entry.scheduler if entry else (record.scheduler if record else "")


def _ask(bundle: Bundle, scheduler: Scheduler, refs: Sequence[JobRef]) -> Answer:
    try:
        return Answer(scheduler.query(bundle, refs))
    except ValskaError as error:
        return Answer({}, error.message)

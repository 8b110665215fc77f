"""What became of each stage: jobs.json, the scheduler and the jobs' own records, put together."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.identity import process_start
from valska.external_tools.core.jobsfile import JobEntry, load_jobs_json, read_entries
from valska.external_tools.core.manifest import Manifest
from valska.external_tools.core.records import Records, RecordState, StageRecord, read_records
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import (
    JobInfo,
    JobRef,
    JobState,
    Scheduler,
    grace_of,
    parse_time,
    scheduler_named,
)

SLURM_SIGNAL_EARLY_S = 65
"""Slurm may send the signal before a time limit up to a minute early."""


class StageState(StrEnum):
    """What became of a stage."""

    NOT_SUBMITTED = "not-submitted"
    UNCONFIRMED = "unconfirmed"
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LOST = "lost"
    REFUSED = "refused"
    UNKNOWN = "unknown"

    @property
    def live(self) -> bool:
        """Whether the stage waits, runs, or may do so."""
        return self in (StageState.PENDING, StageState.RUNNING, StageState.UNCONFIRMED)

    @property
    def failed(self) -> bool:
        """Whether the stage ended without success."""
        return self in _BAD


_BAD = (
    StageState.FAILED,
    StageState.TIMEOUT,
    StageState.LOST,
    StageState.REFUSED,
    StageState.CANCELLED,
)
_OVERALL = (
    StageState.RUNNING,
    StageState.PENDING,
    StageState.UNCONFIRMED,
    *_BAD,
    StageState.UNKNOWN,
    StageState.NOT_SUBMITTED,
    StageState.COMPLETED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """What became of one stage.

    Parameters
    ----------
    stage, state
        Which stage, and what became of it.
    job_id, job_name
        Its job, where there is one.
    attempt
        Count of its submissions; 0 before the first.
    reason
        Why it is in that state, in words; None where the state says it all.
    started_utc, ended_utc, elapsed_s, exit_code
        From the job's own record, else from the scheduler.
    log, record
        Paths relative to the bundle, where the files exist.
    scheduler, cluster
        Who has or had the job.
    dependency
        As given to the scheduler.
    may_run
        Whether it runs, or nobody can say that it does not.
    """

    stage: str
    state: StageState
    job_id: str | None = None
    job_name: str | None = None
    attempt: int = 0
    reason: str | None = None
    started_utc: str | None = None
    ended_utc: str | None = None
    elapsed_s: int | None = None
    exit_code: int | None = None
    log: str | None = None
    record: str | None = None
    scheduler: str | None = None
    cluster: str | None = None
    dependency: str | None = None
    may_run: bool = False

    @property
    def ref(self) -> JobRef | None:
        """The job that a scheduler can be asked about."""
        if self.job_id is None or self.scheduler is None:
            return None
        return JobRef(self.job_id, self.job_name, self.cluster)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What became of a run.

    Parameters
    ----------
    stages
        In the manifest's order.
    notes
        What else there is to say: a scheduler that does not answer, an unreadable record.
    """

    stages: tuple[StageStatus, ...]
    notes: tuple[str, ...] = ()

    @property
    def state(self) -> StageState:
        """The state of the whole: live if one stage is, else the worst."""
        states = {stage.state for stage in self.stages}
        return next((state for state in _OVERALL if state in states), StageState.NOT_SUBMITTED)

    @property
    def live(self) -> bool:
        """Whether something of it waits or runs."""
        return any(stage.state.live for stage in self.stages)

    def stage(self, name: str) -> StageStatus:
        """Return the status of a stage."""
        return next(stage for stage in self.stages if stage.stage == name)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a scheduler said about a bundle's jobs; `error` if it did not answer."""

    jobs: Mapping[str, JobInfo]
    error: str | None = None


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
    stages = []
    for stage in manifest.stages:
        entry = entries.get(stage.name)
        record = _record_of(stage.name, entry, records, answers)
        answer = answers.get(_scheduler_of(entry, record), Answer({}))
        found = judge(stage.name, entry, record, answer, stage.directives)
        stages.append(_with_files(bundle, found, record))
    return RunStatus(tuple(stages), tuple(dict.fromkeys(notes)))


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
    told: RunStatus | None = None
    pause, doubts = poll, 0
    while True:
        status = run_status(bundle, manifest, scheduler)
        wanted = [one for one in status.stages if stages is None or one.stage in stages]
        doubts = doubts + 1 if any(one.state in _UNSETTLED for one in wanted) else 0
        if _timeless(status) != told and not 0 < doubts <= _LOOKS:
            told, pause = _timeless(status), poll
            if on_change:
                on_change(status)
        if not any(one.state.live for one in wanted) and not 0 < doubts <= _LOOKS:
            return status
        sleep(pause)
        pause = min(pause * 1.3, longest_poll)


_LOOKS = 5
_UNSETTLED = (StageState.UNKNOWN, StageState.LOST)


def _timeless(status: RunStatus) -> RunStatus:
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
    return {
        name: _ask(bundle, scheduler_named(name, scheduler), list(of.values()))
        for name, of in refs.items()
    }


def judge(
    stage: str,
    entry: JobEntry | None,
    record: StageRecord | None,
    answer: Answer,
    directives: Mapping[str, str] | None = None,
) -> StageStatus:
    """Put together what jobs.json, a scheduler and a record say of one stage.

    Parameters
    ----------
    stage
        Its name.
    entry
        Its last submission; None if it was not submitted by valska.
    record
        The newest record of that job; without a submission, of the stage.
    answer
        What the scheduler said.
    directives
        The stage's, for its time limit.
    """
    if entry is not None and entry.job_id is None:
        return _status(stage, StageState.UNCONFIRMED, entry, None, None, _UNCONFIRMED, True)
    job_id = entry.job_id if entry else (record.job_id if record else None)
    info = answer.jobs.get(job_id) if job_id else None
    if entry is None and record is None:
        return StageStatus(stage=stage, state=StageState.NOT_SUBMITTED)
    if info is None:
        state, reason = _without_info(record, answer, by_hand=entry is None)
    elif info.state.live:
        state, reason = _LIVE[info.state], info.reason
    else:
        cancelled = bool(entry and entry.cancelled_utc)
        state, reason = _ended(info, record, cancelled, directives or {})
    silent = info.state is JobState.UNKNOWN if info else answer.error is not None
    may_run = state.live or (state is StageState.UNKNOWN and silent)
    return _status(stage, state, entry, info, record, reason, may_run)


_UNCONFIRMED = "it may have been sent; the next `valska submit` looks for it"
_LIVE = {
    JobState.PENDING: StageState.PENDING,
    JobState.RUNNING: StageState.RUNNING,
    JobState.COMPLETING: StageState.RUNNING,
}
_ENDS: Mapping[JobState, tuple[StageState, str | None]] = {
    JobState.FAILED: (StageState.FAILED, None),
    JobState.TIMEOUT: (StageState.TIMEOUT, "the time limit was reached"),
    JobState.CANCELLED: (StageState.CANCELLED, None),
    JobState.OUT_OF_MEMORY: (StageState.FAILED, "out of memory"),
    JobState.NODE_FAIL: (StageState.LOST, "its node failed"),
    JobState.PREEMPTED: (StageState.CANCELLED, "preempted"),
    JobState.LOST: (StageState.LOST, None),
}
_RECORDED = {
    RecordState.COMPLETED: StageState.COMPLETED,
    RecordState.FAILED: StageState.FAILED,
    RecordState.SIGNALLED: StageState.CANCELLED,
    RecordState.REFUSED: StageState.REFUSED,
    RecordState.RUNNING: StageState.RUNNING,
}


def _without_info(
    record: StageRecord | None, answer: Answer, by_hand: bool
) -> tuple[StageState, str | None]:
    if record is not None and record.ended:
        return _RECORDED[record.state], record.reason
    if answer.error:
        return StageState.UNKNOWN, answer.error
    if record is None:
        return StageState.LOST, "the scheduler does not know its job, and the job left no record"
    if by_hand and record.scheduler == "none":
        return _by_hand(record)
    return StageState.LOST, "its record says running, but the scheduler has no such job"


def _by_hand(record: StageRecord) -> tuple[StageState, str | None]:
    if record.host != socket.gethostname() or record.pid is None:
        return StageState.UNKNOWN, f"started by hand on {record.host}; ask there whether it runs"
    if _runs_script(record.pid, record.stage):
        return StageState.RUNNING, f"started by hand, process {record.pid}"
    return StageState.LOST, "its record says running, but its process is gone"


def _runs_script(pid: int, stage: str) -> bool:
    if process_start(pid) is None:
        return False
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    name = Bundle(Path()).script(stage).name.encode()
    return any(word.rpartition(b"/")[2] == name for word in words)


def _ended(
    info: JobInfo, record: StageRecord | None, cancelled: bool, directives: Mapping[str, str]
) -> tuple[StageState, str | None]:
    if info.state is JobState.COMPLETED:
        return _completed(info, record)
    if info.state in (JobState.LOST, JobState.UNKNOWN) and record is not None and record.ended:
        return _RECORDED[record.state], record.reason
    if info.state is JobState.UNKNOWN:
        return StageState.UNKNOWN, info.reason or f"the scheduler says {info.word!r}"
    if record is not None and info.state is JobState.FAILED:
        return _failed(info, record, cancelled, directives)
    state, why = _ENDS[info.state]
    signal = f"signal {info.signal}" if info.signal else None
    return state, why or ", ".join(word for word in (info.word, info.reason, signal) if word)


def _completed(info: JobInfo, record: StageRecord | None) -> tuple[StageState, str | None]:
    if record is not None and record.state is RecordState.COMPLETED:
        return StageState.COMPLETED, None
    said = "the job left no record" if record is None else f"its record says {record.state}"
    return StageState.UNKNOWN, f"the scheduler says {info.word}, but {said}"


def _failed(
    info: JobInfo, record: StageRecord, cancelled: bool, directives: Mapping[str, str]
) -> tuple[StageState, str | None]:
    if record.state is RecordState.REFUSED:
        return StageState.REFUSED, record.reason
    if record.state is RecordState.SIGNALLED:
        if cancelled:
            return StageState.CANCELLED, record.reason
        if _near_limit(info, record, directives):
            return StageState.TIMEOUT, "the time limit was near: " + (record.reason or "signalled")
        return StageState.CANCELLED, record.reason
    if record.state is RecordState.RUNNING:
        return StageState.FAILED, "killed before it could write its record"
    return StageState.FAILED, record.reason or info.reason


def _near_limit(info: JobInfo, record: StageRecord, directives: Mapping[str, str]) -> bool:
    limit = info.limit_s or parse_time(directives.get("time", ""))
    elapsed = max(info.elapsed_s or 0, record.elapsed_s or 0)
    early = grace_of(directives) + SLURM_SIGNAL_EARLY_S
    return limit is not None and elapsed >= limit - early


def _status(
    stage: str,
    state: StageState,
    entry: JobEntry | None,
    info: JobInfo | None,
    record: StageRecord | None,
    reason: str | None,
    may_run: bool,
) -> StageStatus:
    kept = record if state is not StageState.PENDING else None
    scheduler = entry.scheduler if entry else (record.scheduler if record else None)
    return StageStatus(
        stage=stage,
        state=state,
        job_id=entry.job_id if entry else (record.job_id if record else None),
        job_name=entry.name if entry else (record.job_name if record else None),
        attempt=entry.attempt if entry else 1,
        reason=reason,
        started_utc=kept.started_utc if kept else None,
        ended_utc=kept.ended_utc if kept else None,
        elapsed_s=_first(kept.elapsed_s if kept else None, info.elapsed_s if info else None),
        exit_code=_first(kept.exit_code if kept else None, _exit_code(info)),
        scheduler=None if scheduler == "none" else scheduler,
        cluster=entry.cluster if entry else None,
        dependency=entry.dependency if entry else None,
        may_run=may_run,
    )


def _exit_code(info: JobInfo | None) -> int | None:
    known = info is not None and info.state in (JobState.COMPLETED, JobState.FAILED)
    return info.exit_code if info and known and not info.signal else None


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _with_files(bundle: Bundle, status: StageStatus, record: StageRecord | None) -> StageStatus:
    log = bundle.logs / f"{status.job_name}-{status.job_id}.log"
    path = bundle.records / record.path if record else None
    return replace(
        status,
        log=str(log.relative_to(bundle.path)) if log.is_file() else None,
        record=str(path.relative_to(bundle.path)) if path else None,
    )


def _record_of(
    stage: str, entry: JobEntry | None, records: Records, answers: Mapping[str, Answer]
) -> StageRecord | None:
    if entry is not None:
        return records.latest(stage, entry.job_id) if entry.job_id else None
    running = [record for record in records.of(stage) if not record.ended]
    live = [record for record in running if _may_run(record, answers)]
    return live[-1] if live else records.latest(stage)


def _may_run(record: StageRecord, answers: Mapping[str, Answer]) -> bool:
    if record.scheduler == "none":
        return _by_hand(record)[0] is not StageState.LOST
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

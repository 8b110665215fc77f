"""What became of one stage: a pure judgement over its submission, its job and its record."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from valska.external_tools.core.identity import process_start
from valska.external_tools.core.records import RecordState, StageRecord
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobInfo, JobRef, JobState
from valska.external_tools.core.submission.jobsfile import JobEntry
from valska.external_tools.core.timelimit import grace_of, parse_time

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
        return self in FAILURES


FAILURES = (
    StageState.FAILED,
    StageState.TIMEOUT,
    StageState.LOST,
    StageState.REFUSED,
    StageState.CANCELLED,
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
class Answer:
    """What a scheduler said about a bundle's jobs; `error` if it did not answer."""

    jobs: Mapping[str, JobInfo]
    error: str | None = None


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
    if state is StageState.LOST and entry is not None and entry.cancelled_utc:
        state, reason = StageState.CANCELLED, "cancelled"
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
        return run_by_hand(record)
    return StageState.LOST, "its record says running, but the scheduler has no such job"


def run_by_hand(record: StageRecord) -> tuple[StageState, str | None]:
    """Return the state of a script that somebody started without a scheduler, and why."""
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
    if info.state is JobState.LOST and record is not None and _outlives_its_supervisor(record):
        return StageState.RUNNING, "its supervisor was killed: nothing watches its time limit"
    if info.state is JobState.UNKNOWN:
        return StageState.UNKNOWN, info.reason or f"the scheduler says {info.word!r}"
    if record is not None and info.state is JobState.FAILED:
        return _failed(info, record, cancelled, directives)
    state, why = _ENDS[info.state]
    signal = f"signal {info.signal}" if info.signal else None
    said = bool(info.reason and info.reason.casefold().startswith(info.word.casefold()))
    words = (None if said else info.word, info.reason, signal)
    return state, why or ", ".join(word for word in words if word)


def _outlives_its_supervisor(record: StageRecord) -> bool:
    return record.scheduler == "local" and run_by_hand(record)[0] is StageState.RUNNING


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

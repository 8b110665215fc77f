"""All that is known of a sweep's units at one moment, and the judgement over it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from valska.external_tools.core.records import (
    RecordError,
    Records,
    RecordState,
    StageRecord,
    UnreadableRecord,
    read_record,
    read_records,
)
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobInfo, JobRef, JobState, Scheduler
from valska.external_tools.core.status import (
    StageState,
    StageStatus,
    ask_each,
    never_started,
    record_of,
    waited_in_vain,
)
from valska.external_tools.core.status.judgement import Answer, judge
from valska.external_tools.core.sweep.dispatch.jobsfile import ArrayEntry, read_arrays
from valska.external_tools.core.sweep.document import PointEntry
from valska.external_tools.core.sweep.following.tasks import StageTasks, current_tasks, entry_of
from valska.external_tools.core.sweep.following.traces import (
    LOGS,
    RECORDS,
    Traces,
    has_other,
    has_stage,
    newest_of_job,
    read_traces,
    state_in,
)
from valska.external_tools.core.sweep.layout import Sweep


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What has to be known of a stage to judge it.

    Parameters
    ----------
    name, after, directives
        See `StageEntry`.
    untouched
        The status of a unit whose stage was never started.
    """

    name: str
    after: tuple[str, ...]
    directives: Mapping[str, str]
    untouched: StageStatus


def gather(
    sweep: Sweep, scheduler: Scheduler, units: Mapping[str, tuple[str, ...]], thorough: bool
) -> Evidence:
    """Ask the schedulers, then look at the units' records.

    In this order, since a job writes its record before its scheduler sees its end.

    Parameters
    ----------
    sweep, scheduler
        See `sweep_status`.
    units
        Place of each unit to the stages that run there.
    thorough
        Whether every record is read.
    """
    arrays = read_arrays(sweep)
    sent = frozenset(array.job_id for array in arrays if array.job_id)
    tasks = current_tasks(sweep, arrays)
    answers = ask_each(sweep.bundle, _refs(units, tasks), scheduler)
    traces = read_traces(sweep, list(units))
    others = dict.fromkeys(place for place, names in traces.items() if has_other(names, sent))
    by_hand = _refs_by_hand(sweep, tasks, others, sent)
    for name, answer in ask_each(sweep.bundle, by_hand, scheduler).items():
        before = answers.get(name, Answer({}))
        answers[name] = Answer({**before.jobs, **answer.jobs}, before.error or answer.error)
    jobs = {job: info for answer in answers.values() for job, info in answer.jobs.items()}
    notes = [answer.error for answer in answers.values() if answer.error]
    return Evidence(sweep, tasks, answers, jobs, traces, others, thorough, notes)


def _refs(
    units: Mapping[str, tuple[str, ...]], tasks: Mapping[str, StageTasks]
) -> dict[str, list[JobRef]]:
    """Return the arrays that some unit's current job is a task of."""
    arrays = {
        array.job_id: array
        for of_stage in tasks.values()
        for place, (array, _) in of_stage.current.items()
        if place in units
    }
    refs: dict[str, list[JobRef]] = {}
    for job, array in arrays.items():
        if job is not None:
            refs.setdefault(array.scheduler, []).append(JobRef(job, array.name, array.cluster))
    return refs


def _refs_by_hand(
    sweep: Sweep, tasks: Mapping[str, StageTasks], places: Iterable[str], sent: frozenset[str]
) -> dict[str, list[JobRef]]:
    """Return the jobs that somebody sent by hand and whose records say that they run.

    Of a stage that valska has sent, only those that the same scheduler would have.
    """
    refs: dict[str, list[JobRef]] = {}
    for place in places:
        for record in _records(sweep.unit(place)).records:
            task = _tasks(tasks, record.stage).current.get(place)
            asked = task is None or task[0].scheduler == record.scheduler
            by_hand = record.scheduler != "none" and record.job_id.partition("_")[0] not in sent
            if by_hand and asked and not record.ended:
                ref = JobRef(record.job_id, record.job_name)
                refs.setdefault(record.scheduler, []).append(ref)
    return refs


def _tasks(tasks: Mapping[str, StageTasks], stage: str) -> StageTasks:
    return tasks.get(stage) or StageTasks()


def _records(unit: Bundle) -> Records:
    """Return a unit's records, each with the id of its task for that of the whole array."""
    found = read_records(unit)
    return replace(found, records=tuple(map(_of_task, found.records)))


def _of_task(record: StageRecord) -> StageRecord:
    return replace(record, job_id=f"{record.job_id}_{record.task}") if record.task else record


@dataclass(slots=True)
class Evidence:
    """All that is known at one moment, and the judgement over it.

    `others` are places of units that have records of jobs which valska did not send.
    """

    sweep: Sweep
    tasks: Mapping[str, StageTasks]
    answers: Mapping[str, Answer]
    jobs: Mapping[str, JobInfo]
    traces: Traces
    others: Collection[str]
    thorough: bool
    notes: list[str]

    @property
    def silent(self) -> bool:
        """Whether a scheduler did not answer."""
        return any(answer.error for answer in self.answers.values())

    def point(
        self, point: PointEntry, stages: Iterable[StageFacts], shared: Mapping[str, StageStatus]
    ) -> dict[str, StageStatus]:
        """Judge a point's stages; the work that it shares has been judged."""
        row: dict[str, StageStatus] = {}
        place = point.place
        for stage in stages:
            lent = point.shared.get(stage.name)
            row[stage.name] = shared[lent] if lent else self.stage(place, stage, row)
        return row

    def stage(
        self, place: str, stage: StageFacts, before: Mapping[str, StageStatus]
    ) -> StageStatus:
        """Judge a stage of a unit, from what became of the stages before it."""
        tasks = self.tasks.get(stage.name)
        task = tasks.current.get(place) if tasks else None
        names = self.traces.get(place, ())
        if tasks is None or task is None:
            return self._by_hand(place, stage) if has_stage(names, stage.name) else stage.untouched
        found = None if self.thorough else self._quick(place, names, tasks, *task)
        found = found or self._slow(place, names, stage, before, tasks, *task)
        if not found.may_run and place in self.others:
            by_hand = self._by_hand(place, stage)
            return by_hand if by_hand.state.live else found
        return found

    def _quick(
        self, place: str, names: Sequence[str], tasks: StageTasks, array: ArrayEntry, index: int
    ) -> StageStatus | None:
        """Judge without reading a record, where that is enough."""
        job = f"{array.job_id}_{index}"
        info = self._info(array, job)
        attempt = tasks.attempts[place]
        if info is not None and info.state is JobState.PENDING:
            return _plain(array, job, attempt, info, StageState.PENDING)
        name = newest_of_job(names, array.stage, job)
        record = f"{place}/{RECORDS}/{name}" if name else None
        if info is not None and info.state.live:
            return _plain(array, job, attempt, info, StageState.RUNNING, record)
        if name is None or (info is not None and info.state not in _RECORD_SAYS):
            return None
        explained = info is not None and info.state is JobState.COMPLETED
        if not explained and state_in(self.sweep, place, name) is not RecordState.COMPLETED:
            return None
        return _plain(array, job, attempt, info, StageState.COMPLETED, record, exit_code=0)

    def _slow(
        self,
        place: str,
        names: Sequence[str],
        stage: StageFacts,
        before: Mapping[str, StageStatus],
        tasks: StageTasks,
        array: ArrayEntry,
        index: int,
    ) -> StageStatus:
        """Judge with the record of the unit's current job."""
        job = f"{array.job_id}_{index}"
        record = self._read(place, newest_of_job(names, stage.name, job))
        info = self._info(array, job)
        silence = self.answers.get(array.scheduler, Answer({})).error
        answer = Answer({job: info} if info else {}, silence)
        entry = entry_of(array, index, tasks.attempts[place])
        found = judge(stage.name, entry, record, answer, stage.directives)
        if record is None and waited_in_vain(found):
            found = never_started(found, stage.after, before.values())
        logs = [f"{place}/{LOGS}/{stage.name}-{job}.log"]
        if found.state is not StageState.CANCELLED:
            logs.append(f"{LOGS}/{array.name}-{array.job_id}.log")
        return self._with_files(found, place, record, logs)

    def _by_hand(self, place: str, stage: StageFacts) -> StageStatus:
        """Judge what somebody started without valska."""
        unit = self.sweep.unit(place)
        records = _records(unit)
        self._note(place, records.unreadable)
        record = record_of(stage.name, None, records, self.answers)
        answer = self.answers.get(record.scheduler if record else "", Answer({}))
        found = judge(stage.name, None, record, answer, stage.directives)
        logs = [f"{place}/{LOGS}/{stage.name}-{found.job_id}.log"]
        return self._with_files(found, place, record, logs)

    def _info(self, array: ArrayEntry, job: str) -> JobInfo | None:
        return self.jobs.get(job) or self.jobs.get(array.job_id or "")

    def _read(self, place: str, name: str | None) -> StageRecord | None:
        if name is None:
            return None
        try:
            return read_record(Path(f"{self.sweep.path}/{place}/{RECORDS}/{name}"))
        except RecordError as error:
            self._note(place, [UnreadableRecord(name, error.message)])
            return None

    def _note(self, place: str, unreadable: Iterable[UnreadableRecord]) -> None:
        self.notes += [f"unreadable record in {place}: {bad.reason}" for bad in unreadable]

    def _with_files(
        self, status: StageStatus, place: str, record: StageRecord | None, logs: Iterable[str]
    ) -> StageStatus:
        log = next(filter(self._says_something, logs), None)
        path = f"{place}/{RECORDS}/{record.path}" if record else None
        return replace(status, log=log, record=path) if log or path else status

    def _says_something(self, log: str) -> bool:
        try:
            return os.stat(f"{self.sweep.path}/{log}").st_size > 0  # noqa: PTH116
        except OSError:
            return False


_RECORD_SAYS = (JobState.COMPLETED, JobState.LOST, JobState.UNKNOWN)


def _plain(
    array: ArrayEntry,
    job: str,
    attempt: int,
    info: JobInfo | None,
    state: StageState,
    record: str | None = None,
    exit_code: int | None = None,
) -> StageStatus:
    """Return the status of a task that waits, runs or has completed."""
    live = state is not StageState.COMPLETED
    return StageStatus(
        stage=array.stage,
        state=state,
        job_id=job,
        job_name=array.name,
        attempt=attempt,
        reason=info.reason if info and live else None,
        elapsed_s=info.elapsed_s if info else None,
        exit_code=exit_code,
        record=record,
        scheduler=array.scheduler,
        cluster=array.cluster,
        dependency=array.dependency,
        may_run=live,
    )

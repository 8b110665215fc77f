"""What to believe of a state file: all of it while its supervisor lives, else what still runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from valska.external_tools.core.identity import ProcessIdentity, identify
from valska.external_tools.core.local.job import (
    Index,
    LocalJob,
    Progress,
    Queue,
    overall,
)
from valska.external_tools.core.scheduler import JobState

JOB_VARIABLE, TASK_VARIABLE, NAME_VARIABLE = "VALSKA_JOB_ID", "VALSKA_TASK", "VALSKA_JOB_NAME"
"""What the environment of a script says about its job."""

_NEVER_BEGAN = Progress(JobState.LOST, reason="its supervisor was killed before it began")
_PROC = Path("/proc")
_GROUP = 2


class Belief:
    """The jobs of a queue as they are, not only as its file has them.

    Parameters
    ----------
    queue
        What the file says.
    """

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self._alive = queue.supervisor.alive() if queue.supervisor else False

    @property
    def orphaned(self) -> bool:
        """Whether its supervisor was killed, or has ended without a word, on this host."""
        return self.queue.supervisor is not None and self._alive is False

    def job(self, job_id: str) -> LocalJob | None:
        """Return a job by its id, or None."""
        return self._jobs.get(job_id)

    def knows(self, job: LocalJob, index: Index) -> bool:
        """Return whether a job has a task of this index."""
        return index in self._tasks[job.job_id]

    def of(self, job: LocalJob, index: Index = None) -> Progress:
        """Return how far a task is; one whose process is gone, or never was, is lost."""
        told = job.of(index)
        if self.queue.supervisor is None:
            return Progress(JobState.LOST, reason="it was never started")
        if self._alive or not told.state.live:
            return told
        if self._alive is None:
            return replace(told, reason=f"on {self.queue.supervisor.host}")
        if process := self._orphan(job, index):
            why = "its supervisor was killed: nothing watches its time limit"
            return replace(told, state=JobState.RUNNING, process=process, reason=why)
        if told.state is JobState.PENDING:
            return _NEVER_BEGAN
        why = "it was killed together with its supervisor"
        return replace(told, state=JobState.LOST, process=None, reason=why)

    def overall(self, job: LocalJob) -> JobState:
        """Return the state of a job, for an array that of all its tasks together."""
        return overall(Counter(self.of(job, index).state for index in job.indices))

    def _orphan(self, job: LocalJob, index: Index) -> ProcessIdentity | None:
        process = job.of(index).process or self._unrecorded.get(job.task_id(index))
        return process if process is not None and process.alive() else None

    @cached_property
    def _jobs(self) -> dict[str, LocalJob]:
        return {job.job_id: job for job in self.queue.jobs}

    @cached_property
    def _tasks(self) -> dict[str, frozenset[Index]]:
        return {job.job_id: frozenset(job.indices) for job in self.queue.jobs}

    @cached_property
    def _unrecorded(self) -> dict[str, ProcessIdentity]:
        """Scripts that began after the file was last written."""
        found: dict[str, ProcessIdentity] = {}
        for job_id, task_id, process in _scripts():
            earlier = found.get(task_id)
            if job_id in self._jobs and (earlier is None or _began(process) < _began(earlier)):
                found[task_id] = process
        return found


def _began(process: ProcessIdentity) -> int:
    return process.start or 0


def _scripts() -> Iterator[tuple[str, str, ProcessIdentity]]:
    """Yield job, task and process of every process group that a supervisor started."""
    for place in _PROC.glob("[0-9]*"):
        with suppress(OSError):
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            if fields[_GROUP] != place.name:
                continue
            words = os.fsdecode((place / "environ").read_bytes()).split("\0")
            environment = dict(word.split("=", 1) for word in words if "=" in word)
            if job_id := environment.get(JOB_VARIABLE):
                task = environment.get(TASK_VARIABLE)
                yield job_id, f"{job_id}_{task}" if task else job_id, identify(int(place.name))

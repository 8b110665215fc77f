"""Tasks that have not begun: which of them may, and which never will."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from valska.external_tools.core.local.job import (
    Index,
    LocalJob,
    hopeful,
    overall,
    split_id,
)
from valska.external_tools.core.local.tally import Tally
from valska.external_tools.core.scheduler import JobState

Look = Callable[[str, Index], JobState]
"""Tells the state of a job (index None) or of one task of another submission."""


class Waiting:
    """The tasks of a submission that have not begun.

    The end of a task costs a look at the tasks that wait for it, never at all of them.

    Parameters
    ----------
    tally
        How far the tasks of this submission are.
    outside
        Tells the states of those of other submissions.
    """

    def __init__(self, tally: Tally, outside: Look) -> None:
        self._tally = tally
        self._outside = outside
        self._jobs = {job.job_id: job for job in tally.jobs}
        # Of each job the tasks that have not begun, and whether what each corresponds to is done.
        self._pending: dict[str, dict[Index, bool]] = {}
        self._ready: dict[str, deque[Index]] = {job_id: deque() for job_id in self._jobs}
        self._followers: dict[str, list[LocalJob]] = {}
        for job in tally.jobs:
            self._pending[job.job_id] = dict.fromkeys(job.indices, False)
            for parent in job.corresponding:
                self._followers.setdefault(parent, []).append(job)
        self.look_again(self._jobs.values())

    def __bool__(self) -> bool:
        return bool(self._pending)

    @property
    def others(self) -> bool:
        """Whether something waits for a job of another submission."""
        return any(self._foreign(self._jobs[job_id]) for job_id in self._pending)

    def settle(self) -> None:
        """Take note of all tasks that have ended, and cancel what can never begin."""
        while True:
            for job_id, index in self._tally.take_ended():
                for job in self._followers.get(job_id, ()):
                    self._weigh_all(job, [index] if index is not None else None)
            for job in self._waiting_jobs():
                bad = [parent for parent in job.dependency if not hopeful(self._state(parent))]
                if bad:
                    self.cancel(job, None, f"{bad[0]} did not succeed")
            if not self._tally.has_ended:
                return

    def look_again(self, jobs: Iterable[LocalJob] | None = None) -> None:
        """Weigh the tasks anew that wait for other submissions, since these have changed."""
        for job in self._waiting_jobs() if jobs is None else jobs:
            if jobs is not None or self._foreign(job):
                self._weigh_all(job, None)

    def next(self) -> tuple[LocalJob, Index] | None:
        """Return the first task in the order of the jobs that may begin; it still waits."""
        for job in self._waiting_jobs():
            ready = self._ready[job.job_id]
            while ready and ready[0] not in self._pending[job.job_id]:
                ready.popleft()
            if ready and self._may_begin(job):
                return job, ready[0]
        return None

    def take(self, job: LocalJob, index: Index) -> None:
        """Let a task begin."""
        pending = self._pending[job.job_id]
        del pending[index]
        if not pending:
            del self._pending[job.job_id]

    def cancel(self, job: LocalJob, index: Index, why: str) -> None:
        """Cancel a task, or all of an array, as far as they have not begun."""
        pending = self._pending.get(job.job_id, {})
        for one in list(pending) if index is None else [index]:
            if one not in pending:
                continue
            self.take(job, one)
            self._tally.end(job, one, JobState.CANCELLED, why)

    def cancel_all(self, why: str) -> None:
        """Cancel whatever has not begun."""
        for job in self._waiting_jobs():
            self.cancel(job, None, why)

    def _waiting_jobs(self) -> Iterator[LocalJob]:
        return iter([self._jobs[job_id] for job_id in self._pending])

    def _foreign(self, job: LocalJob) -> bool:
        parents = (split_id(parent)[0] for parent in (*job.dependency, *job.corresponding))
        return any(parent not in self._jobs for parent in parents)

    def _may_begin(self, job: LocalJob) -> bool:
        if job.throttle is not None and self._tally.running(job) >= job.throttle:
            return False
        return all(self._state(parent) is JobState.COMPLETED for parent in job.dependency)

    def _weigh_all(self, job: LocalJob, indices: Iterable[Index] | None) -> None:
        pending = self._pending.get(job.job_id, {})
        for index in list(pending) if indices is None else indices:
            if pending.get(index) is False:
                self._weigh(job, index, pending)

    def _weigh(self, job: LocalJob, index: Index, pending: dict[Index, bool]) -> None:
        states = [self._state(parent, index) for parent in job.corresponding]
        if not all(hopeful(state) for state in states):
            self.cancel(job, index, "the task that it waits for did not succeed")
        elif all(state is JobState.COMPLETED for state in states):
            pending[index] = True
            self._ready[job.job_id].append(index)

    def _state(self, parent: str, index: Index = None) -> JobState:
        job_id, task = split_id(parent)
        index = task if task is not None else index
        job = self._jobs.get(job_id)
        if job is None:
            return self._outside(job_id, index)
        if index is None or not job.tasks:
            return overall(self._tally.counts(job))
        return job.of(index).state if index in self._tally.known(job) else JobState.LOST

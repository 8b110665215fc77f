"""Tasks that have not begun: which of them may, and which never will."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable

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
        self._place = {job_id: place for place, job_id in enumerate(self._jobs)}
        # Of each job the tasks that have not begun, and whether what each corresponds to is done.
        self._pending: dict[str, dict[Index, bool]] = {}
        self._ready: dict[str, deque[Index]] = {job_id: deque() for job_id in self._jobs}
        # Places of the jobs that have ready tasks and wait for nothing else, ascending.
        self._offered: list[int] = []
        self._followers: dict[str, list[LocalJob]] = {}
        self._gated: dict[str, list[LocalJob]] = {}
        for job in tally.jobs:
            self._pending[job.job_id] = dict.fromkeys(job.indices, False)
            for parent in dict.fromkeys(job.corresponding):
                self._followers.setdefault(parent, []).append(job)
            for parent in dict.fromkeys(job.dependency):
                self._gated.setdefault(parent, []).append(job)
        self._foreign = [job for job in tally.jobs if self._looks_outside(job)]
        for job in tally.jobs:
            self._consider(job)

    def __bool__(self) -> bool:
        return bool(self._pending)

    @property
    def others(self) -> bool:
        """Whether something waits for a job of another submission."""
        return any(job.job_id in self._pending for job in self._foreign)

    def settle(self) -> None:
        """Take note of all tasks that have ended, and cancel what can never begin."""
        while self._tally.has_ended:
            for job_id, index in self._tally.take_ended():
                for job in self._followers.get(job_id, ()):
                    self._weigh_all(job, [index] if job.tasks and index is not None else None)
                for parent in dict.fromkeys((job_id, self._jobs[job_id].task_id(index))):
                    for job in self._gated.get(parent, ()):
                        self._try_gate(job)

    def look_again(self) -> None:
        """Weigh the tasks anew that wait for other submissions, since these have changed."""
        for job in self._foreign:
            self._consider(job)

    def next(self) -> tuple[LocalJob, Index] | None:
        """Return the first task in the order of the jobs that may begin; it still waits."""
        for place in list(self._offered):
            job = self._tally.jobs[place]
            ready, pending = self._ready[job.job_id], self._pending.get(job.job_id, {})
            while ready and ready[0] not in pending:
                ready.popleft()
            if not ready:
                self._offered.remove(place)
            elif job.throttle is None or self._tally.running(job) < job.throttle:
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
        for job_id in list(self._pending):
            self.cancel(self._jobs[job_id], None, why)

    def _looks_outside(self, job: LocalJob) -> bool:
        parents = (split_id(parent)[0] for parent in (*job.dependency, *job.corresponding))
        return any(parent not in self._jobs for parent in parents)

    def _consider(self, job: LocalJob) -> None:
        self._try_gate(job)
        self._weigh_all(job, None)

    def _try_gate(self, job: LocalJob) -> None:
        """Cancel a job that waits for what did not succeed, or offer it if all did."""
        if job.job_id not in self._pending:
            return
        states = {parent: self._state(parent) for parent in job.dependency}
        bad = [parent for parent, state in states.items() if not hopeful(state)]
        if bad:
            self.cancel(job, None, f"{bad[0]} did not succeed")
        elif all(state is JobState.COMPLETED for state in states.values()):
            self._offer(job)

    def _offer(self, job: LocalJob) -> None:
        place = self._place[job.job_id]
        at = bisect_left(self._offered, place)
        if self._ready[job.job_id] and self._offered[at : at + 1] != [place]:
            self._offered.insert(at, place)

    def _weigh_all(self, job: LocalJob, indices: Iterable[Index] | None) -> None:
        pending = self._pending.get(job.job_id, {})
        for index in list(pending) if indices is None else indices:
            if pending.get(index) is False:
                self._weigh(job, index, pending)
        if self._ready[job.job_id]:
            self._try_gate(job)

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

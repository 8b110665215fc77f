"""How far the tasks of a submission are, as their supervisor counts them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from valska.external_tools.core.identity import ProcessIdentity
from valska.external_tools.core.local.job import NOT_BEGUN, Index, LocalJob, Progress, Queue
from valska.external_tools.core.scheduler import JobState
from valska.external_tools.core.utils import utc_now_iso


class Tally:
    """The jobs of one submission and the progress of each task.

    Parameters
    ----------
    jobs
        As they were sent.
    """

    def __init__(self, jobs: Sequence[LocalJob]) -> None:
        self._progress: dict[str, dict[Index, Progress]] = {job.job_id: {} for job in jobs}
        self.jobs = tuple(replace(job, progress=self._progress[job.job_id]) for job in jobs)
        self._tasks = {job.job_id: frozenset(job.indices) for job in jobs}
        self._counts = {
            job.job_id: Counter({JobState.PENDING: len(job.indices)}) for job in self.jobs
        }
        self._alike: dict[Progress, Progress] = {}
        self._ended: deque[tuple[str, Index]] = deque()
        self.changed = False

    def queue(self, token: str, supervisor: ProcessIdentity) -> Queue:
        """Return all of it for the state file."""
        return Queue(token, supervisor, self.jobs)

    def known(self, job: LocalJob) -> Collection[Index]:
        """Return the indices of a job's tasks."""
        return self._tasks[job.job_id]

    def counts(self, job: LocalJob) -> Mapping[JobState, int]:
        """Return how many tasks of a job are in each state."""
        return self._counts[job.job_id]

    def running(self, job: LocalJob) -> int:
        """Return how many tasks of a job run."""
        return self._counts[job.job_id].get(JobState.RUNNING, 0)

    def begin(self, job: LocalJob, index: Index, process: ProcessIdentity) -> None:
        """Note that a task runs."""
        began = Progress(JobState.RUNNING, process, started_utc=utc_now_iso())
        self._note(job, index, began)

    def end(
        self, job: LocalJob, index: Index, state: JobState, why: str | None, code: int | None = None
    ) -> None:
        """Note that a task has ended, with its exit code or minus its signal."""
        ended = Progress(
            state,
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            reason=why,
            started_utc=None if job.tasks else job.of(index).started_utc,
            ended_utc=None if job.tasks else utc_now_iso(),
        )
        self._note(job, index, self._alike.setdefault(ended, ended))
        self._ended.append((job.job_id, index))

    @property
    def has_ended(self) -> bool:
        """Whether there are ends that nobody has taken note of."""
        return bool(self._ended)

    def take_ended(self) -> Iterator[tuple[str, Index]]:
        """Yield what has ended since the last call."""
        while self._ended:
            yield self._ended.popleft()

    def _note(self, job: LocalJob, index: Index, progress: Progress) -> None:
        progresses = self._progress[job.job_id]
        counts = self._counts[job.job_id]
        before = progresses.get(index, NOT_BEGUN).state
        counts[before] -= 1
        if not counts[before]:
            del counts[before]
        counts[progress.state] += 1
        progresses[index] = progress
        self.changed = True

"""Jobs of other submissions of the same directory, as their state files tell of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.local.belief import Belief
from valska.external_tools.core.local.job import Index, LocalJob, overall
from valska.external_tools.core.local.queue import queue_paths, read_queue
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobState
from valska.external_tools.core.utils import load_json

Stamp = tuple[int, int, int]


class Outside:
    """What other supervisors have done so far; their files are read when they have changed.

    Parameters
    ----------
    bundle
        Whose submissions.
    own
        The state file that is not another's.
    """

    def __init__(self, bundle: Bundle, own: Path) -> None:
        self._bundle = bundle
        self._own = own
        self._stamps: dict[Path, Stamp] = {}
        self._beliefs: dict[Path, Belief] = {}
        self._completed: dict[str, frozenset[str]] = {}

    def look(self) -> None:
        """Read what has changed; a file that cannot be read keeps what was known of it."""
        for path in queue_paths(self._bundle):
            with suppress(OSError, ValskaError):
                self._read(path)
        for path, belief in self._beliefs.items():
            self._beliefs[path] = Belief(belief.queue)
        self._completed.clear()

    def state(self, job_id: str, index: Index) -> JobState:
        """Return the state of a job, or of one task; lost, if no file knows it."""
        if not self._beliefs:
            self.look()
        for belief in self._beliefs.values():
            if job := belief.job(job_id):
                if index is None or not job.tasks:
                    return overall(Counter(self._of(belief, job, one) for one in job.indices))
                return self._of(belief, job, index) if belief.knows(job, index) else JobState.LOST
        return JobState.LOST

    def _of(self, belief: Belief, job: LocalJob, index: Index) -> JobState:
        """Return the state of a task; one that outlived its supervisor is known by its record."""
        state = belief.of(job, index).state
        if state is JobState.LOST and belief.orphaned and job.task_id(index) in self._done(job):
            return JobState.COMPLETED
        return state

    def _done(self, job: LocalJob) -> frozenset[str]:
        """Return the tasks whose records say that they have completed."""
        if job.job_id not in self._completed:
            self._completed[job.job_id] = frozenset(self._completed_tasks(job))
        return self._completed[job.job_id]

    def _completed_tasks(self, job: LocalJob) -> Iterator[str]:
        records, prefix = self._bundle.records.name, f"{job.stage}-"
        place = f"*/*/{records}" if job.tasks else records
        for path in self._bundle.path.glob(f"{place}/{prefix}{job.job_id}*-r*.json"):
            with suppress(ValskaError):
                if load_json(path).get("state") == "completed":
                    yield path.name.removeprefix(prefix).rpartition("-r")[0]

    def _read(self, path: Path) -> None:
        stat = path.stat()
        stamp = stat.st_ino, stat.st_mtime_ns, stat.st_size
        if path == self._own or self._stamps.get(path) == stamp:
            return
        queue = read_queue(path)
        if queue is not None:
            self._stamps[path] = stamp
            self._beliefs[path] = Belief(queue)

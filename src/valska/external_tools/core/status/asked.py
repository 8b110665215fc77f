"""A scheduler that was asked about the jobs of many runs at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobInfo, JobRef, Scheduler, SchedulerError


class Asked:
    """A scheduler that was asked about many jobs at once, and answers from that.

    Parameters
    ----------
    scheduler
        Whom to ask.
    refs
        The jobs. About others it asks each time.
    """

    def __init__(self, scheduler: Scheduler, refs: Sequence[JobRef]) -> None:
        self._scheduler = scheduler
        self._known = {ref.job_id for ref in refs}
        self._jobs: dict[str, dict[str, JobInfo]] = {}
        self._error: SchedulerError | None = None
        if refs:
            self._ask(refs)

    def __getattr__(self, name: str) -> Any:
        """Leave all else to the scheduler."""
        return getattr(self._scheduler, name)

    def query(self, bundle: Bundle, refs: Sequence[JobRef]) -> Mapping[str, JobInfo]:
        """Return what is known of jobs and of the tasks of arrays; see `Scheduler.query`."""
        known = [ref.job_id for ref in refs if ref.job_id in self._known]
        if known and self._error is not None:
            raise self._error
        found = {job: info for ref in known for job, info in self._jobs.get(ref, {}).items()}
        others = [ref for ref in refs if ref.job_id not in self._known]
        return {**found, **self._scheduler.query(bundle, others)} if others else found

    def _ask(self, refs: Sequence[JobRef]) -> None:
        try:
            answer = self._scheduler.query(Bundle(Path()), refs)
        except SchedulerError as error:
            self._error = error
            return
        for job, info in answer.items():
            self._jobs.setdefault(job.partition("_")[0], {})[job] = info

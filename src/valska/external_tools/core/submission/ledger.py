"""Keeps jobs.json in step with what is sent, job by job."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobRef, JobRequest, Scheduler
from valska.external_tools.core.submission.intents import Clock
from valska.external_tools.core.submission.jobsfile import JobEntry, load_jobs_json, write_jobs_json
from valska.external_tools.core.utils import write_json_atomic


@dataclass(slots=True, kw_only=True)
class Ledger:
    """The entries of jobs.json while a submission goes on; a `Watch` of the scheduler.

    Parameters
    ----------
    bundle, scheduler, seal, clock
        Of the submission.
    stage
        What was asked for, as jobs.json says it.
    token
        Of the submission.
    entries
        The last submission of each stage; changed in place.
    attempts
        Count of earlier submissions per stage.
    """

    bundle: Bundle
    scheduler: Scheduler
    seal: str
    stage: str
    token: str
    clock: Clock
    entries: dict[str, JobEntry]
    attempts: dict[str, int] = field(default_factory=dict)
    accepted_stages: list[str] = field(default_factory=list)
    _open: dict[str, JobEntry | None] = field(default_factory=dict)

    def sending(self, request: JobRequest, argv: tuple[str, ...]) -> None:
        """Write the intent, together with the ids that came in before it."""
        self._open[request.stage] = self.entries.get(request.stage)
        self.entries[request.stage] = JobEntry(
            stage=request.stage,
            job_id=request.job_id,
            name=request.name,
            script=request.script,
            dependency=self._dependency(request),
            attempt=self.attempts.get(request.stage, 0) + 1,
            token=self.token,
            submitted_utc=now_text(self.clock),
            scheduler=self.scheduler.name,
            cluster=request.cluster,
            command=argv,
        )
        try:
            self.save()
        except ValskaError:
            self._forget(request.stage)
            raise

    def accepted(self, request: JobRequest, ref: JobRef) -> None:
        """Note an id. It is on disk before the next job is sent, and at the end."""
        entry = self.entries[request.stage]
        self.entries[request.stage] = replace(entry, job_id=ref.job_id, cluster=ref.cluster)
        self._open.pop(request.stage)
        self.accepted_stages.append(request.stage)

    def take_back(self) -> None:
        """Forget what was certainly not sent; an earlier submission is the last one again."""
        for stage in list(self._open):
            self._forget(stage)

    def save(self) -> None:
        """Write jobs.json."""
        clusters = [entry.cluster for entry in self.entries.values() if entry.token == self.token]
        write_jobs_json(
            self.bundle.path,
            stage=self.stage,
            jobs={stage: entry.as_json() for stage, entry in self.entries.items()},
            commands=[entry.command for entry in self.entries.values() if entry.command],
            sbatch=self.scheduler.program,
            submitted_utc=now_text(self.clock),
            extra_fields={
                "seal": self.seal,
                "scheduler": self.scheduler.name,
                "cluster": next((cluster for cluster in clusters if cluster), None),
                "token": self.token,
            },
        )

    def _dependency(self, request: JobRequest) -> str | None:
        chained = (self.entries[stage].job_id for stage in request.after)
        parents = [*request.dependency, *(job_id for job_id in chained if job_id)]
        return ":".join(["afterok", *parents]) if parents else None

    def _forget(self, stage: str) -> None:
        before = self._open.pop(stage)
        del self.entries[stage]
        if before is not None:
            self.entries[stage] = before


def update_entries(bundle: Bundle, entries: dict[str, JobEntry]) -> None:
    """Write changed entries into jobs.json and leave all else in it as it is."""
    data: dict[str, Any] = dict(load_jobs_json(bundle.path) or {})
    data["jobs"] = {stage: entry.as_json() for stage, entry in entries.items()}
    data["commands"] = [list(entry.command) for entry in entries.values() if entry.command]
    write_json_atomic(bundle.jobs, data)


def now_text(clock: Clock) -> str:
    """Return the clock's time as ISO 8601 in UTC, to the second."""
    return clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")

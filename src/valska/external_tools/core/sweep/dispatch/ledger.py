"""Keeps a sweep's jobs.json in step with what is sent, array by array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.ranges import write_ranges
from valska.external_tools.core.scheduler import JobRef, JobRequest, Scheduler
from valska.external_tools.core.slurm.text import dependency_of
from valska.external_tools.core.submission.intents import Clock
from valska.external_tools.core.submission.ledger import now_text
from valska.external_tools.core.sweep.dispatch.jobsfile import ArrayEntry, write_sweep_jobs
from valska.external_tools.core.sweep.layout import Sweep


@dataclass(slots=True, kw_only=True)
class SweepLedger:
    """The arrays in jobs.json while a submission goes on; a `Watch` of the scheduler.

    Parameters
    ----------
    sweep, scheduler, token, clock
        Of the submission.
    arrays
        All that were ever sent; changed in place.
    resume
        Whether the tasks go on from what earlier ones left.
    """

    sweep: Sweep
    scheduler: Scheduler
    token: str
    clock: Clock
    arrays: list[ArrayEntry]
    resume: bool = False
    _ids: dict[str, str] = field(default_factory=dict)

    @property
    def sent(self) -> tuple[ArrayEntry, ...]:
        """The arrays that the scheduler took of this submission."""
        return tuple(one for one in self.arrays if one.token == self.token and one.job_id)

    def sending(self, request: JobRequest, argv: tuple[str, ...]) -> None:
        """Write the intent, together with the ids that came in before it."""
        digest, name = request.args[:2]
        self.arrays.append(
            ArrayEntry(
                stage=request.stage,
                name=request.name,
                job_id=None,
                list=name,
                list_sha256=digest,
                tasks=write_ranges(request.tasks),
                count=len(request.tasks),
                dependency=dependency_of(request, self._known(request)),
                token=self.token,
                submitted_utc=now_text(self.clock),
                scheduler=self.scheduler.name,
                cluster=request.cluster,
                command=argv,
                resume=self.resume,
            )
        )
        self._ids[request.stage] = request.job_id or ""
        try:
            self.save()
        except ValskaError:
            self.arrays.pop()
            raise

    def accepted(self, request: JobRequest, ref: JobRef) -> None:
        """Note an id. It is on disk before the next array is sent, and at the end."""
        self._ids[request.stage] = ref.job_id
        self.arrays[:] = [
            replace(one, job_id=ref.job_id, cluster=ref.cluster)
            if one.name == request.name
            else one
            for one in self.arrays
        ]

    def take_back(self) -> None:
        """Forget what was certainly not sent."""
        self.arrays[:] = [one for one in self.arrays if one.job_id or one.token != self.token]

    def save(self) -> None:
        """Write jobs.json; without any array there is none."""
        if not self.arrays:
            self.sweep.bundle.jobs.unlink(missing_ok=True)
            return
        write_sweep_jobs(
            self.sweep,
            self.arrays,
            submitted_utc=now_text(self.clock),
            scheduler=self.scheduler.name,
            sbatch=self.scheduler.program,
            token=self.token,
        )

    def _known(self, request: JobRequest) -> Mapping[str, str]:
        names = (*request.after, *request.after_each)
        return {name: self._ids.get(name) or f"<{name}>" for name in names}

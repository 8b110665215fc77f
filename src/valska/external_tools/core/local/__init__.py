"""The embedded scheduler, for machines without Slurm: same scripts, same names, same answers."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from valska.external_tools.core.errors import SubmissionError, ValskaError
from valska.external_tools.core.local import supervisor
from valska.external_tools.core.local.queue import (
    LocalJob,
    Queue,
    believed,
    cancel_request,
    create_queue,
    read_queue,
    read_queues,
)
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import (
    JobInfo,
    JobRef,
    JobRequest,
    JobState,
    SchedulerError,
    Watch,
    parse_utc,
    token_of,
)
from valska.external_tools.core.timelimit import grace_of, parse_time

START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Local:
    """Runs the stages on this machine, one after the other, detached from the terminal.

    Parameters
    ----------
    environment
        For the scripts.
    new_id
        Gives the ids of jobs.
    now, sleep
        The clock.
    """

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    new_id: Callable[[], str] = lambda: f"local-{uuid.uuid4()}"
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep

    @property
    def name(self) -> str:
        """``local``."""
        return "local"

    @property
    def program(self) -> str:
        """``bash``."""
        return "bash"

    def reserve(self) -> str | None:
        """Return a new id."""
        return self.new_id()

    def commands(self, requests: Sequence[JobRequest]) -> tuple[tuple[str, ...], ...]:
        """Return the bash command of each request."""
        return tuple(_command(request) for request in requests)

    def submit(self, bundle: Bundle, requests: Sequence[JobRequest], watch: Watch) -> None:
        """Hand a chain to a new supervisor and wait until it has taken it over.

        Raises
        ------
        SubmissionError
            If it did not; then nothing runs.
        """
        ids = {request.stage: request.job_id or self.new_id() for request in requests}
        for request in requests:
            watch.sending(request, _command(request))
        token = token_of(requests[0].name) or ""
        jobs = [_job(request, ids) for request in requests]
        with supervisor.launch(bundle, token, jobs, self.environment) as child:
            given_up = not _is_ready(child) and _give_up(bundle, token)
            if given_up:
                os.killpg(child.pid, signal.SIGKILL)
        if given_up:
            raise _not_started(bundle, token)
        for request in requests:
            watch.accepted(request, JobRef(ids[request.stage], request.name))

    def find(
        self, bundle: Bundle, ref: JobRef | None, name: str, since: datetime
    ) -> JobInfo | None:
        """Return a job by name; a submission that no supervisor took over never will be."""
        token = token_of(name) or ""
        if _give_up(bundle, token):
            return None
        queue = _read(bundle, token)
        jobs = queue.jobs if queue and queue.supervisor else ()
        return next((self._info(queue, job) for job in jobs if queue and job.name == name), None)

    def query(self, bundle: Bundle, refs: Sequence[JobRef]) -> Mapping[str, JobInfo]:
        """Return what the state files say, and whether the processes in them still live."""
        wanted = {ref.job_id for ref in refs}
        return {
            job.job_id: self._info(queue, job)
            for queue in _queues(bundle, refs)
            for job in queue.jobs
            if job.job_id in wanted
        }

    def cancel(self, bundle: Bundle, refs: Sequence[JobRef], grace_s: float) -> None:
        """Ask the supervisor to end jobs, and wait until they have ended.

        Raises
        ------
        SchedulerError
            If a job's supervisor is on another host and does not end it.
        """
        wanted = [ref for ref in reversed(refs) if self._state(bundle, ref).live]
        for ref in wanted:
            cancel_request(bundle, ref.job_id).write_text(f"{grace_s:g}\n")
        self._end_orphans(bundle, wanted, grace_s)
        ended = self._wait(bundle, wanted, grace_s + 10.0)
        for ref in wanted:
            cancel_request(bundle, ref.job_id).unlink(missing_ok=True)
        if not ended:
            raise SchedulerError(
                "the supervisor of the jobs has not ended them",
                "If it runs on another host, run `valska cancel` there.",
            )

    def _state(self, bundle: Bundle, ref: JobRef) -> JobState:
        info = self.query(bundle, [ref]).get(ref.job_id)
        return info.state if info else JobState.LOST

    def _wait(self, bundle: Bundle, refs: Sequence[JobRef], bound_s: float) -> bool:
        waited, pause = 0.0, 0.05
        while any(self._state(bundle, ref).live for ref in refs):
            if waited > bound_s:
                return False
            self.sleep(pause)
            waited, pause = waited + pause, min(pause * 1.5, 1.0)
        return True

    def _end_orphans(self, bundle: Bundle, refs: Sequence[JobRef], grace_s: float) -> None:
        """End scripts whose supervisor was killed: nobody else will."""
        orphans = [job for ref in refs if (job := _orphan(bundle, ref)) and job.process]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for job in orphans:
                _signal(job, number)
            self._wait(bundle, refs, grace_s if orphans else 0.0)

    def _info(self, queue: Queue, job: LocalJob) -> JobInfo:
        state, reason = believed(queue, job)
        return JobInfo(
            job.job_id,
            job.name,
            state,
            state.value,
            exit_code=job.exit_code,
            signal=job.signal,
            reason=reason,
            elapsed_s=self._elapsed(job),
            limit_s=job.limit_s,
        )

    def _elapsed(self, job: LocalJob) -> int | None:
        if job.started_utc is None:
            return None
        end = parse_utc(job.ended_utc) if job.ended_utc else self.now()
        return int((end - parse_utc(job.started_utc)).total_seconds())


def _command(request: JobRequest) -> tuple[str, ...]:
    return ("bash", request.script, *request.args)


def _job(request: JobRequest, ids: Mapping[str, str]) -> LocalJob:
    return LocalJob(
        job_id=ids[request.stage],
        name=request.name,
        stage=request.stage,
        script=request.script,
        args=request.args,
        dependency=(*request.dependency, *(ids[stage] for stage in request.after)),
        limit_s=parse_time(request.directives.get("time", "")),
        grace_s=grace_of(request.directives),
    )


def _is_ready(child: subprocess.Popen[bytes]) -> bool:
    """Wait for the supervisor's word; False if it ended, or takes too long."""
    assert child.stdout is not None  # noqa: S101 - the launch asked for it
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        return bool(selector.select(START_TIMEOUT_S)) and child.stdout.read(1) != b""


def _give_up(bundle: Bundle, token: str) -> bool:
    """Keep a submission from ever being started; False if it was."""
    return create_queue(bundle.local_queue(token), Queue(token, None, ()))


def _not_started(bundle: Bundle, token: str) -> SubmissionError:
    path = supervisor.messages(bundle, token)
    said = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return SubmissionError(
        f"the local scheduler did not start: {said[-1] if said else 'it gave no reason'}",
        f"The whole message is in {path}." if said else "Try again.",
    )


def _queues(bundle: Bundle, refs: Sequence[JobRef]) -> Iterable[Queue]:
    tokens = {token_of(ref.name or "") for ref in refs}
    if None in tokens:
        return list(read_queues(bundle))
    return [queue for token in tokens if (queue := _read(bundle, token or ""))]


def _read(bundle: Bundle, token: str) -> Queue | None:
    try:
        return read_queue(bundle.local_queue(token))
    except ValskaError as error:
        raise SchedulerError(error.message, error.hint) from error


def _orphan(bundle: Bundle, ref: JobRef) -> LocalJob | None:
    for queue in _queues(bundle, [ref]):
        if queue.supervisor is not None and queue.supervisor.alive() is False:
            return next((job for job in queue.jobs if job.job_id == ref.job_id), None)
    return None


def _signal(job: LocalJob, number: signal.Signals) -> None:
    if job.process is None or not job.process.alive():
        return
    with contextlib.suppress(ProcessLookupError):
        if number is signal.SIGKILL:
            os.killpg(job.process.pid, number)
        else:
            os.kill(job.process.pid, number)

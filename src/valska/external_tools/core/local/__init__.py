"""The embedded scheduler, for machines without Slurm: same scripts, same names, same answers."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from valska.external_tools.core.errors import SubmissionError, ValskaError
from valska.external_tools.core.identity import ProcessIdentity
from valska.external_tools.core.local import supervisor
from valska.external_tools.core.local.belief import Belief
from valska.external_tools.core.local.cancelling import write_request
from valska.external_tools.core.local.job import Index, LocalJob, Progress, Queue, split_id
from valska.external_tools.core.local.queue import (
    create_queue,
    queue_paths,
    read_queue,
)
from valska.external_tools.core.local.room import cpus_asked, jobs_at_once
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import (
    JobInfo,
    JobRef,
    JobRequest,
    SchedulerError,
    Watch,
    parse_utc,
    token_of,
)
from valska.external_tools.core.timelimit import grace_of, parse_time

START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Local:
    """Runs the stages on this machine, as many at once as it has room, detached from the terminal.

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
        UsageError
            If ``$VALSKA_LOCAL_JOBS`` is not a number.
        """
        at_once = jobs_at_once(self.environment)
        jobs = local_jobs(requests, self.new_id)
        for request in requests:
            watch.sending(request, _command(request))
        token = token_of(requests[0].name) or ""
        with supervisor.launch(bundle, token, jobs, self.environment, at_once) as child:
            taken_over = _is_ready(child) or _was_taken_over(bundle, token, jobs)
            if not taken_over:
                os.killpg(child.pid, signal.SIGKILL)
        if not taken_over:
            raise _not_started(bundle, token)
        for request, job in zip(requests, jobs, strict=True):
            watch.accepted(request, JobRef(job.job_id, request.name))

    def find(
        self, bundle: Bundle, ref: JobRef | None, name: str, since: datetime
    ) -> JobInfo | None:
        """Return a job by name; a submission that no supervisor took over never will be.

        Of an array it tells the state of the whole.
        """
        return None if _give_up(bundle, token_of(name) or "") else self._named(bundle, name)

    def query(self, bundle: Bundle, refs: Sequence[JobRef]) -> Mapping[str, JobInfo]:
        """Return what the state files say, and whether the processes in them still live.

        The id of an array asks for each of its tasks: ``<id>_<index>``.
        """
        wanted = dict.fromkeys(ref.job_id for ref in refs)
        return {
            job.task_id(index): self._info(belief, job, index)
            for belief in _beliefs(bundle, refs)
            for job, index in _chosen(belief, wanted)
        }

    def cancel(self, bundle: Bundle, refs: Sequence[JobRef], grace_s: float) -> None:
        """Ask the supervisor to end jobs, and wait until they have ended.

        Raises
        ------
        SchedulerError
            If a job's supervisor is on another host and does not end it.
        """
        requests = [
            write_request(bundle, belief.queue.token, ids, grace_s)
            for belief in _beliefs(bundle, refs)
            if (ids := _live_ids(belief, refs)) and not belief.orphaned
        ]
        self._end_orphans(bundle, refs, grace_s)
        ended = self._wait(bundle, refs, grace_s + 10.0)
        for path in requests:
            path.unlink(missing_ok=True)
        if not ended:
            raise SchedulerError(
                "the supervisor of the jobs has not ended them",
                "If it runs on another host, run `valska cancel` there.",
            )

    def _wait(self, bundle: Bundle, refs: Sequence[JobRef], bound_s: float) -> bool:
        waited, pause = 0.0, 0.05
        while any(info.state.live for info in self.query(bundle, refs).values()):
            if waited > bound_s:
                return False
            self.sleep(pause)
            waited, pause = waited + pause, min(pause * 1.5, 1.0)
        return True

    def _end_orphans(self, bundle: Bundle, refs: Sequence[JobRef], grace_s: float) -> None:
        """End scripts whose supervisor was killed: nobody else will."""
        orphans = _orphans(bundle, refs)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in orphans:
                _signal(process, number)
            self._wait(bundle, refs, grace_s if orphans else 0.0)

    def _named(self, bundle: Bundle, name: str) -> JobInfo | None:
        for belief in _beliefs(bundle, [JobRef("", name)]):
            for job in belief.queue.jobs if belief.queue.supervisor else ():
                if job.name == name and job.tasks:
                    state = belief.overall(job)
                    return JobInfo(job.job_id, job.name, state, state.value, limit_s=job.limit_s)
                if job.name == name:
                    return self._info(belief, job, None)
        return None

    def _info(self, belief: Belief, job: LocalJob, index: Index) -> JobInfo:
        progress = belief.of(job, index)
        return JobInfo(
            job.task_id(index),
            job.name,
            progress.state,
            progress.state.value,
            exit_code=progress.exit_code,
            signal=progress.signal,
            reason=progress.reason,
            elapsed_s=self._elapsed(progress),
            limit_s=job.limit_s,
        )

    def _elapsed(self, progress: Progress) -> int | None:
        if progress.started_utc is None:
            return None
        end = parse_utc(progress.ended_utc) if progress.ended_utc else self.now()
        return int((end - parse_utc(progress.started_utc)).total_seconds())


def _command(request: JobRequest) -> tuple[str, ...]:
    return ("bash", request.script, *request.args)


def local_jobs(requests: Sequence[JobRequest], new_id: Callable[[], str]) -> list[LocalJob]:
    """Return the jobs of a chain.

    A stage that another one waits for is the last before it of that name, since a sweep sends a
    stage in several slices.
    """
    jobs: list[LocalJob] = []
    ids: dict[str, str] = {}
    for request in requests:
        job = LocalJob(
            job_id=request.job_id or new_id(),
            name=request.name,
            stage=request.stage,
            script=request.script,
            args=request.args,
            dependency=(*request.dependency, *(ids[stage] for stage in request.after)),
            corresponding=(*request.corresponding, *(ids[stage] for stage in request.after_each)),
            limit_s=parse_time(request.directives.get("time", "")),
            grace_s=grace_of(request.directives),
            cpus=cpus_asked(request.directives),
            throttle=request.throttle,
            tasks=tuple(sorted(set(request.tasks))),
        )
        ids[request.stage] = job.job_id
        jobs.append(job)
    return jobs


def _is_ready(child: subprocess.Popen[bytes]) -> bool:
    """Wait for the supervisor's word; False if it ended, or takes too long."""
    assert child.stdout is not None  # noqa: S101 - the launch asked for it
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        return bool(selector.select(START_TIMEOUT_S)) and child.stdout.read(1) != b""


def _give_up(bundle: Bundle, token: str) -> bool:
    """Keep a submission from ever being started; False if it was."""
    return create_queue(bundle.local_queue(token), Queue(token, None, ()))


def _was_taken_over(bundle: Bundle, token: str, jobs: Sequence[LocalJob]) -> bool:
    """Give a submission up whose supervisor does not answer, unless it has these jobs already."""
    if _give_up(bundle, token):
        return False
    queue = read_queue(bundle.local_queue(token))
    ids = [job.job_id for job in queue.jobs] if queue and queue.supervisor else []
    return ids == [job.job_id for job in jobs]


def _not_started(bundle: Bundle, token: str) -> SubmissionError:
    path = supervisor.messages(bundle, token)
    said = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return SubmissionError(
        f"the local scheduler did not start: {said[-1] if said else 'it gave no reason'}",
        f"The whole message is in {path}." if said else "Try again.",
    )


def _beliefs(bundle: Bundle, refs: Sequence[JobRef]) -> list[Belief]:
    """Return what is known of the submissions that jobs belong to, by the tokens in their names."""
    tokens = {token_of(ref.name or "") for ref in refs}
    if None in tokens:
        return [Belief(queue) for queue in _readable(queue_paths(bundle))]
    try:
        paths = [bundle.local_queue(token) for token in tokens if token]
        return [Belief(queue) for path in paths if (queue := read_queue(path))]
    except ValskaError as error:
        raise SchedulerError(error.message, error.hint) from error


def _readable(paths: Sequence[Path]) -> Iterator[Queue]:
    for path in paths:
        with contextlib.suppress(ValskaError):
            if queue := read_queue(path):
                yield queue


def _chosen(belief: Belief, ids: Iterable[str]) -> Iterator[tuple[LocalJob, Index]]:
    """Yield the tasks that are named, by themselves or with their whole array."""
    for text in ids:
        job_id, index = split_id(text)
        job = belief.job(job_id)
        if job is None:
            continue
        if index is None:
            yield from ((job, one) for one in job.indices)
        elif belief.knows(job, index):
            yield job, index


def _live_ids(belief: Belief, refs: Sequence[JobRef]) -> list[str]:
    """Return the ids, as they were given, of what waits or runs."""
    return [
        ref.job_id
        for ref in refs
        if any(belief.of(*one).state.live for one in _chosen(belief, [ref.job_id]))
    ]


def _orphans(bundle: Bundle, refs: Sequence[JobRef]) -> list[ProcessIdentity]:
    ids = {ref.job_id for ref in refs}
    return [
        process
        for belief in _beliefs(bundle, refs)
        if belief.orphaned
        for one in _chosen(belief, ids)
        if (process := belief.of(*one).process)
    ]


def _signal(process: ProcessIdentity, number: signal.Signals) -> None:
    if not process.alive():
        return
    with contextlib.suppress(ProcessLookupError):
        if number is signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)

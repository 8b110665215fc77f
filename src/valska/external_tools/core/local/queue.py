"""The local scheduler's state file: who runs the jobs of a submission, and how far they are."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.identity import ProcessIdentity, read_identity
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobState
from valska.external_tools.core.utils import load_json, write_json_atomic

SCHEMA_VERSION = "1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalJob:
    """A script to be run, being run, or that was run.

    Parameters
    ----------
    job_id, name, stage, script, args
        Which job, and its command.
    dependency
        Ids of jobs that must succeed before.
    limit_s
        Time limit in seconds; None for none.
    grace_s
        Seconds before its limit at which it is told.
    state
        How far it is.
    process
        Its process, once it was started.
    exit_code, signal, reason
        How it ended and why.
    started_utc, ended_utc
        ISO 8601 times.
    """

    job_id: str
    name: str
    stage: str
    script: str
    args: tuple[str, ...] = ()
    dependency: tuple[str, ...] = ()
    limit_s: int | None = None
    grace_s: int = 0
    state: JobState = JobState.PENDING
    process: ProcessIdentity | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    started_utc: str | None = None
    ended_utc: str | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """The jobs of one submission; without a supervisor, none of them was or will be run."""

    token: str
    supervisor: ProcessIdentity | None
    jobs: tuple[LocalJob, ...]

    def with_job(self, job: LocalJob) -> Queue:
        """Return the queue with one job replaced."""
        jobs = tuple(job if one.job_id == job.job_id else one for one in self.jobs)
        return replace(self, jobs=jobs)

    def job(self, job_id: str) -> LocalJob:
        """Return a job by id."""
        return next(job for job in self.jobs if job.job_id == job_id)


def read_queue(path: Path) -> Queue | None:
    """Return the queue in a state file; None if there is no such file.

    Raises
    ------
    ValskaError
        If it cannot be read.
    """
    if not path.exists():
        return None
    data = load_json(path)
    try:
        return _from_json(data)
    except (KeyError, TypeError, ValueError) as error:
        raise ValskaError(f"{path} is not a state file of the local scheduler: {error}") from error


def read_queues(bundle: Bundle) -> Iterator[Queue]:
    """Yield every queue of a bundle that can be read."""
    for path in sorted(bundle.logs.glob(bundle.local_queue("*").name)):
        try:
            queue = read_queue(path)
        except ValskaError:
            continue
        if queue is not None:
            yield queue


def write_queue(path: Path, queue: Queue) -> None:
    """Replace a state file."""
    write_json_atomic(path, _as_json(queue))


def create_queue(path: Path, queue: Queue) -> bool:
    """Make a state file, whole, unless there is one; return whether it was made.

    Of a supervisor that starts and a submit that gives it up, only one can succeed.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        temporary.write_text(json.dumps(_as_json(queue), indent=2) + "\n", encoding="utf-8")
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def believed(queue: Queue, job: LocalJob) -> tuple[JobState, str | None]:
    """Return the state of a job and why: what the file says, if its supervisor still lives."""
    if queue.supervisor is None:
        return JobState.LOST, "it was never started"
    if not job.state.live:
        return job.state, job.reason
    alive = queue.supervisor.alive()
    if alive is None:
        return job.state, f"on {queue.supervisor.host}"
    if alive:
        return job.state, job.reason
    if job.process is not None and job.process.alive():
        return job.state, "its supervisor was killed: nothing watches its time limit"
    if job.state is JobState.PENDING:
        return JobState.LOST, "its supervisor was killed before it began"
    return JobState.LOST, "it was killed together with its supervisor"


def cancel_request(bundle: Bundle, job_id: str) -> Path:
    """Return the file that asks a supervisor to end a job; it holds the grace in seconds."""
    return bundle.logs / f".cancel-{job_id}"


def encode_job(job: LocalJob) -> dict[str, Any]:
    """Return a job's fields for JSON."""
    return asdict(job)


def decode_job(data: Mapping[str, Any]) -> LocalJob:
    """Return a job from its JSON fields."""
    process = data.get("process")
    return LocalJob(
        **{
            **data,
            "args": tuple(data["args"]),
            "dependency": tuple(data["dependency"]),
            "state": JobState(data["state"]),
            "process": read_identity(process) if process else None,
        }
    )


def _as_json(queue: Queue) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "token": queue.token,
        "supervisor": queue.supervisor.as_json() if queue.supervisor else None,
        "jobs": [encode_job(job) for job in queue.jobs],
    }


def _from_json(data: Mapping[str, Any]) -> Queue:
    supervisor = data["supervisor"]
    return Queue(
        data["token"],
        read_identity(supervisor) if supervisor else None,
        tuple(decode_job(job) for job in data["jobs"]),
    )

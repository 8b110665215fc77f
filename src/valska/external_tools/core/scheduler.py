"""What a scheduler is to valska: it takes a chain of scripts and can be asked about them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from valska.external_tools.core.errors import (
    PrerequisiteError,
    SubmissionError,
    UsageError,
    ValskaError,
)
from valska.external_tools.core.run_directory import Bundle

JOB_NAME_PREFIX = "vk"

_NAME = re.compile(rf"{JOB_NAME_PREFIX}-([0-9a-f]{{8}})-(.+)")


class JobState(StrEnum):
    """What becomes of a job, whichever scheduler has it."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETING = "COMPLETING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NODE_FAIL = "NODE_FAIL"
    PREEMPTED = "PREEMPTED"
    LOST = "LOST"
    UNKNOWN = "UNKNOWN"

    @property
    def live(self) -> bool:
        """Whether the job waits or runs."""
        return self in (JobState.PENDING, JobState.RUNNING, JobState.COMPLETING)


class SchedulerError(ValskaError):
    """The scheduler cannot be asked; nothing is known about its jobs."""


class FullError(SubmissionError):
    """The scheduler takes no more jobs for now; this one was certainly not taken."""


class OutcomeUnknownError(SubmissionError):
    """It is not known whether the scheduler took a job."""


@dataclass(frozen=True, slots=True)
class JobRef:
    """Which job.

    Parameters
    ----------
    job_id
        The scheduler's id.
    name
        The name it was submitted with; an id that Slurm uses for another job is told by it.
    cluster
        The Slurm cluster that has it, where sbatch named one.
    """

    job_id: str
    name: str | None = None
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A stage to be sent.

    Parameters
    ----------
    stage
        Name of the stage.
    name
        Name of the job.
    script
        File name of its script in the bundle.
    args
        Arguments of the script.
    after
        Stages of the same chain that must succeed before.
    dependency
        Ids of jobs sent earlier that must succeed before.
    extra
        Options for this one submission (``--time=10``).
    directives
        The stage's directives, as they stand in its script.
    cluster
        The Slurm cluster to send it to.
    job_id
        The id that the scheduler gave out beforehand, if it does that.
    tasks
        Indices of a job array; empty for a single job.
    throttle
        How many tasks of the array may run at once.
    after_each
        Stages of the same chain, arrays with these indices too: each task waits for its own.
    corresponding
        Ids of arrays sent earlier: each task waits for theirs of the same index.
    """

    stage: str
    name: str
    script: str
    args: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    dependency: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    directives: Mapping[str, str] = field(default_factory=dict)
    cluster: str | None = None
    job_id: str | None = None
    tasks: tuple[int, ...] = ()
    throttle: int | None = None
    after_each: tuple[str, ...] = ()
    corresponding: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobInfo:
    """What a scheduler says about a job.

    Parameters
    ----------
    job_id, name, cluster
        See `JobRef`.
    state
        Its state.
    word
        The scheduler's own word for the state.
    exit_code, signal
        How it ended.
    reason
        Why it is in that state, in the scheduler's words.
    elapsed_s, limit_s
        Run time and time limit in seconds.
    """

    job_id: str
    name: str
    state: JobState
    word: str
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    cluster: str | None = None
    elapsed_s: int | None = None
    limit_s: int | None = None


class Watch(Protocol):
    """Is told about each step of a submission, so that it can be written down in time."""

    def sending(self, request: JobRequest, argv: tuple[str, ...]) -> None:
        """Note what is about to be sent. Nothing is sent before this returns."""
        ...

    def accepted(self, request: JobRequest, ref: JobRef) -> None:
        """Note what the scheduler took."""
        ...


class Scheduler(Protocol):
    """Slurm, or the one built in. All of them take the same scripts."""

    @property
    def name(self) -> str:
        """``slurm`` or ``local``."""
        ...

    @property
    def program(self) -> str:
        """The program that takes a script."""
        ...

    def reserve(self) -> str | None:
        """Return the id of a job to come, if the scheduler gives ids out beforehand."""
        ...

    def commands(self, requests: Sequence[JobRequest]) -> tuple[tuple[str, ...], ...]:
        """Return the exact commands of a chain, ids that are not known yet as ``<stage>``."""
        ...

    def submit(self, bundle: Bundle, requests: Sequence[JobRequest], watch: Watch) -> None:
        """Send a chain in order, telling `watch` about each step.

        Raises
        ------
        SubmissionError
            If a job was refused. Those before it have been accepted.
        OutcomeUnknownError
            If it is not known whether a job was accepted.
        """
        ...

    def find(
        self, bundle: Bundle, ref: JobRef | None, name: str, since: datetime
    ) -> JobInfo | None:
        """Look for a job by name; None means that there is certainly none.

        Raises
        ------
        SchedulerError
            If the scheduler does not answer.
        """
        ...

    def query(self, bundle: Bundle, refs: Sequence[JobRef]) -> Mapping[str, JobInfo]:
        """Return what is known of jobs, by id. An id that is missing is unknown to the scheduler.

        Raises
        ------
        SchedulerError
            If the scheduler does not answer.
        """
        ...

    def cancel(self, bundle: Bundle, refs: Sequence[JobRef], grace_s: float) -> None:
        """End jobs: those that wait at once, those that run with TERM and, after a grace, KILL.

        Raises
        ------
        SchedulerError
            If the scheduler does not answer.
        """
        ...


def job_name(token: str, stage: str) -> str:
    """Return the name of a stage's job in the submission with that token."""
    return f"{JOB_NAME_PREFIX}-{token}-{stage}"


def token_of(name: str) -> str | None:
    """Return the token in a job's name; None if the name is not one of valska's."""
    match = _NAME.fullmatch(name)
    return match[1] if match else None


def parse_utc(text: str) -> datetime:
    """Read a time as `utc_now_iso` writes it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


Which = Callable[[str], str | None]


def choose_scheduler(name: str | None = None, *, which: Which = shutil.which) -> Scheduler:
    """Return a scheduler by name; without one, Slurm where there is ``sbatch``, else the local one.

    Parameters
    ----------
    name
        ``slurm`` or ``local``.
    which
        Finds a program on the PATH.

    Raises
    ------
    PrerequisiteError
        If Slurm is asked for and there is no ``sbatch``.
    UsageError
        If no scheduler has that name.
    """
    from valska.external_tools.core.local import Local
    from valska.external_tools.core.slurm import Slurm

    if name is None:
        name = "slurm" if which("sbatch") else "local"
    if name == "local":
        return Local()
    if name != "slurm":
        raise UsageError(f"no scheduler is called {name!r}", "There are `slurm` and `local`.")
    if which("sbatch") is None:
        raise PrerequisiteError(
            "there is no sbatch on the PATH",
            "Log in to the cluster or load its Slurm module, or use --scheduler local.",
        )
    return Slurm()


def scheduler_named(name: str, given: Scheduler) -> Scheduler:
    """Return the scheduler of an earlier submission: the given one, if it is that one."""
    from valska.external_tools.core.local import Local
    from valska.external_tools.core.slurm import Slurm

    if name == given.name:
        return given
    return Local() if name == "local" else Slurm()

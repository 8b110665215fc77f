"""What the local scheduler runs: single jobs and arrays of tasks, and how far each one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from valska.external_tools.core.identity import ProcessIdentity
from valska.external_tools.core.scheduler import JobState

Index = int | None
"""Index of a task in its array; None for a single job, and for an array as a whole."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a task is.

    Parameters
    ----------
    state
        Its state.
    process
        Its process, while it runs.
    exit_code, signal, reason
        How it ended and why.
    started_utc, ended_utc
        ISO 8601 times; of the tasks of an array, only while they run.
    """

    state: JobState = JobState.PENDING
    process: ProcessIdentity | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    started_utc: str | None = None
    ended_utc: str | None = None


NOT_BEGUN = Progress()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalJob:
    """A script to be run, being run, or that was run, once or as an array of tasks.

    Parameters
    ----------
    job_id, name, stage, script, args
        Which job, and its command.
    dependency
        Ids of jobs, and of single tasks, that must succeed before.
    corresponding
        Ids of arrays: each task waits for theirs of the same index.
    limit_s
        Time limit of each task in seconds; None for none.
    grace_s
        Seconds before its limit at which a task is told.
    cpus
        Processors that a task asks for.
    throttle
        How many tasks may run at once.
    tasks
        Indices of the array; empty for a single job.
    progress
        How far the tasks are that have begun or ended.
    """

    job_id: str
    name: str
    stage: str
    script: str
    args: tuple[str, ...] = ()
    dependency: tuple[str, ...] = ()
    corresponding: tuple[str, ...] = ()
    limit_s: int | None = None
    grace_s: int = 0
    cpus: int = 1
    throttle: int | None = None
    tasks: tuple[int, ...] = ()
    progress: Mapping[Index, Progress] = field(default_factory=dict)

    @property
    def indices(self) -> tuple[Index, ...]:
        """The tasks; for a single job, the one index None."""
        return self.tasks or (None,)

    def of(self, index: Index = None) -> Progress:
        """Return how far a task is."""
        return self.progress.get(index, NOT_BEGUN)

    def task_id(self, index: Index) -> str:
        """Return the id of a task, or of the job as a whole."""
        return self.job_id if index is None else f"{self.job_id}_{index}"


@dataclass(frozen=True, slots=True)
class Queue:
    """The jobs of one submission; without a supervisor, none of them was or will be run."""

    token: str
    supervisor: ProcessIdentity | None
    jobs: tuple[LocalJob, ...]


def split_id(text: str) -> tuple[str, Index]:
    """Return the job and the index in the id of a job or a task."""
    job_id, separator, index = text.rpartition("_")
    return (job_id, int(index)) if separator and index.isdecimal() else (text, None)


def hopeful(state: JobState) -> bool:
    """Return whether what waits for a job in this state may still begin."""
    return state.live or state is JobState.COMPLETED


def overall(states: Mapping[JobState, int]) -> JobState:
    """Return the state of a whole array from how many tasks are in each state."""
    if any(state.live for state in states):
        begun = any(state is not JobState.PENDING for state in states)
        return JobState.RUNNING if begun else JobState.PENDING
    bad = [state for state in states if state is not JobState.COMPLETED]
    return max(bad, key=lambda state: states[state]) if bad else JobState.COMPLETED

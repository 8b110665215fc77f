"""A script that a supervisor has started: its clock, its end, and all that it started itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from valska.external_tools.core.local.belief import JOB_VARIABLE, NAME_VARIABLE, TASK_VARIABLE
from valska.external_tools.core.local.job import Index, LocalJob
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobState

KILLED_AFTER_S = 2.0
"""Seconds after its time limit at which a script is killed."""

_ARRAY_PREFIX = "SLURM_ARRAY_"


def start_process(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path,
    stdin: int,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
    session: bool,
) -> subprocess.Popen[bytes]:
    """Start a program and do not wait for it.

    This is the one place beside `process.run` that starts programs: a supervisor has to outlive
    its caller, and has to watch the clock and cancel requests while scripts run.

    Parameters
    ----------
    argv, environment, cwd, stdin, stdout, stderr
        Of the program.
    session
        Give it a session of its own; otherwise, a process group of its own.
    """
    return subprocess.Popen(
        list(argv),
        env=dict(environment),
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=session,
        process_group=None if session else 0,
    )


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that says nothing of a job or array that it was taken from."""
    return {
        name: value
        for name, value in environment.items()
        if name != TASK_VARIABLE and not name.startswith(_ARRAY_PREFIX)
    }


class RunningTask:
    """A script that runs.

    Parameters
    ----------
    bundle
        Where it runs.
    job, index
        Which task it is.
    environment
        For it, beside its own variables.

    Raises
    ------
    OSError
        If it cannot be started.
    """

    def __init__(
        self, bundle: Bundle, job: LocalJob, index: Index, environment: Mapping[str, str]
    ) -> None:
        self.job, self.index = job, index
        own = {JOB_VARIABLE: job.job_id, NAME_VARIABLE: job.name}
        if index is not None:
            own[TASK_VARIABLE] = str(index)
        with (bundle.logs / f"{job.name}-{job.job_id}.log").open("ab") as output:
            self._child = start_process(
                ["bash", job.script, *job.args],
                environment={**environment, **own},
                cwd=bundle.path,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                session=False,
            )
        self._verdict: tuple[JobState, str] | None = None
        limit = float("inf") if job.limit_s is None else time.monotonic() + job.limit_s
        self._tell_at = limit - min(job.grace_s, (job.limit_s or 0) // 2)
        self._kill_at = limit + KILLED_AFTER_S

    @property
    def pid(self) -> int:
        """Number of its process, and of its process group."""
        return self._child.pid

    @property
    def next_event(self) -> float:
        """When it has to be told or killed, on the monotonic clock."""
        return self._kill_at if self._verdict else self._tell_at

    def cancel(self, grace_s: float) -> None:
        """Tell it to end, and kill it after a grace."""
        if self._verdict is None:
            self._verdict = JobState.CANCELLED, "cancelled"
            self._child.terminate()
        self._kill_at = min(self._kill_at, time.monotonic() + grace_s)

    def watch(self) -> bool:
        """Do what its time limit demands; return whether it has ended."""
        if self._has_ended():
            return True
        now = time.monotonic()
        if self._verdict is None and now >= self._tell_at:
            self._verdict = JobState.TIMEOUT, "the time limit was reached"
            self._child.terminate()
        if now >= self._kill_at:
            self._kill_group()
            self._kill_at = now + KILLED_AFTER_S
        return False

    def finish(self) -> tuple[JobState, str | None, int]:
        """End what it left running, and return its state, why, and its code."""
        self._kill_group()
        code = self._child.wait()
        if code == 0:
            return JobState.COMPLETED, None, code
        state, why = self._verdict or (JobState.FAILED, _ending(code))
        return state, why, code

    def _has_ended(self) -> bool:
        """Return whether it has ended, without releasing its number yet."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _ending(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"killed by signal {-code}"

"""The process behind the local scheduler: runs a chain of scripts, detached from any terminal."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import IO, Any

from valska.external_tools.core.identity import identify
from valska.external_tools.core.local.queue import (
    LocalJob,
    Queue,
    believed,
    cancel_request,
    create_queue,
    decode_job,
    encode_job,
    read_queues,
    write_queue,
)
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobState
from valska.external_tools.core.utils import utc_now_iso

READY = b"ready\n"
KILLED_AFTER_S = 2.0
"""Seconds after its time limit, or after a cancel's grace, at which a script is killed."""

_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from valska.external_tools.core.local.supervisor import main; main(sys.argv[2:])"
)
_SHORT_PAUSE_S, _LONG_PAUSE_S = 0.02, 0.25


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
    its caller, and has to watch the clock and cancel requests while a script runs.

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


def launch(
    bundle: Bundle, token: str, jobs: Sequence[LocalJob], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a supervisor; it writes `READY` to its stdout once the jobs are its own.

    It is not affected by the caller's Python settings: it runs isolated, and finds valska where
    the caller found it.
    """
    root = Path(__file__).parents[3]
    payload = {"jobs": [encode_job(job) for job in jobs], "environment": dict(environment)}
    bundle.logs.mkdir(exist_ok=True)
    with messages(bundle, token).open("ab") as errors:
        child = start_process(
            [sys.executable, "-I", "-c", _BOOT, str(root), str(bundle.path), token],
            environment=environment,
            cwd=bundle.path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            session=True,
        )
    assert child.stdin is not None  # noqa: S101 - asked for above
    with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
        pipe.write(json.dumps(payload).encode())
    return child


def messages(bundle: Bundle, token: str) -> Path:
    """Return the file with the supervisor's own errors; it is gone if there were none."""
    return bundle.local_queue(token).with_suffix(".err")


def main(argv: Sequence[str]) -> None:
    """Take the jobs on stdin over, say so on stdout, and run them."""
    bundle, token = Bundle(Path(argv[0])), argv[1]
    payload = json.load(sys.stdin.buffer)
    if os.fork():
        os._exit(0)
    os.chdir("/")
    supervisor = Supervisor(bundle, token, payload)
    if not supervisor.take_over():
        os._exit(1)
    _let_go(READY)
    supervisor.run()
    errors = messages(bundle, token)
    if errors.stat().st_size == 0:
        errors.unlink()


def _let_go(last_words: bytes) -> None:
    """Answer the submit that waits, then hold nothing of the caller's any more."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, last_words)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


class Supervisor:
    """Runs jobs one after the other, in their order.

    Parameters
    ----------
    bundle
        The bundle; its path is absolute.
    token
        Of the submission.
    payload
        ``jobs`` as JSON, and the ``environment`` to run them in.
    """

    def __init__(self, bundle: Bundle, token: str, payload: Mapping[str, Any]) -> None:
        self.bundle = bundle
        self.path = bundle.local_queue(token)
        self.environment: Mapping[str, str] = payload["environment"]
        jobs = tuple(decode_job(job) for job in payload["jobs"])
        self.queue = Queue(token, identify(), jobs)
        self.stopping = False

    def take_over(self) -> bool:
        """Make the jobs this process's own; False if the submit has given them up already."""
        signal.signal(signal.SIGHUP, _ignore)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGTERM, self._stop)
        return create_queue(self.path, self.queue)

    def run(self) -> None:
        """Run every job whose dependencies succeed; the others are cancelled."""
        for job in self.queue.jobs:
            why = self._wait_for_turn(job)
            if why is None:
                self._run(self.queue.job(job.job_id))
            elif self.queue.job(job.job_id).state.live:
                self._end(job, JobState.CANCELLED, why)
            cancel_request(self.bundle, job.job_id).unlink(missing_ok=True)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _wait_for_turn(self, job: LocalJob) -> str | None:
        """Wait until a job may start; return why it never may, or None."""
        while True:
            self._cancel_waiting()
            if self.queue.job(job.job_id).state is not JobState.PENDING:
                return "cancelled"
            states = {parent: self._state_of(parent) for parent in job.dependency}
            bad = [parent for parent, state in states.items() if not _hopeful(state)]
            if bad:
                return f"{bad[0]} did not succeed"
            if all(state is JobState.COMPLETED for state in states.values()):
                return None
            time.sleep(_LONG_PAUSE_S)

    def _cancel_waiting(self) -> None:
        for job in self.queue.jobs:
            asked = self.stopping or cancel_request(self.bundle, job.job_id).exists()
            if job.state is JobState.PENDING and asked:
                self._end(job, JobState.CANCELLED, "cancelled before it began")

    def _state_of(self, job_id: str) -> JobState:
        for queue in (self.queue, *read_queues(self.bundle)):
            for job in queue.jobs:
                if job.job_id == job_id:
                    return believed(queue, job)[0]
        return JobState.LOST

    def _run(self, job: LocalJob) -> None:
        log = self.bundle.logs / f"{job.name}-{job.job_id}.log"
        own = {"VALSKA_JOB_ID": job.job_id, "VALSKA_JOB_NAME": job.name}
        try:
            with log.open("ab") as output:
                child = start_process(
                    ["bash", job.script, *job.args],
                    environment={**self.environment, **own},
                    cwd=self.bundle.path,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    session=False,
                )
        except OSError as error:
            self._end(job, JobState.FAILED, f"cannot start: {error.strerror}")
            return
        job = replace(
            job,
            state=JobState.RUNNING,
            process=identify(child.pid),
            started_utc=utc_now_iso(),
        )
        self._write(job)
        self._watch(job, child)

    def _watch(self, job: LocalJob, child: subprocess.Popen[bytes]) -> None:
        verdict: tuple[JobState, str] | None = None
        start, pause = time.monotonic(), _SHORT_PAUSE_S
        limit = float("inf") if job.limit_s is None else start + job.limit_s
        kill_at = limit + KILLED_AFTER_S
        while not _has_ended(child):
            now = time.monotonic()
            grace = self._cancel_grace(job)
            if verdict is None and grace is not None:
                verdict = JobState.CANCELLED, "cancelled"
                kill_at = now + grace
                child.terminate()
            elif verdict is None and now >= limit - min(job.grace_s, (job.limit_s or 0) // 2):
                verdict = JobState.TIMEOUT, "the time limit was reached"
                child.terminate()
            if now >= kill_at:
                _kill_group(child.pid)
            self._cancel_waiting()
            time.sleep(pause)
            pause = min(pause * 1.5, _LONG_PAUSE_S)
        _kill_group(child.pid)
        code = child.wait()
        if code == 0:
            self._end(job, JobState.COMPLETED, None, code)
        else:
            state, why = verdict or (JobState.FAILED, _ending(code))
            self._end(job, state, why, code)

    def _cancel_grace(self, job: LocalJob) -> float | None:
        if self.stopping:
            return float(job.grace_s)
        try:
            return float(cancel_request(self.bundle, job.job_id).read_text() or job.grace_s)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return float(job.grace_s)

    def _end(
        self, job: LocalJob, state: JobState, why: str | None, code: int | None = None
    ) -> None:
        ended = replace(
            job,
            state=state,
            reason=why,
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            ended_utc=utc_now_iso(),
        )
        self._write(ended)

    def _write(self, job: LocalJob) -> None:
        self.queue = self.queue.with_job(job)
        write_queue(self.path, self.queue)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing. A handler, unlike SIG_IGN, is not passed on to the scripts."""


def _hopeful(state: JobState) -> bool:
    return state.live or state is JobState.COMPLETED


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Return whether a child has ended, without releasing its number yet."""
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _ending(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"killed by signal {-code}"

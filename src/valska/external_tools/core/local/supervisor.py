"""The process behind the local scheduler: runs what was sent, detached from any terminal."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.identity import identify
from valska.external_tools.core.local.cancelling import take_requests
from valska.external_tools.core.local.job import Index, LocalJob, split_id
from valska.external_tools.core.local.outside import Outside
from valska.external_tools.core.local.queue import (
    create_queue,
    decode_job,
    encode_job,
    write_queue,
)
from valska.external_tools.core.local.room import Room
from valska.external_tools.core.local.tally import Tally
from valska.external_tools.core.local.task import RunningTask, clean_environment, start_process
from valska.external_tools.core.local.waiting import Waiting
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobState

READY = b"ready\n"
LOOK_S = 0.25
"""Seconds between two looks at what others ask and have done."""
SAVE_S = 0.5
"""Least seconds between two writes of the state file."""
PAUSE_RATIO = 20
"""A look or a write that takes long is followed by this many times its length without one."""
LAST_SAVE_S = 60.0
"""How long the last write is tried, where the disk is full."""

_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from valska.external_tools.core.local.supervisor import main; main(sys.argv[2:])"
)

log = logging.getLogger(__name__)


def launch(
    bundle: Bundle,
    token: str,
    jobs: Sequence[LocalJob],
    environment: Mapping[str, str],
    at_once: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a supervisor; it writes `READY` to its stdout once the jobs are its own.

    It is not affected by the caller's Python settings: it runs isolated, and finds valska where
    the caller found it.

    Parameters
    ----------
    bundle
        Where the scripts run.
    token
        Of the submission.
    jobs
        What to run.
    environment
        For the scripts.
    at_once
        How many tasks may run at once; by default, as many as there are processors for.
    """
    root = Path(__file__).parents[3]
    payload = {
        "jobs": [encode_job(job) for job in jobs],
        "environment": clean_environment(environment),
        "at_once": at_once,
    }
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
    """Runs the tasks of a submission, in the order of its jobs, as many at once as there is room.

    Parameters
    ----------
    bundle
        The bundle or the sweep; its path is absolute.
    token
        Of the submission.
    payload
        ``jobs`` as JSON, the ``environment`` to run them in, and how many ``at_once``.
    """

    def __init__(self, bundle: Bundle, token: str, payload: Mapping[str, Any]) -> None:
        self._bundle, self._token = bundle, token
        self._path = bundle.local_queue(token)
        self._environment: Mapping[str, str] = payload["environment"]
        self._me = identify()
        self._tally = Tally([decode_job(job) for job in payload["jobs"]])
        self._room = Room(bundle, payload["at_once"])
        self._running: dict[tuple[str, Index], RunningTask] = {}
        self._seats: dict[tuple[str, Index], tuple[int, ...]] = {}
        self._stopping = False
        self._save_at = self._look_at = 0.0

    def take_over(self) -> bool:
        """Make the jobs this process's own; False if the submit has given them up already."""
        signal.signal(signal.SIGHUP, _ignore)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGTERM, self._stop)
        return create_queue(self._path, self._tally.queue(self._token, self._me))

    def run(self) -> None:
        """Run every task whose dependencies succeed; the others are cancelled."""
        wake = _wake_at_signals()
        self._outside = Outside(self._bundle, self._path)
        self._waiting = Waiting(self._tally, self._outside.state)
        while True:
            self._look()
            self._reap()
            self._waiting.settle()
            self._begin()
            if not self._waiting and not self._running:
                break
            self._save()
            self._rest(wake)
        self._room.close()
        self._save_at_last()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _look(self) -> None:
        """See what others ask, and what they have done."""
        start = time.monotonic()
        if start < self._look_at and not self._stopping:
            return
        if self._stopping:
            self._waiting.cancel_all("cancelled before it began")
            for task in self._running.values():
                task.cancel(task.job.grace_s)
        for request in take_requests(self._bundle, self._token):
            self._cancel(request.ids, request.grace_s)
        if self._waiting.others:
            self._outside.look()
            self._waiting.look_again()
        self._look_at = _due_again(start, LOOK_S)

    def _cancel(self, ids: frozenset[str], grace_s: float) -> None:
        jobs = {job.job_id: job for job in self._tally.jobs}
        for job_id, index in map(split_id, ids):
            if job := jobs.get(job_id):
                self._waiting.cancel(job, index, "cancelled before it began")
        for task in self._running.values():
            if not ids.isdisjoint((task.job.job_id, task.job.task_id(task.index))):
                task.cancel(grace_s)

    def _reap(self) -> None:
        for place, task in list(self._running.items()):
            if task.watch():
                state, why, code = task.finish()
                del self._running[place]
                self._room.leave(self._seats.pop(place))
                self._tally.end(task.job, task.index, state, why, code)

    def _begin(self) -> None:
        while (found := self._waiting.next()) and (seats := self._room.enter(found[0])):
            self._waiting.take(*found)
            self._start(*found, seats)

    def _start(self, job: LocalJob, index: Index, seats: tuple[int, ...]) -> None:
        try:
            task = RunningTask(self._bundle, job, index, self._environment)
        except OSError as error:
            self._room.leave(seats)
            why = f"cannot start: {error.strerror}"
            self._tally.end(job, index, JobState.FAILED, why)
            self._waiting.settle()
            return
        self._running[job.job_id, index] = task
        self._seats[job.job_id, index] = seats
        self._tally.begin(job, index, identify(task.pid))

    def _save(self) -> bool:
        """Write the state file if it is time; return whether it says all there is to say."""
        start = time.monotonic()
        if not self._tally.changed or start < self._save_at:
            return not self._tally.changed
        try:
            write_queue(self._path, self._tally.queue(self._token, self._me))
            self._tally.changed = False
        except ValskaError as error:
            log.warning("%s", error.message)
        self._save_at = _due_again(start, SAVE_S)
        return not self._tally.changed

    def _save_at_last(self) -> None:
        self._save_at = 0.0
        given_up = time.monotonic() + LAST_SAVE_S
        while not self._save() and time.monotonic() < given_up:
            time.sleep(SAVE_S)

    def _rest(self, wake: int) -> None:
        """Sleep until a script ends, a signal comes, or something is due."""
        due = [self._look_at, *(task.next_event for task in self._running.values())]
        if self._tally.changed:
            due.append(self._save_at)
        pause = max(0.0, min(due) - time.monotonic())
        if select.select([wake], [], [], pause)[0]:
            os.read(wake, 4096)


def _due_again(start: float, least: float) -> float:
    """Return when to do again what began at `start` and is done now."""
    now = time.monotonic()
    return now + max(least, PAUSE_RATIO * (now - start))


def _wake_at_signals() -> int:
    """Return a descriptor that can be read from after each signal, also when a script ends."""
    reader, writer = os.pipe()
    for descriptor in (reader, writer):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _ignore)
    return reader


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing. A handler, unlike SIG_IGN, is not passed on to the scripts."""

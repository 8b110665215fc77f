"""Submissions that were cut short: each is found again, or known never to have been sent."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.local.queue import read_queue
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import (
    JobRef,
    OutcomeUnknownError,
    Scheduler,
    SchedulerError,
    parse_utc,
    scheduler_named,
)
from valska.external_tools.core.submission.jobsfile import JobEntry

SETTLE_S = 60.0
"""Age of an intent after which a scheduler's "no such job" is believed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clock:
    """The time, and how to let some of it pass."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep


class Intent(Protocol):
    """A job, or an array, that was about to be sent."""

    @property
    def stage(self) -> str:
        """Which stage it is."""
        ...

    @property
    def name(self) -> str:
        """The name by which it is looked for."""
        ...

    @property
    def submitted_utc(self) -> str:
        """When it was about to be sent."""
        ...

    @property
    def scheduler(self) -> str:
        """Who may have it."""
        ...

    @property
    def cluster(self) -> str | None:
        """The Slurm cluster that may have it."""
        ...

    @property
    def ref(self) -> JobRef | None:
        """The job, where its id was known beforehand."""
        ...


Seen = Callable[[Intent], JobRef | None]
"""Returns the job of an intent if it has left a record: then it was sent."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What became of unconfirmed intents, by name: their jobs, and those that were never sent."""

    adopted: dict[str, JobRef]
    never_sent: frozenset[str]


def unconfirmed(bundle: Bundle, entries: Iterable[JobEntry]) -> list[JobEntry]:
    """Return the entries of which it is not known whether the scheduler took them."""
    return [
        entry
        for entry in entries
        if entry.job_id is None
        or (entry.scheduler == "local" and _was_not_taken_over(bundle, entry))
    ]


def reconcile(
    bundle: Bundle,
    intents: Iterable[Intent],
    scheduler: Scheduler,
    seen: Seen,
    *,
    settle_s: float = SETTLE_S,
    clock: Clock | None = None,
) -> Reconciled:
    """Look for the job of each intent by its name, until each one's fate is known.

    A job that is not found counts as never sent only if the scheduler says so clearly, and the
    intent is so old that the scheduler must have noticed its job.

    Parameters
    ----------
    bundle
        The bundle, or a sweep's common files.
    intents
        Those that have no answer.
    scheduler
        The scheduler in use; another one in an intent is found by its name.
    seen
        Looks for a record.
    settle_s
        See `SETTLE_S`.
    clock
        The time.

    Raises
    ------
    OutcomeUnknownError
        If the scheduler does not answer.
    """
    time_source = clock or Clock()
    left = {intent.name: intent for intent in intents}
    adopted: dict[str, JobRef] = {}
    never_sent: set[str] = set()
    waited, pause = 0.0, 1.0
    while left:
        for intent in list(left.values()):
            old = waited >= settle_s or _age(intent, time_source) >= settle_s
            ref, error = _look(bundle, intent, scheduler, seen)
            if ref is not None:
                adopted[intent.name] = ref
            elif intent.scheduler == "local" or (old and error is None):
                never_sent.add(intent.name)
            elif old and error is not None:
                raise _unknown(intent, error)
            else:
                continue
            del left[intent.name]
        if left:
            log.info("looking for %s", ", ".join(left))
            time_source.sleep(pause)
            waited, pause = waited + pause, min(pause * 2, 10.0)
    return Reconciled(adopted, frozenset(never_sent))


def _was_not_taken_over(bundle: Bundle, entry: JobEntry) -> bool:
    try:
        queue = read_queue(bundle.local_queue(entry.token))
    except ValskaError:
        return False
    return queue is None or queue.supervisor is None


def _look(
    bundle: Bundle, entry: Intent, given: Scheduler, seen: Seen
) -> tuple[JobRef | None, SchedulerError | None]:
    if (known := seen(entry)) is not None:
        return known, None
    sought = entry.ref or (JobRef("", entry.name, entry.cluster) if entry.cluster else None)
    scheduler = scheduler_named(entry.scheduler, given)
    try:
        info = scheduler.find(bundle, sought, entry.name, parse_utc(entry.submitted_utc))
    except SchedulerError as error:
        return None, error
    if info is None and (process := _sender(entry)):
        return None, SchedulerError(f"process {process} is still sending it")
    if info is None:
        return None, None
    return JobRef(info.job_id, entry.name, info.cluster or entry.cluster), None


def _sender(entry: Intent) -> str | None:
    """Return the process of a killed submit's sbatch, if it still lives on this host."""
    word = f"--job-name={entry.name}".encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if word in path.read_bytes().split(b"\0"):
                return path.parent.name
    return None


def _age(entry: Intent, clock: Clock) -> float:
    return (clock.now() - parse_utc(entry.submitted_utc)).total_seconds()


def _unknown(entry: Intent, error: SchedulerError) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"whether stage {entry.stage} was sent is not known (job {entry.name}): {error.message}",
        "Nothing is sent twice: `valska submit` again, once the scheduler answers.",
    )

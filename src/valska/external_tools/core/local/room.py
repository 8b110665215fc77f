"""How many tasks may run at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.local.job import LocalJob

VARIABLE = "VALSKA_LOCAL_JOBS"


@dataclass(slots=True)
class Room:
    """Processors, or a count of tasks, of which each running task has its share.

    Parameters
    ----------
    size
        How much there is.
    by_task
        Count tasks, whatever they ask for.
    taken
        What running tasks have of it.
    """

    size: int
    by_task: bool = False
    taken: int = 0

    def fits(self, job: LocalJob) -> bool:
        """Return whether one more task has room; one that asks for more than all gets all."""
        return self.taken + self._share(job) <= self.size

    def enter(self, job: LocalJob) -> None:
        """Give a task its share."""
        self.taken += self._share(job)

    def leave(self, job: LocalJob) -> None:
        """Take a task's share back."""
        self.taken -= self._share(job)

    def _share(self, job: LocalJob) -> int:
        return 1 if self.by_task else min(job.cpus, self.size)


def jobs_at_once(environment: Mapping[str, str]) -> int | None:
    """Return the user's own bound on tasks at once; None if there is none.

    Raises
    ------
    UsageError
        If it is not a whole number above 0.
    """
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise UsageError(
            f"{VARIABLE} is {text!r}", "Set it to the number of tasks that may run at once."
        )
    return int(text)


def make_room(jobs: int | None) -> Room:
    """Return room for as many tasks, or for as many as this process's processors can take."""
    return Room(jobs, by_task=True) if jobs else Room(processors())


def processors() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def cpus_asked(directives: Mapping[str, str]) -> int:
    """Return how many processors directives ask for; at least 1."""
    tasks = directives.get("ntasks")
    if tasks is None:
        per_node = directives.get("ntasks-per-node", directives.get("tasks-per-node", "1"))
        ranks = _count(per_node) * _count(directives.get("nodes", "1"))
    else:
        ranks = _count(tasks)
    return ranks * _count(directives.get("cpus-per-task", "1"))


def _count(text: str) -> int:
    first = text.partition("-")[0]
    return max(1, int(first)) if first.isascii() and first.isdecimal() else 1

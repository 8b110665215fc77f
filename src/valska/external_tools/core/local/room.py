"""How many tasks may run at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.local.job import LocalJob
from valska.external_tools.core.local.seats import Seats
from valska.external_tools.core.run_directory import Bundle

VARIABLE = "VALSKA_LOCAL_JOBS"


class Room:
    """Processors, or a count of tasks, of which each running task has its share.

    Supervisors of one directory, on one host, have one room together.

    Parameters
    ----------
    bundle
        The bundle or the sweep.
    jobs
        How many tasks may run at once, whatever they ask for; by default, as many as this
        process's processors can take.
    """

    def __init__(self, bundle: Bundle, jobs: int | None) -> None:
        self._by_task = jobs is not None
        self._size = jobs or processors()
        self._seats = Seats(bundle.logs / f".local-room-{socket.gethostname()}", self._size)

    def enter(self, job: LocalJob) -> tuple[int, ...]:
        """Return the seats of one more task; none if there is no room.

        A task that asks for more than there is gets all.
        """
        return self._seats.take(1 if self._by_task else min(job.cpus, self._size))

    def leave(self, seats: tuple[int, ...]) -> None:
        """Take the seats of a task back."""
        self._seats.give(seats)

    def close(self) -> None:
        """Leave nothing behind."""
        self._seats.close()


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

"""Which task of which job array is the current job of each unit of a sweep."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from valska.external_tools.core.ranges import read_ranges
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.submission.jobsfile import JobEntry, JobsError
from valska.external_tools.core.sweep.dispatch.jobsfile import ArrayEntry
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.utils import sha256_bytes

log = logging.getLogger(__name__)

_LINE = re.compile(r"[0-9a-f]{64}  ((?:points|shared)/[A-Za-z0-9][A-Za-z0-9._+=-]*)/SHA256SUMS")
_HINT = "Restore it from a copy; if none of its jobs is live, take its arrays out of jobs.json."


@dataclass(frozen=True, slots=True)
class StageTasks:
    """The current jobs of one stage.

    Parameters
    ----------
    current
        Place of a unit (``points/x``) to the newest array that has it, and the index of its task.
    attempts
        Place of a unit to the count of arrays that have it.
    """

    current: dict[str, tuple[ArrayEntry, int]] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)


def current_tasks(sweep: Sweep, arrays: Iterable[ArrayEntry]) -> dict[str, StageTasks]:
    """Return, for each stage, the current job of each unit that was ever sent.

    Of an array whose list is lost it is not known which units it has: that is logged.

    Parameters
    ----------
    sweep
        The sweep.
    arrays
        In the order in which they were sent: what is newer counts.
    """
    found: dict[str, StageTasks] = {}
    lists: dict[tuple[str, str], list[str]] = {}
    for array in arrays:
        which = array.list, array.list_sha256
        if which not in lists:
            lists[which] = _places_if_known(sweep, array)
        places = lists[which]
        stage = found.setdefault(array.stage, StageTasks())
        for index in read_ranges(array.tasks):
            if index < len(places):
                place = places[index]
                stage.current[place] = (array, index)
                stage.attempts[place] = stage.attempts.get(place, 0) + 1
    return found


def read_places(sweep: Sweep, array: ArrayEntry) -> list[str]:
    """Return the units that the list of an array names, line by line.

    Raises
    ------
    JobsError
        If the list cannot be read, or is not the one that the array was sent with.
    """
    try:
        data = (sweep.path / array.list).read_bytes()
    except OSError as error:
        raise JobsError(f"cannot read {array.list}: {error.strerror}", _HINT) from error
    found = [_LINE.fullmatch(line) for line in data.decode(errors="replace").splitlines()]
    places = [match[1] for match in found if match]
    if sha256_bytes(data) != array.list_sha256 or len(places) < len(found):
        raise JobsError(f"{array.list} was altered since its arrays were sent", _HINT)
    return places


def require_lists(sweep: Sweep, arrays: Iterable[ArrayEntry]) -> None:
    """Check that it is known which units each array has: else what is live would be sent again.

    Raises
    ------
    JobsError
        See `read_places`.
    """
    for array in {(one.list, one.list_sha256): one for one in arrays}.values():
        read_places(sweep, array)


def _places_if_known(sweep: Sweep, array: ArrayEntry) -> list[str]:
    try:
        return read_places(sweep, array)
    except JobsError as error:
        log.warning("%s", error.message)
        return []


def entry_of(array: ArrayEntry, index: int, attempt: int) -> JobEntry:
    """Return a task as an entry of jobs.json would have it."""
    return JobEntry(
        stage=array.stage,
        job_id=None if array.job_id is None else f"{array.job_id}_{index}",
        name=array.name,
        script=_script(array.stage),
        dependency=array.dependency,
        attempt=attempt,
        token=array.token,
        submitted_utc=array.submitted_utc,
        scheduler=array.scheduler,
        cluster=array.cluster,
        command=(),
        cancelled_utc=array.cancelled_at(index),
    )


@cache
def _script(stage: str) -> str:
    return Bundle(Path()).script(stage).name

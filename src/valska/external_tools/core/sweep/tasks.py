"""Which task of which job array is the current job of each unit of a sweep."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from valska.external_tools.core.ranges import read_ranges
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.submission.jobsfile import JobEntry
from valska.external_tools.core.sweep.jobsfile import ArrayEntry
from valska.external_tools.core.sweep.layout import Sweep

log = logging.getLogger(__name__)


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

    Parameters
    ----------
    sweep
        The sweep.
    arrays
        In the order in which they were sent: what is newer counts.
    """
    found: dict[str, StageTasks] = {}
    lists: dict[str, list[str]] = {}
    for array in arrays:
        if array.list not in lists:
            lists[array.list] = read_places(sweep, array.list)
        places = lists[array.list]
        stage = found.setdefault(array.stage, StageTasks())
        for index in read_ranges(array.tasks):
            if index < len(places):
                place = places[index]
                stage.current[place] = (array, index)
                stage.attempts[place] = stage.attempts.get(place, 0) + 1
    return found


def read_places(sweep: Sweep, name: str) -> list[str]:
    """Return the units that a list file names, line by line; empty where it cannot be read."""
    try:
        text = (sweep.path / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        log.warning("cannot read %s: %s", name, error)
        return []
    end = -len(f"/{Bundle(sweep.path).sums.name}")
    return [line[66:end] for line in text.splitlines()]


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

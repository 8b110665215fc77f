"""The file jobs.json of a sweep: which arrays were sent to a scheduler, or are about to be."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.ranges import read_ranges, write_ranges
from valska.external_tools.core.scheduler import JobRef
from valska.external_tools.core.schema import SchemaError, validate
from valska.external_tools.core.submission.jobsfile import JobsError
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.utils import load_json, write_atomic

SCHEMA = "sweep-jobs-1"
SCHEMA_VERSION = "1.0"
_HINT = "Restore it from a copy, or remove it if nothing was submitted."


@dataclass(frozen=True, kw_only=True)
class ArrayEntry:
    """A job array: one slice of one stage.

    Parameters
    ----------
    stage
        Name of the stage.
    name
        Name of the array, by which it is looked for: ``vk-<token>-<stage>.<n>``.
    job_id
        The scheduler's id; None while it is not known whether the array was taken.
    list
        Place in the sweep of the list of its units: line i, from 0, is the task with index i.
    list_sha256
        Digest of that list.
    tasks
        Its indices, as sbatch reads them (``0-8,11``).
    count
        How many tasks it has.
    dependency
        As given to the scheduler (``aftercorr:17``).
    token
        Of the submission.
    submitted_utc
        When it was about to be sent.
    scheduler, cluster
        Who has it.
    command
        The exact command.
    resume
        Whether its tasks go on from what earlier ones left.
    cancelled_utc
        When valska was asked to cancel it.
    cancelled_tasks
        Which of its tasks, if not all.
    """

    stage: str
    name: str
    job_id: str | None
    list: str
    list_sha256: str
    tasks: str
    count: int
    dependency: str | None
    token: str
    submitted_utc: str
    scheduler: str
    cluster: str | None
    command: tuple[str, ...]
    resume: bool = False
    cancelled_utc: str | None = None
    cancelled_tasks: str | None = None

    @property
    def ref(self) -> JobRef | None:
        """The array; None while it is not confirmed."""
        return None if self.job_id is None else JobRef(self.job_id, self.name, self.cluster)

    def cancelled_at(self, index: int) -> str | None:
        """Return when valska was asked to cancel a task; None if it was not."""
        if self.cancelled_utc and self.cancelled_tasks and index not in self._cancelled:
            return None
        return self.cancelled_utc

    def cancel(self, indices: Iterable[int], when: str) -> ArrayEntry:
        """Return the array with these tasks marked as cancelled."""
        marked = set(indices)
        if self.cancelled_utc:
            marked |= self._cancelled if self.cancelled_tasks else set(read_ranges(self.tasks))
        tasks = write_ranges(marked)
        return replace(
            self, cancelled_utc=when, cancelled_tasks=None if tasks == self.tasks else tasks
        )

    def as_json(self) -> dict[str, Any]:
        """Return the fields for jobs.json."""
        return {**asdict(self), "command": list(self.command)}

    @cached_property
    def _cancelled(self) -> frozenset[int]:
        return frozenset(read_ranges(self.cancelled_tasks or ""))


def load_sweep_jobs(sweep: Sweep) -> dict[str, Any] | None:
    """Return jobs.json of a sweep; None if nothing was submitted.

    Raises
    ------
    JobsError
        If it cannot be read, is not valid, or has another major version.
    """
    path = _path(sweep)
    if not path.exists():
        return None
    try:
        data = load_json(path)
    except ValskaError as error:
        raise JobsError(error.message, _HINT) from error
    _check(data)
    return data


def read_arrays(sweep: Sweep) -> list[ArrayEntry]:
    """Return all arrays of a sweep, in the order in which they were sent.

    The newest array that has a unit's line in its list is that unit's current job of its stage.

    Raises
    ------
    JobsError
        See `load_sweep_jobs`.
    """
    jobs = load_sweep_jobs(sweep)
    if jobs is None:
        return []
    return [_array_entry(array) for array in jobs["arrays"]]


def write_sweep_jobs(
    sweep: Sweep,
    arrays: Sequence[ArrayEntry],
    *,
    submitted_utc: str,
    scheduler: str,
    sbatch: str,
    token: str,
) -> None:
    """Write jobs.json of a sweep, so that a crash leaves the old one or the new one, whole.

    Parameters
    ----------
    sweep
        The sweep.
    arrays
        All that were ever sent, oldest first.
    submitted_utc, scheduler, sbatch, token
        Of the last submission.

    Raises
    ------
    JobsError
        If the result would not be valid.
    ValskaError
        If it cannot be written.
    """
    clusters = [array.cluster for array in arrays if array.token == token and array.cluster]
    data = {
        "schema_version": SCHEMA_VERSION,
        "sweep": str(sweep.path.absolute()),
        "submitted_utc": submitted_utc,
        "scheduler": scheduler,
        "cluster": clusters[0] if clusters else None,
        "sbatch": sbatch,
        "token": token,
        "arrays": [array.as_json() for array in arrays],
    }
    _write(sweep, data)


def update_arrays(sweep: Sweep, arrays: Sequence[ArrayEntry]) -> None:
    """Write changed arrays into jobs.json and leave all else in it as it is."""
    data: dict[str, Any] = dict(load_sweep_jobs(sweep) or {})
    data["arrays"] = [array.as_json() for array in arrays]
    _write(sweep, data)


def _array_entry(data: Mapping[str, Any]) -> ArrayEntry:
    known: dict[str, Any] = {
        name: data[name] for name in ArrayEntry.__dataclass_fields__ if name in data
    }
    return ArrayEntry(**{**known, "command": tuple(data["command"])})


def _write(sweep: Sweep, data: Mapping[str, Any]) -> None:
    """Write the file, one array a line: it is written anew for each of perhaps 1,000 arrays."""
    _check(data)
    head = [f"  {_text(key)}: {_text(data[key])}," for key in data if key != "arrays"]
    arrays = ",\n".join(f"    {_text(array)}" for array in data["arrays"])
    text = "\n".join(["{", *head, '  "arrays": [', arrays, "  ]", "}\n"])
    write_atomic(_path(sweep), text.encode())


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _path(sweep: Sweep) -> Path:
    return sweep.bundle.jobs


def _check(data: Mapping[str, Any]) -> None:
    version = str(data.get("schema_version", SCHEMA_VERSION))
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise JobsError(
            f"jobs.json of the sweep has schema version {version}; "
            f"this valska reads {SCHEMA_VERSION}",
            "Use the valska version that wrote it.",
        )
    try:
        validate(data, SCHEMA, "jobs.json of the sweep")
    except SchemaError as error:
        raise JobsError(error.message, _HINT) from error

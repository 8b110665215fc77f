"""What the jobs themselves wrote down: one JSON file per attempt of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.schema import validate
from valska.external_tools.core.utils import load_json

SCHEMA = "stage-record-1"


class RecordState(StrEnum):
    """How far an attempt came, in its own words."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SIGNALLED = "signalled"
    REFUSED = "refused"


class RecordError(ValskaError):
    """A stage record cannot be read."""


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """A file that a stage wrote: place in the bundle, bytes, SHA-256 (None after a signal)."""

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One attempt of a stage.

    Parameters
    ----------
    path
        File name below ``records/``.
    stage, state
        Which stage, and how far it came.
    scheduler, job_id, task, restart, job_name
        The job: ``slurm``, ``local`` or ``none``; its id; array task; count of requeues; name.
    pid
        Process of the job script, where it is known.
    seal
        Seal of the bundle that it ran.
    started_utc, ended_utc, elapsed_s
        Times, and seconds in between.
    exit_code, signal, reason
        How it ended and why.
    host
        Name of the host.
    outputs, missing_outputs
        What it wrote, and what it should have written.
    data
        The whole record.
    """

    path: str
    stage: str
    state: RecordState
    scheduler: str
    job_id: str
    task: str | None
    restart: int
    job_name: str | None
    pid: int | None
    seal: str
    started_utc: str
    ended_utc: str | None
    elapsed_s: int | None
    exit_code: int | None
    signal: str | None
    reason: str | None
    host: str
    outputs: tuple[OutputRecord, ...]
    missing_outputs: tuple[str, ...]
    data: Mapping[str, Any]

    @property
    def ended(self) -> bool:
        """Whether the job itself wrote its end down."""
        return self.state is not RecordState.RUNNING


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """A file in ``records/`` that is no stage record: its name, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Records:
    """All records of a bundle, oldest first, and the files that could not be read."""

    records: tuple[StageRecord, ...] = ()
    unreadable: tuple[UnreadableRecord, ...] = ()

    def of(self, stage: str) -> tuple[StageRecord, ...]:
        """Return the records of a stage, oldest first."""
        return tuple(record for record in self.records if record.stage == stage)

    def latest(self, stage: str, job_id: str | None = None) -> StageRecord | None:
        """Return the newest record of a stage; of one job only, if its id is given."""
        found = [record for record in self.of(stage) if job_id in (None, record.job_id)]
        return found[-1] if found else None

    def named(self, job_name: str) -> StageRecord | None:
        """Return the newest record of the job with that name."""
        found = [record for record in self.records if record.job_name == job_name]
        return found[-1] if found else None


def read_record(path: Path) -> StageRecord:
    """Read one record.

    Raises
    ------
    RecordError
        If it is missing, partial, or does not follow its schema.
    """
    try:
        data = load_json(path)
        validate(data, SCHEMA, f"the stage record {path.name}")
    except ValskaError as error:
        raise RecordError(error.message) from error
    return _from_json(path.name, data)


def read_records(bundle: Bundle) -> Records:
    """Read every record of a bundle. What cannot be read is told, not raised."""
    records: list[StageRecord] = []
    unreadable: list[UnreadableRecord] = []
    for path in _paths(bundle.records):
        try:
            records.append(read_record(path))
        except RecordError as error:
            unreadable.append(UnreadableRecord(path.name, error.message))
    return Records(tuple(sorted(records, key=_age)), tuple(unreadable))


def _paths(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted(
        path
        for path in directory.iterdir()
        if path.suffix == ".json" and not path.name.startswith(".") and path.is_file()
    )


def _age(record: StageRecord) -> tuple[str, bool, int, str]:
    return (record.started_utc, not record.ended, record.restart, record.path)


def _from_json(name: str, data: Mapping[str, Any]) -> StageRecord:
    job = data["job"]
    plain = ("started_utc", "ended_utc", "elapsed_s", "exit_code", "signal", "reason", "seal")
    return StageRecord(
        path=name,
        stage=data["stage"],
        state=RecordState(data["state"]),
        scheduler=job["scheduler"],
        job_id=job["id"],
        task=job["task"],
        restart=job["restart"],
        job_name=job["name"],
        pid=data.get("pid"),
        host=data["host"]["name"],
        outputs=tuple(
            OutputRecord(output["path"], output["size"], output["sha256"])
            for output in data["outputs"]
        ),
        missing_outputs=tuple(data["missing_outputs"]),
        data=data,
        **{key: data[key] for key in plain},
    )

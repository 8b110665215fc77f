"""The file jobs.json: what was sent to a scheduler, or is about to be."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobRef
from valska.external_tools.core.schema import SchemaError, validate
from valska.external_tools.core.utils import (
    fsync_directory,
    load_json,
    utc_now_compact,
    utc_now_iso,
    write_json_atomic,
)

SCHEMA = "jobs-1"
SCHEMA_VERSION = "1.0"
ALL_STAGES = "all"
_HINT = "Restore it from the newest jobs_<UTC>.json, or remove it if nothing was submitted."


class JobsError(ValskaError):
    """A jobs.json cannot be read or written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEntry:
    """The last submission of a stage.

    Parameters
    ----------
    stage
        Name of the stage.
    job_id
        The scheduler's id; None while it is not known whether the job was taken.
    name
        Name of the job, by which it is looked for.
    script
        File name of its script in the bundle.
    dependency
        As given to the scheduler (``afterok:17``).
    attempt
        1 for the first submission of this stage.
    token
        Of the submission.
    submitted_utc
        When it was about to be sent.
    scheduler, cluster
        Who has it.
    command
        The exact command.
    cancelled_utc
        When valska was asked to cancel it.
    """

    stage: str
    job_id: str | None
    name: str
    script: str
    dependency: str | None
    attempt: int
    token: str
    submitted_utc: str
    scheduler: str
    cluster: str | None
    command: tuple[str, ...]
    cancelled_utc: str | None = None

    @property
    def ref(self) -> JobRef | None:
        """The job; None while it is not confirmed."""
        return None if self.job_id is None else JobRef(self.job_id, self.name, self.cluster)

    def as_json(self) -> dict[str, Any]:
        """Return the fields for jobs.json."""
        data = asdict(self)
        del data["stage"]
        return {**data, "command": list(self.command)}


def write_jobs_json(
    run_dir: Path,
    *,
    stage: str,
    jobs: Mapping[str, Mapping[str, Any]],
    commands: Sequence[Sequence[str]],
    dry_run: bool = False,
    sbatch: str = "sbatch",
    extra_fields: Mapping[str, Any] | None = None,
    submitted_utc: str | None = None,
) -> Path:
    """Write jobs.json, so that a crash leaves the old one or the new one, whole.

    Parameters
    ----------
    run_dir
        The bundle.
    stage
        What was asked for: ``all``, or stages separated by commas.
    jobs
        Stage to its ``job_id``, ``script``, ``dependency``, ``attempt`` and more.
    commands
        The exact commands, as argument lists.
    dry_run
        Whether nothing was sent.
    sbatch
        The program that took the scripts.
    extra_fields
        Further fields; they cannot replace one of those above.
    submitted_utc
        ISO 8601 time; now, if not given.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    JobsError
        If the result would not be valid.
    ValskaError
        If it cannot be written.
    """
    fixed = {
        "schema_version": SCHEMA_VERSION,
        "run_dir": os.fspath(run_dir.absolute()),
        "manifest": Bundle(run_dir).manifest.name,
        "submitted_utc": submitted_utc or utc_now_iso(),
        "stage": stage,
        "dry_run": dry_run,
        "sbatch": sbatch,
        "jobs": {name: dict(job) for name, job in jobs.items()},
        "commands": [c if isinstance(c, str) else list(c) for c in commands],
    }
    extra = dict(extra_fields or {})
    clash = sorted(fixed.keys() & extra.keys())
    if clash:
        raise JobsError(f"extra fields cannot replace {', '.join(clash)}")
    data = {**fixed, **extra}
    _check(data)
    path = Bundle(run_dir).jobs
    write_json_atomic(path, data)
    return path


def load_jobs_json(run_dir: Path) -> dict[str, Any] | None:
    """Return jobs.json; None if nothing was submitted.

    Raises
    ------
    JobsError
        If it cannot be read, is not valid, or has another major version.
    """
    path = Bundle(run_dir).jobs
    if not path.exists():
        return None
    try:
        data = load_json(path)
    except ValskaError as error:
        raise JobsError(error.message, _HINT) from error
    _check(data)
    return data


def archive_jobs_json(
    run_dir: Path, *, keep: bool = False, stamp: str | None = None
) -> Path | None:
    """Put jobs.json aside as ``jobs_<UTC>.json``, which never replaces an earlier one.

    Parameters
    ----------
    run_dir
        The bundle.
    keep
        Leave jobs.json in its place too, until the next one replaces it: there is then no
        moment without one.
    stamp
        The time in the name; now, if not given.

    Returns
    -------
    Path or None
        The archived file; None if there was no jobs.json.

    Raises
    ------
    JobsError
        If it cannot be archived.
    """
    bundle = Bundle(run_dir)
    if not bundle.jobs.exists():
        return None
    base = stamp or utc_now_compact()
    try:
        archived = _copy_aside(bundle, base)
        if not keep:
            bundle.jobs.unlink()
        fsync_directory(run_dir)
    except OSError as error:
        raise JobsError(f"cannot archive {bundle.jobs}: {error.strerror}") from error
    return archived


def has_submitted_stage(jobs: Mapping[str, Any] | None, stage: str) -> bool:
    """Return whether a stage was submitted; an intent that is not confirmed counts.

    Parameters
    ----------
    jobs
        What `load_jobs_json` returned.
    stage
        Name of the stage.
    """
    if jobs is None or jobs.get("dry_run"):
        return False
    return stage in jobs.get("jobs", {})


def read_entries(jobs: Mapping[str, Any] | None) -> dict[str, JobEntry]:
    """Return the last submission of each stage in what `load_jobs_json` returned."""
    if jobs is None or jobs.get("dry_run"):
        return {}
    return {stage: _entry(stage, job, jobs) for stage, job in jobs["jobs"].items()}


def _entry(stage: str, job: Mapping[str, Any], jobs: Mapping[str, Any]) -> JobEntry:
    return JobEntry(
        stage=stage,
        job_id=job["job_id"],
        name=job.get("name", ""),
        script=job.get("script", Bundle(Path()).script(stage).name),
        dependency=job.get("dependency"),
        attempt=job.get("attempt", 1),
        token=job.get("token", jobs.get("token", "")),
        submitted_utc=job.get("submitted_utc", jobs["submitted_utc"]),
        scheduler=job.get("scheduler", jobs.get("scheduler", "slurm")),
        cluster=job.get("cluster", jobs.get("cluster")),
        command=tuple(job.get("command", ())),
        cancelled_utc=job.get("cancelled_utc"),
    )


def _check(data: Mapping[str, Any]) -> None:
    version = str(data.get("schema_version", SCHEMA_VERSION))
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise JobsError(
            f"jobs.json has schema version {version}; this valska reads {SCHEMA_VERSION}",
            "Use the valska version that wrote it.",
        )
    try:
        validate(data, SCHEMA, "jobs.json")
    except SchemaError as error:
        raise JobsError(error.message, _HINT) from error


def _copy_aside(bundle: Bundle, base: str) -> Path:
    number = 1
    while True:
        target = bundle.archived_jobs(base if number == 1 else f"{base}-{number}")
        try:
            _link_or_copy(bundle.jobs, target)
        except FileExistsError:
            number += 1
        else:
            return target


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        with source.open("rb") as reader, target.open("xb") as writer:
            shutil.copyfileobj(reader, writer)

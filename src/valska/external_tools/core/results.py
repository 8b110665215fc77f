"""A root full of runs: what lies below it, and what became of all of it together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import cast

from valska.external_tools.core.errors import UsageError, ValskaError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.run_directory import Bundle, open_bundle
from valska.external_tools.core.scheduler import (
    JobRef,
    Scheduler,
    parse_utc,
    scheduler_named,
)
from valska.external_tools.core.status import StageState, StageStatus, run_status
from valska.external_tools.core.status.asked import Asked
from valska.external_tools.core.submission.jobsfile import (
    JobEntry,
    load_jobs_json,
    read_entries,
)
from valska.external_tools.core.sweep.dispatch.jobsfile import ArrayEntry, read_arrays
from valska.external_tools.core.sweep.document import read_common, read_sweep_manifest
from valska.external_tools.core.sweep.following.status import sweep_status
from valska.external_tools.core.sweep.layout import Sweep

SLURM = "slurm"
RUN_NAMES = frozenset({Bundle(Path()).manifest.name, Bundle(Path()).sums.name})
"""Files that make a directory a run."""
SWEEP_NAME = Sweep(Path()).manifest.name
"""File that makes a directory a sweep."""
LOST_NAMES = frozenset({Sweep(Path()).common.name, Bundle(Path()).sums.name})
"""Files of a sweep that has lost that one."""


class Kind(StrEnum):
    """What lies below a root."""

    RUN = "run"
    SWEEP = "sweep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A run or a sweep below a root.

    Parameters
    ----------
    path
        Its directory; absolute.
    place
        The same relative to the root.
    kind
        Which of the two.
    tool, run_id, taxonomy, created_utc, bundle_id
        From its manifest; a sweep's id is its `run_id`, and its bundle id is
        empty.
    fault
        Why its manifest cannot be read; None if it can.
    """

    path: Path
    place: str
    kind: Kind
    tool: str = ""
    run_id: str = ""
    taxonomy: Mapping[str, str] = field(default_factory=dict)
    created_utc: str = ""
    bundle_id: str = ""
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """What became of a run or a sweep.

    Parameters
    ----------
    result
        Which.
    state
        Of the whole; None if that cannot be found out.
    done, total
        Points that have completed, and all; for a run, stages.
    failures
        Label of the point, or ``shared/…`` (empty for a run), and stage, of each that ended
        without success.
    notes
        What else there is to say.
    """

    result: Result
    state: StageState | None
    done: int = 0
    total: int = 0
    failures: tuple[tuple[str, StageStatus], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def bad(self) -> bool:
        """Whether something of it failed, or cannot be read."""
        return bool(self.failures) or self.state is None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs and sweeps are wanted; what is not given lets all through.

    Parameters
    ----------
    tool
        Name of the tool.
    run_id
        Run or sweep id, with shell patterns.
    since
        Made at this time or later.
    kind
        Only runs, or only sweeps.
    """

    tool: str | None = None
    run_id: str | None = None
    since: datetime | None = None
    kind: Kind | None = None

    def __call__(self, result: Result) -> bool:
        """Return whether a run or a sweep is wanted; one that cannot be read is."""
        if self.kind is not None and result.kind is not self.kind:
            return False
        if result.fault is not None:
            return self.tool is None and self.run_id is None and self.since is None
        return (
            (self.tool is None or result.tool == self.tool)
            and (self.run_id is None or fnmatchcase(result.run_id, self.run_id))
            and (self.since is None or parse_utc(result.created_utc) >= self.since)
        )


def parse_since(text: str) -> datetime:
    """Read a day, or a day and a time (UTC, unless it says otherwise).

    Raises
    ------
    UsageError
        If it is neither.
    """
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a date", "Write 2026-03-10, or 2026-03-10T09:08:07."
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def find_results(root: Path) -> list[tuple[str, Kind]]:
    """Find every run and sweep below a root, sorted by path.

    Neither runs, sweeps nor hidden directories are looked into, and no symbolic link is followed.

    Parameters
    ----------
    root
        Where to look.

    Raises
    ------
    UsageError
        If it is no directory, or cannot be read.
    """
    try:
        with os.scandir(root):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot look into {root}: {error.strerror}", "Name the root of your results."
        ) from error
    return sorted(_below(os.fspath(root.absolute())))


def read_results(root: Path, wanted: Filter | None = None) -> list[Result]:
    """Find the runs and sweeps below a root and read their manifests; see `find_results`."""
    top = root.absolute()
    results = (_read(path, kind, top) for path, kind in find_results(top))
    return [result for result in results if wanted is None or wanted(result)]


def require_results(root: Path) -> list[Result]:
    """Return what `read_results` finds; a directory with nothing below it is named as no bundle.

    Raises
    ------
    RunDirectoryError
        If there is nothing.
    """
    found = read_results(root) if root.is_dir() else []
    if not found:
        open_bundle(root)
    return found


def overviews(results: Iterable[Result], scheduler: Scheduler) -> list[Overview]:
    """Find out what became of many runs and sweeps, asking Slurm about all of them together.

    Parameters
    ----------
    results
        Which.
    scheduler
        The scheduler of the jobs; another one is found by its name.
    """
    chosen = list(results)
    asked = asked_together(chosen, scheduler)
    return [_overview(result, asked) for result in chosen]


def asked_together(results: Iterable[Result], scheduler: Scheduler) -> Scheduler:
    """Return a scheduler that was asked about the jobs of many runs and sweeps at once."""
    return cast(Scheduler, Asked(scheduler_named(SLURM, scheduler), _refs(results)))


def _refs(results: Iterable[Result]) -> list[JobRef]:
    """Return every job of Slurm that some jobs.json names."""
    refs: dict[str, JobRef] = {}
    for result in results:
        try:
            for job in _sent(result):
                if job.ref is not None and job.scheduler == SLURM:
                    refs[job.ref.job_id] = job.ref
        except ValskaError:
            continue
    return list(refs.values())


def _sent(result: Result) -> Iterable[JobEntry | ArrayEntry]:
    if result.kind is Kind.SWEEP:
        return read_arrays(Sweep(result.path))
    return read_entries(load_jobs_json(result.path)).values()


def _overview(result: Result, scheduler: Scheduler) -> Overview:
    if result.fault is not None:
        return Overview(result, None, notes=(result.fault,))
    try:
        return (
            _of_sweep(result, scheduler)
            if result.kind is Kind.SWEEP
            else _of_run(result, scheduler)
        )
    except ValskaError as error:
        return Overview(result, None, notes=(error.message,))


def _of_run(result: Result, scheduler: Scheduler) -> Overview:
    bundle = Bundle(result.path)
    status = run_status(bundle, read_manifest(bundle), scheduler)
    done = [one for one in status.stages if one.state is StageState.COMPLETED]
    failures = tuple(("", one) for one in status.stages if one.state.failed)
    return Overview(result, status.state, len(done), len(status.stages), failures, status.notes)


def _of_sweep(result: Result, scheduler: Scheduler) -> Overview:
    sweep = Sweep(result.path)
    status = sweep_status(sweep, read_sweep_manifest(sweep), scheduler)
    done = [label for label in status.points if status.state_of(label) is StageState.COMPLETED]
    failures = tuple(status.failed_units())
    return Overview(result, status.state, len(done), len(status.points), failures, status.notes)


def _read(path: str, kind: Kind, root: Path) -> Result:
    where = Path(path)
    blank = Result(path=where, place=os.path.relpath(path, root), kind=kind)
    try:
        if kind is Kind.SWEEP:
            sweep = Sweep(where)
            manifest = read_common(sweep)
            run_id, bundle_id = read_sweep_manifest(sweep).sweep_id, ""
        else:
            manifest = read_manifest(Bundle(where))
            run_id, bundle_id = manifest.run_id, manifest.bundle_id
    except ValskaError as error:
        return replace(blank, fault=error.message)
    return replace(
        blank,
        tool=manifest.tool,
        run_id=run_id,
        taxonomy=manifest.spec["taxonomy"],
        created_utc=manifest.created_utc,
        bundle_id=bundle_id,
    )


def _below(directory: str) -> Iterator[tuple[str, Kind]]:
    try:
        with os.scandir(directory) as found:
            entries = list(found)
    except OSError:
        return
    names = {entry.name for entry in entries}
    if SWEEP_NAME in names or names >= LOST_NAMES:
        yield directory, Kind.SWEEP
    elif names >= RUN_NAMES:
        yield directory, Kind.RUN
    else:
        for entry in entries:
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path)

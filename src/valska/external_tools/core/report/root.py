"""Reports of all that lies below a root."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from valska.external_tools.core.errors import PrerequisiteError, UsageError, ValskaError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.report.assembly import (
    Desk,
    Options,
    desk_of,
    report_of_sweep,
    run_row,
)
from valska.external_tools.core.report.document import Report, Row
from valska.external_tools.core.results import Kind, Result, asked_together
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import Scheduler
from valska.external_tools.core.status import StageState, run_status
from valska.external_tools.core.sweep.document import read_sweep_manifest
from valska.external_tools.core.sweep.following.status import sweep_status
from valska.external_tools.core.sweep.layout import Sweep

_Told = tuple[Row, tuple[str, ...]]
"""A row, and what is to be said of its jobs."""


def reports_of_root(
    results: Iterable[Result], scheduler: Scheduler, options: Options
) -> list[Report]:
    """Return one report of all single runs of each tool, then one of each sweep.

    What cannot be read is a row that says so; what is of a tool that sums up nothing is a row
    without results.

    Parameters
    ----------
    results
        The runs and sweeps.
    scheduler, options
        See `report_of_run`.

    Raises
    ------
    UsageError
        If an option is not usable.
    PrerequisiteError
        If a package that a tool needs is not installed.
    """
    chosen = list(results)
    asked = asked_together(chosen, scheduler)
    runs: dict[str, list[Result]] = {}
    for result in chosen:
        if result.kind is Kind.RUN:
            runs.setdefault(result.tool, []).append(result)
    single = [_runs(tool, those, asked, options) for tool, those in sorted(runs.items())]
    sweeps = (result for result in chosen if result.kind is Kind.SWEEP)
    return single + [_sweep(result, asked, options) for result in sweeps]


def _runs(tool: str, results: Sequence[Result], scheduler: Scheduler, options: Options) -> Report:
    desk = desk_of(tool, options)
    blank = Report(kind="runs", tool=tool, name="", place=".")
    report = desk.report("runs", "", ".") if desk else blank
    told = [_guarded(result, lambda one: _row(desk, one, scheduler)) for result in results]
    notes = dict.fromkeys(note for _, notes in told for note in notes)
    return replace(report, rows=tuple(row for row, _ in told), notes=tuple(notes))


def _guarded(result: Result, row: Callable[[Result], _Told]) -> _Told:
    if result.fault is not None:
        return _unreadable(result, result.fault), ()
    try:
        return row(result)
    except PrerequisiteError:
        raise
    except ValskaError as error:
        return _unreadable(result, error.message), ()


def _row(desk: Desk | None, result: Result, scheduler: Scheduler) -> _Told:
    bundle = Bundle(result.path)
    manifest = read_manifest(bundle)
    if desk is not None:
        return run_row(desk, bundle, manifest, scheduler, result.place)
    status = run_status(bundle, manifest, scheduler)
    done = status.state is StageState.COMPLETED
    return Row(label=result.place, state=status.state.value, complete=done), status.notes


def _unreadable(result: Result, reason: str) -> Row:
    return Row(label=result.place, state="unreadable", complete=False, notes=(reason,))


def _sweep(result: Result, scheduler: Scheduler, options: Options) -> Report:
    sweep = Sweep(result.path)
    blank = Report(kind="sweep", tool=result.tool, name=result.run_id, place=result.place)
    if result.fault is not None:
        return replace(blank, rows=(_unreadable(result, result.fault),))
    try:
        if desk_of(result.tool, options) is None:
            return replace(blank, rows=tuple(_plain_rows(sweep, scheduler)))
        return replace(report_of_sweep(sweep, scheduler, options), place=result.place)
    except (PrerequisiteError, UsageError):
        raise
    except ValskaError as error:
        return replace(blank, rows=(_unreadable(result, error.message),))


def _plain_rows(sweep: Sweep, scheduler: Scheduler) -> Iterator[Row]:
    manifest = read_sweep_manifest(sweep)
    status = sweep_status(sweep, manifest, scheduler)
    for point in manifest.points:
        state = status.state_of(point.label)
        yield Row(
            label=point.label,
            values=point.values,
            perturbations=point.perturbations,
            state=state.value,
            complete=state is StageState.COMPLETED,
        )

"""Reports put together from a run, or from the points of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from valska.external_tools.core.errors import PrerequisiteError, UsageError, ValskaError
from valska.external_tools.core.manifest import Manifest, read_manifest
from valska.external_tools.core.report.document import Report, Row
from valska.external_tools.core.report.summary import (
    Cell,
    Reporter,
    Reports,
    RunOutputs,
    RunSummary,
    Summarize,
)
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import Scheduler
from valska.external_tools.core.status import StageState, overall, run_status
from valska.external_tools.core.sweep.document import PointEntry, read_sweep_manifest
from valska.external_tools.core.sweep.following.status import sweep_status
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.tool import load_tool
from valska.external_tools.core.utils import load_json

Options = Mapping[str, Any]
States = Mapping[str, StageState]


@dataclass(frozen=True, slots=True)
class Desk:
    """What sums up the runs of one tool.

    Parameters
    ----------
    tool
        Its name.
    reporter
        How it sums up runs.
    summarize
        The reporter, started.
    options
        With which it was started.
    """

    tool: str
    reporter: Reporter
    summarize: Summarize
    options: Options

    def report(self, kind: str, name: str, place: str, **rest: Any) -> Report:
        """Return a report of this tool; see `Report`."""
        return Report(
            kind=kind,
            tool=self.tool,
            name=name,
            place=place,
            options=self.options,
            columns=self.reporter.columns,
            tables=self.reporter.tables,
            **rest,
        )

    def row(self, label: str, bundle: Bundle, states: States, **rest: Any) -> Row:
        """Return the row of a run; what cannot be summed up is one with a note.

        Parameters
        ----------
        label
            The row's name.
        bundle
            The run.
        states
            Stage to what became of it.
        rest
            See `Row`.
        """
        found = self._summary(bundle, states)
        return Row(
            label=label,
            state=overall(states.values()).value,
            complete=found.complete,
            results={c.key: _cell(found.values.get(c.key)) for c in self.reporter.columns},
            tables={
                table.key: [
                    {c.key: _cell(line.get(c.key)) for c in table.columns}
                    for line in found.tables.get(table.key, ())
                ]
                for table in self.reporter.tables
            },
            notes=found.notes,
            **rest,
        )

    def _summary(self, bundle: Bundle, states: States) -> RunSummary:
        words = {stage: state.value for stage, state in states.items()}
        try:
            section = load_json(bundle.manifest).get(self.tool, {})
            return self.summarize(RunOutputs(bundle.outputs, section, words))
        except PrerequisiteError:
            raise
        except ValskaError as error:
            return RunSummary(notes=(error.message,), complete=False)


def report_of_run(bundle: Bundle, scheduler: Scheduler, options: Options) -> Report:
    """Return the report of a single run.

    Parameters
    ----------
    bundle
        The run.
    scheduler
        Knows what became of its jobs.
    options
        Options of the tool's report by name; others are ignored.

    Raises
    ------
    UsageError
        If the tool cannot sum up its runs, or an option is not usable.
    PrerequisiteError
        If a package that it needs is not installed.
    ValskaError
        If the run cannot be read.
    """
    manifest = read_manifest(bundle)
    desk = _desk(manifest.tool, options)
    row, notes = run_row(desk, bundle, manifest, scheduler, manifest.run_id)
    return desk.report("run", manifest.run_id, bundle.path.name, rows=(row,), notes=notes)


def report_of_sweep(
    sweep: Sweep, scheduler: Scheduler, options: Options, labels: Sequence[str] | None = None
) -> Report:
    """Return the report of a sweep, a row for each point.

    Parameters
    ----------
    sweep
        The sweep.
    scheduler, options
        See `report_of_run`.
    labels
        Only these points; all, if not given.

    Raises
    ------
    UsageError, PrerequisiteError, ValskaError
        See `report_of_run`.
    """
    manifest = read_sweep_manifest(sweep)
    desk = _desk(manifest.tool, options)
    status = sweep_status(sweep, manifest, scheduler, labels)
    known = manifest.by_label()
    rows = [
        _point_row(desk, sweep, known[label], {name: one.state for name, one in states.items()})
        for label, states in status.points.items()
    ]
    place = sweep.path.name
    return desk.report("sweep", manifest.sweep_id, place, rows=tuple(rows), notes=status.notes)


def reporter_of(tool: str) -> Reporter | None:
    """Return how a tool's runs are summed up; None if it has no way."""
    loaded = load_tool(tool)
    return loaded.reporter() if isinstance(loaded, Reports) else None


def _desk(tool: str, options: Options) -> Desk:
    desk = desk_of(tool, options)
    if desk is None:
        raise UsageError(
            f"{tool} cannot sum up what its runs find",
            "Look at the outputs/ of the run with the tool's own programs.",
        )
    return desk


def desk_of(tool: str, options: Options) -> Desk | None:
    """Return what sums up the runs of a tool; None if nothing does.

    Raises
    ------
    UsageError
        If an option is not usable.
    PrerequisiteError
        If a package that it needs is not installed.
    """
    try:
        reporter = reporter_of(tool)
    except UsageError:
        return None
    if reporter is None:
        return None
    own = {option.name.replace("-", "_"): option.default for option in reporter.options}
    chosen = own | {name: options[name] for name in own if options.get(name) is not None}
    return Desk(tool, reporter, reporter.start(chosen), chosen)


def run_row(
    desk: Desk, bundle: Bundle, manifest: Manifest, scheduler: Scheduler, label: str
) -> tuple[Row, tuple[str, ...]]:
    """Return the row of a single run, and what is to be said of its jobs."""
    status = run_status(bundle, manifest, scheduler)
    states = {one.stage: one.state for one in status.stages}
    return desk.row(label, bundle, states), status.notes


def _point_row(desk: Desk, sweep: Sweep, point: PointEntry, states: States) -> Row:
    return desk.row(
        point.label,
        sweep.point(point.label),
        states,
        values=point.values,
        perturbations=point.perturbations,
    )


def _cell(value: Cell) -> Cell:
    """Return a cell as JSON can have it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value

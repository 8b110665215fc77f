"""``valska report``: what runs and sweeps found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from valska.cli import reporting
from valska.cli.options import dry_run_option, json_option
from valska.cli.output import note, plain, result, table
from valska.cli.places import RUN
from valska.cli.progress import FailedError
from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.report.assembly import reporter_of
from valska.external_tools.core.report.document import Report, json_text
from valska.external_tools.core.report.drawing import Panel, report_panels
from valska.external_tools.core.report.text import (
    csv_of,
    header,
    point_header,
    point_lines,
    printed,
    table_csv,
    tables_of,
    value_text,
)
from valska.external_tools.core.results import require_results
from valska.external_tools.core.run_directory import is_bundle
from valska.external_tools.core.sweep.layout import is_sweep, sweep_of

_NAMED = 5


@reporting.add_tool_options
@click.command("report")
@click.argument("path", type=RUN)
@reporting.output_option("report.csv, report.json, a CSV file for each table, and all pictures")
@reporting.csv_option
@reporting.plot_option
@reporting.against_option
@reporting.tables_option
@click.option("--check", is_flag=True, help="End with exit code 1 if something is incomplete.")
@dry_run_option
@json_option
def command(
    path: Path,
    output: Path | None,
    csv: Path | None,
    plot: Path | None,
    against: str | None,
    tables: bool,
    check: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Print what runs found, as far as they have completed.

    PATH is a bundle, a sweep, a point of one, or a directory with many of them. Points that are
    incomplete are listed too, with what is missing.
    """
    reports = _reports(path, reporting.take_tool_options(options))
    many = not _is_one(path)
    if many and plot and plot.suffix.lower() == reporting.PICTURE:
        raise UsageError(
            "many runs do not fit into one picture", "Name a directory, or a single sweep."
        )
    if as_json:
        result(_json(reports, many))
    else:
        for number, report in enumerate(reports):
            result(("\n" if number else "") + _text(report, many, tables))
    for report in reports:
        for text in report.notes:
            note(f"Note: {plain(text)}")
    reporting.write_files(dict(_files(reports, many, output, csv, plot, against)), dry_run)
    _tell(reports, check)


def _is_one(path: Path) -> bool:
    return is_sweep(path) or sweep_of(path) is not None or is_bundle(path)


def _reports(path: Path, options: dict[str, Any]) -> list[Report]:
    if _is_one(path):
        return [reporting.report_of(path, options)]
    from valska.external_tools.core.report.root import reports_of_root

    return reports_of_root(require_results(path), reporting.scheduler_for(), options)


def _files(
    reports: Sequence[Report],
    many: bool,
    output: Path | None,
    csv: Path | None,
    plot: Path | None,
    against: str | None,
) -> Iterator[tuple[Path, bytes]]:
    if csv:
        yield csv, csv_of(reports).encode()
    if output:
        yield output / "report.csv", csv_of(reports).encode()
        yield output / "report.json", f"{_json(reports, many)}\n".encode()
        for key in tables_of(reports):
            yield output / f"{key}.csv", table_csv(reports, key).encode()
        yield from _drawn_if_possible(reports, many, output, against)
    if plot:
        for report in reports:
            yield from _pictures(report, many, plot, against)


def _drawn_if_possible(
    reports: Sequence[Report], many: bool, output: Path, against: str | None
) -> Iterator[tuple[Path, bytes]]:
    for report in reports:
        try:
            yield from _pictures(report, many, output, against)
        except PrerequisiteError as error:
            note(f"Note: no pictures: {plain(error.message)}")


def _pictures(
    report: Report, many: bool, path: Path, against: str | None
) -> Iterator[tuple[Path, bytes]]:
    folder = path / (report.place if report.kind == "sweep" else report.tool) if many else path
    yield from reporting.pictures(_panels(report, against), folder, reporting.title_of(report))


def _panels(report: Report, against: str | None) -> list[Panel]:
    reporter = reporter_of(report.tool) if report.columns else None
    if reporter is None:
        raise PrerequisiteError(f"{report.tool} has nothing to draw", "Its runs have no report.")
    return report_panels(report, reporter, against)


def _json(reports: Sequence[Report], many: bool) -> str:
    if not many:
        return json_text(reports[0])
    return '{"reports": [\n' + ",\n".join(map(json_text, reports)) + "\n]}"


def _text(report: Report, many: bool, tables: bool) -> str:
    what = report.place if report.kind == "sweep" else "single runs"
    blocks = [plain(f"{report.tool or '?'}: {what}")] if many else []
    if report.kind == "run":
        blocks += _run_blocks(report)
    else:
        blocks.append(_table(point_header(report), point_lines(report)))
    if tables or report.kind == "run":
        blocks += _tables(report)
    return "\n".join(block for block in blocks if block)


def _run_blocks(report: Report) -> list[str]:
    (row,) = report.rows
    shown = [column for column in report.columns if column.shown]
    cells = zip(header(shown), printed(shown, row.results), strict=True)
    swept = [(parameter.name, value_text(parameter.of(row))) for parameter in report.parameters]
    rows = [("run", report.name), *swept, ("state", row.state), *cells]
    return [_table((), [*rows, *(("note", text) for text in row.notes)])]


def _tables(report: Report) -> Iterator[str]:
    for spec in report.tables:
        first = [] if report.kind == "run" else ["point"]
        lines = [
            [*([row.label] if first else []), *printed(spec.columns, line)]
            for row in report.rows
            for line in row.tables.get(spec.key, ())
        ]
        if lines:
            yield f"\n{spec.title}\n" + _table([*first, *header(spec.columns)], lines)


def _table(head: Sequence[str], lines: Any) -> str:
    """Return an aligned table; a last column in which nothing stands is left out."""
    rows = [[plain(cell) for cell in line] for line in lines]
    if head and not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return table(rows, [plain(cell) for cell in head])


def _tell(reports: Sequence[Report], check: bool) -> None:
    rows = [row for report in reports for row in report.rows]
    missing = [row.label for row in rows if not row.complete]
    if not missing:
        return
    names = ", ".join(map(plain, missing[:_NAMED])) + (", …" if len(missing) > _NAMED else "")
    told = f"{len(missing)} of {len(rows)} incomplete: {names}"
    if check:
        raise FailedError(told, "`valska status` says what became of their jobs.")
    note(f"Note: {told}")

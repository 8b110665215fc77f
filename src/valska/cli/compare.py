"""``valska compare``: two runs or sweeps, point by point."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from valska.cli import reporting
from valska.cli.options import dry_run_option, json_option
from valska.cli.output import note, plain, result, result_json, table
from valska.external_tools.core.errors import PrerequisiteError, UsageError, ValskaError
from valska.external_tools.core.report.comparison import Comparison, compare, to_json
from valska.external_tools.core.report.contrast import (
    comparison_csv,
    comparison_panels,
    printed_header,
    printed_lines,
)
from valska.external_tools.core.report.document import Report, Row, from_json
from valska.external_tools.core.utils import load_json


@reporting.add_tool_options
@click.command("compare")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@reporting.output_option("compare.csv, compare.json and all pictures")
@reporting.csv_option
@reporting.plot_option
@reporting.against_option
@reporting.tables_option
@dry_run_option
@json_option
def command(
    a: Path,
    b: Path,
    output: Path | None,
    csv: Path | None,
    plot: Path | None,
    against: str | None,
    tables: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Print how two sweeps differ, point by point.

    A and B are sweeps, bundles, or files that `valska report --json` made. Points are joined by
    the values that they set, whatever their labels are. Each line has B less A, with both errors
    in quadrature, and the size of the difference in standard errors (sigma).
    """
    chosen = reporting.take_tool_options(options)
    found = compare(_report(a, chosen), _report(b, chosen))
    if as_json:
        result_json(to_json(found))
    else:
        _print(found, tables)
    reporting.write_files(dict(_files(found, output, csv, plot, against)), dry_run)


def _report(path: Path, options: Mapping[str, Any]) -> Report:
    if path.is_dir():
        return reporting.report_of(path, options)
    try:
        data = load_json(path)
    except ValskaError as error:
        raise UsageError(
            error.message, "Name a sweep, a bundle, or a file that `valska report --json` made."
        ) from error
    if "reports" in data:
        raise UsageError(f"{path} holds many reports", "Make one of a single sweep.")
    return from_json(data, str(path))


def _files(
    found: Comparison,
    output: Path | None,
    csv: Path | None,
    plot: Path | None,
    against: str | None,
) -> Iterator[tuple[Path, bytes]]:
    text = comparison_csv(found).encode()
    if csv:
        yield csv, text
    if output:
        yield output / "compare.csv", text
        yield output / "compare.json", f"{json.dumps(to_json(found), indent=2)}\n".encode()
        try:
            yield from _pictures(found, output, against)
        except PrerequisiteError as error:
            note(f"Note: no pictures: {plain(error.message)}")
    if plot:
        yield from _pictures(found, plot, against)


def _pictures(found: Comparison, path: Path, against: str | None) -> Iterator[tuple[Path, bytes]]:
    title = f"A: {reporting.title_of(found.a)}\nB: {reporting.title_of(found.b)}"
    yield from reporting.pictures(comparison_panels(found, against), path, title)


def _print(found: Comparison, tables: bool) -> None:
    note(f"A: {plain(reporting.title_of(found.a))}")
    note(f"B: {plain(reporting.title_of(found.b))}")
    lines = [[plain(cell) for cell in line] for line in printed_lines(found, tables)]
    if lines:
        head = printed_header(found)
        noted = any(line[-1] for line in lines)
        result(
            table([line if noted else line[:-1] for line in lines], head if noted else head[:-1])
        )
    for name, rows in (("A", found.only_a), ("B", found.only_b)):
        if rows:
            result(f"Only in {name}: {_labels(rows)}")
    for text in found.notes:
        note(f"Note: {plain(text)}")


def _labels(rows: Sequence[Row]) -> str:
    return ", ".join(plain(row.label) for row in rows)

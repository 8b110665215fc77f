"""Reports as text: cells, printed tables, and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from valska.external_tools.core.report.document import Parameter, Report, Row
from valska.external_tools.core.report.summary import Cell, Column, Table

NOTHING = "-"
"""What stands for a missing cell in a printed table."""
POINT = ("run", "point", "state", "complete")
"""The first columns of a CSV file."""
_LARGE = 1e15


def cell_text(value: Cell, error: Cell = None) -> str:
    """Return a cell for a person; with an error, to the two digits that it leaves certain."""
    if value is None:
        return NOTHING
    if isinstance(value, str | int):
        return str(value)
    if not isinstance(error, int | float) or not 0 < error < _LARGE or abs(value) >= _LARGE:
        return f"{value:.6g}"
    digits = min(max(1 - math.floor(math.log10(error)), 0), 12)
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def value_text(value: Any) -> str:
    """Return the value of a swept key: each digit of a number, a text as it is, else JSON."""
    if value is None:
        return NOTHING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def printed(columns: Sequence[Column], cells: Mapping[str, Cell]) -> list[str]:
    """Return the cells of those columns that a printed table has."""
    return [cell_text(cells.get(c.key), cells.get(c.error)) for c in columns if c.shown]


def header(columns: Sequence[Column]) -> list[str]:
    """Return what stands above the columns of a printed table."""
    return [column.label for column in columns if column.shown]


def point_header(report: Report) -> list[str]:
    """Return what stands above a report's printed table."""
    swept = [parameter.name for parameter in report.parameters]
    first = ["point"] if report.kind == "sweep" else ["run"]
    return [*first, *swept, "state", *header(report.columns), "note"]


def point_lines(report: Report) -> Iterator[list[str]]:
    """Yield the lines of a report's printed table."""
    parameters = report.parameters
    for row in report.rows:
        swept = [value_text(parameter.of(row)) for parameter in parameters]
        cells = printed(report.columns, row.results)
        yield [row.label, *swept, row.state, *cells, "; ".join(row.notes)]


def csv_of(reports: Sequence[Report]) -> str:
    """Return reports as one CSV file: a line for each point, a column for each quantity.

    Columns that a report does not have are empty in its lines.
    """
    swept = _unique(parameter.name for report in reports for parameter in report.parameters)
    keys = _unique(column.key for report in reports for column in report.columns)
    names = [_apart(name, {*POINT, *keys, "note"}) for name in swept]
    lines: list[Sequence[Any]] = [[*POINT, *names, *keys, "note"]]
    for report in reports:
        parameters = _named(report, swept)
        lines += [
            [
                *_point(report, row),
                *_swept(row, parameters),
                *(row.results.get(key) for key in keys),
                "; ".join(row.notes),
            ]
            for row in report.rows
        ]
    return to_csv(lines)


def table_csv(reports: Sequence[Report], key: str) -> str:
    """Return one table of all points of reports as a CSV file, a line for each of its rows."""
    swept = _unique(parameter.name for report in reports for parameter in report.parameters)
    columns = next((t.columns for r in reports for t in r.tables if t.key == key), ())
    keys = [column.key for column in columns]
    names = [_apart(name, {*POINT, *keys}) for name in swept]
    lines: list[Sequence[Any]] = [[*POINT, *names, *keys]]
    for report in reports:
        parameters = _named(report, swept)
        for row in report.rows:
            first = [*_point(report, row), *_swept(row, parameters)]
            cells = row.tables.get(key, ())
            lines += [[*first, *(line.get(name) for name in keys)] for line in cells]
    return to_csv(lines)


def tables_of(reports: Iterable[Report]) -> dict[str, Table]:
    """Return the tables that rows of reports have, by key."""
    return {table.key: table for report in reports for table in report.tables}


def to_csv(lines: Iterable[Sequence[Any]]) -> str:
    """Return lines as CSV; a missing cell is empty, numbers have all their digits."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([_csv_cell(cell) for cell in line] for line in lines)
    return buffer.getvalue()


def _csv_cell(cell: Any) -> Any:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, list | dict) else cell


def _point(report: Report, row: Row) -> list[Any]:
    if report.kind == "runs":
        return [row.label, "", row.state, row.complete]
    label = row.label if report.kind == "sweep" else ""
    return [report.place, label, row.state, row.complete]


def _named(report: Report, names: Iterable[str]) -> list[Parameter | None]:
    """Return a report's parameters by name; None for what it does not sweep."""
    known = {parameter.name: parameter for parameter in report.parameters}
    return [known.get(name) for name in names]


def _swept(row: Row, parameters: Iterable[Parameter | None]) -> list[Any]:
    return [parameter.of(row) if parameter else None for parameter in parameters]


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _apart(name: str, taken: set[str]) -> str:
    """Return the name of a swept key that no other column has."""
    return f"{name}_swept" if name in taken else name

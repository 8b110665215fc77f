"""A report: points by quantities, as it is kept in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import valska
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.report.summary import Cell, Column, Table
from valska.external_tools.core.schema import SchemaError, validate

SCHEMA = "report-1"
SCHEMA_VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class Parameter:
    """What is swept: values of a key, or fractions by which it is perturbed."""

    key: str
    fraction: bool = False

    @property
    def name(self) -> str:
        """Its name as a column."""
        return f"{self.key}_fraction" if self.fraction else self.key

    @property
    def label(self) -> str:
        """What stands beside its axis."""
        return f"fractional change of {self.key}" if self.fraction else self.key

    def of(self, row: Row) -> Any:
        """Return its value at a point; None where the point does not set it."""
        return (row.perturbations if self.fraction else row.values).get(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A point of a sweep, or a run.

    Parameters
    ----------
    label
        Its name; for a run below a root its place there.
    values, perturbations
        What it sets; see `core.sweep.planning.points.Point`.
    state
        What became of it as a whole.
    complete
        Whether all its results are there.
    results
        Key of each column to its cell.
    tables
        Key of each table to its rows.
    notes
        What is missing and why, and what else there is to say.
    """

    label: str
    values: Mapping[str, Any] = field(default_factory=dict)
    perturbations: Mapping[str, float] = field(default_factory=dict)
    state: str
    complete: bool
    results: Mapping[str, Cell] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Cell]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run, a sweep, or many runs of one tool found.

    Parameters
    ----------
    kind
        ``run``, ``sweep``, or ``runs`` for many single ones.
    tool, name
        Of which tool; the run's or sweep's id.
    place
        Where it lies: as it was named, or relative to the root.
    options
        Of the tool's report, as they were used.
    columns, tables
        What rows have.
    rows
        In the order of the points.
    notes
        What is to be said of the whole.
    """

    kind: str
    tool: str
    name: str
    place: str
    options: Mapping[str, Any] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    tables: tuple[Table, ...] = ()
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every row is."""
        return all(row.complete for row in self.rows)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What is swept, in the order in which points name it."""
        found: dict[Parameter, None] = {}
        for row in self.rows:
            found |= dict.fromkeys(Parameter(key) for key in row.values)
            found |= dict.fromkeys(Parameter(key, fraction=True) for key in row.perturbations)
        return tuple(found)


def to_json(report: Report) -> dict[str, Any]:
    """Return a report as JSON types; numbers that JSON does not have are null."""
    return {
        "schema_version": SCHEMA_VERSION,
        "valska_version": valska.__version__,
        "kind": report.kind,
        "tool": report.tool,
        "name": report.name,
        "place": report.place,
        "complete": report.complete,
        "options": dict(report.options),
        "parameters": [asdict(parameter) for parameter in report.parameters],
        "columns": [asdict(column) for column in report.columns],
        "tables": [asdict(table) for table in report.tables],
        "rows": [asdict(row) for row in report.rows],
        "notes": list(report.notes),
    }


def json_text(report: Report) -> str:
    """Return a report as JSON, a row a line: with indents 10,000 rows would take seconds."""
    data = to_json(report)
    rows = data.pop("rows")
    fields = [f'  "{name}": {_text(value)},' for name, value in data.items()]
    lines = ",\n".join(f"    {_text(row)}" for row in rows)
    return "\n".join(["{", *fields, f'  "rows": [\n{lines}\n  ]' if rows else '  "rows": []', "}"])


def from_json(data: Mapping[str, Any], what: str) -> Report:
    """Return the report that JSON holds.

    Parameters
    ----------
    data
        The JSON.
    what
        Its name for messages.

    Raises
    ------
    UsageError
        If it is no report, or one of another major version.
    """
    version = str(data.get("schema_version", SCHEMA_VERSION))
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise UsageError(
            f"{what} has schema version {version} (written by valska "
            f"{data.get('valska_version')}); valska {valska.__version__} reads {SCHEMA_VERSION}",
            "Make the report again with this version.",
        )
    try:
        validate(data, SCHEMA, what)
    except SchemaError as error:
        raise UsageError(error.message, "Name a file that `valska report --json` made.") from error
    return Report(
        kind=data["kind"],
        tool=data["tool"],
        name=data["name"],
        place=data["place"],
        options=data["options"],
        columns=tuple(Column(**_known(Column, entry)) for entry in data["columns"]),
        tables=tuple(_table(entry) for entry in data["tables"]),
        rows=tuple(_row(entry) for entry in data["rows"]),
        notes=tuple(data["notes"]),
    )


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _table(data: Mapping[str, Any]) -> Table:
    columns = tuple(Column(**_known(Column, entry)) for entry in data["columns"])
    return Table(data["key"], data["title"], tuple(data["index"]), columns)


def _row(data: Mapping[str, Any]) -> Row:
    return Row(**{**_known(Row, data), "notes": tuple(data["notes"])})


def _known(kind: type[Column | Row], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that this version knows; a later minor version may have more."""
    return {name: data[name] for name in kind.__dataclass_fields__ if name in data}

"""Two reports joined on their points: what differs, and by how many standard errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import valska
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.report.document import Parameter, Report, Row
from valska.external_tools.core.report.summary import Cell, Column

SCHEMA_VERSION = "1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One quantity at one point in both reports.

    Parameters
    ----------
    quantity
        Key of the column.
    table, item
        Key of the table and what tells its row apart; empty for a quantity of the point itself.
    a, a_error, b, b_error
        The cells and their standard errors.
    difference
        b less a; None if one of them is no number.
    error
        Standard error of the difference: both errors in quadrature; None if neither is known.
    significance
        Size of the difference in standard errors; None without an error above 0.
    """

    quantity: str
    table: str = ""
    item: str = ""
    a: Cell
    a_error: Cell = None
    b: Cell
    b_error: Cell = None
    difference: float | None = None
    error: float | None = None
    significance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A point that both reports have.

    Parameters
    ----------
    a, b
        Its rows.
    differences
        Of each quantity that both have.
    """

    a: Row
    b: Row
    differences: tuple[Difference, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What is missing on either side."""
        sides = (("A", self.a), ("B", self.b))
        return tuple(
            f"{name} is incomplete ({'; '.join(row.notes) or row.state})"
            for name, row in sides
            if not row.complete
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two reports side by side.

    Parameters
    ----------
    a, b
        The reports.
    pairs
        Points of both, in the order of `a`.
    only_a, only_b
        Points of one alone.
    notes
        What makes the two differ as a whole.
    """

    a: Report
    b: Report
    pairs: tuple[Pair, ...]
    only_a: tuple[Row, ...] = ()
    only_b: tuple[Row, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What is swept in either; nothing where single runs are compared."""
        if self.a.kind != "sweep":
            return ()
        return tuple(dict.fromkeys([*self.a.parameters, *self.b.parameters]))

    @property
    def columns(self) -> tuple[Column, ...]:
        """The quantities that both have, but errors."""
        return tuple(_compared(self.a.columns, self.b.columns))


def compare(a: Report, b: Report) -> Comparison:
    """Join two reports on the values that their points set, whatever their labels are.

    Two single runs are joined whatever they set.

    Values are equal if they are equal as numbers, texts, lists or mappings: 1 and 1.0 are, 1 and
    true are not, and no digit is rounded away.

    Raises
    ------
    UsageError
        If they are of different tools, or one is not of a single run or sweep, or has two points
        with equal values.
    """
    if a.tool != b.tool:
        raise UsageError(
            f"A is of {a.tool}, B of {b.tool}", "Compare runs or sweeps of the same tool."
        )
    of_a, of_b = _by_values(a), _by_values(b)
    pairs = [
        Pair(a=row, b=of_b[key], differences=tuple(_differences(a, b, row, of_b[key])))
        for key, row in of_a.items()
        if key in of_b
    ]
    return Comparison(
        a=a,
        b=b,
        pairs=tuple(pairs),
        only_a=tuple(row for key, row in of_a.items() if key not in of_b),
        only_b=tuple(row for key, row in of_b.items() if key not in of_a),
        notes=tuple(_notes(a, b, bool(pairs))),
    )


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON types."""
    a, b = comparison.a, comparison.b
    return {
        "schema_version": SCHEMA_VERSION,
        "valska_version": valska.__version__,
        "tool": a.tool,
        "a": {"name": a.name, "place": a.place, "options": dict(a.options)},
        "b": {"name": b.name, "place": b.place, "options": dict(b.options)},
        "parameters": [asdict(parameter) for parameter in comparison.parameters],
        "columns": [asdict(column) for column in comparison.columns],
        "pairs": [
            {
                "values": pair.a.values,
                "perturbations": pair.a.perturbations,
                "a": pair.a.label,
                "b": pair.b.label,
                "differences": [asdict(one) for one in pair.differences],
                "notes": pair.notes,
            }
            for pair in comparison.pairs
        ],
        "only_a": [row.label for row in comparison.only_a],
        "only_b": [row.label for row in comparison.only_b],
        "notes": comparison.notes,
    }


def difference(a: Cell, b: Cell, a_error: Cell = None, b_error: Cell = None) -> dict[str, Any]:
    """Return difference, error and significance of two cells; see `Difference`."""
    if not isinstance(a, int | float) or not isinstance(b, int | float):
        return {}
    known = [float(e) for e in (a_error, b_error) if isinstance(e, int | float)]
    error = math.hypot(*known) if known else None
    size = float(b - a)
    return {
        "difference": size,
        "error": error,
        "significance": abs(size) / error if error else None,
    }


def _by_values(report: Report) -> dict[Any, Row]:
    if report.kind == "runs":
        raise UsageError(
            f"{report.place} is many runs", "Compare single runs, or sweeps, with each other."
        )
    found: dict[Any, Row] = {}
    for row in report.rows:
        values = (_frozen(row.values), _frozen(row.perturbations))
        key = values if report.kind == "sweep" else None
        if key in found:
            raise UsageError(
                f"points {found[key].label} and {row.label} of {report.name} have the same values",
                "9 and 9.0 are equal here. Compare single points, by their directories.",
            )
        found[key] = row
    return found


def _frozen(value: Any) -> Any:
    """Return a value that can be looked up, and is equal only to what is equal in YAML."""
    if isinstance(value, Mapping):
        return frozenset((key, _frozen(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return (type(value).__name__ if isinstance(value, bool) else "", value)


def _compared(a: Sequence[Column], b: Sequence[Column]) -> Iterator[Column]:
    errors = {column.error for column in a}
    there = {column.key for column in b}
    yield from (column for column in a if column.key in there and column.key not in errors)


def _differences(a: Report, b: Report, one: Row, other: Row) -> Iterator[Difference]:
    yield from _of_cells(_compared(a.columns, b.columns), one.results, other.results)
    of_b = {table.key: table for table in b.tables}
    for table in a.tables:
        if table.key not in of_b:
            continue
        columns = _compared(table.columns, of_b[table.key].columns)
        chosen = [column for column in columns if column.key not in table.index]
        lines = {_index(table.index, line): line for line in other.tables.get(table.key, ())}
        for line in one.tables.get(table.key, ()):
            key = _index(table.index, line)
            if key in lines:
                item = " ".join(map(str, key))
                yield from _of_cells(chosen, line, lines[key], table.key, item)


def _of_cells(
    columns: Iterable[Column],
    a: Mapping[str, Cell],
    b: Mapping[str, Cell],
    table: str = "",
    item: str = "",
) -> Iterator[Difference]:
    for column in columns:
        one, other = a.get(column.key), b.get(column.key)
        errors = a.get(column.error), b.get(column.error)
        yield Difference(
            quantity=column.key,
            a=one,
            b=other,
            a_error=errors[0],
            b_error=errors[1],
            table=table,
            item=item,
            **difference(one, other, *errors),
        )


def _index(keys: Iterable[str], line: Mapping[str, Cell]) -> tuple[Cell, ...]:
    return tuple(line.get(key) for key in keys)


def _notes(a: Report, b: Report, joined: bool) -> Iterator[str]:
    for name in sorted({*a.options, *b.options}):
        one, other = a.options.get(name), b.options.get(name)
        if one != other:
            yield f"{name} is {one} in A and {other} in B"
    if not joined:
        names = [", ".join(p.name for p in report.parameters) or "nothing" for report in (a, b)]
        yield f"no point is in both: A sweeps {names[0]}, B {names[1]}"

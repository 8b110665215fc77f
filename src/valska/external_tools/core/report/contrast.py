"""Comparisons as text and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.report.comparison import Comparison, Difference, Pair
from valska.external_tools.core.report.document import Parameter
from valska.external_tools.core.report.drawing import (
    Panel,
    draw_series,
    is_number,
    mark_points,
    points_along,
)
from valska.external_tools.core.report.summary import Column
from valska.external_tools.core.report.text import NOTHING, cell_text, to_csv, value_text

_FIELDS = (
    "table",
    "item",
    "quantity",
    "a",
    "a_error",
    "b",
    "b_error",
    "difference",
    "error",
    "significance",
)


def printed_header(comparison: Comparison) -> list[str]:
    """Return what stands above the printed table of a comparison."""
    return [*_first(comparison), "quantity", "A", "B", "B - A", "sigma", "note"]


def printed_lines(comparison: Comparison, tables: bool = False) -> Iterator[list[str]]:
    """Yield a line for each point and quantity; those of tables only on request."""
    titles = {("", column.key): column.title for column in comparison.columns if column.shown}
    for table in comparison.a.tables if tables else ():
        titles |= {(table.key, c.key): c.title for c in table.columns if c.shown}
    parameters = comparison.parameters
    for pair in comparison.pairs:
        first = _point(parameters, pair)
        note = "; ".join(pair.notes)
        for one in pair.differences:
            if title := titles.get((one.table, one.quantity)):
                name = f"{one.table} {one.item} {title}" if one.table else title
                yield [*first, name, *_cells(one), note]


def comparison_csv(comparison: Comparison) -> str:
    """Return a comparison as CSV: a line for each point and quantity, those of tables too."""
    parameters = comparison.parameters
    names = [parameter.name for parameter in parameters]
    names = [f"{name}_swept" if name in _FIELDS else name for name in names]
    lines: list[Sequence[Any]] = [["point_a", "point_b", *names, *_FIELDS]]
    for pair in comparison.pairs:
        values = [parameter.of(pair.a) for parameter in parameters]
        first = [pair.a.label, pair.b.label, *values]
        lines += [[*first, *(getattr(one, name) for name in _FIELDS)] for one in pair.differences]
    return to_csv(lines)


def comparison_panels(comparison: Comparison, against: str | None = None) -> list[Panel]:
    """Return a panel for each quantity: B less A against what is swept.

    Raises
    ------
    UsageError
        If there is no such parameter.
    PrerequisiteError
        If there is nothing to draw.
    """
    names = {parameter.name: parameter for parameter in comparison.parameters}
    if against is not None and against not in names:
        raise UsageError(
            f"neither sweeps {against!r}", f"They sweep: {', '.join(names) or 'nothing'}."
        )
    axis = names[against] if against else next(iter(names.values()), None)
    panels = [
        Panel(f"difference_{column.key}", _drawn(comparison, column, axis))
        for column in comparison.columns
        if column.shown and _has_numbers(comparison, column)
    ]
    if not panels:
        raise PrerequisiteError(
            "there is nothing to draw: no quantity is known on both sides",
            "The printed comparison says what is missing.",
        )
    return panels


def _first(comparison: Comparison) -> list[str]:
    return [parameter.name for parameter in comparison.parameters] or ["A", "B"]


def _point(parameters: Sequence[Parameter], pair: Pair) -> list[str]:
    swept = [value_text(parameter.of(pair.a)) for parameter in parameters]
    return swept or [pair.a.label, pair.b.label]


def _cells(one: Difference) -> list[str]:
    sigma = NOTHING if one.significance is None else f"{one.significance:.1f}"
    return [
        cell_text(one.a, one.a_error),
        cell_text(one.b, one.b_error),
        cell_text(one.difference, one.error),
        sigma,
    ]


def _of(pair: Pair, column: Column) -> Difference | None:
    return next((d for d in pair.differences if not d.table and d.quantity == column.key), None)


def _has_numbers(comparison: Comparison, column: Column) -> bool:
    found = (_of(pair, column) for pair in comparison.pairs)
    return any(one is not None and is_number(one.difference) for one in found)


def _drawn(comparison: Comparison, column: Column, axis: Parameter | None) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        points = points_along(axis, [pair.a for pair in comparison.pairs])
        found = [_of(pair, column) for pair in comparison.pairs]
        cells = [one.difference if one else None for one in found]
        draw_series(axes, points, cells, [one.error if one else None for one in found])
        axes.axhline(0, color="black", lw=0.8)
        mark_points(axes, points)
        axes.set(title=f"{column.title}: B - A", ylabel=f"difference of {column.label}")

    return draw

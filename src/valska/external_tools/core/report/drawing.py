"""Reports as pictures; the same report gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.report.document import Parameter, Report, Row
from valska.external_tools.core.report.summary import Cell, Chart, Profile, Reporter
from valska.external_tools.core.report.text import value_text

_NAMED = 12
"""So many lines have a place in a legend."""
_DRAWN = 100
"""So many lines of a profile are drawn; more are no longer told apart."""
_WIDTH, _HEIGHT = 8.0, 4.0
_OPEN = "0.6"
"""Grey of what marks an incomplete point."""


_Line = tuple[Row, list[Mapping[str, Cell]]]
"""A row, and its lines in a table."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture, or a part of one.

    Parameters
    ----------
    name
        Of its file, without suffix.
    draw
        Draws it on the axes of a figure.
    """

    name: str
    draw: Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Points:
    """Where points stand across a picture.

    Parameters
    ----------
    label
        Beside the axis.
    places
        Of each row; None where the row has none.
    words
        What stands at the places 0, 1, …, where these are no numbers.
    """

    label: str
    places: tuple[float | None, ...]
    words: tuple[str, ...] = ()


def report_panels(report: Report, reporter: Reporter, against: str | None = None) -> list[Panel]:
    """Return what can be drawn of a report.

    Parameters
    ----------
    report
        The report.
    reporter
        How its tool draws.
    against
        Name of the swept parameter that runs across; the first one, if not given.

    Raises
    ------
    UsageError
        If there is no such parameter.
    PrerequisiteError
        If there is nothing to draw, or no matplotlib.
    """
    require_matplotlib()
    axis = _axis(report, against)
    charts = reporter.charts if report.kind != "run" else ()
    panels = [Panel(chart.name, _charted(report, chart, axis)) for chart in charts]
    for profile in reporter.profiles:
        panels += _profiled(report, profile, axis)
    if not panels or not any(row.complete for row in report.rows):
        raise PrerequisiteError(
            f"there is nothing to draw of {report.name or report.place}",
            "The printed report says what is missing.",
        )
    return panels


def picture(panels: Sequence[Panel], title: str) -> bytes:
    """Draw panels below each other.

    Returns
    -------
    bytes
        A PNG.

    Raises
    ------
    PrerequisiteError
        If matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib.style
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with matplotlib.style.context("default", after_reset=True):
        height = 0.6 + _HEIGHT * len(panels)
        figure = Figure(figsize=(_WIDTH, height), dpi=100, layout="constrained")
        for axes, panel in zip(
            figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True
        ):
            panel.draw(axes)
        figure.suptitle(_literal(title), fontsize=10)
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def require_matplotlib() -> None:
    """Make sure that pictures can be drawn.

    Raises
    ------
    PrerequisiteError
        If matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise PrerequisiteError(
            f"drawing needs a package that is not installed: {error.name}",
            "pip install 'valska[plot]'",
        ) from error


def points_along(parameter: Parameter | None, rows: Sequence[Row]) -> Points:
    """Return where rows stand: by the numbers of a parameter, else one after the other."""
    if parameter is None:
        return Points("", tuple(map(float, range(len(rows)))), tuple(row.label for row in rows))
    values = [parameter.of(row) for row in rows]
    if all(value is None or is_number(value) for value in values):
        return Points(parameter.label, tuple(None if v is None else float(v) for v in values))
    words = list(dict.fromkeys(map(value_text, values)))
    places = tuple(float(words.index(value_text(value))) for value in values)
    return Points(parameter.label, places, tuple(words))


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a number; a truth value is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def mark_points(axes: Any, points: Points) -> None:
    """Label the axis across."""
    axes.set_xlabel(_literal(points.label))
    if points.words:
        words = [_literal(word) for word in points.words]
        axes.set_xticks(range(len(words)), words, rotation=30)
        for word in axes.get_xticklabels():
            word.set_horizontalalignment("right")
    elif _narrow(points):
        axes.ticklabel_format(axis="x", style="plain", useOffset=False)
        axes.locator_params(axis="x", nbins=6)


def _narrow(points: Points) -> bool:
    """Return whether values are so near to one another that they would be drawn as offsets."""
    places = [place for place in points.places if place is not None]
    return bool(places) and max(places) - min(places) < 1e-3 * max(map(abs, places))


def draw_series(
    axes: Any, points: Points, cells: Sequence[Cell], errors: Sequence[Cell], **style: Any
) -> None:
    """Draw one quantity of points, in the order in which they stand, with its errors."""
    found = [
        (place, cell, error if is_number(error) else 0.0)
        for place, cell, error in zip(points.places, cells, errors, strict=True)
        if place is not None and is_number(cell)
    ]
    if found:
        x, y, e = zip(*sorted(found), strict=True)
        bars = e if any(e) else None
        axes.errorbar(x, y, yerr=bars, fmt="o-", markersize=4, capsize=3, lw=1, **style)


def _axis(report: Report, against: str | None) -> Parameter | None:
    names = {parameter.name: parameter for parameter in report.parameters}
    if against is None:
        return next(iter(names.values()), None)
    if against not in names:
        raise UsageError(
            f"{report.name or report.place} does not sweep {against!r}",
            f"It sweeps: {', '.join(names) or 'nothing'}.",
        )
    return names[against]


def _charted(report: Report, chart: Chart, axis: Parameter | None) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        points = points_along(axis, report.rows)
        for group, chosen in _groups(report, axis).items():
            own = Points(points.label, tuple(points.places[i] for i in chosen))
            for key, name in chart.series.items():
                label = ", ".join(word for word in (name, group) if word)
                _draw_column(axes, report, own, [report.rows[i] for i in chosen], key, label)
        _mark_incomplete(axes, points, report.rows)
        if chart.zero:
            axes.axhline(0, color="black", lw=0.8)
        mark_points(axes, points)
        axes.set(title=_literal(chart.title), ylabel=_literal(chart.label))
        _legend(axes)

    return draw


def _draw_column(
    axes: Any, report: Report, points: Points, rows: Sequence[Row], key: str, label: str
) -> None:
    column = next(column for column in report.columns if column.key == key)
    cells = [row.results.get(key) for row in rows]
    errors = [row.results.get(column.error) for row in rows]
    draw_series(axes, points, cells, errors, label=_literal(label))


def _groups(report: Report, axis: Parameter | None) -> dict[str, list[int]]:
    """Return the rows that belong to one line: those that differ in the axis alone."""
    others = [parameter for parameter in report.parameters if parameter != axis]
    found: dict[str, list[int]] = {}
    for index, row in enumerate(report.rows):
        words = (f"{other.name} = {value_text(other.of(row))}" for other in others)
        found.setdefault(", ".join(words), []).append(index)
    return found


def _mark_incomplete(axes: Any, points: Points, rows: Sequence[Row]) -> None:
    label: str | None = "incomplete"
    for place, row in zip(points.places, rows, strict=True):
        if place is not None and not row.complete:
            axes.axvline(place, color=_OPEN, ls=":", lw=1.5, label=label)
            label = None


def _profiled(report: Report, profile: Profile, axis: Parameter | None) -> Iterator[Panel]:
    words = dict.fromkeys(
        str(line[profile.panel])
        for row in report.rows
        for line in row.tables.get(profile.table, ())
    )
    for word in words:
        yield Panel(f"{profile.name}_{word}", _profile_of(report, profile, word, axis))


def _profile_of(
    report: Report, profile: Profile, word: str, axis: Parameter | None
) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        columns = {c.key: c for t in report.tables if t.key == profile.table for c in t.columns}
        parameters = report.parameters
        every = _lines_of(report, profile, word)
        drawn = _spread(every, _DRAWN)
        colours = _colours(axes, axis, [row for row, _ in drawn])
        for index, ((row, cells), colour) in enumerate(zip(drawn, colours, strict=True)):
            shift = _shift(index, len(drawn), profile.log)
            _draw_profile(axes, profile, cells, shift, color=colour, label=_name(row, parameters))
        left_out = f", {len(drawn)} of {len(every)} points" if len(drawn) < len(every) else ""
        axes.set(title=_literal(f"{profile.title} ({word}{left_out})"))
        axes.set_xlabel(_literal(columns[profile.x].label))
        axes.set_ylabel(_literal(profile.label))
        if profile.log:
            axes.set_xscale("log")
        if len(drawn) <= _NAMED:
            _legend(axes)

    return draw


def _lines_of(report: Report, profile: Profile, word: str) -> list[_Line]:
    """Return the rows that have lines of a table with that word, and those lines."""
    found = (
        (row, [line for line in row.tables.get(profile.table, ()) if line[profile.panel] == word])
        for row in report.rows
    )
    return [(row, cells) for row, cells in found if cells]


def _spread(lines: list[_Line], count: int) -> list[_Line]:
    """Return so many of the lines at most, from the first to the last at even distances."""
    if len(lines) <= count:
        return lines
    return [lines[round(n * (len(lines) - 1) / (count - 1))] for n in range(count)]


def _colours(axes: Any, axis: Parameter | None, rows: Sequence[Row]) -> list[Any]:
    """Return a colour for each row; by the parameter's value where that is a number."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    every = [axis.of(row) if axis else None for row in rows]
    values = [value for value in every if is_number(value)]
    if axis is None or not values or len(values) < len(rows):
        scale = Normalize(0, max(len(rows), 2) - 1)
        return [colormaps["viridis"](scale(index)) for index in range(len(rows))]
    scale = Normalize(min(values), max(values))
    if len(rows) > _NAMED:
        mappable = ScalarMappable(scale, "viridis")
        axes.figure.colorbar(mappable, ax=axes, label=_literal(axis.label))
    return [colormaps["viridis"](scale(value)) for value in values]


def _shift(index: int, count: int, log: bool) -> Callable[[float], float]:
    """Return what moves the lines apart, so that no error bar hides another."""
    step = 0.06 * (index / (count - 1) - 0.5) if count > 1 else 0.0
    return (lambda x: x * (1 + step)) if log else (lambda x: x + step)


def _draw_profile(
    axes: Any,
    profile: Profile,
    cells: Iterable[Mapping[str, Cell]],
    shift: Callable[[float], float],
    **style: Any,
) -> None:
    wanted = (profile.x, profile.y, profile.low, profile.high)
    rows = [[float(line[key] or 0) for key in wanted] for line in cells]
    x, y, low, high = zip(*sorted(rows), strict=True)
    below = [middle - end for middle, end in zip(y, low, strict=True)]
    above = [end - middle for middle, end in zip(y, high, strict=True)]
    axes.errorbar(
        list(map(shift, x)),
        y,
        yerr=(below, above),
        fmt="o-",
        markersize=4,
        capsize=2,
        lw=1,
        **style,
    )


def _name(row: Row, parameters: Iterable[Parameter]) -> str:
    words = [f"{p.name} = {value_text(p.of(row))}" for p in parameters]
    return _literal(", ".join(words) or row.label)


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8)


def _literal(text: str) -> str:
    """Return text that is drawn as it is: no dollar starts a formula."""
    return text.replace("$", r"\$")

"""Reports as documents, text, CSV and pictures, of made-up numbers."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from uvh5 import png_chunks

from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.report.document import (
    Parameter,
    Report,
    Row,
    from_json,
    json_text,
    to_json,
)
from valska.external_tools.core.report.drawing import Points, picture, points_along, report_panels
from valska.external_tools.core.report.summary import Chart, Column, Profile, Reporter, Table
from valska.external_tools.core.report.text import (
    cell_text,
    csv_of,
    point_header,
    point_lines,
    table_csv,
)
from valska.external_tools.core.schema import load_schema, validate
from valska.external_tools.core.tool import BUILT_IN, load_tool

COLUMNS = (
    Column("size", "Size", "How large.", "m", error="size_error"),
    Column("size_error", "error", "Its error.", "m", shown=False),
    Column("word", "Word", "A word."),
)
TABLE = Table(
    "steps",
    "Steps",
    ("side", "step"),
    (
        Column("side", "side", "Left or right."),
        Column("step", "step", "Number."),
        Column("low", "low", "Low."),
        Column("mid", "mid", "Mid."),
        Column("high", "high", "High."),
    ),
)
REPORTER = Reporter(
    columns=COLUMNS,
    start=lambda options: lambda run: None,
    tables=(TABLE,),
    charts=(Chart("size", "Size of all", "Size (m)", {"size": "size"}, zero=True),),
    profiles=(
        Profile(
            "steps", "Steps", "Height", "steps", "side", "step", "mid", "low", "high", log=True
        ),
    ),
)


def step(side, number, mid):
    return {"side": side, "step": number, "low": mid - 1, "mid": mid, "high": mid + 2}


def row(label, size=1.5, *, complete=True, values=None, **more):
    results = {"size": size, "size_error": 0.25, "word": "pass"} if complete else {}
    steps = [step(side, n, size * n) for side in ("left", "right") for n in (1, 2)]
    return Row(
        label=label,
        values={"a.b": 1.0} if values is None else values,
        state="completed" if complete else "running",
        complete=complete,
        results={column.key: results.get(column.key) for column in COLUMNS},
        tables={"steps": steps if complete else []},
        notes=() if complete else ("size: running", "and more"),
        **more,
    )


def report(*rows, kind="sweep", **more):
    parts = {"tool": "toy", "name": "s1", "place": "there/s1", "options": {"how": "x"}, **more}
    return Report(kind=kind, columns=COLUMNS, tables=(TABLE,), rows=rows, **parts)


SWEEP = report(
    row("p0", 1.5, values={"a.b": 1.0}),
    row("p1", complete=False, values={"a.b": 2.0}),
    row("p2", -3.0, values={"a.b": 3.0}),
)


def lines_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_json_follows_its_schema_and_comes_back_whole():
    for one in (SWEEP, report(), report(row("r"), kind="run"), Report(
        kind="runs", tool="toy", name="", place=".", notes=("slurm is silent",)
    )):  # fmt: skip
        data = json.loads(json_text(one))
        validate(data, "report-1", "it")
        assert data == json.loads(json.dumps(to_json(one)))
        assert from_json(data, "it") == replace(one, rows=one.rows)


def test_every_field_and_column_is_documented():
    text = (Path(__file__).parents[2] / "docs/reference/report.md").read_text()
    named = set(re.findall(r"`(\w+)`", text))
    schema = load_schema("report-1")
    fields = set(schema["properties"])
    for name in ("parameter", "column", "table", "row"):
        fields |= set(schema["$defs"][name]["properties"])
    assert fields <= named
    for tool in BUILT_IN:
        reporter = load_tool(tool).reporter()
        columns = [*reporter.columns, *(c for t in reporter.tables for c in t.columns)]
        assert {column.key for column in columns} <= named
        assert all(column.help.endswith(".") for column in columns)
        assert {option.name for option in reporter.options} <= named


def test_a_later_minor_version_is_read_and_a_major_one_refused():
    data = json.loads(json_text(SWEEP))
    data["rows"][0]["colour"] = data["columns"][0]["colour"] = data["colour"] = "red"
    assert from_json({**data, "schema_version": "1.7"}, "it") == SWEEP
    with pytest.raises(UsageError, match=r"schema version 2\.0"):
        from_json({**data, "schema_version": "2.0"}, "it")
    with pytest.raises(UsageError, match="'rows' is a required property"):
        from_json({"schema_version": "1.0"}, "it")


def test_a_report_is_complete_if_every_row_is():
    assert not SWEEP.complete
    assert report(row("p0")).complete


def test_csv_has_a_line_for_each_point_with_all_digits():
    long = report(row("p0", 1 / 3, values={"a.b": 0.1}), row("p1", complete=False))
    one, other = lines_of(csv_of([long]))
    assert float(one["size"]) == 1 / 3
    assert (one["a.b"], one["point"], one["run"]) == ("0.1", "p0", "there/s1")
    assert (one["state"], one["complete"], one["note"]) == ("completed", "true", "")
    assert (other["size"], other["complete"]) == ("", "false")
    assert other["note"] == "size: running; and more"


def test_csv_of_several_reports_has_all_columns():
    runs = Report(
        kind="runs",
        tool="other",
        name="",
        place=".",
        columns=(Column("weight", "W", "Weight."),),
        rows=(Row(label="x/r1", state="completed", complete=True, results={"weight": 2}),),
    )
    found = lines_of(csv_of([SWEEP, runs]))
    assert [line["run"] for line in found] == ["there/s1"] * 3 + ["x/r1"]
    assert (found[3]["weight"], found[3]["size"], found[3]["a.b"]) == ("2", "", "")
    assert found[0]["weight"] == ""


def test_a_swept_key_never_hides_a_column():
    odd = report(row("p0", values={"state": [1, 2], "size": "a,b", "flag": True}))
    (line,) = lines_of(csv_of([odd]))
    assert line["state"] == "completed"
    assert line["state_swept"] == "[1, 2]"
    assert (line["size"], line["size_swept"], line["flag"]) == ("1.5", "a,b", "true")


def test_values_and_fractions_of_one_key_are_two_columns():
    both = report(row("p0", values={"w": 9.0}, perturbations={"w": -0.1}))
    (line,) = lines_of(csv_of([both]))
    assert (line["w"], line["w_fraction"]) == ("9.0", "-0.1")
    assert both.parameters == (Parameter("w"), Parameter("w", fraction=True))


def test_a_table_as_csv_has_the_point_in_each_line():
    found = lines_of(table_csv([SWEEP], "steps"))
    assert len(found) == 8
    assert {line["point"] for line in found} == {"p0", "p2"}
    assert found[0] == {
        "run": "there/s1", "point": "p0", "state": "completed", "complete": "true", "a.b": "1.0",
        "side": "left", "step": "1", "low": "0.5", "mid": "1.5", "high": "3.5",
    }  # fmt: skip


def test_printed_table():
    assert point_header(SWEEP) == ["point", "a.b", "state", "Size (m)", "Word", "note"]
    lines = list(point_lines(SWEEP))
    assert lines[0] == ["p0", "1.0", "completed", "1.50 ± 0.25", "pass", ""]
    assert lines[1] == ["p1", "2.0", "running", "-", "-", "size: running; and more"]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (None, None, "-"),
        ("pass", None, "pass"),
        (7, None, "7"),
        (1 / 3, None, "0.333333"),
        (2.0650066, 0.02296, "2.065 ± 0.023"),
        (-235.93120683, 1.3164e-06, "-235.9312068 ± 0.0000013"),
        (123.4, 250.0, "123 ± 250"),
        (1.0, 0.0, "1"),
        (1e300, 0.1, "1e+300"),
        (1.0, 1e-30, "1.000000000000 ± 0.000000000000"),
    ],
)
def test_cells(value, error, text):
    assert cell_text(value, error) == text


def test_points_stand_by_their_numbers_or_else_in_order():
    rows = [row(label, values=values) for label, values in
            [("x", {"a": 2}), ("y", {"a": 1.5}), ("z", {})]]  # fmt: skip
    assert points_along(Parameter("a"), rows) == Points("a", (2.0, 1.5, None))
    assert points_along(None, rows) == Points("", (0.0, 1.0, 2.0), ("x", "y", "z"))
    words = [row("x", values={"a": w}) for w in ("big", True, "big", [1])]
    assert points_along(Parameter("a"), words) == Points(
        "a", (0.0, 1.0, 0.0, 2.0), ("big", "true", "[1]")
    )


def figure_of(panel):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    panel.draw(axes)
    return axes


def test_a_chart_shows_each_number_with_its_error_and_marks_what_is_missing():
    axes = figure_of(report_panels(SWEEP, REPORTER)[0])
    (bars,) = axes.containers
    x, y = bars.lines[0].get_data()
    assert (list(x), list(y)) == ([1.0, 3.0], [1.5, -3.0])
    segments = bars.lines[2][0].get_segments()
    assert [tuple(part[:, 1]) for part in segments] == [(1.25, 1.75), (-3.25, -2.75)]
    missing = [line for line in axes.lines if line.get_label() == "incomplete"]
    assert [list(line.get_xdata()) for line in missing] == [[2.0, 2.0]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a.b", "Size (m)")


def test_a_second_parameter_makes_a_line_each():
    grid = report(
        *(row(f"p{a}{b}", a + b, values={"a": a, "b": b}) for a in (1, 2) for b in (3, 4))
    )
    axes = figure_of(report_panels(grid, REPORTER, "b")[0])
    found = {
        bars.get_label(): [list(each) for each in bars.lines[0].get_data()]
        for bars in axes.containers
    }
    assert found == {"size, a = 1": [[3.0, 4.0], [4, 5]], "size, a = 2": [[3.0, 4.0], [5, 6]]}
    with pytest.raises(UsageError, match="does not sweep 'c'") as caught:
        report_panels(grid, REPORTER, "c")
    assert caught.value.hint == "It sweeps: a, b."


def test_a_profile_has_a_panel_for_each_word_and_a_line_for_each_point():
    panels = report_panels(SWEEP, REPORTER)
    assert [panel.name for panel in panels] == ["size", "steps_left", "steps_right"]
    axes = figure_of(panels[1])
    assert axes.get_xscale() == "log"
    labels = [bars.get_label() for bars in axes.containers]
    assert labels == ["a.b = 1.0", "a.b = 3.0"]
    x, y = axes.containers[0].lines[0].get_data()
    assert list(y) == [1.5, 3.0]
    assert list(x) == pytest.approx([1.0, 2.0], rel=0.04)


def test_of_very_many_points_a_profile_draws_some_and_says_so():
    many = report(*(row(f"p{n}", values={"a": float(n)}) for n in range(1001)))
    axes = figure_of(report_panels(many, REPORTER)[1])
    labels = [bars.get_label() for bars in axes.containers]
    assert (len(set(labels)), labels[0], labels[-1]) == (100, "a = 0.0", "a = 1000.0")
    assert axes.get_title() == "Steps (left, 100 of 1001 points)"


@pytest.mark.parametrize("count", [2, 30])
def test_pictures_are_the_same_each_time_and_hold_no_time(count):
    many = report(*(row(f"p{n}", n, values={"a": float(n)}) for n in range(1, count)))
    panels = report_panels(many, REPORTER)
    one = picture(panels, "toy $1 and $2")
    assert one == picture(report_panels(many, REPORTER), "toy $1 and $2")
    assert one != picture(panels, "other")
    assert not {"tIME", "tEXt", "iTXt", "zTXt"} & set(png_chunks(one))


def test_a_single_run_has_no_charts():
    panels = report_panels(report(row("r", values={}), kind="run"), REPORTER)
    assert [panel.name for panel in panels] == ["steps_left", "steps_right"]


def test_nothing_to_draw():
    with pytest.raises(PrerequisiteError, match="nothing to draw of s1"):
        report_panels(report(row("p1", complete=False)), REPORTER)

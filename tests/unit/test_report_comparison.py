"""Two reports joined on their points."""

import csv
import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report import figure_of, report, row

from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.report.comparison import compare, difference, to_json
from valska.external_tools.core.report.contrast import (
    comparison_csv,
    comparison_panels,
    printed_header,
    printed_lines,
)
from valska.external_tools.core.report.drawing import picture

NUMBERS = st.floats(-1e9, 1e9)
ERRORS = st.floats(0, 1e6)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-5, 5),
    st.floats(-5, 5),
    st.text(max_size=3),
    st.lists(st.integers(0, 2), max_size=2),
    st.none(),
)


def points(**sizes):
    return report(*(row(label, size, values={"a": size}) for label, size in sizes.items()))


def test_points_are_joined_by_value_not_by_label():
    a = report(row("one", 1.0, values={"a": 1}), row("two", 5.0, values={"a": 2}))
    b = report(row("x", 7.0, values={"a": 2.0}), row("y", 1.0, values={"a": 3.0}))
    found = compare(a, b)
    assert [(pair.a.label, pair.b.label) for pair in found.pairs] == [("two", "x")]
    assert [one.label for one in found.only_a] == ["one"]
    assert [one.label for one in found.only_b] == ["y"]
    size = found.pairs[0].differences[0]
    assert (size.quantity, size.difference) == ("size", 2.0)
    assert size.error == pytest.approx(math.hypot(0.25, 0.25))
    assert size.significance == pytest.approx(2.0 / math.hypot(0.25, 0.25))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (0.1, 0.1, True),
        (0.3, 0.1 + 0.2, False),
        (1, True, False),
        (0, False, False),
        ("1", 1, False),
        ([1, 2], [1.0, 2.0], True),
        ([1, 2], [2, 1], False),
        ({"x": 1, "y": [2]}, {"y": [2.0], "x": 1}, True),
        (None, None, True),
        (None, 0, False),
    ],
)
def test_equal_values(one, other, same):
    found = compare(report(row("p", values={"a": one})), report(row("q", values={"a": other})))
    assert bool(found.pairs) is same
    assert (len(found.only_a), len(found.only_b)) == ((0, 0) if same else (1, 1))


def test_a_fraction_is_no_value():
    a = report(row("p", values={"a": 0.1}))
    b = report(row("q", values={}, perturbations={"a": 0.1}))
    found = compare(a, b)
    assert found.pairs == ()
    assert found.notes == ("no point is in both: A sweeps a, B a_fraction",)


@given(st.lists(VALUES, max_size=6, unique_by=repr), st.lists(VALUES, max_size=6, unique_by=repr))
def test_no_point_is_lost_or_taken_twice(ones, others):
    def distinct(values):
        kept = []
        for value in values:
            if not any(value == k and isinstance(value, bool) == isinstance(k, bool) for k in kept):
                kept.append(value)
        return report(*(row(f"p{n}", values={"a": value}) for n, value in enumerate(kept)))

    a, b = distinct(ones), distinct(others)
    found = compare(a, b)
    assert len(found.pairs) + len(found.only_a) == len(a.rows)
    in_a = {row.label for row in found.only_a} | {pair.a.label for pair in found.pairs}
    in_b = {row.label for row in found.only_b} | {pair.b.label for pair in found.pairs}
    assert in_a == {row.label for row in a.rows}
    assert in_b == {row.label for row in b.rows}
    assert len(found.pairs) + len(found.only_b) == len(b.rows)


@given(NUMBERS, ERRORS, NUMBERS, ERRORS)
def test_a_difference_and_its_error(a, a_error, b, b_error):
    found = difference(a, b, a_error, b_error)
    back = difference(b, a, b_error, a_error)
    assert found["difference"] == b - a == -back["difference"]
    assert found["error"] == pytest.approx(math.sqrt(a_error**2 + b_error**2))
    if found["error"]:
        assert found["significance"] == pytest.approx(abs(b - a) / found["error"])
    else:
        assert found["significance"] is None


def test_errors_that_are_not_known():
    assert difference(1, 3) == {"difference": 2.0, "error": None, "significance": None}
    assert difference(1.0, 3.0, 0.5)["error"] == 0.5
    assert difference("pass", "fail") == {}
    assert difference(None, 1.0) == {}


def test_rows_of_tables_are_joined_by_their_index():
    found = compare(points(p=1.0), points(q=1.0)).pairs[0].differences
    steps = [one for one in found if one.table]
    assert {one.item for one in steps} == {"left 1", "left 2", "right 1", "right 2"}
    assert {one.quantity for one in steps} == {"low", "mid", "high"}
    assert all(one.difference == 0 for one in steps)


def test_incomplete_points_are_joined_and_told():
    a = report(row("p", 1.0, values={"a": 1}))
    b = report(row("q", 1.0, values={"a": 1}, complete=False))
    (pair,) = compare(a, b).pairs
    assert pair.notes == ("B is incomplete (size: running; and more)",)
    assert [one.difference for one in pair.differences] == [None, None]


def test_runs_are_compared_whatever_they_set():
    a = report(row("p", 1.0, values={"a": 1}), kind="run")
    b = report(row("q", 3.0, values={"a": 2}), kind="run")
    found = compare(a, b)
    assert found.pairs[0].differences[0].difference == 2.0
    assert printed_header(found)[:3] == ["A", "B", "quantity"]
    assert next(iter(printed_lines(found)))[:2] == ["p", "q"]


def test_what_cannot_be_compared():
    with pytest.raises(UsageError, match="A is of toy, B of other"):
        compare(report(), report(tool="other"))
    with pytest.raises(UsageError, match="many runs"):
        compare(report(kind="runs"), report())
    twice = report(row("p", values={"a": 1}), row("q", values={"a": 1.0}))
    with pytest.raises(UsageError, match="points p and q of s1 have the same values") as caught:
        compare(twice, report())
    assert "9 and 9.0 are equal here" in str(caught.value.hint)


def test_different_options_are_told():
    found = compare(points(p=1.0), report(row("q", 1.0, values={"a": 1.0}), options={"how": "y"}))
    assert found.notes == ("how is x in A and y in B",)


def test_text_csv_and_json():
    a = report(row("p", 1.0, values={"a": 1}))
    b = report(row("q", 2.0, values={"a": 1}))
    found = compare(a, b)
    assert printed_header(found) == ["a", "quantity", "A", "B", "B - A", "sigma", "note"]
    assert list(printed_lines(found)) == [
        ["1", "Size", "1.00 ± 0.25", "2.00 ± 0.25", "1.00 ± 0.35", "2.8", ""],
        ["1", "Word", "pass", "pass", "-", "-", ""],
    ]
    assert len(list(printed_lines(found, tables=True))) == 2 + 4 * 3
    lines = list(csv.DictReader(io.StringIO(comparison_csv(found))))
    assert len(lines) == 2 + 4 * 3
    first = lines[0]
    assert (first["point_a"], first["point_b"], first["a_swept"]) == ("p", "q", "1")
    assert (first["a"], first["b"], first["difference"]) == ("1.0", "2.0", "1.0")
    data = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert data["pairs"][0]["values"] == {"a": 1}
    assert data["pairs"][0]["differences"][0]["difference"] == 1.0


def test_pictures_show_the_difference():
    a = report(*(row(f"p{n}", n, values={"a": n}) for n in (3, 1, 2)))
    b = report(*(row(f"p{n}", n * n, values={"a": n}) for n in (1, 2, 3)))
    found = compare(a, b)
    (panel,) = comparison_panels(found)
    assert panel.name == "difference_size"
    x, y = figure_of(panel).containers[0].lines[0].get_data()
    assert (list(x), list(y)) == ([1.0, 2.0, 3.0], [0.0, 2.0, 6.0])
    assert picture([panel], "t") == picture(comparison_panels(found, "a"), "t")
    with pytest.raises(UsageError, match="neither sweeps 'b'"):
        comparison_panels(found, "b")
    with pytest.raises(PrerequisiteError, match="nothing to draw"):
        comparison_panels(compare(points(p=1.0), points(q=2.0)))

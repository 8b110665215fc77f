"""Comparisons of sweeps: verdicts of points and of the whole, and the page for a person."""

import subprocess
from dataclasses import replace

import pytest

from valska.external_tools.core.comparison import sweep_page
from valska.external_tools.core.comparison.document import to_json
from valska.external_tools.core.comparison.runs import StageStates
from valska.external_tools.core.comparison.sweep_page import (
    count_verdicts,
    render_sweep_page,
    summarize_unit,
)
from valska.external_tools.core.comparison.sweeps import (
    SweepComparison,
    SweepIdentity,
    UnitComparison,
    UnitIdentity,
    compare_sweeps,
    read_side,
)
from valska.external_tools.core.comparison.verdict import Tolerances, Verdict

NOW = "2026-01-02T03:04:05Z"
IDENTITY = UnitIdentity("0" * 64, "1" * 64)
DONE = (StageStates("simulate", "completed", "completed"),)


def point(label, verdict=Verdict.IDENTICAL, **more):
    known = {"label": label, "place": f"points/{label}", "stages": DONE, "new": IDENTITY}
    known |= {"verdict": verdict, "reference": IDENTITY, "values": {"x": label}}
    return UnitComparison(**(known | more))


def comparison(*points, **more):
    sweep = SweepIdentity(
        place="/a", sweep_id="s", instance="0" * 32, seal="2" * 64, created_utc=NOW,
        valska_version="1", software=None,
    )  # fmt: skip
    known = {"verdict": Verdict.IDENTICAL, "tool": "toy", "tolerances": Tolerances()}
    known |= {"reference": sweep, "new": sweep, "points": points, "shared": ()}
    return SweepComparison(**(known | {"created_utc": NOW, "valska_version": "1"} | more))


def test_the_page_has_a_row_for_each_point_up_to_a_number(monkeypatch):
    monkeypatch.setattr(sweep_page, "ROWS", 3)
    bad = point("bad", Verdict.DIFFERENT, notes=("a note",))
    page = render_sweep_page(comparison(*(point(f"p{n}") for n in range(5)), bad))
    assert [f"`p{n}`" in page for n in range(5)] == [True, True, True, False, False]
    assert "2 more are identical; comparison.json has them all." in page
    assert "6 points: 5 identical, 1 different." in page
    assert "## `points/bad`: different" in page


def test_no_more_than_some_points_are_told_in_detail():
    page = render_sweep_page(comparison(*(point(f"p{n}", Verdict.DIFFERENT) for n in range(50))))
    assert page.count("## `points/p") == 40
    assert "10 more are in comparison.json." in page
    assert page.count("| different |") == 50


def test_values_cannot_write_the_page():
    page = render_sweep_page(comparison(point("p", values={"x": "|\n# Verdict: | <b>"})))
    assert page.count("\n# Verdict") == 0
    assert "<b>" not in page.replace("\\<b\\>", "")


def test_counts_are_words():
    assert count_verdicts(()) == "0 points: none."
    assert count_verdicts((point("a"),)) == "1 point: 1 identical."


@pytest.mark.parametrize(
    ("unit", "told"),
    [
        (point("a"), "the same bytes"),
        (point("a", Verdict.INCOMPLETE, new=None, notes=("it is gone",)), "it is gone"),
        (
            point("a", Verdict.INCOMPLETE,
                  stages=(StageStates("s", "completed", "failed", "exit code 1"),)),
            "s is completed in the reference, failed now (exit code 1)",
        ),
    ],
)  # fmt: skip
def test_the_sentence_that_says_most(unit, told):
    assert summarize_unit(unit) == told


def test_the_document_of_a_sweep_is_valid_and_that_of_a_run_needs_a_bundle_id():
    data = to_json(comparison(point("a"), left_out=("b",)))
    assert data["reference"]["bundle_id"] is None
    assert data["left_out"] == ["b"]
    from valska.external_tools.core.schema import SchemaError, validate

    for wrong in ({**data, "kind": "run"}, {k: v for k, v in data.items() if k != "points"}):
        with pytest.raises(SchemaError):
            validate(wrong, "comparison-1", "it")


def test_what_has_not_run_is_incomplete_and_what_is_not_there_too(tmp_path):
    from sweeps import make_sweep

    (tmp_path / "other").mkdir()
    side = read_side(make_sweep(tmp_path, points=("a", "b")))
    other = read_side(make_sweep(tmp_path / "other", points=("a",)))
    found = compare_sweeps(side, other, now=NOW, missing={"b": "it was lost"})
    assert found.verdict is Verdict.INCOMPLETE
    a, b = found.points
    assert (a.stages[0].reference, a.stages[0].new) == ("not run", "not run")
    assert (b.new, b.notes) == (None, ("it was lost",))
    only = compare_sweeps(side, other, labels=["a"], now=NOW)
    assert ([one.label for one in only.points], only.left_out) == (["a"], ("b",))
    assert to_json(replace(only, notes=("x",)))["notes"] == ["x"]


def test_an_altered_output_of_a_reference_is_told_on_the_page_and_with_the_verdict(tmp_path):
    from sweeps import make_sweep

    def finished(folder):
        folder.mkdir()
        sweep = make_sweep(folder, points=[f"p{n}" for n in range(12)])
        for point in sorted(sweep.points.iterdir()):
            run = ("bash", sweep.bundle.script("simulate"), point)
            assert subprocess.run(run, capture_output=True).returncode == 0
        return sweep

    one, other = (finished(tmp_path / name) for name in "ab")
    (one.point("p1").outputs / "out.txt").write_text("other\n")
    (one.point("p2").outputs / "out.txt").unlink()
    found = compare_sweeps(read_side(one), read_side(other), now=NOW)
    assert found.verdict is Verdict.IDENTICAL
    (note,) = found.notes
    assert note.startswith("points/p1: reference: altered: outputs/out.txt")
    assert "points/p1: reference: altered: outputs/out.txt" in render_sweep_page(found)
    for point in one.points.iterdir():
        (point / "outputs/out.txt").write_text("other\n")
    found = compare_sweeps(read_side(one), read_side(other), now=NOW)
    assert len(found.notes) == 11
    assert found.notes[-1] == "2 more notes like these are in comparison.json"


def shared(label, **more):
    return point(label, place=f"shared/{label}", values={}, **more)


def test_a_point_needs_outputs_of_its_own_or_of_what_it_shares():
    from valska.external_tools.core.comparison.sweeps import _with_shared
    from valska.external_tools.core.comparison.verdict import OutputComparison

    output = OutputComparison(path="x", verdict=Verdict.IDENTICAL, method="bytes")
    one = point("a", shared={"count": "work"})
    told = _with_shared(one, {"work": shared("work", outputs=(output,))})
    assert (told.verdict, told.notes) == (Verdict.IDENTICAL, ())
    told = _with_shared(one, {"work": shared("work")})
    assert told.verdict is Verdict.INCOMPLETE
    assert told.notes == ("the reference has no outputs to compare with",)


def test_a_point_on_some_of_the_axes_that_only_one_sweep_has_is_told():
    from valska.external_tools.core.comparison.sweep_intent import _told_by_axes
    from valska.external_tools.core.sweep.document import PointEntry

    def told(values, own, other):
        axes = [
            {key: {str(n): n for n in each} for key, each in one.items()} for one in (own, other)
        ]
        return _told_by_axes(PointEntry("p", values, {}, "", ""), *axes)

    both = {"x": [1, 2], "y": [3]}
    assert not told({"x": 1}, both, both)
    assert not told({"x": 2, "y": 3}, both, both)
    assert told({"x": 1}, {"x": [1, 2]}, both)
    assert told({"x": 1, "y": 3}, both, {"x": [1, 2]})
    assert told({"x": 2}, both, {"x": [1], "y": [3]})

"""Two runs compared: what counts as the same answer, and what is said where it is not."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import toy

from valska.external_tools.core.comparison import runs
from valska.external_tools.core.comparison.document import SCHEMA_VERSION, to_json
from valska.external_tools.core.comparison.intent import Kind, Side, compare_intent
from valska.external_tools.core.comparison.page import outputs_blocks, render_page
from valska.external_tools.core.comparison.runs import compare_runs
from valska.external_tools.core.comparison.verdict import (
    OutputFile,
    Part,
    Tolerances,
    Verdict,
    judged,
)
from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.schema import load_schema, validate

NOW = "2026-01-02T03:04:05Z"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def ran(tmp_path, scripts):
    """Make and run a bundle whose stage writes what a shell command says."""

    def make(name, command="echo 1.0 > out.txt", *, run=True, **more):
        folder = tmp_path / name
        folder.mkdir()
        one = toy.stage(argv=("bash", "-c", command), outputs=("out.txt",), **more.pop("stage", {}))
        bundle = toy.bundle(folder, [one], **more)
        if run:
            code, _, err = scripts.run(bundle)
            assert code == 0, err
        return bundle

    return make


def verdict_of(one, other, **tolerances):
    return compare_runs(one, other, Tolerances(**tolerances), now=NOW)


def outputs_of(comparison):
    return {one.path: one.verdict.value for one in comparison.outputs}


def test_the_same_bytes_are_identical(ran):
    found = verdict_of(ran("a"), ran("b"))
    assert found.verdict is Verdict.IDENTICAL
    assert found.reference.bundle_id == found.new.bundle_id
    assert found.reference.seal != found.new.seal
    assert found.intent == ()


def test_numbers_within_the_tolerance_are_equivalent_and_others_different(ran):
    one, other = ran("a", "echo 1.0 > out.txt"), ran("b", "echo 1.001 > out.txt")
    assert verdict_of(one, other, rtol=0.01).verdict is Verdict.EQUIVALENT
    found = verdict_of(one, other)
    assert found.verdict is Verdict.DIFFERENT
    assert found.outputs[0].parts[0].absolute.value == pytest.approx(0.001)


def test_an_output_that_the_new_run_did_not_write_makes_it_incomplete(ran):
    one = ran("a", "echo 1 > out.txt; echo 2 > more.txt")
    found = verdict_of(one, ran("b", "echo 1 > out.txt"))
    assert found.verdict is Verdict.INCOMPLETE
    assert outputs_of(found) == {"more.txt": "incomplete", "out.txt": "identical"}


def test_an_output_that_only_the_new_run_wrote_makes_it_different(ran):
    found = verdict_of(ran("a"), ran("b", "echo 1.0 > out.txt; echo 2 > more.txt"))
    assert found.verdict is Verdict.DIFFERENT
    assert outputs_of(found)["more.txt"] == "different"


def test_a_run_that_has_not_run_is_incomplete_and_the_reason_is_told(ran):
    found = compare_runs(ran("a"), ran("b", run=False), reasons={"simulate": "no such node"})
    assert found.verdict is Verdict.INCOMPLETE
    (stage,) = found.stages
    assert (stage.reference, stage.new, stage.reason) == ("completed", "not run", "no such node")
    assert "no such node" in render_page(found)


def test_a_stage_that_was_killed_is_not_said_to_run(ran):
    killed = ran("b")
    (record,) = (killed.path / "records").iterdir()
    data = json.loads(record.read_text())
    record.write_text(json.dumps({**data, "state": "running"}))
    (stage,) = compare_runs(ran("a"), killed, reasons={"simulate": "killed"}).stages
    assert (stage.new, stage.reason) == ("failed", "killed")
    (stage,) = compare_runs(ran("c"), killed).stages
    assert stage.new == "running"


def test_a_reference_without_outputs_is_compared_by_its_digests(ran):
    one, other, third = ran("a"), ran("b"), ran("c", "echo 2 > out.txt")
    (one.outputs / "out.txt").unlink()
    assert verdict_of(one, other).verdict is Verdict.IDENTICAL
    found = verdict_of(one, third)
    assert found.verdict is Verdict.INCOMPLETE
    assert "no longer there" in found.notes[0]


def test_a_reference_that_was_altered_is_not_taken_for_one(ran):
    one, other = ran("a"), ran("b", "echo 2 > out.txt")
    (one.outputs / "out.txt").write_text("2\n")
    found = verdict_of(one, other)
    assert found.verdict is Verdict.INCOMPLETE
    assert any("altered" in note for note in found.notes)


def test_a_new_output_that_was_altered_after_its_job_is_not_believed(ran):
    one, other = ran("a", "echo 1 > out.txt"), ran("b", "echo 2 > out.txt")
    (other.outputs / "out.txt").write_text("1\n")
    assert verdict_of(one, other).verdict is Verdict.INCOMPLETE


@pytest.mark.parametrize("left", [None, "", "2.0\n", "1.0 and more\n"])
def test_a_new_output_that_is_not_there_as_recorded_is_never_identical(ran, left):
    one, other = ran("a"), ran("b")
    out = other.outputs / "out.txt"
    out.unlink()
    if left is not None:
        out.write_text(left)
    found = verdict_of(one, other)
    assert found.verdict is Verdict.INCOMPLETE
    assert "not there as recorded" in found.outputs[0].notes[0]


def test_neither_run_is_changed(ran):
    one, other = ran("a"), ran("b", "echo 2 > out.txt")
    before = snapshot(one), snapshot(other)
    render_page(verdict_of(one, other))
    assert (snapshot(one), snapshot(other)) == before


def snapshot(bundle):
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(bundle.path.rglob("*"))
        if path.is_file()
    }


CLOCK = Part(name="times", verdict=Verdict.DIFFERENT, detail="the clock", counted=False)


class Knowing(toy.Toy):
    """A tool that knows that one of its outputs is no science."""

    def compare(self, reference, new, tolerances):
        for path, mine in reference.files.items():
            if path.endswith(".log"):
                yield judged(mine, new.files[path], "log", [CLOCK], covers=("other.txt",))


def test_what_the_tool_knows_goes_before_the_format(ran, monkeypatch):
    write = "echo 1 > out.txt; echo {0} > run.log; echo {0} > other.txt"
    one, other = ran("a", write.format("now")), ran("b", write.format("then"))
    assert verdict_of(one, other).verdict is Verdict.DIFFERENT
    monkeypatch.setattr(runs, "load_tool", lambda name: Knowing((), {}))
    found = verdict_of(one, other)
    assert found.verdict is Verdict.EQUIVALENT
    assert outputs_of(found) == {"out.txt": "identical", "run.log": "equivalent"}
    page = render_page(found)
    assert "- times (not counted): the clock" in page
    assert "judged with it: `other.txt`" in page


def test_runs_of_two_tools_are_not_compared(ran):
    one = ran("a")
    other = ran("b", tool={"name": "another"}, spec=None)
    with pytest.raises(ValskaError, match="toy, the other of another"):
        compare_runs(one, other)


# --- the document and the page -------------------------------------------------------------------


def test_the_document_follows_its_schema_and_keeps_numbers(ran):
    one, other = ran("a", "echo 1.0 > out.txt"), ran("b", "echo nan > out.txt")
    data = json.loads(json.dumps(to_json(verdict_of(one, other)), allow_nan=False))
    validate(data, "comparison-1", "it")
    assert data["verdict"] == "different"
    assert data["created_utc"] == NOW
    (part,) = data["outputs"][0]["parts"]
    assert part["largest_absolute"]["value"] is None
    assert part["largest_absolute"]["index"] == [1, 1]
    assert data["tolerances"] == {"rtol": 1e-9, "rtol_given": False, "atol": 0.0, "sigma": 3.0}


def test_the_page_says_what_where_and_by_how_much(ran):
    one, other = ran("a", "echo x 1.0 > out.txt"), ran("b", "echo x 1.5 > out.txt")
    page = render_page(verdict_of(one, other))
    assert page.startswith("# Verdict: different\n")
    assert "largest difference 0.5 at \\[1, 2\\]: 1.0 and 1.5" in page
    assert "rtol is 1e-09" in page


def test_the_page_says_each_difference_once_and_what_is_the_same_in_a_line(ran, tmp_path):
    write = 'python3 -c \'import json; json.dump({{}}, open("out.txt", "w"))\'; echo {} > a.csv'
    one, other = ran("a", write.format("1.5,x")), ran("b", write.format("2.5,y"))
    page = render_page(verdict_of(one, other))
    assert page.count("2 of 2 values differ") == page.count("1.5 and 2.5") == 1
    assert "### `a.csv`: different (compared as CSV)" in page
    assert "The same bytes: `out.txt`." in page
    assert "Tolerances" not in render_page(verdict_of(one, one))


def test_no_more_than_some_outputs_are_told_in_detail(ran):
    write = "echo 1 > out.txt; for n in {{1..50}}; do echo {} > $n.txt; done"
    page = render_page(verdict_of(ran("a", write.format(1)), ran("b", write.format(2))))
    assert page.count(": different (compared as text)") == 40
    assert "10 more are in comparison.json." in page


def test_parts_that_are_the_same_are_named_in_one_line():
    parts = [Part(name=name, verdict=Verdict.IDENTICAL) for name in ("flags", "times")]
    bad = Part(name="data", verdict=Verdict.DIFFERENT, detail="by much")
    file = OutputFile("x.uvh5", 1, "0" * 64, None)
    (told,) = outputs_blocks([judged(file, file, "UVH5", [bad, CLOCK, *parts])])
    assert told.splitlines()[2:] == [
        "- data (different): by much",
        "- times (not counted): the clock",
        "- the same: flags, times",
    ]


def test_names_in_the_page_cannot_break_it(ran):
    odd = "a|b `c`\x1b[31m.bin"
    command = "printf 1 > out.txt; printf {} > $'a|b `c`\\x1b[31m.bin'"
    page = render_page(verdict_of(ran("a", command.format(1)), ran("b", command.format(2))))
    assert odd not in page
    assert "\x1b" not in page
    assert "`` a\\|b `c` [31m.bin ``" in page


# --- intent --------------------------------------------------------------------------------------


def side(bundle):
    return Side(bundle, read_manifest(bundle))


def intent(one, other):
    return {
        (d.kind.value, d.key): (d.a, d.b, d.science)
        for d in compare_intent(*map(side, (one, other)))
    }


def test_nothing_differs_between_two_bundles_of_one_intent(ran):
    assert intent(ran("a", run=False), ran("b", run=False, run_id="other")) == {}


def test_parameters_key_by_key(ran):
    def config(text):
        return {"tool": {"configs": {"run.yaml": text, "list.txt": b"a\nb\n" + text[:1]}}}

    one = ran("a", run=False, **config(b"1: {x: !Airy {d: 14}, y: 2}\nz: [1, 2]\n"))
    other = ran("b", run=False, **config(b"1: {x: !Airy {d: 15}, y: 2}\nz: [1, 2, 3]\n"))
    assert intent(one, other) == {
        ("parameter", "run.yaml: 1.x.!Airy.d"): ("14", "15", True),
        ("parameter", "run.yaml: z.2"): (None, "3", True),
    }


def test_a_configuration_that_is_no_document_is_told_by_lines(ran):
    def config(text):
        return {"tool": {"configs": {"run.par": text}}}

    one, other = (
        ran(n, run=False, **config(t)) for n, t in (("a", b"x 1\ny 2\n"), ("b", b"x 1\ny 3\n"))
    )
    assert intent(one, other) == {("parameter", "run.par: line 2"): ("y 2", "y 3", True)}


def test_a_change_that_no_value_shows_is_still_told(ran):
    def config(text):
        return {"tool": {"configs": {"run.yaml": text}}}

    one, other = (ran(n, run=False, **config(t)) for n, t in (("a", b"x: 1\n"), ("b", b"x:  1\n")))
    assert intent(one, other) == {("parameter", "run.yaml: line 1"): ("x: 1", "x:  1", True)}


def test_a_configuration_of_very_many_values_is_told_by_lines(ran):
    """YAML's aliases let some hundred bytes stand for more values than there is memory for."""
    lines = ["a0: &a0 [0, 0, 0, 0, 0, 0, 0, 0, 0]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 14)]

    def config(last):
        return {"tool": {"configs": {"run.yaml": "\n".join([*lines, last]).encode()}}}

    one, other = (ran(name, run=False, **config(f"last: {name}")) for name in "ab")
    assert intent(one, other) == {
        ("parameter", "run.yaml: line 15"): ("last: a", "last: b", True),
    }


def test_inputs_commands_and_directives(ran, tmp_path):
    other_data = tmp_path / "other"
    other_data.mkdir()
    one = ran("a", "echo 1 > out.txt", run=False)
    other = ran(
        "b",
        "echo 2 > out.txt",
        run=False,
        stage={"env": {"OMP_NUM_THREADS": "2"}},
        inputs={"data.txt": toy.data_file(other_data, "another\n")},
        spec={"directives": {"simulate": {"time": "10"}}},
    )
    found = intent(one, other)
    assert {key: value[2] for key, value in found.items()} == {
        ("input", "input.data.txt"): True,
        ("command", "simulate.argv"): True,
        ("command", "simulate.env OMP_NUM_THREADS"): False,
        ("directive", "simulate.time"): False,
    }
    assert "echo 1" in found["command", "simulate.argv"][0]


def test_images_and_their_packages(ran):
    def imaged(name, sha, numpy):
        bundle = ran(name, run=False)
        record = {"packages": {"python": {"numpy": numpy}, "system": {
            "manager": "dpkg", "packages": {"bash": "5"}}}}  # fmt: skip
        place = bundle.containers / "toy.image.json"
        place.write_text(json.dumps(record))
        manifest = read_manifest(bundle)
        entry = replace(manifest.files[0], path="containers/toy.image.json", role="image-record")
        image = {"sha256": sha * 64, "base": {"reference": "debian"}}
        return Side(bundle, replace(manifest, image=image, files=(*manifest.files, entry)))

    found = compare_intent(imaged("a", "1", "1.26"), imaged("b", "2", "2.0"))
    assert [(d.kind, d.key, d.science) for d in found] == [
        (Kind.IMAGE, "sha256", True),
        (Kind.PACKAGE, "python numpy", False),
    ]
    assert (found[1].a, found[1].b) == ("1.26", "2.0")


def test_places_do_not_count(ran):
    one = ran("a", run=False)
    moved = one.path.parent / "elsewhere"
    other = ran("b", run=False)
    other.path.rename(moved)
    assert intent(one, Bundle(Path(moved))) == {}


# --- its documentation ---------------------------------------------------------------------------


@pytest.mark.parametrize("pointer", [(), ("run",), ("output",), ("part",), ("unit",), ("point",)])
def test_every_field_is_documented(pointer):
    schema = load_schema("comparison-1")
    for name in pointer:
        schema = schema["$defs"][name]
    text = (ROOT / "docs/reference/comparison.md").read_text()
    table = text.split("\n## comparison.json\n")[1]
    assert set(schema["properties"]) <= set(re.findall(r"`([^`]+)`", table))


def test_a_new_field_needs_a_new_version_of_the_schema():
    """Count the fields: who adds one raises SCHEMA_VERSION, and this number with it."""
    found = json.dumps(load_schema("comparison-1")).count('"type"')
    assert (SCHEMA_VERSION, found) == ("1.1", 74)

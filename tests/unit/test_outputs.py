"""Outputs against what the job wrote down: every difference is found and named."""

import json

import pytest
from toy import bundle, stage

from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.outputs import verify_outputs
from valska.external_tools.core.seal import FindingKind, verify_bundle

TWO = ("bash", "-c", "cat ../inputs/data.txt > out.txt; echo more > more.txt; ln -s out.txt link")


@pytest.fixture
def made(tmp_path, scripts):
    made = bundle(tmp_path, [stage(argv=TWO)])
    assert scripts.run(made)[0] == 0
    return made


def look(made, **options):
    records, findings = verify_outputs(made, read_manifest(made), **options)
    return [record.stage for record in records], [(one.kind, one.path) for one in findings]


def test_outputs_as_recorded(made):
    assert look(made) == (["simulate"], [])
    assert verify_bundle(made) == ()


def test_a_bundle_that_has_not_run_has_no_outputs_to_compare(tmp_path):
    assert look(bundle(tmp_path)) == ([], [])


def test_one_changed_byte_is_found_unless_only_sizes_are_compared(made):
    (made.outputs / "more.txt").write_text("mORE\n")
    assert look(made)[1] == [(FindingKind.ALTERED, "outputs/more.txt")]
    assert look(made, fast=True)[1] == []


def test_missing_and_shortened_outputs_are_found_by_their_sizes(made):
    (made.outputs / "more.txt").unlink()
    (made.outputs / "out.txt").write_text("")
    assert look(made, fast=True)[1] == [
        (FindingKind.ALTERED, "outputs/link"),
        (FindingKind.MISSING, "outputs/more.txt"),
        (FindingKind.ALTERED, "outputs/out.txt"),
    ]


def test_an_output_that_leads_elsewhere_is_found(made, tmp_path):
    (made.outputs / "more.txt").rename(tmp_path / "more.txt")
    (made.outputs / "more.txt").symlink_to(tmp_path / "more.txt")
    assert look(made)[1] == [(FindingKind.ALTERED, "outputs/more.txt")]


def test_a_record_of_another_seal_and_a_broken_record_are_found(made):
    (path,) = made.records.glob("*.json")
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "seal": "0" * 64}))
    assert look(made)[1] == [(FindingKind.ALTERED, f"records/{path.name}")]
    path.write_text(path.read_text()[:100])
    assert look(made) == ([], [(FindingKind.UNREADABLE, f"records/{path.name}")])


def test_only_the_newest_attempt_counts_and_says_what_it_set_aside(made, scripts):
    assert scripts.run(made)[0] == 0
    assert look(made) == (["simulate"], [])
    records = [json.loads(path.read_text()) for path in made.records.glob("*.json")]
    assert {record["set_aside"] for record in records} == {None, "outputs.1"}


def test_a_failed_rerun_leaves_nothing_to_compare(made, scripts):
    (made.records / "simulate-9999-r0.json").write_text(
        next(made.records.glob("*.json"))
        .read_text()
        .replace('"completed"', '"failed"')
        .replace('"started_utc": "2', '"started_utc": "3')
    )
    assert look(made) == ([], [])


def test_an_attempt_that_was_refused_before_it_touched_anything_does_not_count(made, scripts):
    assert scripts.run(made, "0" * 64)[0] == 5
    assert look(made) == (["simulate"], [])
    (made.outputs / "more.txt").unlink()
    assert look(made)[1] == [(FindingKind.MISSING, "outputs/more.txt")]

import json
from pathlib import Path

import pytest
from handmade import put_record, record_json

from valska.external_tools.core.records import RecordError, RecordState, read_record, read_records
from valska.external_tools.core.run_directory import Bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(tmp_path)


def test_a_bundle_that_never_ran_has_no_records(bundle: Bundle) -> None:
    assert read_records(bundle).records == ()


def test_a_record_is_read_into_its_fields(bundle: Bundle) -> None:
    path = put_record(
        bundle, "simulate", "17", "completed", name="vk-0a1b2c3d-simulate",
        outputs=[{"path": "outputs/a.uvh5", "size": 3, "sha256": None}], pid=42,
    )  # fmt: skip
    record = read_record(path)
    assert (record.stage, record.job_id, record.state) == ("simulate", "17", RecordState.COMPLETED)
    assert (record.job_name, record.exit_code, record.elapsed_s) == ("vk-0a1b2c3d-simulate", 0, 10)
    assert (record.outputs[0].path, record.outputs[0].size) == ("outputs/a.uvh5", 3)
    assert (record.host, record.pid, record.ended) == ("elsewhere", 42, True)


def test_unreadable_and_partial_files_are_told_and_the_rest_is_read(bundle: Bundle) -> None:
    put_record(bundle, "simulate", "17", "completed")
    (bundle.records / "simulate-18-r0.json").write_text('{"schema_version": "1.0", "sta')
    (bundle.records / "simulate-19-r0.json").write_text("{}")
    (bundle.records / "simulate-20-r0.json.tmp").write_text("half")
    found = read_records(bundle)
    assert [record.job_id for record in found.records] == ["17"]
    assert [bad.path for bad in found.unreadable] == ["simulate-18-r0.json", "simulate-19-r0.json"]
    assert "schema_version" in found.unreadable[1].reason


def test_another_major_version_is_told(bundle: Bundle) -> None:
    put_record(bundle, "simulate", "17", "completed", schema_version="2.0")
    assert "2.0" in read_records(bundle).unreadable[0].reason


def test_a_missing_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError):
        read_record(tmp_path / "none.json")


def test_the_latest_attempt_is_by_start_then_by_requeue(bundle: Bundle) -> None:
    put_record(bundle, "simulate", "9", "failed", started_utc="2026-01-02T03:04:09Z")
    put_record(bundle, "simulate", "17", "failed", started_utc="2026-01-02T03:04:05Z")
    put_record(bundle, "simulate", "17", "running", restart=1, started_utc="2026-01-02T03:04:08Z")
    found = read_records(bundle)
    latest, requeued = found.latest("simulate"), found.latest("simulate", "17")
    assert latest is not None
    assert latest.job_id == "9"
    assert requeued is not None
    assert requeued.restart == 1
    assert found.latest("other") is None


def test_a_record_is_found_by_its_jobs_name(bundle: Bundle) -> None:
    put_record(bundle, "simulate", "17", "completed", name="vk-0a1b2c3d-simulate")
    named = read_records(bundle).named("vk-0a1b2c3d-simulate")
    assert named is not None
    assert named.job_id == "17"
    assert read_records(bundle).named("vk-ffffffff-simulate") is None


def test_the_records_fields_belong_to_its_schema_version(bundle: Bundle) -> None:
    schema = json.loads(
        (Path(__file__).parents[2] / "schemas/stage-record-1.schema.json").read_text()
    )
    assert set(schema["required"]) == set(record_json("simulate", "17"))

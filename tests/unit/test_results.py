import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from handmade import FakeSlurm, make_bundle, put_record
from sweepmade import make_sweep, put_task_record, send
from test_status import SILENT, Told, info

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.jobs import write_jobs_json
from valska.external_tools.core.results import (
    Filter,
    Kind,
    Overview,
    find_results,
    overviews,
    parse_since,
    read_results,
    require_results,
)
from valska.external_tools.core.run_directory import Bundle, RunDirectoryError
from valska.external_tools.core.scheduler import JobInfo, JobState, SchedulerError
from valska.external_tools.core.slurm import Slurm
from valska.external_tools.core.status import StageState
from valska.external_tools.core.sweep.layout import Sweep

TOKEN = "0a1b2c3d"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with two runs, one of them on a deeper level, and a sweep."""
    place = tmp_path / "results"
    make_bundle(place / "toy/plain/r1", {"a": {}})
    make_bundle(place / "toy/plain/deep/r2/20260102T030405Z", {"a": {}, "b": {"after": ["a"]}})
    make_sweep(place / "toy/plain/_sweeps/s1", ["x", "y"])
    return place


def places(root: Path, wanted: Filter | None = None) -> list[str]:
    return [result.place for result in read_results(root, wanted)]


def submitted(bundle: Bundle, job_id: str, **more: object) -> None:
    job = {"job_id": job_id, "name": f"vk-{TOKEN}-a", "scheduler": "slurm", **more}
    write_jobs_json(
        bundle.path, stage="a", jobs={"a": job}, commands=[], extra_fields={"token": TOKEN}
    )


def found(
    root: Path, answer: Mapping[str, JobInfo] | SchedulerError | None = None
) -> dict[str, Overview]:
    return {one.result.place: one for one in overviews(read_results(root), Told(answer or {}))}


def test_runs_and_sweeps_are_found_on_every_level(root: Path) -> None:
    kinds = {os.path.relpath(path, root): kind for path, kind in find_results(root)}
    assert kinds == {
        "toy/plain/_sweeps/s1": Kind.SWEEP,
        "toy/plain/deep/r2/20260102T030405Z": Kind.RUN,
        "toy/plain/r1": Kind.RUN,
    }


def test_runs_hidden_and_linked_directories_are_not_looked_into(root: Path) -> None:
    make_bundle(root / "toy/plain/r1/outputs/inner", {"a": {}})
    make_bundle(root / ".trash/20260102T030405Z/r0", {"a": {}})
    (root / "again").symlink_to(root / "toy")
    (root / "loop").symlink_to(root)
    assert len(places(root)) == 3


def test_what_a_manifest_says(root: Path) -> None:
    results = {result.place: result for result in read_results(root)}
    run, sweep = results["toy/plain/r1"], results["toy/plain/_sweeps/s1"]
    assert (run.tool, run.run_id, run.kind, len(run.bundle_id)) == ("handmade", "run", "run", 64)
    assert (sweep.tool, sweep.run_id, sweep.kind, sweep.bundle_id) == ("toy", "s1", "sweep", "")
    assert (run.created_utc, sweep.taxonomy) == ("2026-01-02T03:04:05Z", {"model": "plain"})
    assert run.path == root / "toy/plain/r1"


def test_one_that_cannot_be_read_is_told_and_the_others_are_listed(root: Path) -> None:
    (root / "toy/plain/r1/manifest.json").write_text("{")
    overview = found(root)["toy/plain/r1"]
    assert (overview.state, overview.bad) == (None, True)
    assert "is not JSON" in overview.notes[0]
    assert len(found(root)) == 3


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (Filter(), 3),
        (Filter(tool="handmade"), 2),
        (Filter(tool="toy"), 1),
        (Filter(tool="other"), 0),
        (Filter(kind=Kind.SWEEP), 1),
        (Filter(kind=Kind.RUN), 2),
        (Filter(run_id="r*"), 2),
        (Filter(run_id="s1"), 1),
        (Filter(since=parse_since("2026-01-02")), 3),
        (Filter(since=parse_since("2026-01-02T03:04:06Z")), 1),
        (Filter(since=parse_since("9999-01-01")), 0),
    ],
)
def test_filters(root: Path, wanted: Filter, number: int) -> None:
    assert len(places(root, wanted)) == number


def test_a_date_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="not a date"):
        parse_since("yesterday")


def test_states_and_how_much_is_done(root: Path) -> None:
    bundle = Bundle(root / "toy/plain/r1")
    submitted(bundle, "17")
    put_record(bundle, "a", "17", "completed")
    sweep = Sweep(root / "toy/plain/_sweeps/s1")
    for stage in ("pre", "fit", "null"):
        put_task_record(sweep, "points/x", stage, "18_0", "completed", scheduler="slurm")
    send(sweep, "pre", "18", ["points/x", "points/y"])
    put_task_record(sweep, "points/y", "pre", "18_1", "failed", reason="no memory")
    overview = found(root)
    assert overview["toy/plain/r1"].state is StageState.COMPLETED
    assert (overview["toy/plain/r1"].done, overview["toy/plain/r1"].total) == (1, 1)
    of_sweep = overview["toy/plain/_sweeps/s1"]
    assert (of_sweep.state, of_sweep.done, of_sweep.total) == (StageState.FAILED, 1, 2)
    assert [(label, one.reason) for label, one in of_sweep.failures] == [("y", "no memory")]
    assert overview["toy/plain/deep/r2/20260102T030405Z"].state is StageState.NOT_SUBMITTED


def test_slurm_is_asked_once_about_all_of_them(root: Path, tmp_path: Path) -> None:
    fake = FakeSlurm(tmp_path / "slurm")
    first = Bundle(root / "toy/plain/r1")
    second = Bundle(root / "toy/plain/deep/r2/20260102T030405Z")
    sweep = Sweep(root / "toy/plain/_sweeps/s1")
    submitted(first, "17")
    submitted(second, "18")
    send(sweep, "pre", "19", ["points/x", "points/y"], name=f"vk-{TOKEN}-pre.0")
    lines = [
        f"17|RUNNING|None|0:05|10:00|vk-{TOKEN}-a",
        f"18|PENDING|Priority|0:00|10:00|vk-{TOKEN}-a",
        f"19_0|RUNNING|None|0:05|10:00|vk-{TOKEN}-pre.0",
        f"19_1|PENDING|None|0:00|10:00|vk-{TOKEN}-pre.0",
    ]
    (fake.path / "queue").write_text("".join(f"{line}\n" for line in lines))
    slurm = Slurm(environment=fake.environment, sleep=lambda _: None)
    states = {one.result.place: one.state for one in overviews(read_results(root), slurm)}
    assert states == {
        "toy/plain/r1": StageState.RUNNING,
        "toy/plain/deep/r2/20260102T030405Z": StageState.PENDING,
        "toy/plain/_sweeps/s1": StageState.RUNNING,
    }
    assert [call.split()[0] for call in fake.calls()] == ["squeue", "sacct"]


def test_a_scheduler_that_does_not_answer_is_told_for_each(root: Path) -> None:
    submitted(Bundle(root / "toy/plain/r1"), "17")
    overview = found(root, SILENT)
    assert overview["toy/plain/r1"].state is StageState.UNKNOWN
    assert overview["toy/plain/r1"].notes == (SILENT.message,)
    assert overview["toy/plain/_sweeps/s1"].notes == ()


def test_a_job_that_no_jobs_json_names_is_asked_about_too(root: Path) -> None:
    bundle = Bundle(root / "toy/plain/r1")
    put_record(bundle, "a", "99", "running")
    assert found(root, {"99": info("99", JobState.RUNNING)})["toy/plain/r1"].state is (
        StageState.RUNNING
    )


def test_a_sweep_that_has_lost_its_manifest_is_one_that_cannot_be_read(root: Path) -> None:
    (root / "toy/plain/_sweeps/s1/sweep_manifest.json").unlink()
    lost = found(root)["toy/plain/_sweeps/s1"]
    assert (lost.result.kind.value, lost.state) == ("sweep", None)
    assert "sweep_manifest.json" in lost.notes[0]


def test_a_directory_with_nothing_below_it_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunDirectoryError, match="is not a bundle"):
        require_results(tmp_path / "empty")
    with pytest.raises(RunDirectoryError, match="no such bundle"):
        require_results(tmp_path / "nothing")
    with pytest.raises(UsageError, match="cannot look into"):
        find_results(tmp_path / "nothing")

import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest
from handmade import make_bundle, put_record
from sweepmade import STAGES, WORK, make_sweep, put_task_record, send
from test_status import SILENT, Told, info

from valska.external_tools.core.clean import (
    SCRATCH_AGE_S,
    Category,
    Item,
    Loan,
    Survey,
    find_scratch,
    is_real,
    survey,
)
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.jobs import write_jobs_json
from valska.external_tools.core.lock import directory_lock
from valska.external_tools.core.results import Result, read_results
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobInfo, JobState, SchedulerError
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.trash import clear, clear_items, delete, new_trash, to_trash

EVERY = tuple(Category)


def fill(path: Path, text: str = "12345") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def bundle(root: Path) -> Bundle:
    """A completed run with a log, two attempts set aside, and a directory that it lent."""
    made = make_bundle(root / "toy/r1", {"a": {"lends": ["matrices"]}})
    put_record(made, "a", "17", "completed")
    fill(made.logs / "a-17.log")
    fill(made.logs / "local-0a1b2c3d.json")
    fill(made.path / "outputs.1/out.txt")
    fill(made.path / "outputs.2/deep/out.txt")
    fill(made.outputs / "matrices/m.bin")
    fill(made.outputs / "out.txt")
    return made


@pytest.fixture
def sweep(root: Path) -> Sweep:
    """A sweep whose points a and b share work; b has failed, c did all by itself."""
    made = make_sweep(root / "toy/_sweeps/s1", ["a", "b", "c"], sharing=["a", "b"])
    put_task_record(made, f"shared/{WORK}", "pre", "1", "completed")
    for place, stages in {
        "a": ("fit", "null"),
        "b": ("fit",),
        "c": ("pre", "fit", "null"),
    }.items():
        for stage in stages:
            state = "failed" if place == "b" else "completed"
            put_task_record(made, f"points/{place}", stage, "1", state)
            fill(made.point(place).logs / f"{stage}-1.log")
    fill(made.shared_unit(WORK).outputs / "matrices/m.bin")
    fill(made.point("c").outputs / "matrices/m.bin")
    fill(made.bundle.logs / "vk-0a1b2c3d-fit.0-1.log")
    return made


def look(
    root: Path,
    categories: Collection[Category] = EVERY,
    answer: Mapping[str, JobInfo] | SchedulerError | None = None,
    loans: tuple[Loan, ...] = (),
) -> Survey:
    return survey(root, read_results(root), Told(answer or {}), categories, loans)


def paths(root: Path, found: Survey) -> set[str]:
    return {os.path.relpath(item.path, root) for item in found.items}


def do(root: Path, category: Category, how=delete, remove=(), answer=None, loans=()) -> Survey:
    return clear(root, read_results(root), Told(answer or {}), [category], loans, how, remove)


def submitted(bundle: Bundle) -> None:
    job = {"job_id": "17", "name": "vk-0a1b2c3d-a", "scheduler": "slurm"}
    write_jobs_json(
        bundle.path, stage="a", jobs={"a": job}, commands=[], extra_fields={"token": "0a1b2c3d"}
    )


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        (Category.LOGS, {"toy/r1/logs/a-17.log"}),
        (Category.ATTEMPTS, {"toy/r1/outputs.1", "toy/r1/outputs.2"}),
        (Category.MATRICES, {"toy/r1/outputs/matrices"}),
        (Category.SCRATCH, set()),
        (Category.RUNS, {"toy/r1"}),
    ],
)
@pytest.mark.usefixtures("bundle")
def test_what_can_go_of_a_run(root: Path, category: Category, expected: set[str]) -> None:
    before = sorted(root.rglob("*"))
    found = look(root, [category])
    assert (paths(root, found), found.kept) == (expected, ())
    assert sorted(root.rglob("*")) == before


def test_sizes_and_numbers_are_those_of_the_files(root: Path, bundle: Bundle) -> None:
    found = look(root, [Category.ATTEMPTS])
    assert [(item.size, item.files) for item in found.items] == [(5, 1), (5, 1)]
    assert found.size == 10


@pytest.mark.usefixtures("sweep")
def test_what_can_go_of_a_sweep(root: Path) -> None:
    place = "toy/_sweeps/s1"
    assert paths(root, look(root, [Category.LOGS])) == {
        f"{place}/logs/vk-0a1b2c3d-fit.0-1.log",
        f"{place}/points/a/logs/fit-1.log",
        f"{place}/points/a/logs/null-1.log",
        f"{place}/points/b/logs/fit-1.log",
        *(f"{place}/points/c/logs/{stage}-1.log" for stage in STAGES),
    }
    assert paths(root, look(root, [Category.RUNS])) == {place}


def test_shared_work_stays_while_a_point_that_needs_it_is_unfinished(
    root: Path, sweep: Sweep
) -> None:
    own = "toy/_sweeps/s1/points/c/outputs/matrices"
    assert paths(root, look(root, [Category.MATRICES])) == {own}
    for stage in ("fit", "null"):
        put_task_record(
            sweep, "points/b", stage, "2", "completed", started_utc="2026-01-03T00:00:00Z"
        )
    lent = f"toy/_sweeps/s1/shared/{WORK}/outputs/matrices"
    assert paths(root, look(root, [Category.MATRICES])) == {own, lent}


def test_nothing_of_a_live_run_goes(root: Path, bundle: Bundle) -> None:
    submitted(bundle)
    for state in (JobState.PENDING, JobState.RUNNING, JobState.COMPLETING, JobState.UNKNOWN):
        bundle.records.joinpath("a-17-r0.json").unlink(missing_ok=True)
        found = look(root, answer={"17": info("17", state)})
        assert found.items == ()
        assert [one.place for one in found.kept] == ["toy/r1"]


def test_a_scheduler_that_does_not_answer_means_live(root: Path, bundle: Bundle) -> None:
    submitted(bundle)
    found = look(root, answer=SILENT)
    assert found.items == ()
    assert "does not answer" in found.kept[0].why
    assert do(root, Category.RUNS, remove=["toy/r1"], answer=SILENT).items == ()
    assert bundle.path.is_dir()


def test_of_a_sweep_only_what_is_live_stays(root: Path, sweep: Sweep) -> None:
    send(sweep, "fit", "17", ["points/a"])
    found = look(root, [Category.LOGS], {"17_0": JobInfo("17_0", "", JobState.RUNNING, "RUNNING")})
    assert paths(root, found) == {
        f"toy/_sweeps/s1/points/{place}-1.log"
        for place in ("b/logs/fit", "c/logs/pre", "c/logs/fit", "c/logs/null")
    }
    assert [one.place for one in found.kept] == ["toy/_sweeps/s1/points/a"]
    whole = look(root, [Category.RUNS], {"17_0": JobInfo("17_0", "", JobState.PENDING, "PENDING")})
    assert whole.items == ()


def test_an_unfinished_run_keeps_what_it_lends(root: Path, bundle: Bundle) -> None:
    put_record(bundle, "a", "18", "failed", started_utc="2026-02-02T00:00:00Z")
    assert look(root, [Category.MATRICES]).items == ()


@pytest.mark.parametrize("inside", ["outputs/matrices", "outputs/matrices/m.bin", "."])
def test_what_another_run_borrows_stays(root: Path, bundle: Bundle, inside: str) -> None:
    source = os.path.realpath(bundle.path / inside)
    found = look(root, [Category.MATRICES, Category.RUNS], loans=(Loan(source, "toy/r2"),))
    assert found.items == ()
    assert {one.why for one in found.kept} == {"toy/r2 reads what is in it"}
    own = (Loan(source, "toy/r1"),)
    assert len(look(root, [Category.MATRICES], loans=own).items) == 1


def test_outputs_that_another_run_reads_do_not_keep_logs(root: Path, bundle: Bundle) -> None:
    loan = Loan(os.path.realpath(bundle.outputs / "out.txt"), "toy/r2")
    assert len(look(root, [Category.LOGS], loans=(loan,)).items) == 1
    assert look(root, [Category.RUNS], loans=(loan,)).items == ()


def test_symbolic_links_are_not_followed(root: Path, bundle: Bundle, tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside/matrices/m.bin").parent
    fill(tmp_path / "outside/x.log")
    (bundle.outputs / "matrices/m.bin").unlink()
    (bundle.outputs / "matrices").rmdir()
    (bundle.outputs / "matrices").symlink_to(outside)
    for name in ("outputs.1", "outputs.2"):
        (bundle.path / name).rename(tmp_path / name)
        (bundle.path / name).symlink_to(tmp_path / name)
    fill(bundle.logs / "a-17.log").unlink()
    (bundle.logs / "b.log").symlink_to(tmp_path / "outside/x.log")
    found = look(root, [Category.MATRICES, Category.ATTEMPTS, Category.LOGS])
    assert found.items == ()
    item = Item(Category.MATRICES, "toy/r1", bundle.outputs / "matrices", 1, 1)
    assert clear_items(root, [item], delete).items == ()
    assert (outside / "m.bin").exists()


def test_nothing_outside_of_the_root_is_real(root: Path) -> None:
    fill(root / "a/b")
    assert is_real(root, root / "a/b")
    assert not is_real(root, root)
    assert not is_real(root, root / "a/../../x")
    assert not is_real(root, root.parent)
    assert not is_real(root, root / "nothing")


def test_a_lent_directory_never_leads_out_of_outputs(root: Path) -> None:
    made = make_bundle(root / "r1", {"a": {"lends": ["../../victim"]}})
    put_record(made, "a", "17", "completed")
    fill(root / "victim/x")
    assert look(root, [Category.MATRICES]).items == ()


def test_links_inside_of_what_goes_are_removed_and_their_targets_stay(
    root: Path, bundle: Bundle, tmp_path: Path
) -> None:
    victim = fill(tmp_path / "victim/x")
    (bundle.path / "outputs.1/link").symlink_to(victim.parent)
    do(root, Category.ATTEMPTS)
    assert not (bundle.path / "outputs.1").exists()
    assert victim.exists()


def test_what_goes_keeps_its_place_in_the_trash(root: Path, bundle: Bundle) -> None:
    trash = new_trash(root)
    done = do(root, Category.ATTEMPTS, to_trash(trash))
    assert paths(root, done) == {"toy/r1/outputs.1", "toy/r1/outputs.2"}
    assert (trash / "toy/r1/outputs.2/deep/out.txt").read_text() == "12345"
    assert sorted(bundle.path.glob("outputs.*")) == []
    assert (bundle.outputs / "out.txt").exists()
    assert not bundle.submit_lock.exists()


def test_a_whole_run_only_goes_where_it_was_named(root: Path, bundle: Bundle) -> None:
    assert do(root, Category.RUNS).items == ()
    assert bundle.path.is_dir()
    trash = new_trash(root)
    do(root, Category.RUNS, to_trash(trash), remove=["toy/r1"])
    assert not bundle.path.exists()
    assert (trash / "toy/r1/manifest.json").is_file()
    assert not (trash / "toy/r1/.submit.lock").exists()
    assert read_results(root) == []


def test_a_whole_run_can_be_deleted(root: Path, bundle: Bundle) -> None:
    do(root, Category.RUNS, remove=["toy/r1"])
    assert list((root / "toy").iterdir()) == []


def test_a_run_that_is_being_submitted_stays(root: Path, bundle: Bundle) -> None:
    with directory_lock(bundle.submit_lock):
        done = do(root, Category.RUNS, remove=["toy/r1"])
    assert done.items == ()
    assert "is submitting" in done.kept[0].why
    assert bundle.manifest.is_file()


def test_a_job_sent_after_the_survey_keeps_its_run(root: Path, bundle: Bundle) -> None:
    results = read_results(root)
    assert look(root, [Category.RUNS]).items
    submitted(bundle)
    bundle.records.joinpath("a-17-r0.json").unlink()
    told = Told({"17": info("17", JobState.PENDING)})
    done = clear(root, results, told, [Category.RUNS], (), delete, ["toy/r1"])
    assert (done.items, len(done.kept)) == ((), 1)


def test_one_that_cannot_be_read_stays(root: Path, bundle: Bundle) -> None:
    bundle.manifest.write_text("{")
    found = look(root)
    assert found.items == ()
    assert "cannot be read" in found.kept[0].why


def test_what_cannot_be_moved_is_told_and_the_rest_goes(root: Path, bundle: Bundle) -> None:
    trash = new_trash(root)
    fill(trash / "toy/r1/outputs.1/in-the-way")
    done = do(root, Category.ATTEMPTS, to_trash(trash))
    assert paths(root, done) == {"toy/r1/outputs.2"}
    assert done.kept[0].place == "toy/r1/outputs.1"
    assert (bundle.path / "outputs.1").is_dir()


def old(path: Path, age_s: float) -> Path:
    then = time.time() - age_s
    for one in [*path.rglob("*"), path]:
        os.utime(one, (then, then))
    return path


def test_scratch_is_what_was_begun_a_day_ago(root: Path, sweep: Sweep, bundle: Bundle) -> None:
    name = ".r9.0123456789ab.partial"
    for place in (root / "toy", sweep.points):
        fill(place / name / "manifest.json")
    old(root / "toy" / name, SCRATCH_AGE_S + 60)
    fill(bundle.path / "outputs" / name / "x")
    old(bundle.path / "outputs" / name, SCRATCH_AGE_S + 60)
    fill(root / ".trash/20260102T030405Z" / name / "x")
    old(root / ".trash", SCRATCH_AGE_S + 60)
    assert [item.path for item in find_scratch(root)] == [root / "toy" / name]
    old(sweep.points / name, SCRATCH_AGE_S + 60)
    assert {item.path for item in find_scratch(root)} == {root / "toy" / name, sweep.points / name}
    clear_items(root, find_scratch(root), delete)
    assert find_scratch(root) == []


def test_temporary_files_of_a_killed_command_are_scratch(root: Path, bundle: Bundle) -> None:
    path = fill(bundle.path / ".jobs.json.0123456789ab.tmp")
    assert look(root, [Category.SCRATCH]).items == ()
    old(path, SCRATCH_AGE_S + 60)
    assert paths(root, look(root, [Category.SCRATCH])) == {"toy/r1/.jobs.json.0123456789ab.tmp"}


def test_a_new_trash_folder_is_new_and_below_the_root(root: Path, tmp_path: Path) -> None:
    root.mkdir()
    first = new_trash(root)
    first.mkdir(parents=True)
    second = new_trash(root)
    assert first.parent == second.parent == root / ".trash"
    assert not second.exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / ".trash").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="symbolic link"):
        new_trash(other)


def test_results_of_a_wanted_kind_only(root: Path, bundle: Bundle, sweep: Sweep) -> None:
    chosen: list[Result] = [one for one in read_results(root) if one.kind == "sweep"]
    found = survey(root, chosen, Told({}), [Category.RUNS], ())
    assert paths(root, found) == {"toy/_sweeps/s1"}

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from handmade import FakeSlurm
from sweepmade import TOKEN, WORK, make_sweep, manifest_of, put_task_record, send
from test_status import SILENT, Told

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.scheduler import JobInfo, JobState, SchedulerError
from valska.external_tools.core.slurm import Slurm
from valska.external_tools.core.status import StageState, StageStatus
from valska.external_tools.core.sweep.following import status as status_module
from valska.external_tools.core.sweep.following.status import SweepStatus, sweep_status, wait_sweep
from valska.external_tools.core.sweep.following.traces import newest_of_job, read_traces
from valska.external_tools.core.sweep.layout import Sweep

LABELS = ("a", "b", "c")
PLACES = [f"points/{label}" for label in LABELS]


@pytest.fixture(params=["every record is read", "no more is read than needed"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Judge a sweep as a small one, and as a large one."""
    if request.param.startswith("no more"):
        monkeypatch.setattr(status_module, "DETAILED", 0)
    return str(request.param)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return make_sweep(tmp_path / "s", LABELS)


def task(job: str, state: JobState, word: str | None = None, **more: Any) -> dict[str, JobInfo]:
    return {job: JobInfo(job, "", state, word or state.value, **more)}


def look(
    sweep: Sweep, answer: Mapping[str, JobInfo] | SchedulerError | None = None, **more: Any
) -> SweepStatus:
    return sweep_status(sweep, manifest_of(sweep), Told(answer or {}), **more)


def one(status: SweepStatus, label: str, stage: str = "pre") -> StageStatus:
    return status.points[label][stage]


def test_a_fresh_sweep_is_not_submitted_and_nobody_is_asked(sweep: Sweep) -> None:
    scheduler = Told(SILENT)
    status = sweep_status(sweep, manifest_of(sweep), scheduler)
    assert status.counts == {stage: {StageState.NOT_SUBMITTED: 3} for stage in status.stages}
    assert (status.stages, status.state) == (("pre", "fit", "null"), StageState.NOT_SUBMITTED)
    assert (status.live, status.notes, scheduler.asked) == (False, (), [])


@pytest.mark.parametrize(
    ("job", "record", "state"),
    [
        (JobState.PENDING, None, StageState.PENDING),
        (JobState.RUNNING, "running", StageState.RUNNING),
        (JobState.COMPLETING, "completed", StageState.RUNNING),
        (JobState.COMPLETED, "completed", StageState.COMPLETED),
        (JobState.COMPLETED, None, StageState.UNKNOWN),
        (JobState.FAILED, "failed", StageState.FAILED),
        (JobState.FAILED, "refused", StageState.REFUSED),
        (JobState.FAILED, "running", StageState.FAILED),
        (JobState.TIMEOUT, "running", StageState.TIMEOUT),
        (JobState.CANCELLED, "signalled", StageState.CANCELLED),
        (JobState.NODE_FAIL, "running", StageState.LOST),
        (JobState.LOST, "completed", StageState.COMPLETED),
        (JobState.UNKNOWN, "completed", StageState.COMPLETED),
        (JobState.UNKNOWN, None, StageState.UNKNOWN),
        (None, "completed", StageState.COMPLETED),
        (None, "failed", StageState.FAILED),
        (None, "running", StageState.LOST),
        (None, None, StageState.LOST),
    ],
)
@pytest.mark.usefixtures("reading")
def test_scheduler_and_record_of_a_task_together(
    sweep: Sweep, job: JobState | None, record: str | None, state: StageState
) -> None:
    send(sweep, "pre", "17", PLACES)
    if record:
        put_task_record(sweep, "points/b", "pre", "17_1", record)
    status = look(sweep, task("17_1", job) if job else {})
    found = one(status, "b")
    assert (found.state, found.job_id, found.attempt) == (state, "17_1", 1)
    assert (found.record is not None) is (record is not None)


@pytest.mark.usefixtures("reading")
def test_a_scheduler_that_does_not_answer_is_told_once_and_records_count(sweep: Sweep) -> None:
    send(sweep, "pre", "17", PLACES)
    put_task_record(sweep, "points/a", "pre", "17_0", "completed")
    status = look(sweep, SILENT)
    assert [one(status, label).state for label in LABELS] == [
        StageState.COMPLETED,
        StageState.UNKNOWN,
        StageState.UNKNOWN,
    ]
    assert one(status, "b").may_run
    assert status.notes == (SILENT.message,)


@pytest.mark.usefixtures("reading")
def test_each_array_is_asked_about_once_however_many_points_there_are(sweep: Sweep) -> None:
    send(sweep, "pre", "17", PLACES)
    send(sweep, "fit", "18", PLACES[:2])
    send(sweep, "fit", "19", PLACES[:1], tasks="0")
    scheduler = Told({})
    sweep_status(sweep, manifest_of(sweep), scheduler)
    assert scheduler.asked == [["17", "19", "18"]]


@pytest.mark.usefixtures("reading")
def test_the_newest_array_with_a_units_line_is_its_current_job(sweep: Sweep) -> None:
    send(sweep, "pre", "17", PLACES)
    send(sweep, "pre", "21", PLACES, tasks="0,2", list=f"arrays/{TOKEN}-0.sums")
    put_task_record(sweep, "points/a", "pre", "17_0", "failed")
    put_task_record(sweep, "points/b", "pre", "17_1", "completed")
    status = look(sweep, task("21_0", JobState.RUNNING) | task("17_1", JobState.COMPLETED))
    assert (one(status, "a").job_id, one(status, "a").attempt) == ("21_0", 2)
    assert one(status, "a").state is StageState.RUNNING
    assert (one(status, "b").job_id, one(status, "b").attempt) == ("17_1", 1)
    assert one(status, "b").state is StageState.COMPLETED
    assert one(status, "c").job_id == "21_2"


@pytest.mark.usefixtures("reading")
def test_points_borrow_the_state_of_work_that_they_share(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", LABELS, sharing=["a", "b"])
    send(sweep, "pre", "17", [f"shared/{WORK}"])
    send(sweep, "pre", "18", ["points/c"])
    put_task_record(sweep, f"shared/{WORK}", "pre", "17_0", "failed", reason="no memory")
    status = look(sweep, task("17_0", JobState.FAILED) | task("18_0", JobState.PENDING))
    assert one(status, "a") is one(status, "b") is status.shared[WORK]
    assert one(status, "a").reason == "no memory"
    assert one(status, "a").record == f"shared/{WORK}/records/pre-17_0-r0.json"
    assert one(status, "c").state is StageState.PENDING
    assert [label for label, _ in status.failures()] == ["a", "b"]
    assert [who for who, _ in status.failed_units()] == [f"shared/{WORK}"]


@pytest.mark.usefixtures("reading")
def test_a_task_that_was_never_started_names_the_stage_that_failed(sweep: Sweep) -> None:
    send(sweep, "pre", "17", PLACES)
    send(sweep, "fit", "18", PLACES, dependency="aftercorr:17")
    put_task_record(sweep, "points/a", "pre", "17_0", "failed")
    found = one(look(sweep), "a", "fit")
    assert (found.state, found.dependency) == (StageState.CANCELLED, "aftercorr:17")
    assert found.reason == "never started: pre did not succeed"


@pytest.mark.parametrize("reason", ["DependencyNeverSatisfied", "Dependency", None])
@pytest.mark.usefixtures("reading")
def test_a_task_that_slurm_removed_names_the_stage_that_failed(
    sweep: Sweep, reason: str | None
) -> None:
    send(sweep, "pre", "17", PLACES)
    send(sweep, "fit", "18", PLACES, dependency="aftercorr:17")
    put_task_record(sweep, "points/a", "pre", "17_0", "failed")
    removed = task("18_0", JobState.CANCELLED, reason=reason)
    removed |= task("18_1", JobState.CANCELLED, "CANCELLED by 1000", reason=reason)
    status = look(sweep, task("17_0", JobState.FAILED) | removed)
    assert one(status, "a", "fit").reason == "never started: pre did not succeed"
    assert one(status, "b", "fit").reason.startswith("CANCELLED by 1000")


@pytest.mark.usefixtures("reading")
def test_an_array_whose_fate_is_not_known_is_unconfirmed(sweep: Sweep) -> None:
    send(sweep, "pre", None, PLACES)
    status = look(sweep)
    assert {one(status, label).state for label in LABELS} == {StageState.UNCONFIRMED}
    assert status.live


@pytest.mark.usefixtures("reading")
def test_the_last_record_of_a_requeued_task_counts(sweep: Sweep) -> None:
    send(sweep, "pre", "17", PLACES)
    put_task_record(sweep, "points/a", "pre", "17_0", "signalled", restart=9)
    put_task_record(sweep, "points/a", "pre", "17_0", "completed", restart=10)
    found = one(look(sweep), "a")
    assert found.state is StageState.COMPLETED
    assert (found.record or "").endswith("pre-17_0-r10.json")


@pytest.mark.usefixtures("reading")
def test_a_timeout_is_known_by_the_stages_own_limit(sweep: Sweep) -> None:
    send(sweep, "fit", "17", PLACES)
    put_task_record(sweep, "points/a", "fit", "17_0", "signalled")
    status = look(sweep, task("17_0", JobState.FAILED, elapsed_s=541))
    assert one(status, "a", "fit").state is StageState.TIMEOUT


@pytest.mark.usefixtures("reading")
def test_tasks_that_valska_was_asked_to_cancel_are_cancelled_not_timed_out(sweep: Sweep) -> None:
    send(sweep, "fit", "17", PLACES, cancelled_utc="2026-01-02T04:00:00Z", cancelled_tasks="0")
    for index, label in enumerate(LABELS[:2]):
        put_task_record(sweep, f"points/{label}", "fit", f"17_{index}", "signalled")
    ended = [task(f"17_{index}", JobState.FAILED, elapsed_s=541) for index in range(2)]
    status = look(sweep, ended[0] | ended[1])
    assert one(status, "a", "fit").state is StageState.CANCELLED
    assert one(status, "b", "fit").state is StageState.TIMEOUT


@pytest.mark.usefixtures("reading")
def test_the_log_of_a_failure_is_the_units_own_or_the_arrays(sweep: Sweep) -> None:
    send(sweep, "pre", "17", PLACES)
    failed = task("17_0", JobState.FAILED) | task("17_1", JobState.FAILED)
    sweep.bundle.logs.mkdir(exist_ok=True)
    (sweep.bundle.logs / f"vk-{TOKEN}-pre.0-17.log").write_text("no such list\n")
    sweep.point("a").logs.mkdir()
    (sweep.point("a").logs / "pre-17_0.log").write_text("no memory\n")
    status = look(sweep, failed)
    assert one(status, "a").log == "points/a/logs/pre-17_0.log"
    assert one(status, "b").log == f"logs/vk-{TOKEN}-pre.0-17.log"
    assert [label for label, _ in status.failures()] == ["a", "b", "c"]


@pytest.mark.usefixtures("reading")
def test_runs_by_hand_are_seen_where_nothing_was_sent(sweep: Sweep) -> None:
    by_hand = "local-7d444840-9dc0-11d1-b245-5ffdce74fad2"
    put_task_record(sweep, "points/a", "pre", by_hand, "completed", scheduler="none")
    put_task_record(sweep, "points/b", "pre", "99", "running")
    put_task_record(sweep, "points/c", "pre", "98_4", "running")
    scheduler = Told(task("99", JobState.RUNNING) | task("98_4", JobState.RUNNING))
    status = sweep_status(sweep, manifest_of(sweep), scheduler)
    assert one(status, "a").state is StageState.COMPLETED
    assert (one(status, "b").state, one(status, "b").job_id) == (StageState.RUNNING, "99")
    assert (one(status, "c").state, one(status, "c").job_id) == (StageState.RUNNING, "98_4")
    assert scheduler.asked == [["99", "98_4"]]


@pytest.mark.usefixtures("reading")
def test_an_unreadable_record_is_told_and_believed_in_nothing(sweep: Sweep) -> None:
    send(sweep, "pre", "17", PLACES)
    put_task_record(sweep, "points/a", "pre", "17_0", "failed").write_text("{")
    status = look(sweep)
    assert one(status, "a").state is StageState.LOST
    assert any("points/a" in text and "unreadable" in text for text in status.notes)


def test_of_a_large_sweep_no_record_of_a_completed_task_is_read(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_module, "DETAILED", 0)
    send(sweep, "pre", "17", PLACES)
    for index, place in enumerate(PLACES):
        put_task_record(sweep, place, "pre", f"17_{index}", "completed").write_text("")
    ended = task("17_0", JobState.COMPLETED, elapsed_s=7) | task("17_1", JobState.COMPLETED)
    status = look(sweep, ended | task("17_2", JobState.COMPLETED))
    assert (status.counts["pre"], status.notes) == ({StageState.COMPLETED: 3}, ())
    assert (one(status, "a").elapsed_s, one(status, "a").exit_code) == (7, 0)


def test_only_the_points_that_were_asked_for(sweep: Sweep) -> None:
    send(sweep, "pre", "17", PLACES[:2])
    send(sweep, "pre", "18", PLACES[2:])
    scheduler = Told({})
    status = sweep_status(sweep, manifest_of(sweep), scheduler, ["c"])
    assert (list(status.points), scheduler.asked) == (["c"], [["18"]])
    with pytest.raises(UsageError, match="no point 'd'"):
        look(sweep, labels=["d"])


def test_a_lost_list_is_told_and_its_tasks_count_as_not_sent(
    sweep: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    send(sweep, "pre", "17", PLACES)
    (sweep.arrays / f"{TOKEN}-0.sums").unlink()
    assert one(look(sweep), "a").state is StageState.NOT_SUBMITTED
    assert f"cannot read arrays/{TOKEN}-0.sums" in caplog.text


def test_waiting_tells_each_change_and_ends_when_nothing_is_live(sweep: Sweep) -> None:
    send(sweep, "pre", "17", PLACES)
    for index in range(3):
        put_task_record(sweep, PLACES[index], "pre", f"17_{index}", "completed")
    waiting = {k: v for i in range(3) for k, v in task(f"17_{i}", JobState.PENDING).items()}
    running = waiting | task("17_0", JobState.RUNNING)
    ended = {k: replace(v, state=JobState.COMPLETED) for k, v in waiting.items()}
    told: list[dict[StageState, int]] = []
    pauses: list[float] = []
    final = wait_sweep(
        sweep,
        manifest_of(sweep),
        Told(waiting, waiting, running, ended),
        on_change=lambda status: told.append(status.counts["pre"]),
        sleep=pauses.append,
    )
    assert told == [
        {StageState.PENDING: 3},
        {StageState.RUNNING: 1, StageState.PENDING: 2},
        {StageState.COMPLETED: 3},
    ]
    assert (final.live, len(pauses)) == (False, 3)


def test_slurms_own_words_reach_each_task(sweep: Sweep, tmp_path: Path) -> None:
    fake = FakeSlurm(tmp_path / "slurm")
    send(sweep, "pre", "17", PLACES)
    send(sweep, "fit", "18", PLACES)
    for index in range(2):
        put_task_record(sweep, PLACES[index], "pre", f"17_{index}", "completed")
    put_task_record(sweep, PLACES[2], "pre", "17_2", "failed", reason="exit code 3")
    names = {"17": f"vk-{TOKEN}-pre.0", "18": f"vk-{TOKEN}-fit.0"}
    accounts = [
        f"17_0|COMPLETED|0:0|None|12|10|{names['17']}",
        f"17_1|COMPLETED|0:0|None|14|10|{names['17']}",
        f"17_2|FAILED|3:0|None|11|10|{names['17']}",
        f"18_0|RUNNING|0:0|None|5|10|{names['18']}",
        f"18_1|PENDING|0:0|None|0|10|{names['18']}",
        f"18_2|CANCELLED|0:0|DependencyNeverSatisfied|0|10|{names['18']}",
    ]
    (fake.path / "accounts").write_text("".join(f"{line}\n" for line in accounts))
    queue = [
        f"18_0|RUNNING|None|0:05|10:00|{names['18']}",
        f"18_1|PENDING|Dependency|0:00|10:00|{names['18']}",
    ]
    (fake.path / "queue").write_text("".join(f"{line}\n" for line in queue))
    slurm = Slurm(environment=fake.environment, sleep=lambda _: None)
    status = sweep_status(sweep, manifest_of(sweep), slurm)
    assert status.counts["pre"] == {StageState.COMPLETED: 2, StageState.FAILED: 1}
    fits = [one(status, label, "fit").state for label in LABELS]
    assert fits == [StageState.RUNNING, StageState.PENDING, StageState.CANCELLED]
    assert one(status, "b", "fit").reason == "Dependency"
    assert len(fake.calls()) == 2


def test_many_directories_on_a_slow_file_system_are_listed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from valska.external_tools.core.sweep.following import traces

    monkeypatch.setattr(traces, "_SLOW_S", 0.0)
    sweep = Sweep(tmp_path)
    places = [f"points/{number}" for number in range(200)]
    for place in places[::2]:
        unit = sweep.unit(place)
        unit.records.mkdir(parents=True)
        (unit.records / "pre-1_0-r0.json").touch()
    found = read_traces(sweep, places)
    assert found == {place: ["pre-1_0-r0.json"] for place in places[::2]}


def test_the_newest_record_is_that_of_the_last_restart() -> None:
    names = ["fit-1_2-r2.json", "fit-1_2-r10.json", "fit-1_23-r30.json", "fit-1_2-r11.json.tmp"]
    assert newest_of_job(names, "fit", "1_2") == "fit-1_2-r10.json"
    assert newest_of_job(names, "fit", "1_3") is None

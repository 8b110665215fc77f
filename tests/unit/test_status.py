import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from handmade import DIGEST, make_bundle, manifest_of, put_record, record_json

from valska.external_tools.core.jobs import write_jobs_json
from valska.external_tools.core.records import StageRecord, read_record
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import (
    JobInfo,
    JobRef,
    JobRequest,
    JobState,
    SchedulerError,
    Watch,
)
from valska.external_tools.core.status import RunStatus, StageState, run_status, wait

TOKEN = "0a1b2c3d"


class Told:
    """A scheduler that says what it was told to say, and nothing else."""

    name = "slurm"
    program = "sbatch"

    def __init__(self, *answers: Mapping[str, JobInfo] | SchedulerError) -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []

    def query(self, bundle: Bundle, refs: Sequence[JobRef]) -> Mapping[str, JobInfo]:
        self.asked.append([ref.job_id for ref in refs])
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, SchedulerError):
            raise answer
        return answer

    def reserve(self) -> str | None:
        return None

    def commands(self, requests: Sequence[JobRequest]) -> tuple[tuple[str, ...], ...]:
        raise NotImplementedError

    def submit(self, bundle: Bundle, requests: Sequence[JobRequest], watch: Watch) -> None:
        raise NotImplementedError

    def find(
        self, bundle: Bundle, ref: JobRef | None, name: str, since: datetime
    ) -> JobInfo | None:
        raise NotImplementedError

    def cancel(self, bundle: Bundle, refs: Sequence[JobRef], grace_s: float) -> None:
        raise NotImplementedError


SILENT = SchedulerError("squeue does not answer: Socket timed out")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    directives = {"time": "10", "signal": "B:TERM@60"}
    return make_bundle(tmp_path / "b", {"a": {"directives": directives}, "b": {"after": ["a"]}})


def info(job_id: str, state: JobState, word: str | None = None, **more: Any) -> JobInfo:
    return JobInfo(job_id, f"vk-{TOKEN}-a", state, word or state.value, **more)


def submitted(bundle: Bundle, **more: Any) -> None:
    job = {"job_id": "17", "name": f"vk-{TOKEN}-a", "attempt": 2, "scheduler": "slurm", **more}
    write_jobs_json(
        bundle.path, stage="a", jobs={"a": job}, commands=[], extra_fields={"token": TOKEN}
    )


def look(bundle: Bundle, *answers: Mapping[str, JobInfo] | SchedulerError) -> RunStatus:
    return run_status(bundle, manifest_of(bundle), Told(*(answers or ({},))))


def judged(
    bundle: Bundle,
    answer: JobInfo | SchedulerError | None,
    record: str | None = None,
    **changes: Any,
) -> tuple[StageState, str | None]:
    if not bundle.jobs.exists():
        submitted(bundle)
    if record:
        put_record(bundle, "a", "17", record, **changes)
    told = answer if isinstance(answer, SchedulerError) else {"17": answer} if answer else {}
    one = look(bundle, told).stage("a")
    return one.state, one.reason


def test_a_fresh_bundle_is_not_submitted_and_nobody_is_asked(bundle: Bundle) -> None:
    scheduler = Told(SILENT)
    status = run_status(bundle, manifest_of(bundle), scheduler)
    assert [one.state for one in status.stages] == [StageState.NOT_SUBMITTED] * 2
    assert (status.state, status.live, scheduler.asked) == (StageState.NOT_SUBMITTED, False, [])


@pytest.mark.parametrize(
    ("job", "record", "state"),
    [
        (JobState.PENDING, None, StageState.PENDING),
        (JobState.RUNNING, None, StageState.RUNNING),
        (JobState.RUNNING, "running", StageState.RUNNING),
        (JobState.COMPLETING, "completed", StageState.RUNNING),
        (JobState.COMPLETED, "completed", StageState.COMPLETED),
        (JobState.FAILED, "failed", StageState.FAILED),
        (JobState.FAILED, None, StageState.FAILED),
        (JobState.FAILED, "refused", StageState.REFUSED),
        (JobState.FAILED, "running", StageState.FAILED),
        (JobState.TIMEOUT, "running", StageState.TIMEOUT),
        (JobState.CANCELLED, None, StageState.CANCELLED),
        (JobState.CANCELLED, "signalled", StageState.CANCELLED),
        (JobState.OUT_OF_MEMORY, "running", StageState.FAILED),
        (JobState.NODE_FAIL, "running", StageState.LOST),
        (JobState.PREEMPTED, "running", StageState.CANCELLED),
        (JobState.LOST, "running", StageState.LOST),
        (JobState.LOST, "completed", StageState.COMPLETED),
        (JobState.UNKNOWN, None, StageState.UNKNOWN),
        (JobState.UNKNOWN, "completed", StageState.COMPLETED),
    ],
)
def test_scheduler_and_record_together(
    bundle: Bundle, job: JobState, record: str | None, state: StageState
) -> None:
    assert judged(bundle, info("17", job), record)[0] is state


@pytest.mark.parametrize(
    ("record", "state"),
    [
        ("completed", StageState.COMPLETED),
        ("failed", StageState.FAILED),
        ("signalled", StageState.CANCELLED),
        ("running", StageState.LOST),
        (None, StageState.LOST),
    ],
)
def test_a_job_that_the_scheduler_does_not_know_any_more(
    bundle: Bundle, record: str | None, state: StageState
) -> None:
    assert judged(bundle, None, record)[0] is state


@pytest.mark.parametrize(
    ("record", "state"),
    [
        ("completed", StageState.COMPLETED),
        ("running", StageState.UNKNOWN),
        (None, StageState.UNKNOWN),
    ],
)
def test_a_scheduler_that_does_not_answer(
    bundle: Bundle, record: str | None, state: StageState
) -> None:
    assert judged(bundle, SILENT, record)[0] is state
    status = look(bundle, SILENT)
    assert SILENT.message in status.notes
    assert status.stage("a").may_run is (state is StageState.UNKNOWN)


def test_a_completed_job_without_a_completed_record_is_suspicious(bundle: Bundle) -> None:
    state, reason = judged(bundle, info("17", JobState.COMPLETED))
    assert state is StageState.UNKNOWN
    assert "left no record" in (reason or "")
    state, reason = judged(bundle, info("17", JobState.COMPLETED), "running")
    assert state is StageState.UNKNOWN
    assert "its record says running" in (reason or "")
    assert not look(bundle, {"17": info("17", JobState.COMPLETED)}).stage("a").may_run


def test_an_unknown_word_is_shown(bundle: Bundle) -> None:
    state, reason = judged(bundle, info("17", JobState.UNKNOWN, "QUANTUM"))
    assert (state, reason) == (StageState.UNKNOWN, "the scheduler says 'QUANTUM'")


def test_the_reasons_of_a_waiting_job_are_shown(bundle: Bundle) -> None:
    waiting = info("17", JobState.PENDING, reason="DependencyNeverSatisfied")
    assert judged(bundle, waiting) == (StageState.PENDING, "DependencyNeverSatisfied")


def test_who_cancelled_is_shown(bundle: Bundle) -> None:
    cancelled = info("17", JobState.CANCELLED, "CANCELLED by 1000")
    assert judged(bundle, cancelled) == (StageState.CANCELLED, "CANCELLED by 1000")


def test_a_job_told_of_its_time_limit_that_ended_itself_is_a_timeout(bundle: Bundle) -> None:
    ended = info("17", JobState.FAILED, elapsed_s=541, limit_s=600)
    assert judged(bundle, ended, "signalled")[0] is StageState.TIMEOUT
    early = info("17", JobState.FAILED, elapsed_s=60, limit_s=600)
    assert judged(bundle, early)[0] is StageState.CANCELLED


def test_a_job_that_valska_cancelled_near_its_limit_was_cancelled(bundle: Bundle) -> None:
    submitted(bundle, cancelled_utc="2026-01-02T03:04:05Z")
    ended = info("17", JobState.FAILED, elapsed_s=541, limit_s=600)
    assert judged(bundle, ended, "signalled")[0] is StageState.CANCELLED


def test_a_cancelled_job_that_nobody_knows_any_more_was_cancelled(bundle: Bundle) -> None:
    submitted(bundle, cancelled_utc="2026-01-02T03:04:05Z")
    assert judged(bundle, None)[0] is StageState.CANCELLED
    assert judged(bundle, None, "running")[0] is StageState.CANCELLED
    assert judged(bundle, None, "completed")[0] is StageState.COMPLETED


def test_a_dependant_that_slurm_removed_and_forgot_was_never_started(bundle: Bundle) -> None:
    jobs = {"a": {"job_id": "17"}, "b": {"job_id": "18"}}
    write_jobs_json(bundle.path, stage="all", jobs=jobs, commands=[])
    put_record(bundle, "a", "17", "failed")
    one = look(bundle).stage("b")
    assert (one.state, one.reason) == (StageState.CANCELLED, "never started: a did not succeed")


def test_an_intent_is_unconfirmed(bundle: Bundle) -> None:
    submitted(bundle, job_id=None)
    status = look(bundle)
    assert status.stage("a").state is StageState.UNCONFIRMED
    assert status.live
    assert status.stage("a").may_run


def test_what_is_shown_of_a_stage(bundle: Bundle) -> None:
    submitted(bundle, cluster="c1", dependency="afterok:3")
    put_record(bundle, "a", "17", "failed", exit_code=66, reason="no output")
    bundle.logs.mkdir()
    (bundle.logs / f"vk-{TOKEN}-a-17.log").touch()
    one = look(bundle, {"17": info("17", JobState.FAILED, elapsed_s=9)}).stage("a")
    assert (one.job_id, one.attempt, one.cluster, one.dependency) == ("17", 2, "c1", "afterok:3")
    assert (one.exit_code, one.reason, one.elapsed_s) == (66, "no output", 10)
    assert (one.started_utc, one.ended_utc) == ("2026-01-02T03:04:05Z", "2026-01-02T03:04:15Z")
    assert one.record == "records/a-17-r0.json"
    assert one.log == f"logs/vk-{TOKEN}-a-17.log"


def test_a_job_without_record_is_shown_by_what_the_scheduler_says(bundle: Bundle) -> None:
    submitted(bundle)
    one = look(bundle, {"17": info("17", JobState.FAILED, elapsed_s=9, exit_code=7)}).stage("a")
    assert (one.elapsed_s, one.exit_code, one.record) == (9, 7, None)


def test_the_record_of_an_earlier_job_is_not_this_jobs(bundle: Bundle) -> None:
    submitted(bundle)
    put_record(bundle, "a", "16", "completed")
    assert look(bundle, {"17": info("17", JobState.PENDING)}).stage("a").state is StageState.PENDING
    assert look(bundle, {}).stage("a").state is StageState.LOST


def test_a_requeued_job_is_shown_by_its_last_run(bundle: Bundle) -> None:
    submitted(bundle)
    put_record(bundle, "a", "17", "signalled")
    put_record(bundle, "a", "17", "completed", restart=1, started_utc="2026-01-02T04:04:05Z")
    one = look(bundle, {"17": info("17", JobState.COMPLETED)}).stage("a")
    assert (one.state, one.record) == (StageState.COMPLETED, "records/a-17-r1.json")
    waiting = look(bundle, {"17": info("17", JobState.PENDING)}).stage("a")
    assert (waiting.state, waiting.started_utc) == (StageState.PENDING, None)


def test_unreadable_records_are_noted(bundle: Bundle) -> None:
    bundle.records.mkdir()
    (bundle.records / "a-1-r0.json").write_text("{")
    status = look(bundle)
    assert any("a-1-r0.json" in note for note in status.notes)
    assert status.state is StageState.NOT_SUBMITTED


# --- run by hand


def test_a_bundle_run_by_hand_is_shown_by_its_records(bundle: Bundle) -> None:
    put_record(bundle, "a", "local-x", "completed", scheduler="none")
    status = look(bundle)
    assert status.stage("a").state is StageState.COMPLETED
    assert status.stage("b").state is StageState.NOT_SUBMITTED


def test_a_job_sent_by_hand_is_asked_about(bundle: Bundle) -> None:
    put_record(bundle, "a", "17", "running", name="handmade-a")
    mine = replace(info("17", JobState.RUNNING), name="handmade-a")
    assert look(bundle, {"17": mine}).stage("a").state is StageState.RUNNING
    assert look(bundle, {}).stage("a").state is StageState.LOST
    assert look(bundle, SILENT).stage("a").state is StageState.UNKNOWN


def test_a_script_started_by_hand_here_is_known_by_its_process(bundle: Bundle) -> None:
    script = bundle.script("a")
    script.write_text("read -r\n")
    child = subprocess.Popen(["bash", script.name], cwd=bundle.path, stdin=subprocess.PIPE)
    host = {**record_json("a", "x")["host"], "name": socket.gethostname()}
    put_record(bundle, "a", "local-x", "running", scheduler="none", pid=child.pid, host=host)
    while script.name not in Path(f"/proc/{child.pid}/cmdline").read_text():
        time.sleep(0.01)
    try:
        running = look(bundle).stage("a")
    finally:
        child.communicate()
    assert running.state is StageState.RUNNING
    assert look(bundle).stage("a").state is StageState.LOST


def test_a_local_job_that_outlived_its_supervisor_is_known_by_its_process(bundle: Bundle) -> None:
    submitted(bundle)
    bundle.script("a").write_text("read -r\n")
    child = subprocess.Popen(["bash", "submit_a.sh"], cwd=bundle.path, stdin=subprocess.PIPE)
    host = {**record_json("a", "x")["host"], "name": socket.gethostname()}
    put_record(bundle, "a", "17", "running", scheduler="local", pid=child.pid, host=host)
    try:
        running = look(bundle, {"17": info("17", JobState.LOST)}).stage("a")
    finally:
        child.communicate()
    assert (running.state, running.may_run) == (StageState.RUNNING, True)
    assert look(bundle, {"17": info("17", JobState.LOST)}).stage("a").state is StageState.LOST


def test_a_reused_process_number_is_not_taken_for_the_script(bundle: Bundle) -> None:
    host = {**record_json("a", "x")["host"], "name": socket.gethostname()}
    put_record(bundle, "a", "local-x", "running", scheduler="none", pid=os.getpid(), host=host)
    assert look(bundle).stage("a").state is StageState.LOST


def test_a_script_started_by_hand_elsewhere_is_unknown(bundle: Bundle) -> None:
    put_record(bundle, "a", "local-x", "running", scheduler="none", pid=1)
    one = look(bundle).stage("a")
    assert one.state is StageState.UNKNOWN
    assert "on elsewhere" in (one.reason or "")
    assert not one.may_run, "a resubmit is the user's own decision"


def test_a_second_start_that_was_refused_does_not_hide_the_one_that_runs(bundle: Bundle) -> None:
    put_record(bundle, "a", "17", "running", name="handmade-a")
    put_record(bundle, "a", "18", "refused", name="handmade-a", started_utc="2026-01-02T03:05:05Z")
    mine = replace(info("17", JobState.RUNNING), name="handmade-a")
    one = look(bundle, {"17": mine}).stage("a")
    assert (one.job_id, one.state) == ("17", StageState.RUNNING)


# --- the whole


@pytest.mark.parametrize(
    ("first", "second", "whole"),
    [
        (JobState.COMPLETED, JobState.COMPLETED, StageState.COMPLETED),
        (JobState.COMPLETED, JobState.RUNNING, StageState.RUNNING),
        (JobState.RUNNING, JobState.PENDING, StageState.RUNNING),
        (JobState.FAILED, JobState.CANCELLED, StageState.FAILED),
        (JobState.COMPLETED, JobState.TIMEOUT, StageState.TIMEOUT),
    ],
)
def test_the_state_of_the_whole(
    bundle: Bundle, first: JobState, second: JobState, whole: StageState
) -> None:
    jobs = {"a": {"job_id": "17"}, "b": {"job_id": "18"}}
    write_jobs_json(bundle.path, stage="all", jobs=jobs, commands=[])
    for stage, job_id, state in (("a", "17", first), ("b", "18", second)):
        if state is JobState.COMPLETED:
            put_record(bundle, stage, job_id, "completed")
    scheduler = Told({"17": info("17", first), "18": info("18", second)})
    assert run_status(bundle, manifest_of(bundle), scheduler).state is whole
    assert scheduler.asked == [["17", "18"]], "one batched question"


def test_wait_tells_changes_and_slows_down(bundle: Bundle) -> None:
    submitted(bundle)
    put_record(bundle, "a", "17", "completed")
    pending, running = info("17", JobState.PENDING), info("17", JobState.RUNNING)
    ended = info("17", JobState.COMPLETED)
    answers = [{"17": one} for one in (pending, pending, pending, running, ended)]
    told: list[str] = []
    pauses: list[float] = []
    status = wait(
        bundle,
        manifest_of(bundle),
        Told(*answers),
        poll=1.0,
        on_change=lambda status: told.append(status.stage("a").state.value),
        sleep=pauses.append,
    )
    assert told == ["pending", "running", "completed"]
    assert pauses[0] == 1.0
    assert pauses[1] > 1.0
    assert pauses[3] == 1.0, "fast again after a change"
    assert status.stage("a").state is StageState.COMPLETED


def test_the_time_that_passes_is_no_change(bundle: Bundle) -> None:
    submitted(bundle)
    answers = [{"17": info("17", JobState.RUNNING, elapsed_s=second)} for second in range(5)]
    put_record(bundle, "a", "17", "completed")
    told: list[RunStatus] = []
    ended = {"17": info("17", JobState.COMPLETED)}
    scheduler = Told(*answers, ended)
    wait(bundle, manifest_of(bundle), scheduler, on_change=told.append, sleep=lambda s: None)
    assert [one.stage("a").state.value for one in told] == ["running", "completed"]


def test_wait_gives_a_lagging_record_some_time(bundle: Bundle) -> None:
    submitted(bundle)
    looks = 0

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            put_record(bundle, "a", "17", "completed")

    ended = Told({"17": info("17", JobState.COMPLETED)})
    status = wait(bundle, manifest_of(bundle), ended, sleep=sleep)
    assert (looks, status.stage("a").state) == (3, StageState.COMPLETED)


def test_wait_does_not_wait_for_ever_for_what_nobody_knows(bundle: Bundle) -> None:
    submitted(bundle)
    pauses: list[float] = []
    status = wait(bundle, manifest_of(bundle), Told(SILENT), sleep=pauses.append)
    assert status.stage("a").state is StageState.UNKNOWN
    assert 2 < len(pauses) < 20


def test_a_record_is_read_from_where_it_was_put(bundle: Bundle) -> None:
    record: StageRecord = read_record(put_record(bundle, "a", "17", "completed"))
    assert record.seal == DIGEST

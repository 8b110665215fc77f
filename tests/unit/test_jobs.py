import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from handmade import FakeSlurm, eventually, make_bundle, manifest_of, put_record

from valska.external_tools.core.errors import (
    PrerequisiteError,
    SubmissionError,
    UsageError,
    ValskaError,
    VerificationError,
)
from valska.external_tools.core.jobs import (
    JobsError,
    Submission,
    archive_jobs_json,
    cancel,
    has_submitted_stage,
    load_jobs_json,
    submit,
    write_jobs_json,
)
from valska.external_tools.core.local import Local
from valska.external_tools.core.lock import LockedError, directory_lock
from valska.external_tools.core.process import Completed, Stop, run
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import OutcomeUnknownError
from valska.external_tools.core.slurm import Slurm
from valska.external_tools.core.status import StageState, run_status, wait
from valska.external_tools.core.submission import jobsfile
from valska.external_tools.core.submission.intents import Clock

CHAIN: dict[str, dict[str, Any]] = {
    "prepare": {},
    "fit": {"after": ["prepare"]},
    "compare": {"after": ["prepare", "fit"]},
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "a bundle's $place", CHAIN)


@pytest.fixture
def fake(tmp_path: Path) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm")


def slurm(fake: FakeSlurm, **changes: Any) -> Slurm:
    def run_there(
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        capture: bool = True,
        stop: Stop | None = None,
    ) -> Completed:
        known = {"FAKE_SLURM": str(fake.path), "PATH": fake.environment["PATH"]}
        program = Path(__file__).parents[1] / "data/fakeslurm" / argv[0]
        return run(
            [str(program), *argv[1:]],
            cwd=cwd,
            env={**(env or {}), **known},
            timeout=timeout,
            stop=stop,
        )

    options = {"run": run_there, "settle_s": 0.0, "sleep": lambda seconds: None}
    return Slurm(**{**options, **changes})


def send(bundle: Bundle, fake: FakeSlurm, **options: Any) -> Submission:
    scheduler = options.pop("scheduler", None) or slurm(fake)
    options = {"settle_s": 0.0, **options}
    return submit(bundle, manifest_of(bundle), scheduler, **options)


def names(fake: FakeSlurm) -> list[str]:
    """Return the stages of all jobs that were ever accepted."""
    return [name.split("-", 2)[2] for name, _ in fake.jobs().values()]


def finish(bundle: Bundle, fake: FakeSlurm, stage: str, state: str = "COMPLETED") -> str:
    """End the last job of a stage."""
    job_id = str(stored(bundle)["jobs"][stage]["job_id"])
    fake.set_state(job_id, state)
    recorded = "completed" if state == "COMPLETED" else "failed"
    put_record(bundle, stage, job_id, recorded, name=stored(bundle)["jobs"][stage]["name"])
    return job_id


def stored(bundle: Bundle) -> dict[str, Any]:
    data = load_jobs_json(bundle.path)
    assert data is not None
    return data


# --- the file


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write_jobs_json(
        tmp_path,
        stage="all",
        jobs={"fit": {"job_id": "7", "script": "submit_fit.sh"}},
        commands=[["sbatch", "submit_fit.sh"]],
        extra_fields={"token": "0a1b2c3d"},
        submitted_utc="2026-01-02T03:04:05Z",
    )
    assert path == tmp_path / "jobs.json"
    assert load_jobs_json(tmp_path) == {
        "schema_version": "1.0",
        "run_dir": str(tmp_path),
        "manifest": "manifest.json",
        "submitted_utc": "2026-01-02T03:04:05Z",
        "stage": "all",
        "dry_run": False,
        "sbatch": "sbatch",
        "jobs": {"fit": {"job_id": "7", "script": "submit_fit.sh"}},
        "commands": [["sbatch", "submit_fit.sh"]],
        "token": "0a1b2c3d",
    }


def test_no_file_is_none(tmp_path: Path) -> None:
    assert load_jobs_json(tmp_path) is None
    assert archive_jobs_json(tmp_path) is None


def test_extra_fields_replace_nothing(tmp_path: Path) -> None:
    with pytest.raises(JobsError, match="run_dir"):
        write_jobs_json(tmp_path, stage="all", jobs={}, commands=[], extra_fields={"run_dir": "x"})
    assert not (tmp_path / "jobs.json").exists()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "not JSON"),
        ("[]", "object"),
        ('{"schema_version": "1.0"}', "run_dir"),
        ('{"schema_version": "2.0"}', "2.0"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "jobs.json").write_text(text)
    with pytest.raises(JobsError, match=what) as caught:
        load_jobs_json(tmp_path)
    assert caught.value.hint


def test_archives_of_one_second_do_not_replace_each_other(tmp_path: Path) -> None:
    archived = []
    for number in ("1", "2", "3"):
        write_jobs_json(tmp_path, stage="all", jobs={"fit": {"job_id": number}}, commands=[])
        archived.append(archive_jobs_json(tmp_path, stamp="20260102T030405Z"))
    assert load_jobs_json(tmp_path) is None
    ids = [json.loads(path.read_text())["jobs"]["fit"]["job_id"] for path in archived if path]
    assert ids == ["1", "2", "3"]
    assert [path.name for path in archived if path] == [
        f"jobs_20260102T030405Z{number}.json" for number in ("", "-2", "-3")
    ]


def test_an_archive_can_leave_the_file_in_place(tmp_path: Path) -> None:
    write_jobs_json(tmp_path, stage="all", jobs={}, commands=[])
    archived = archive_jobs_json(tmp_path, keep=True)
    assert archived is not None
    assert archived.read_text() == (tmp_path / "jobs.json").read_text()


def test_which_stages_were_submitted() -> None:
    jobs = {"jobs": {"fit": {"job_id": "7"}, "intent": {"job_id": None}}}
    assert has_submitted_stage(jobs, "fit")
    assert has_submitted_stage(jobs, "intent"), "it may have been sent"
    assert not has_submitted_stage(jobs, "other")
    assert not has_submitted_stage({**jobs, "dry_run": True}, "fit")
    assert not has_submitted_stage(None, "fit")


def test_the_fields_of_an_entry_belong_to_the_schema_version() -> None:
    schema = json.loads((Path(__file__).parents[2] / "schemas/jobs-1.schema.json").read_text())
    fields = set(jobsfile.JobEntry.__dataclass_fields__) - {"stage"}
    assert set(schema["$defs"]["job"]["properties"]) == fields


# --- submitting


def test_stages_are_chained_up_front_and_written_down(bundle: Bundle, fake: FakeSlurm) -> None:
    found = send(bundle, fake, new_token=lambda: "0a1b2c3d")
    assert [job.job_id for job in found.jobs.values()] == ["100", "101", "102"]
    assert fake.dependencies() == {"100": "", "101": "afterok:100", "102": "afterok:100:101"}
    data = stored(bundle)
    assert data["token"] == "0a1b2c3d"
    assert (data["stage"], data["scheduler"], data["sbatch"]) == ("all", "slurm", "sbatch")
    assert len(data["seal"]) == 64
    assert data["jobs"]["compare"]["dependency"] == "afterok:100:101"
    assert [command[0] for command in data["commands"]] == ["sbatch"] * 3
    assert all("--kill-on-invalid-dep=yes" in command for command in data["commands"][1:])
    assert all(command[-1] == data["seal"] for command in data["commands"])
    assert not bundle.submit_lock.exists()


def test_the_intent_is_on_disk_before_sbatch_is_called(bundle: Bundle, fake: FakeSlurm) -> None:
    seen = []
    inner = slurm(fake).run

    def look(argv: Sequence[str], **options: Any) -> Completed:
        if argv[0] == "sbatch":
            jobs = stored(bundle)["jobs"]
            seen.append({stage: job["job_id"] for stage, job in jobs.items()})
        return inner(argv, **options)

    send(bundle, fake, scheduler=slurm(fake, run=look))
    assert seen == [
        {"prepare": None},
        {"prepare": "100", "fit": None},
        {"prepare": "100", "fit": "101", "compare": None},
    ]


def test_a_dry_run_touches_nothing(bundle: Bundle, fake: FakeSlurm) -> None:
    before = sorted(path.name for path in bundle.path.iterdir())
    found = send(bundle, fake, dry_run=True, extra=["time=10"])
    assert sorted(path.name for path in bundle.path.iterdir()) == before
    assert fake.jobs() == {}
    assert found.commands[1][2:5] == (
        f"--job-name=vk-{found.token}-fit", "--dependency=afterok:<prepare>",
        "--kill-on-invalid-dep=yes",
    )  # fmt: skip
    assert "--time=10" in found.commands[0]


def test_an_altered_bundle_is_not_submitted(bundle: Bundle, fake: FakeSlurm) -> None:
    with bundle.script("fit").open("a") as script:
        script.write("\n")
    with pytest.raises(VerificationError, match=r"submit_fit\.sh") as caught:
        send(bundle, fake)
    assert caught.value.exit_code == 5
    assert fake.jobs() == {}


def test_a_live_stage_is_refused_also_with_resubmit(bundle: Bundle, fake: FakeSlurm) -> None:
    send(bundle, fake)
    for resubmit in (False, True):
        with pytest.raises(SubmissionError, match="prepare is pending already") as caught:
            send(bundle, fake, resubmit=resubmit)
        assert caught.value.exit_code == 4
        assert "valska cancel" in (caught.value.hint or "")
    assert len(fake.jobs()) == 3


def test_a_completed_stage_needs_resubmit(bundle: Bundle, fake: FakeSlurm) -> None:
    send(bundle, fake, stages=["prepare"])
    finish(bundle, fake, "prepare")
    with pytest.raises(SubmissionError, match="prepare was run before and is completed") as caught:
        send(bundle, fake)
    assert "--resubmit" in (caught.value.hint or "")


def test_resubmit_archives_the_earlier_file_and_counts_the_attempt(
    bundle: Bundle, fake: FakeSlurm
) -> None:
    send(bundle, fake, stages=["prepare"])
    finish(bundle, fake, "prepare", "FAILED")
    found = send(bundle, fake, stages=["prepare"], resubmit=True)
    assert found.archived is not None
    assert json.loads(found.archived.read_text())["jobs"]["prepare"]["job_id"] == "100"
    assert (found.jobs["prepare"].job_id, found.jobs["prepare"].attempt) == ("101", 2)


def test_resume_sends_only_what_has_neither_completed_nor_waits(
    bundle: Bundle, fake: FakeSlurm
) -> None:
    send(bundle, fake, stages=["prepare", "fit"])
    finish(bundle, fake, "prepare")
    finish(bundle, fake, "fit", "TIMEOUT")
    found = send(bundle, fake, resume=True)
    assert (found.kept, names(fake)[2:]) == (("prepare",), ["fit", "compare"])
    assert found.archived is not None
    assert json.loads(found.archived.read_text())["jobs"]["fit"]["job_id"] == "101"
    assert (found.jobs["fit"].attempt, found.jobs["prepare"].job_id) == (2, "100")
    assert fake.dependencies()["103"] == "afterok:102"
    again = send(bundle, fake, resume=True)
    assert (again.kept, again.commands) == (("prepare", "fit", "compare"), ())
    assert len(fake.jobs()) == 4


def test_only_a_stage_that_can_is_told_to_go_on(bundle: Bundle, fake: FakeSlurm) -> None:
    data = json.loads(bundle.manifest.read_text())
    for stage in data["stages"]:
        if stage["name"] == "fit":
            stage["resume"] = {"pattern": "fit/*/resume.dat", "option": "--from"}
    bundle.manifest.write_text(json.dumps(data))
    seal = "a" * 64
    found = send(bundle, fake, resume=True, seal=seal)
    assert [command[-2:] for command in found.commands] == [
        ("submit_prepare.sh", seal), (seal, "--resume"), ("submit_compare.sh", seal),
    ]  # fmt: skip
    dry = send(bundle, fake, resume=True, dry_run=True, seal=seal)
    assert (dry.commands, dry.kept) == ((), ("prepare", "fit", "compare"))


def test_an_end_that_is_not_clear_is_not_run_again_by_resume(
    bundle: Bundle, fake: FakeSlurm
) -> None:
    send(bundle, fake, stages=["prepare"])
    fake.set_state("100", "COMPLETED")
    with pytest.raises(SubmissionError, match="what became of stage prepare"):
        send(bundle, fake, resume=True, stages=["prepare"])
    assert send(bundle, fake, resubmit=True, stages=["prepare"]).jobs["prepare"].job_id == "101"


def test_resume_and_resubmit_do_not_go_together(bundle: Bundle, fake: FakeSlurm) -> None:
    with pytest.raises(UsageError, match="do not go together"):
        send(bundle, fake, resume=True, resubmit=True)


def test_a_full_queue_is_not_waited_for(bundle: Bundle, fake: FakeSlurm) -> None:
    (fake.path / "most").write_text("1 full\n")
    with pytest.raises(SubmissionError, match="queue is full") as caught:
        send(bundle, fake)
    assert "prepare (job 100)" in caught.value.message
    assert {stage: job["job_id"] for stage, job in stored(bundle)["jobs"].items()} == {
        "prepare": "100"
    }


def test_a_stage_that_ran_by_hand_needs_resubmit(bundle: Bundle, fake: FakeSlurm) -> None:
    put_record(bundle, "prepare", "local-x", "completed", scheduler="none")
    with pytest.raises(SubmissionError, match="prepare was run before"):
        send(bundle, fake, stages=["prepare"])
    assert send(bundle, fake, stages=["prepare"], resubmit=True).archived is None


def test_one_stages_submission_never_forgets_anothers(bundle: Bundle, fake: FakeSlurm) -> None:
    send(bundle, fake, stages=["prepare"])
    send(bundle, fake, stages=["fit"])
    data = stored(bundle)
    assert {stage: job["job_id"] for stage, job in data["jobs"].items()} == {
        "prepare": "100", "fit": "101",
    }  # fmt: skip
    assert data["stage"] == "fit"
    assert len(data["commands"]) == 2
    assert fake.dependencies()["101"] == "afterok:100"


def test_a_completed_parent_is_no_dependency(bundle: Bundle, fake: FakeSlurm) -> None:
    send(bundle, fake, stages=["prepare"])
    finish(bundle, fake, "prepare")
    send(bundle, fake, stages=["fit"])
    assert fake.dependencies()["101"] == ""


def test_a_parent_that_failed_or_was_never_submitted_is_named(
    bundle: Bundle, fake: FakeSlurm
) -> None:
    with pytest.raises(PrerequisiteError, match="needs prepare, which is not") as caught:
        send(bundle, fake, stages=["fit"])
    assert caught.value.exit_code == 3
    send(bundle, fake, stages=["prepare"])
    finish(bundle, fake, "prepare", "FAILED")
    with pytest.raises(PrerequisiteError, match="which is failed"):
        send(bundle, fake, stages=["fit"])
    assert not stored(bundle)["jobs"].get("fit")


def test_a_stage_is_not_run_again_under_a_live_dependant(bundle: Bundle, fake: FakeSlurm) -> None:
    send(bundle, fake)
    finish(bundle, fake, "prepare")
    with pytest.raises(SubmissionError, match=r"fit \(job 101\) uses"):
        send(bundle, fake, stages=["prepare"], resubmit=True)


def test_an_unknown_stage_is_refused(bundle: Bundle, fake: FakeSlurm) -> None:
    with pytest.raises(ValskaError, match="no stage 'fti'") as caught:
        send(bundle, fake, stages=["fti"])
    assert caught.value.exit_code == 2


def test_a_wrong_option_is_refused_before_anything_happens(bundle: Bundle, fake: FakeSlurm) -> None:
    with pytest.raises(UsageError):
        send(bundle, fake, extra=["job-name=mine"])
    assert not bundle.jobs.exists()


def test_two_submits_do_not_meet(bundle: Bundle, fake: FakeSlurm) -> None:
    with directory_lock(bundle.submit_lock), pytest.raises(LockedError):
        send(bundle, fake)
    assert fake.jobs() == {}


def test_a_scheduler_that_does_not_answer_stops_a_second_submit(
    bundle: Bundle, fake: FakeSlurm
) -> None:
    send(bundle, fake)
    (fake.path / "down").touch()
    with pytest.raises(SubmissionError, match="is not known"):
        send(bundle, fake, resubmit=True)
    assert len(fake.jobs()) == 3


# --- sbatch fails


def test_a_refused_first_stage_leaves_nothing_behind(bundle: Bundle, fake: FakeSlurm) -> None:
    fake.fault("refuse")
    with pytest.raises(SubmissionError, match="Invalid account or"):
        send(bundle, fake)
    assert not bundle.jobs.exists()
    assert run_status(bundle, manifest_of(bundle), slurm(fake)).state is StageState.NOT_SUBMITTED


def refuse_second(fake: FakeSlurm) -> Slurm:
    inner = slurm(fake).run

    def refuse(argv: Sequence[str], **options: Any) -> Completed:
        if argv[0] == "sbatch" and fake.jobs():
            fake.fault("refuse")
        return inner(argv, **options)

    return slurm(fake, run=refuse)


def test_a_refused_second_stage_keeps_the_first(bundle: Bundle, fake: FakeSlurm) -> None:
    with pytest.raises(SubmissionError, match="Invalid account") as caught:
        send(bundle, fake, scheduler=refuse_second(fake))
    assert "prepare (job 100)" in caught.value.message
    assert "--stage fit --stage compare`" in (caught.value.hint or "")
    assert caught.value.exit_code == 4
    assert {stage: job["job_id"] for stage, job in stored(bundle)["jobs"].items()} == {
        "prepare": "100"
    }
    send(bundle, fake, stages=["fit", "compare"])
    assert names(fake) == ["prepare", "fit", "compare"]


def test_a_refused_resubmit_leaves_the_earlier_submission(bundle: Bundle, fake: FakeSlurm) -> None:
    send(bundle, fake, stages=["prepare"])
    finish(bundle, fake, "prepare", "FAILED")
    before = stored(bundle)
    fake.fault("refuse")
    with pytest.raises(SubmissionError):
        send(bundle, fake, stages=["prepare"], resubmit=True)
    assert stored(bundle) == before
    assert list(bundle.path.glob("jobs_*.json")) == []


@pytest.mark.parametrize("fault", ["timeout-after", "hang-after", "garble"])
def test_a_job_taken_by_an_sbatch_that_failed_to_say_so_is_adopted(
    bundle: Bundle, fake: FakeSlurm, fault: str
) -> None:
    fake.fault(fault)
    found = send(bundle, fake, scheduler=slurm(fake, sbatch_timeout_s=1.0))
    assert [job.job_id for job in found.jobs.values()] == ["100", "101", "102"]
    assert names(fake) == ["prepare", "fit", "compare"]


@pytest.mark.parametrize("fault", ["timeout-before", "hang-before"])
def test_a_job_that_cannot_be_found_is_unknown_and_never_sent_blindly(
    bundle: Bundle, fake: FakeSlurm, fault: str
) -> None:
    fake.fault(fault)
    with pytest.raises(OutcomeUnknownError, match="not known") as caught:
        send(bundle, fake, scheduler=slurm(fake, sbatch_timeout_s=1.0))
    assert "looks for the job first" in (caught.value.hint or "")
    assert stored(bundle)["jobs"]["prepare"]["job_id"] is None
    status = run_status(bundle, manifest_of(bundle), slurm(fake))
    assert status.stage("prepare").state is StageState.UNCONFIRMED
    assert names(fake) == []
    found = send(bundle, fake)
    assert (found.found, names(fake)) == ((), ["prepare", "fit", "compare"])


def unclear(bundle: Bundle, fake: FakeSlurm) -> str:
    """Leave an intent behind, and return the name of its job."""
    fake.fault("timeout-before")
    with pytest.raises(OutcomeUnknownError):
        send(bundle, fake)
    return str(stored(bundle)["jobs"]["prepare"]["name"])


def test_an_old_intent_is_looked_for_until_it_is_old_enough(
    bundle: Bundle, fake: FakeSlurm
) -> None:
    name = unclear(bundle, fake)
    now = datetime.now(UTC)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += timedelta(seconds=seconds)
        slept.append(seconds)
        if len(slept) == 3:
            with (fake.path / "queue").open("a") as queue:
                queue.write(f"555|PENDING|None|0:00|1:00|{name}\n")

    found = send(bundle, fake, settle_s=60.0, clock=Clock(lambda: now, sleep))
    assert found.found == ("prepare",)
    assert found.jobs["prepare"].job_id == "555"
    assert names(fake) == ["prepare", "fit", "compare"]


def test_an_intent_is_only_dropped_after_the_settling_time(bundle: Bundle, fake: FakeSlurm) -> None:
    unclear(bundle, fake)
    now = datetime.now(UTC)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += timedelta(seconds=seconds)
        slept.append(seconds)

    send(bundle, fake, settle_s=60.0, clock=Clock(lambda: now, sleep))
    assert 50 < sum(slept) < 90
    assert names(fake) == ["prepare", "fit", "compare"]


def test_an_intent_is_not_dropped_while_the_scheduler_is_silent(
    bundle: Bundle, fake: FakeSlurm
) -> None:
    unclear(bundle, fake)
    (fake.path / "down").touch()
    with pytest.raises(OutcomeUnknownError, match="stage prepare was sent is not known"):
        send(bundle, fake)
    assert stored(bundle)["jobs"]["prepare"]["job_id"] is None
    assert names(fake) == []


def test_a_lost_job_that_ended_already_is_known_by_its_record(
    bundle: Bundle, fake: FakeSlurm
) -> None:
    name = unclear(bundle, fake)
    put_record(bundle, "prepare", "77", "completed", name=name)
    found = send(bundle, fake)
    assert found.found == ("prepare",)
    assert found.jobs["prepare"].job_id == "77"
    assert fake.dependencies() == {"100": "", "101": "afterok:100"}


def test_a_lost_job_is_found_in_the_accounts(bundle: Bundle, fake: FakeSlurm) -> None:
    name = unclear(bundle, fake)
    (fake.path / "accounts").write_text(f"88|COMPLETED|0:0|None|5|1|{name}\n")
    put_record(bundle, "prepare", "88", "completed")
    assert send(bundle, fake).jobs["prepare"].job_id == "88"


def test_a_full_disk_before_sbatch_sends_nothing(
    bundle: Bundle, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise ValskaError("cannot write jobs.json: No space left on device")

    monkeypatch.setattr("valska.external_tools.core.submission.jobsfile.write_json_atomic", full)
    with pytest.raises(ValskaError, match="No space left"):
        send(bundle, fake)
    assert names(fake) == []
    assert not bundle.jobs.exists()


def test_a_users_slurm_variables_do_not_override_the_script(
    bundle: Bundle, fake: FakeSlurm
) -> None:
    environment = {**os.environ, "SBATCH_EXPORT": "NONE", "SBATCH_TIMELIMIT": "1"}
    send(bundle, fake, stages=["prepare"], scheduler=slurm(fake, environment=environment))
    assert (fake.path / "environment-100").read_text() == ""


# --- killed


def killed(action: Callable[[], object], at: int | None = None) -> int:
    """Run something in a child that is killed before its n-th effect; return the wait status."""
    child = os.fork()
    if child == 0:
        if at is not None:
            sys.addaudithook(_killer(at))
        try:
            action()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def _killer(at: int) -> Callable[[str, tuple[Any, ...]], None]:
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event in (
            "os.rename",
            "os.link",
            "os.mkdir",
            "os.rmdir",
            "os.remove",
            "subprocess.Popen",
        ):
            pass
        elif event != "open" or not isinstance(args[2], int) or not args[2] & os.O_CREAT:
            return
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def abandon_lock(bundle: Bundle) -> None:
    """Let a lock whose owner was killed while taking it be old enough."""
    if bundle.submit_lock.exists() and not list(bundle.submit_lock.iterdir()):
        os.utime(bundle.submit_lock, (1, 1))


@pytest.mark.parametrize("fault", ["kill-before", "kill-after"])
def test_a_submit_killed_around_sbatchs_acceptance_sends_nothing_twice(
    bundle: Bundle, fake: FakeSlurm, fault: str
) -> None:
    fake.fault(fault)
    assert killed(lambda: send(bundle, fake)) == signal.SIGKILL
    assert stored(bundle)["jobs"]["prepare"]["job_id"] is None
    assert names(fake) == (["prepare"] if fault == "kill-after" else [])
    found = send(bundle, fake)
    assert names(fake) == ["prepare", "fit", "compare"]
    assert [job.job_id for job in found.jobs.values()] == ["100", "101", "102"]
    assert found.found == (("prepare",) if fault == "kill-after" else ())


def test_a_submit_killed_before_any_of_its_effects_is_taken_up(tmp_path: Path) -> None:
    at, ended = 0, False
    while not ended:
        at += 1
        bundle = make_bundle(tmp_path / f"b{at}", CHAIN)
        fake = FakeSlurm(tmp_path / f"s{at}")
        ended = killed(lambda b=bundle, f=fake: send(b, f), at) == 0  # type: ignore[misc]
        if bundle.jobs.exists():
            stored(bundle)
        abandon_lock(bundle)
        if not ended and len(names(fake)) < 3:
            send(bundle, fake)
        assert names(fake) == ["prepare", "fit", "compare"], f"killed before effect {at}"
    ids = {stage: job["job_id"] for stage, job in stored(bundle)["jobs"].items()}
    assert ids == {"prepare": "100", "fit": "101", "compare": "102"}
    assert at > 15, "the effects were counted"


def test_a_resubmit_killed_before_any_of_its_effects_doubles_nothing(tmp_path: Path) -> None:
    at, ended = 0, False
    while not ended:
        at += 1
        bundle = make_bundle(tmp_path / f"b{at}", {"prepare": {}})
        fake = FakeSlurm(tmp_path / f"s{at}")
        send(bundle, fake)
        finish(bundle, fake, "prepare", "FAILED")
        again = {"resubmit": True}
        status = killed(lambda b=bundle, f=fake, o=again: send(b, f, **o), at)  # type: ignore[misc]
        ended = status == 0
        assert "prepare" in stored(bundle)["jobs"], "there is no moment without jobs.json"
        abandon_lock(bundle)
        if len(names(fake)) < 2:
            send(bundle, fake, **again)
        else:
            with pytest.raises(SubmissionError) if ended else _nothing():
                send(bundle, fake, **again)
        assert names(fake) == ["prepare", "prepare"], f"killed before effect {at}"


class _nothing:  # noqa: N801
    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, value: object, trace: object) -> bool:
        return kind is not None and issubclass(kind, SubmissionError)  # type: ignore[arg-type]


def test_a_local_submit_killed_before_any_of_its_effects_runs_each_stage_once(
    tmp_path: Path,
) -> None:
    at, ended = 0, False
    while not ended:
        at += 1
        bundle = make_bundle(tmp_path / f"b{at}", {"prepare": {}, "fit": {"after": ["prepare"]}})
        manifest = manifest_of(bundle)
        go = lambda b=bundle, m=manifest: submit(b, m, Local())  # noqa: E731
        ended = killed(go, at) == 0
        abandon_lock(bundle)
        if not ended:
            try:
                go()
            except SubmissionError as error:
                assert "prepare" in error.message  # noqa: PT017
        eventually(lambda b=bundle: ran(b) == ["prepare", "fit"])
        wait(bundle, manifest, Local(), poll=0.02)
        assert run_status(bundle, manifest, Local()).state is StageState.COMPLETED
        assert ran(bundle) == ["prepare", "fit"], f"killed before effect {at}"
    assert at > 8, "the effects were counted"


def ran(bundle: Bundle) -> list[str]:
    path = bundle.outputs / "ran"
    return path.read_text().split() if path.exists() else []


def test_an_sbatch_that_outlived_its_killed_submit_is_waited_for(
    bundle: Bundle, fake: FakeSlurm
) -> None:
    name = unclear(bundle, fake)
    sender = subprocess.Popen(["bash", "-c", "read -r", "sbatch", f"--job-name={name}"],
                              stdin=subprocess.PIPE)  # fmt: skip
    try:
        with pytest.raises(OutcomeUnknownError, match=f"process {sender.pid} is still sending"):
            send(bundle, fake)
    finally:
        sender.communicate()
    assert names(fake) == []
    send(bundle, fake)
    assert names(fake) == ["prepare", "fit", "compare"]


# --- cancelling


def test_waiting_stages_are_cancelled_dependants_first(bundle: Bundle, fake: FakeSlurm) -> None:
    send(bundle, fake)
    found = cancel(bundle, manifest_of(bundle), slurm(fake), stages=["fit"], settle_s=0.0)
    assert found.cancelled == ("fit", "compare")
    assert [call for call in fake.calls() if call.startswith("scancel")] == [
        "scancel --state=PENDING 102 101"
    ]
    states = {one.stage: one.state for one in run_status(
        bundle, manifest_of(bundle), slurm(fake)
    ).stages}  # fmt: skip
    assert states == {
        "prepare": StageState.PENDING, "fit": StageState.CANCELLED, "compare": StageState.CANCELLED,
    }  # fmt: skip
    assert stored(bundle)["jobs"]["fit"]["cancelled_utc"]
    assert not stored(bundle)["jobs"]["prepare"]["cancelled_utc"]


def test_a_dry_run_of_cancel_names_the_same_stages_and_touches_nothing(
    bundle: Bundle, fake: FakeSlurm
) -> None:
    send(bundle, fake)
    before = stored(bundle)
    found = cancel(bundle, manifest_of(bundle), slurm(fake), stages=["fit"], dry_run=True)
    assert found.cancelled == ("fit", "compare")
    assert found.not_live == ()
    assert not [call for call in fake.calls() if call.startswith("scancel")]
    assert stored(bundle) == before


def test_nothing_live_is_nothing_to_cancel(bundle: Bundle, fake: FakeSlurm) -> None:
    found = cancel(bundle, manifest_of(bundle), slurm(fake))
    assert found.cancelled == ()
    assert found.not_live == ("prepare", "fit", "compare")


def test_a_job_lost_in_a_crash_is_found_and_cancelled(bundle: Bundle, fake: FakeSlurm) -> None:
    fake.fault("kill-after")
    assert killed(lambda: send(bundle, fake)) == signal.SIGKILL
    found = cancel(bundle, manifest_of(bundle), slurm(fake), settle_s=0.0)
    assert found.cancelled == ("prepare",)
    assert fake.jobs()["100"][1] == "CANCELLED"


def test_a_cancelled_stage_can_be_sent_again(bundle: Bundle, fake: FakeSlurm) -> None:
    send(bundle, fake)
    cancel(bundle, manifest_of(bundle), slurm(fake), settle_s=0.0)
    found = send(bundle, fake, resubmit=True)
    assert [job.attempt for job in found.jobs.values()] == [2, 2, 2]

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valska.external_tools.core.errors import PrerequisiteError, SubmissionError, UsageError
from valska.external_tools.core.process import Completed, ProcessTimeoutError, Stop
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import (
    JobRef,
    JobRequest,
    JobState,
    OutcomeUnknownError,
    SchedulerError,
)
from valska.external_tools.core.slurm import (
    Slurm,
    SlurmSubmissionError,
    build_dependency_string,
    parse_job_id,
    submit_script,
)
from valska.external_tools.core.slurm.answers import (
    STATES,
    expand_id,
    join_ids,
    parse_exit,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
    parse_state,
)
from valska.external_tools.core.slurm.limits import (
    Configuration,
    account_bounds,
    controller_bound,
    parse_config,
)
from valska.external_tools.core.slurm.text import (
    check_extra,
    parse_submission,
    slurm_environment,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BUNDLE = Bundle(Path("/bundles/a run"))

# As Slurm 22.05 prints them, with the formats that are asked for.
SQUEUE = """\
4|RUNNING|None|0:42|10:00|vk-0a1b2c3d-simulate
5|PENDING|Dependency|0:00|1-02:00:00|vk-0a1b2c3d-fit
6|PENDING|DependencyNeverSatisfied|0:00|UNLIMITED|a name | with a bar
7|COMPLETING|NonZeroExitCode|1:02:03|2:00:00|x
"""
SACCT = """\
4|COMPLETED|0:0|None|42|10|vk-0a1b2c3d-simulate
5|CANCELLED by 1000|0:0|None|0|1560|vk-0a1b2c3d-fit
6|FAILED|1:0|NonZeroExitCode|3|UNLIMITED|x
6.batch|FAILED|1:0||3||batch
7|TIMEOUT|0:0|None|71|1|y
8|OUT_OF_MEMORY|0:125|OutOfMemory|9|1|z
9|NODE_FAIL|1:0|None|9|1|z
9|COMPLETED|0:0|None|12|1|z
10|SOMETHING_NEW|0:0|None|12|1|z
"""
SCONTROL = (
    "JobId=12 JobName=a name UserId=valska-test(1000) GroupId=valska-test(1000) MCS_label=N/A "
    "Priority=4294901754 Nice=0 Account=(null) QOS=normal JobState=FAILED Reason=NonZeroExitCode "
    "Dependency=(null) Requeue=0 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=3:0 RunTime=00:01:05 "
    "TimeLimit=00:10:00 TimeMin=N/A SubmitTime=2026-01-02T03:04:05\n"
)


class Script:
    """Runs nothing: gives prepared answers in turn, and keeps what was asked."""

    def __init__(self, *answers: Completed | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, ...]] = []
        self.environments: list[Mapping[str, str]] = []

    def __call__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        capture: bool = True,
        stop: Stop | None = None,
    ) -> Completed:
        assert timeout is not None, "every call to Slurm is bounded"
        self.asked.append(tuple(argv))
        self.environments.append(env or {})
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return replace(answer, argv=tuple(argv))


def said(stdout: str = "", stderr: str = "", code: int = 0) -> Completed:
    return Completed((), code, stdout, stderr)


NO_ACCOUNTING = said(stderr="Slurm accounting storage is disabled\n", code=1)
INVALID_ID = said(stderr="slurm_load_jobs error: Invalid job id specified\n", code=1)
TIMED_OUT = said(stderr="slurm_load_jobs error: Socket timed out on send/recv operation\n", code=1)


def slurm(run: Script, **changes: object) -> Slurm:
    options: dict[str, object] = {
        "run": run, "environment": {}, "user": "1000", "sleep": lambda seconds: None,
        "now": lambda: NOW, "settle_s": 3.0,
    }  # fmt: skip
    return Slurm(**{**options, **changes})  # type: ignore[arg-type]


class Watched:
    def __init__(self) -> None:
        self.steps: list[tuple[str, ...]] = []

    def sending(self, request: JobRequest, argv: tuple[str, ...]) -> None:
        self.steps.append(("sending", *argv))

    def accepted(self, request: JobRequest, ref: JobRef) -> None:
        self.steps.append(("accepted", request.stage, ref.job_id))


# --- what sbatch answers


@pytest.mark.parametrize(
    ("text", "job_id", "cluster"),
    [
        ("Submitted batch job 7\n", "7", None),
        ("Submitted batch job 7 on cluster c1\n", "7", "c1"),
        ("7\n", "7", None),
        ("7;cluster\n", "7", "cluster"),
        ("Welcome!\nLoading defaults\n12;big-one.x\n\n", "12", "big-one.x"),
        ("submitted  batch job 9", "9", None),
    ],
)
def test_job_id_is_read(text: str, job_id: str, cluster: str | None) -> None:
    assert parse_job_id(text) == job_id
    assert parse_submission(text) == JobRef(job_id, cluster=cluster)


@pytest.mark.parametrize("text", ["", "\n", "ok", "Submitted batch job", "7 8", "-7", "7;a b"])
def test_an_answer_without_job_id_is_an_error(text: str) -> None:
    with pytest.raises(SlurmSubmissionError, match="no job id"):
        parse_job_id(text)


@given(st.text())
def test_no_answer_breaks_the_parsers(text: str) -> None:
    parse_squeue(text)
    parse_sacct(text)
    parse_scontrol(text)
    assert isinstance(parse_state(text), JobState)


def test_dependency_strings() -> None:
    assert build_dependency_string(["12"]) == "afterok:12"
    assert build_dependency_string(["12", "13_4"], mode="afterany") == "afterany:12:13_4"


@pytest.mark.parametrize(
    ("ids", "mode"), [([], "afterok"), (["12; rm"], "afterok"), (["1"], "aftr"), (["-1"], "after")]
)
def test_impossible_dependencies_are_refused(ids: list[str], mode: str) -> None:
    with pytest.raises(SlurmSubmissionError):
        build_dependency_string(ids, mode)


# --- states


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("CANCELLED by 1000", JobState.CANCELLED),
        ("CANCELLED+", JobState.CANCELLED),
        ("BOOT_FAIL", JobState.NODE_FAIL),
        ("DEADLINE", JobState.TIMEOUT),
        ("OUT_OF_MEMORY", JobState.OUT_OF_MEMORY),
        ("REQUEUED", JobState.PENDING),
        ("CONFIGURING", JobState.PENDING),
        ("SUSPENDED", JobState.RUNNING),
        ("PR", JobState.PREEMPTED),
        ("CG", JobState.COMPLETING),
        ("QUANTUM", JobState.UNKNOWN),
        ("", JobState.UNKNOWN),
    ],
)
def test_words_for_states(word: str, state: JobState) -> None:
    assert parse_state(word) is state


def test_every_state_but_the_two_that_slurm_has_not_has_a_word() -> None:
    assert set(JobState) - set(STATES.values()) == {JobState.LOST, JobState.UNKNOWN}


def test_squeue_is_read() -> None:
    jobs = parse_squeue(SQUEUE)
    assert [job.state.value for job in jobs.values()] == [
        "RUNNING", "PENDING", "PENDING", "COMPLETING",
    ]  # fmt: skip
    assert (jobs["4"].elapsed_s, jobs["4"].limit_s, jobs["4"].reason) == (42, 600, None)
    assert (jobs["5"].reason, jobs["5"].limit_s) == ("Dependency", 93600)
    assert (jobs["6"].name, jobs["6"].limit_s) == ("a name | with a bar", None)


def test_sacct_is_read_without_steps_and_with_the_last_run_of_a_requeued_job() -> None:
    jobs = parse_sacct(SACCT)
    assert list(jobs) == ["4", "5", "6", "7", "8", "9", "10"]
    assert (jobs["5"].state, jobs["5"].word) == (JobState.CANCELLED, "CANCELLED by 1000")
    assert (jobs["6"].exit_code, jobs["6"].signal, jobs["6"].limit_s) == (1, None, None)
    assert (jobs["8"].exit_code, jobs["8"].signal) == (0, 125)
    assert (jobs["9"].state, jobs["9"].elapsed_s) == (JobState.COMPLETED, 12)
    assert (jobs["10"].state, jobs["10"].word) == (JobState.UNKNOWN, "SOMETHING_NEW")


def test_scontrol_is_read() -> None:
    job = parse_scontrol(SCONTROL)
    assert job is not None
    assert (job.job_id, job.name, job.state) == ("12", "a name", JobState.FAILED)
    assert (job.exit_code, job.elapsed_s, job.limit_s) == (3, 65, 600)
    assert parse_scontrol("") is None


def test_exit_codes() -> None:
    assert parse_exit("1:0") == (1, None)
    assert parse_exit("0:15") == (0, 15)
    assert parse_exit("") == (None, None)


# --- what Slurm sees of the environment


def test_variables_that_would_override_a_script_are_left_out() -> None:
    given_environment = {
        "HOME": "/h", "SLURM_CONF": "/c", "SLURM_CLUSTERS": "x", "SLURM_JOB_ID": "1",
        "SBATCH_EXPORT": "NONE", "SBATCH_TIMELIMIT": "1", "SBATCH_ACCOUNT": "a",
        "SBATCH_PARTITION": "p", "SQUEUE_STATES": "R", "SCANCEL_STATE": "PD", "SACCT_FORMAT": "x",
    }  # fmt: skip
    kept = slurm_environment(given_environment, {"partition": "mine"})
    assert kept == {"HOME": "/h", "SLURM_CONF": "/c", "SLURM_CLUSTERS": "x", "SBATCH_ACCOUNT": "a"}


def test_extra_options_are_checked() -> None:
    assert check_extra(["time=10", "--mem=1G", "exclusive"]) == (
        "--time=10", "--mem=1G", "--exclusive",
    )  # fmt: skip


@pytest.mark.parametrize(
    "text", ["-t 10", "--job-name=x", "--export=A=1", "--tiem=10", "time=", "--time=1\n2", "wrap=x"]
)
def test_extra_options_that_would_break_a_submission_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        check_extra([text])


# --- submit_script


def test_a_script_is_submitted() -> None:
    run = Script(said("12\n"))
    found = submit_script(Path("/b/submit_fit.sh"), dependency="afterok:7", cwd=Path("/b"), run=run)
    assert found == "12"
    assert run.asked == [
        (
            "sbatch", "--parsable", "--dependency=afterok:7", "--kill-on-invalid-dep=yes",
            "/b/submit_fit.sh",
        )
    ]  # fmt: skip


def test_a_dry_run_runs_nothing() -> None:
    run = Script()
    assert submit_script(Path("/b/submit_fit.sh"), dry_run=True, run=run) is None
    assert run.asked == []


def test_a_refusal_has_sbatchs_own_words() -> None:
    run = Script(said(stderr="sbatch: error: Invalid qos specification\n", code=1))
    with pytest.raises(SlurmSubmissionError, match="Invalid qos specification") as caught:
        submit_script(Path("x.sh"), run=run)
    assert not isinstance(caught.value, OutcomeUnknownError)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "answer",
    [
        ProcessTimeoutError("sbatch did not answer within 120 s"),
        said(stderr="sbatch: error: Socket timed out on send/recv operation", code=1),
        said(code=-9),
        said("Welcome to the cluster"),
    ],
)
def test_an_unclear_answer_is_not_called_a_refusal(answer: Completed | Exception) -> None:
    with pytest.raises(OutcomeUnknownError, match="not known"):
        submit_script(Path("x.sh"), run=Script(answer))


def test_a_missing_sbatch_is_a_missing_prerequisite() -> None:
    with pytest.raises(PrerequisiteError, match="no-such-sbatch"):
        submit_script(Path("x.sh"), sbatch="/no-such-sbatch")


# --- chains

CHAIN = (
    JobRequest("a", "vk-0a1b2c3d-a", "submit_a.sh", args=("5ea1",)),
    JobRequest("b", "vk-0a1b2c3d-b", "submit_b.sh", args=("5ea1",), after=("a",)),
    JobRequest("c", "vk-0a1b2c3d-c", "submit_c.sh", after=("a", "b"), extra=("--time=5",)),
)


def test_a_chain_is_sent_with_dependencies_and_each_step_is_told_in_time() -> None:
    run, watch = Script(said("7;c1"), said("8;c1"), said("9;c1")), Watched()
    slurm(run).submit(BUNDLE, CHAIN, watch)
    assert run.asked == [
        ("sbatch", "--parsable", "--job-name=vk-0a1b2c3d-a", "submit_a.sh", "5ea1"),
        (
            "sbatch", "--parsable", "--clusters=c1", "--job-name=vk-0a1b2c3d-b",
            "--dependency=afterok:7", "--kill-on-invalid-dep=yes", "submit_b.sh", "5ea1",
        ),
        (
            "sbatch", "--parsable", "--clusters=c1", "--job-name=vk-0a1b2c3d-c",
            "--dependency=afterok:7:8", "--kill-on-invalid-dep=yes", "--time=5", "submit_c.sh",
        ),
    ]  # fmt: skip
    assert [step[0] for step in watch.steps] == ["sending", "accepted"] * 3
    assert watch.steps[0][1:] == run.asked[0]


def test_a_dry_chain_names_ids_that_are_not_known_yet() -> None:
    commands = slurm(Script()).commands(CHAIN)
    assert "--dependency=afterok:<a>:<b>" in commands[2]


def test_sbatch_is_never_tried_again() -> None:
    refused = said(stderr="sbatch: error: Unable to contact slurm controller", code=1)
    run = Script(refused)
    with pytest.raises(SubmissionError):
        slurm(run).submit(BUNDLE, CHAIN[:1], Watched())
    assert len(run.asked) == 1


def test_a_job_taken_by_an_sbatch_that_timed_out_is_found_by_name() -> None:
    late = said("7|PENDING|None|0:00|1:00|vk-0a1b2c3d-a\n")
    run = Script(ProcessTimeoutError("no answer"), said(), NO_ACCOUNTING, late)
    watch = Watched()
    slurm(run).submit(BUNDLE, CHAIN[:1], watch)
    assert watch.steps[-1] == ("accepted", "a", "7")
    assert [argv[0] for argv in run.asked] == ["sbatch", "squeue", "sacct", "squeue"]


def test_a_job_that_is_not_found_in_time_stays_unknown() -> None:
    run = Script(ProcessTimeoutError("no answer"), *[said(), NO_ACCOUNTING] * 3)
    with pytest.raises(OutcomeUnknownError):
        slurm(run).submit(BUNDLE, CHAIN[:1], Watched())
    assert sum(argv[0] == "sbatch" for argv in run.asked) == 1


# --- finding and asking


def test_a_job_is_looked_for_by_name_and_user_in_queue_then_accounts() -> None:
    run = Script(said(), said("7|COMPLETED|0:0|None|1|1|vk-0a1b2c3d-a\n"))
    found = slurm(run).find(BUNDLE, None, "vk-0a1b2c3d-a", NOW)
    assert found is not None
    assert found.job_id == "7"
    for argv in run.asked:
        assert "--name=vk-0a1b2c3d-a" in argv
        assert "--user=1000" in argv
    assert any(option.startswith("--starttime=") for option in run.asked[1])


def test_a_job_of_another_name_is_not_taken_for_it() -> None:
    run = Script(said("7|RUNNING|None|0:01|1:00|vk-0a1b2c3d-ab\n"), NO_ACCOUNTING)
    assert slurm(run).find(BUNDLE, None, "vk-0a1b2c3d-a", NOW) is None


def test_each_cluster_that_sbatch_may_choose_is_asked() -> None:
    run = Script(said(), NO_ACCOUNTING, said("7|RUNNING|None|0:01|1:00|vk-0a1b2c3d-a\n"))
    chosen = slurm(run, environment={"SBATCH_CLUSTERS": "c1,c2"})
    found = chosen.find(BUNDLE, None, "vk-0a1b2c3d-a", NOW)
    assert found is not None
    assert found.cluster == "c2"
    assert "--clusters=c1" in run.asked[0]


@pytest.mark.parametrize(
    "answers",
    [
        [TIMED_OUT] * 4,
        [ProcessTimeoutError("no answer")] * 4,
        [said(), *[said(stderr="sacct: error: Problem talking to the database", code=1)] * 4],
        [said(stderr="squeue: error: something else", code=1)],
    ],
)
def test_silence_is_not_an_answer(answers: list[Completed | Exception]) -> None:
    with pytest.raises(SchedulerError):
        slurm(Script(*answers)).find(BUNDLE, None, "vk-0a1b2c3d-a", NOW)


def test_queries_are_tried_again_with_growing_pauses() -> None:
    pauses: list[float] = []
    keep: Callable[[float], None] = pauses.append
    run = Script(TIMED_OUT, TIMED_OUT, said(SQUEUE))
    jobs = slurm(run, sleep=keep).query(BUNDLE, [JobRef("4")])
    assert jobs["4"].state is JobState.RUNNING
    assert pauses == [1.0, 2.0]


def test_many_jobs_are_one_squeue_and_one_sacct() -> None:
    run = Script(said(SQUEUE.splitlines()[0] + "\n"), said(SACCT))
    jobs = slurm(run).query(BUNDLE, [JobRef(str(number)) for number in range(4, 12)])
    assert [argv[0] for argv in run.asked] == ["squeue", "sacct"]
    assert "--jobs=4,5,6,7,8,9,10,11" in run.asked[0]
    assert jobs["4"].state is JobState.RUNNING, "squeue is believed before the accounts"
    assert jobs["8"].state is JobState.OUT_OF_MEMORY
    assert "11" not in jobs


def test_live_jobs_need_no_accounts() -> None:
    run = Script(said(SQUEUE))
    slurm(run).query(BUNDLE, [JobRef("4"), JobRef("5")])
    assert len(run.asked) == 1


def test_an_id_that_now_belongs_to_another_job_is_unknown() -> None:
    run = Script(said(SQUEUE))
    assert slurm(run).query(BUNDLE, [JobRef("4", "vk-ffffffff-simulate")]) == {}


def test_a_name_that_has_not_reached_the_accounts_is_no_other_job() -> None:
    run = Script(INVALID_ID, said("12|FAILED|3:0|None|1|60|allocation\n"))
    jobs = slurm(run).query(BUNDLE, [JobRef("12", "vk-0a1b2c3d-a")])
    assert (jobs["12"].state, jobs["12"].exit_code) == (JobState.FAILED, 3)


def test_why_a_job_ended_is_known_to_the_controller_only() -> None:
    queued = said("12|CANCELLED|DependencyNeverSatisfied|0:00|1:00:00|x\n")
    jobs = slurm(Script(queued, said("12|CANCELLED|0:0|None|0|60|allocation\n"))).query(
        BUNDLE, [JobRef("12", "x")]
    )
    assert (jobs["12"].name, jobs["12"].reason) == ("x", "DependencyNeverSatisfied")


def test_without_accounts_the_controller_is_asked_for_the_exit_code() -> None:
    ended = said("12|FAILED|NonZeroExitCode|1:05|10:00|a name\n")
    jobs = slurm(Script(ended, NO_ACCOUNTING, said(SCONTROL))).query(BUNDLE, [JobRef("12")])
    assert (jobs["12"].state, jobs["12"].exit_code) == (JobState.FAILED, 3)


def test_a_job_that_nobody_knows_is_missing_from_the_answer() -> None:
    assert slurm(Script(INVALID_ID, NO_ACCOUNTING)).query(BUNDLE, [JobRef("12")]) == {}


def test_a_missing_sacct_is_no_accounting() -> None:
    run = Script(INVALID_ID, PrerequisiteError("no such program: sacct"))
    assert slurm(run).query(BUNDLE, [JobRef("12")]) == {}


def test_accounts_that_do_not_answer_leave_the_state_unknown() -> None:
    down = said(stderr="sacct: error: Problem talking to the database", code=1)
    jobs = slurm(Script(INVALID_ID, *[down] * 4)).query(BUNDLE, [JobRef("12")])
    assert jobs["12"].state is JobState.UNKNOWN
    assert "database" in (jobs["12"].reason or "")


def test_a_job_that_only_the_accounts_believe_in_is_lost() -> None:
    run = Script(INVALID_ID, said("12|RUNNING|0:0|None|5|1|x\n"))
    jobs = slurm(run).query(BUNDLE, [JobRef("12")])
    assert jobs["12"].state is JobState.LOST


# --- cancelling


def test_waiting_jobs_go_first_then_running_ones_are_asked_then_made_to_end() -> None:
    run = Script(
        said(SQUEUE), said(), said(SQUEUE.splitlines()[0]), NO_ACCOUNTING, said(),
        *[said(SQUEUE.splitlines()[0])] * 3, said(),
    )  # fmt: skip
    slurm(run).cancel(BUNDLE, [JobRef("4"), JobRef("5")], grace_s=2.0)
    assert [argv for argv in run.asked if argv[0] == "scancel"] == [
        ("scancel", "--state=PENDING", "5"),
        ("scancel", "--batch", "--signal=TERM", "4"),
        ("scancel", "4"),
    ]


def test_a_job_that_ends_in_its_grace_is_not_killed() -> None:
    running = said(SQUEUE.splitlines()[0])
    run = Script(running, said(), running, INVALID_ID, NO_ACCOUNTING)
    slurm(run).cancel(BUNDLE, [JobRef("4")], grace_s=60.0)
    assert sum(argv[0] == "scancel" for argv in run.asked) == 1


def test_a_cancel_that_is_not_allowed_is_told() -> None:
    denied = said(
        stderr="scancel: error: Kill job error on job id 4: Access/permission denied", code=1
    )
    with pytest.raises(SchedulerError, match="permission denied"):
        slurm(Script(said(SQUEUE), denied)).cancel(BUNDLE, [JobRef("4")], grace_s=1.0)


# --- arrays

# As Slurm 22.05 prints them.
ARRAY_SQUEUE = """\
65_6|PENDING|JobArrayTaskLimit|0:00|1:00:00|vk-0a1b2c3d-fit.0
65_8|RUNNING|None|0:42|1:00:00|vk-0a1b2c3d-fit.0
"""
ARRAY_SACCT = """\
65_0|COMPLETED|0:0|None|1|60|vk-0a1b2c3d-fit.0
65_2|FAILED|4:0|NonZeroExitCode|1|60|vk-0a1b2c3d-fit.0
65_2.batch|FAILED|4:0||1||batch
65_[4-10:2,20%3]|CANCELLED by 1001|0:0|JobHeldUser|0|60|vk-0a1b2c3d-fit.0
66_[0]|PENDING|0:0|None|0|60|vk-0a1b2c3d-other.0
"""


def test_an_array_is_asked_about_once_and_answers_task_by_task() -> None:
    script = Script(said(ARRAY_SQUEUE), said(ARRAY_SACCT))
    found = slurm(script).query(BUNDLE, [JobRef("65", "vk-0a1b2c3d-fit.0")])
    assert {job: info.state for job, info in found.items()} == {
        "65_0": JobState.COMPLETED,
        "65_2": JobState.FAILED,
        "65_4": JobState.CANCELLED,
        "65_6": JobState.PENDING,
        "65_8": JobState.RUNNING,
        "65_10": JobState.CANCELLED,
        "65_20": JobState.CANCELLED,
    }
    assert [argv[0] for argv in script.asked] == ["squeue", "sacct"]
    assert all(argv[-1] == "--jobs=65" for argv in script.asked)
    assert "--array" in script.asked[0]
    assert script.environments[0]["SLURM_BITSTR_LEN"] == "0", "lists of tasks come whole"
    assert found["65_2"].exit_code == 4


def test_any_number_of_arrays_is_one_question_each() -> None:
    script = Script(said(), said())
    slurm(script).query(BUNDLE, [JobRef(str(number), "x") for number in range(100, 700)])
    assert [argv[0] for argv in script.asked] == ["squeue", "sacct"]


def test_tasks_can_be_asked_about_one_by_one() -> None:
    script = Script(said(ARRAY_SQUEUE), said(ARRAY_SACCT))
    refs = [JobRef("65_2", "vk-0a1b2c3d-fit.0"), JobRef("65_8", "vk-0a1b2c3d-fit.0")]
    assert set(slurm(script).query(BUNDLE, refs)) == {"65_2", "65_8"}
    assert script.asked[0][-1] == "--jobs=65"


def test_an_array_that_is_found_by_its_name_has_its_own_id() -> None:
    found = slurm(Script(said(ARRAY_SQUEUE))).find(BUNDLE, None, "vk-0a1b2c3d-fit.0", NOW)
    assert found is not None
    assert found.job_id == "65"


def test_thirty_thousand_tasks_are_read_quickly() -> None:
    rows = [
        f"{array}_{index}|COMPLETED|0:0|None|{index}|60|vk-0a1b2c3d-fit.{array}\n"
        for array in range(30)
        for index in range(1000)
    ]
    begin = time.process_time()
    assert len(parse_sacct("".join(rows))) == 30_000
    assert time.process_time() - begin < 1.0, "0.15 s on an idle machine"


@pytest.mark.parametrize(
    ("text", "tasks"),
    [
        ("7_[0-3]", ["7_0", "7_1", "7_2", "7_3"]),
        ("7_[1,5-6%2]", ["7_1", "7_5", "7_6"]),
        ("7_[0-6:3]", ["7_0", "7_3", "7_6"]),
        ("7_[0,2,...]", ["7_0", "7_2"]),
    ],
)
def test_what_stands_for_several_tasks(text: str, tasks: list[str]) -> None:
    assert expand_id(text) == tasks


def test_tasks_are_ended_in_few_words() -> None:
    ids = ["9", "7_4", "8_1", "7_0", "7_1", "8_2", "8_3"]
    assert join_ids(ids) == ["9", "7_[0-1,4]", "8_[1-3]"]


def test_what_an_array_waits_for() -> None:
    request = JobRequest(
        "judge", "n", "submit_judge.sh", after=("pre",), dependency=("12_3",), tasks=(0, 1, 2, 7),
        throttle=3, after_each=("fit",), corresponding=("20",),
    )  # fmt: skip
    fit = JobRequest("fit", "m", "submit_fit.sh", tasks=(0, 1, 2, 7))
    pre = JobRequest("pre", "p", "submit_pre.sh")
    commands = Slurm(environment={}).commands([pre, fit, request])
    assert commands[2][3:6] == (
        "--array=0-2,7%3", "--dependency=afterok:12_3:<pre>,aftercorr:20:<fit>",
        "--kill-on-invalid-dep=yes",
    )  # fmt: skip


# --- limits

CONFIG = """\
Configuration data as of 2026-01-02T03:04:05
MaxArraySize            = 1001
MaxJobCount             = 10000
MaxJobId                = 67043328
SchedulerParameters     = batch_sched_delay=0,max_array_tasks=500
"""
ASSOCIATIONS = """\
Current Association Manager state
Association Records
ClusterName=c Account=root UserName= ID=1 ParentAccount= DefAssoc=No GrpSubmitJobs=N(12) MaxSubmitJobs=
ClusterName=c Account=lab UserName= ID=3 ParentAccount=root(1) DefAssoc=No GrpSubmitJobs=90(12) MaxSubmitJobs=
ClusterName=c Account=lab UserName=ann(1001) Partition= ID=4 ParentAccount= DefAssoc=Yes GrpSubmitJobs=N(12) MaxSubmitJobs=50(12)
ClusterName=c Account=big UserName=ann(1001) Partition= ID=5 ParentAccount= DefAssoc=No GrpSubmitJobs=N(0) MaxSubmitJobs=
ClusterName=c Account=lab UserName=annie(1002) Partition= ID=6 ParentAccount= DefAssoc=Yes MaxSubmitJobs=1(1)
Current Association Manager state
QOS Records
QOS=normal(1) GrpSubmitJobs=77(12) Account Limits= lab={MaxSubmitJobsPA=N(12)} User Limits= 1001={MaxJobsPU=N(0) MaxSubmitJobsPU=40(10)}
"""  # noqa: E501


def test_the_limits_of_the_configuration() -> None:
    found = parse_config(CONFIG)
    assert (found.largest_array, found.most_jobs) == (500, 10000)
    assert parse_config("") == Configuration()
    bound = controller_bound(found, 9_000)
    assert bound is not None
    assert bound.room == 999, "the controller holds one less than MaxJobCount"


@pytest.mark.parametrize(
    ("account", "qos", "rooms"),
    [
        (None, None, [38, 78, 65]),
        ("lab", "other", [38, 78]),
        ("big", None, [65]),
        ("none", "none", []),
    ],
)
def test_the_limits_of_an_account(account: str | None, qos: str | None, rooms: list[int]) -> None:
    found = list(account_bounds(ASSOCIATIONS, "ann", account, qos))
    assert [bound.room for bound in found] == rooms


def test_the_limit_of_a_qos_for_each_user() -> None:
    text = "QOS=normal(1) GrpSubmitJobs=N(2) User Limits= 0={MaxSubmitJobsPU=40(10)} 7={X=1(1)}"
    (bound,) = account_bounds(text, "root", None, None)
    assert (bound.room, "MaxSubmitJobsPU=40" in bound.why) == (30, True)


def test_what_does_not_answer_has_no_limit() -> None:
    script = Script(NO_ACCOUNTING, NO_ACCOUNTING)
    assert slurm(script).limits() == (Configuration(), [])

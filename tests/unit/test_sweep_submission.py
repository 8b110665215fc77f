"""Submitting and cancelling sweeps, against a stand-in for Slurm that fails as it is told."""

import json
import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from handmade import FAKES, FakeSlurm, eventually
from sweepmade import WORK, make_sweep, manifest_of, put_task_record
from test_jobs import abandon_lock, killed

from valska.cli.submit_sweep import which_of
from valska.external_tools.core.errors import SubmissionError, UsageError, VerificationError
from valska.external_tools.core.lock import LockedError, directory_lock
from valska.external_tools.core.manifest import ManifestError
from valska.external_tools.core.process import Completed, Stop, run
from valska.external_tools.core.scheduler import OutcomeUnknownError
from valska.external_tools.core.slurm import Slurm
from valska.external_tools.core.submission.jobsfile import JobsError
from valska.external_tools.core.sweep.dispatch.cancelling import SweepCancellation, cancel_sweep
from valska.external_tools.core.sweep.dispatch.intact import require_common_intact
from valska.external_tools.core.sweep.dispatch.jobsfile import (
    ArrayEntry,
    load_sweep_jobs,
    read_arrays,
    write_sweep_jobs,
)
from valska.external_tools.core.sweep.dispatch.slices import choose_labels
from valska.external_tools.core.sweep.dispatch.submission import (
    KINDS,
    SweepSubmission,
    submit_sweep,
)
from valska.external_tools.core.sweep.document import read_common
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.tool import Resume
from valska.external_tools.core.utils import sha256_file

TWO: Mapping[str, Mapping[str, Any]] = {
    "fit": {"resume": Resume("fit/*/go-on", "--from"), "outputs": ("fit",)},
    "judge": {"after": ["fit"]},
}
LABELS = ["a", "b", "c", "d"]


@pytest.fixture
def fake(tmp_path: Path) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm")


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return make_sweep(tmp_path / "results" / "a sweep's $place", LABELS, TWO)


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
        command = [str(FAKES / argv[0]), *argv[1:]]
        return run(command, cwd=cwd, env={**(env or {}), **known}, timeout=timeout, stop=stop)

    options = {"run": run_there, "settle_s": 0.0, "sleep": lambda seconds: None}
    return Slurm(**{**options, **changes})


def send(sweep: Sweep, fake: FakeSlurm, **options: Any) -> SweepSubmission:
    scheduler = options.pop("scheduler", None) or slurm(fake)
    options = {"settle_s": 0.0, **options}
    return submit_sweep(sweep, manifest_of(sweep), scheduler, **options)


def end(sweep: Sweep, fake: FakeSlurm, **o: Any) -> SweepCancellation:
    scheduler = slurm(fake)
    return cancel_sweep(sweep, manifest_of(sweep), scheduler, settle_s=0.0, grace_s=0.0, **o)


def units(sweep: Sweep, array: ArrayEntry) -> list[str]:
    lines = (sweep.path / array.list).read_text().splitlines()
    return [line.split("/")[1] for line in lines]


def said(done: SweepSubmission) -> list[tuple[str, str, str | None]]:
    return [(array.stage, array.tasks, array.dependency) for array in done.arrays]


def finish(sweep: Sweep, fake: FakeSlurm, label: str, stage: str, state: str = "COMPLETED") -> None:
    """End the task of a point's stage, and write its record."""
    for array in reversed(read_arrays(sweep)):
        if array.stage == stage and label in units(sweep, array):
            index = units(sweep, array).index(label)
            fake.set_state(f"{array.job_id}_{index}", state)
            recorded = "completed" if state == "COMPLETED" else "failed"
            place = f"points/{label}" if (sweep.points / label).is_dir() else f"shared/{label}"
            job = f"{array.job_id}_{index}"
            put_task_record(sweep, place, stage, job, recorded, name=array.name)
            return
    raise AssertionError(f"{stage} of {label} was not sent")


def sent_tasks(fake: FakeSlurm) -> list[str]:
    """Return each task that was ever accepted: stage and number of the array, index."""
    return sorted(
        f"{name.split('-', 2)[2].partition('.')[0]}_{job.partition('_')[2]}"
        for job, (name, _) in fake.jobs().items()
    )


# --- the file


def test_the_fields_of_an_array_belong_to_the_schema_version() -> None:
    path = Path(__file__).parents[2] / "schemas/sweep-jobs-1.schema.json"
    schema = json.loads(path.read_text())
    assert set(schema["$defs"]["array"]["properties"]) == set(ArrayEntry.__dataclass_fields__)


def test_every_field_is_documented() -> None:
    root = Path(__file__).parents[2]
    schema = json.loads((root / "schemas/sweep-jobs-1.schema.json").read_text())
    text = (
        (root / "docs/reference/sweep.md").read_text().partition("\n## jobs.json of a sweep\n")[2]
    )
    for name in (*schema["properties"], *schema["$defs"]["array"]["properties"]):
        assert f"`{name}`" in text, name


def entry(**changes: Any) -> ArrayEntry:
    known: dict[str, Any] = {
        "stage": "fit", "name": "vk-0a1b2c3d-fit.0", "job_id": "7", "tasks": "0-8", "count": 9,
        "list": "arrays/0a1b2c3d-0.sums", "list_sha256": "0" * 64, "dependency": None,
        "token": "0a1b2c3d", "submitted_utc": "2026-01-02T03:04:05Z", "scheduler": "slurm",
        "cluster": None, "command": ("sbatch", "submit_fit.sh"),
    }  # fmt: skip
    return ArrayEntry(**{**known, **changes})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    arrays = [entry(), entry(job_id=None, cancelled_utc="2026-01-02T03:04:05Z")]
    write_sweep_jobs(
        Sweep(tmp_path), arrays, submitted_utc="2026-01-02T03:04:05Z", scheduler="slurm",
        sbatch="sbatch", token="0a1b2c3d",
    )  # fmt: skip
    assert read_arrays(Sweep(tmp_path)) == arrays


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": "2.0"}', '{"arrays": 1}'])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "jobs.json").write_text(text)
    with pytest.raises(JobsError) as caught:
        load_sweep_jobs(Sweep(tmp_path))
    assert caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../elsewhere"},
        {"job_id": "--me"},
        {"tasks": "0-99999999999"},
        {"list": "arrays/../../elsewhere"},
    ],
)
def test_an_array_that_leads_elsewhere_is_refused(tmp_path: Path, change: Any) -> None:
    with pytest.raises(JobsError, match=next(iter(change))):
        write_sweep_jobs(
            Sweep(tmp_path), [entry(**change)], submitted_utc="2026-01-02T03:04:05Z",
            scheduler="slurm", sbatch="sbatch", token="0a1b2c3d",
        )  # fmt: skip


def test_tasks_are_marked_as_cancelled_one_by_one_and_together() -> None:
    when = "2026-01-02T03:04:05Z"
    some = entry().cancel([1, 2], when)
    assert (some.cancelled_tasks, some.cancelled_at(1), some.cancelled_at(3)) == ("1-2", when, None)
    more = some.cancel([5], when)
    assert more.cancelled_tasks == "1-2,5"
    assert more.cancel(range(9), when).cancelled_tasks is None
    assert entry().cancel(range(9), when).cancel([3], when).cancelled_at(8) == when


# --- submitting


def test_one_array_per_stage_each_task_waits_for_its_own(sweep: Sweep, fake: FakeSlurm) -> None:
    done = send(sweep, fake, new_token=lambda: "0a1b2c3d", throttle=2)
    assert said(done) == [("fit", "0-3", None), ("judge", "0-3", "aftercorr:100")]
    assert [array.job_id for array in done.arrays] == ["100", "101"]
    assert units(sweep, done.arrays[0]) == LABELS
    assert done.arrays[0].list == done.arrays[1].list == "arrays/0a1b2c3d-0.sums"
    assert done.commands[1] == (
        "sbatch", "--parsable", "--job-name=vk-0a1b2c3d-judge.0", "--array=0-3%2",
        "--dependency=aftercorr:100", "--kill-on-invalid-dep=yes", "submit_judge.sh",
        done.arrays[0].list_sha256, "arrays/0a1b2c3d-0.sums",
    )  # fmt: skip
    assert read_arrays(sweep) == list(done.arrays)
    assert not sweep.bundle.submit_lock.exists()


def test_a_list_is_what_sha256sum_checks(sweep: Sweep, fake: FakeSlurm) -> None:
    array = send(sweep, fake).arrays[0]
    done = run(["sha256sum", "--check", "--strict", array.list], cwd=sweep.path)
    assert (done.returncode, done.stdout.count("OK")) == (0, 4)
    assert run(["sha256sum", array.list], cwd=sweep.path).stdout.startswith(array.list_sha256)


def test_the_intent_and_the_list_are_on_disk_before_sbatch(sweep: Sweep, fake: FakeSlurm) -> None:
    seen = []
    inner = slurm(fake).run

    def look(argv: Sequence[str], **options: Any) -> Completed:
        if argv[0] == "sbatch":
            arrays = read_arrays(sweep)
            assert all((sweep.path / array.list).is_file() for array in arrays)
            seen.append([array.job_id for array in arrays])
        return inner(argv, **options)

    send(sweep, fake, scheduler=slurm(fake, run=look))
    assert seen == [[None], ["100", None]]


def test_a_dry_run_touches_nothing(sweep: Sweep, fake: FakeSlurm) -> None:
    before = sorted(sweep.path.rglob("*"))
    done = send(sweep, fake, dry_run=True, extra=["time=10"], ready=lambda: 1 / 0)
    assert sorted(sweep.path.rglob("*")) == before
    assert fake.jobs() == {}
    assert done.commands[1][3:6] == (
        "--array=0-3", "--dependency=aftercorr:<fit>", "--kill-on-invalid-dep=yes",
    )  # fmt: skip
    assert "--time=10" in done.commands[0]


def test_shared_work_is_sent_once_and_its_points_wait_for_it(
    tmp_path: Path, fake: FakeSlurm
) -> None:
    sweep = make_sweep(tmp_path / "r" / "s", LABELS, sharing=["a", "c"])
    done = send(sweep, fake)
    assert said(done) == [
        ("pre", "0", None),
        ("fit", "0-1", "afterok:100_0"), ("null", "0-1", "afterok:100_0"),
        ("pre", "0-1", None),
        ("fit", "0-1", "aftercorr:103"), ("null", "0-1", "aftercorr:103"),
    ]  # fmt: skip
    assert units(sweep, done.arrays[0]) == [WORK]
    assert units(sweep, done.arrays[1]) == ["a", "c"]
    assert units(sweep, done.arrays[3]) == ["b", "d"]


def test_points_wait_for_live_shared_work_and_not_for_completed(
    tmp_path: Path, fake: FakeSlurm
) -> None:
    sweep = make_sweep(tmp_path / "r" / "s", LABELS, sharing=["a", "c"])
    send(sweep, fake, stages=["pre"])
    assert said(send(sweep, fake, stages=["fit"], only=["a"])) == [("fit", "0", "afterok:100_0")]
    finish(sweep, fake, WORK, "pre")
    assert said(send(sweep, fake, stages=["fit"], only=["c"])) == [("fit", "0", None)]


def test_points_whose_shared_work_failed_are_named_and_the_others_sent(
    tmp_path: Path, fake: FakeSlurm
) -> None:
    sweep = make_sweep(tmp_path / "r" / "s", LABELS, sharing=["a", "c"])
    send(sweep, fake, stages=["pre"])
    finish(sweep, fake, WORK, "pre", "FAILED")
    done = send(sweep, fake)
    assert {place for place, _ in done.blocked} == {"points/a", "points/c"}
    assert "it needs pre, which is failed" in done.blocked["points/a", "fit"]
    assert [array.stage for array in done.arrays] == ["fit", "null"]
    again = send(sweep, fake, resume=True)
    assert [array.dependency for array in again.arrays] == [None, "afterok:103_0", "afterok:103_0"]


def test_a_later_stage_follows_the_array_that_is_live(sweep: Sweep, fake: FakeSlurm) -> None:
    first = send(sweep, fake, stages=["fit"]).arrays[0]
    finish(sweep, fake, "a", "fit")
    finish(sweep, fake, "d", "fit")
    done = send(sweep, fake)
    assert said(done) == [("judge", "0-1", None), ("judge", "1-2", "aftercorr:100")]
    assert done.arrays[1].list == first.list
    assert units(sweep, done.arrays[0]) == ["a", "d"]


def test_what_was_sent_is_not_sent_again(sweep: Sweep, fake: FakeSlurm) -> None:
    send(sweep, fake)
    with pytest.raises(SubmissionError, match="nothing is left to send") as caught:
        send(sweep, fake)
    assert "--resume" in (caught.value.hint or "")
    assert send(sweep, fake, resume=True).arrays == ()
    assert len(fake.jobs()) == 8


def test_resume_sends_what_failed_or_is_missing_and_goes_on_where_it_can(
    sweep: Sweep, fake: FakeSlurm
) -> None:
    send(sweep, fake, only=["a", "b", "c"])
    for stage in ("fit", "judge"):
        finish(sweep, fake, "a", stage)
    finish(sweep, fake, "b", "fit", "FAILED")
    finish(sweep, fake, "b", "judge", "CANCELLED")
    done = send(sweep, fake, resume=True)
    assert said(done) == [("fit", "0-1", None), ("judge", "0-1", "aftercorr:102")]
    assert units(sweep, done.arrays[0]) == ["b", "d"]
    assert (done.completed, done.live) == (2, 2)
    assert done.commands[0][-1] == "--resume"
    assert done.commands[1][-1] != "--resume", "it cannot"
    assert all(array.resume for array in done.arrays)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"only": ["failed"]}, ["b"]),
        ({"only": ["missing"]}, ["d"]),
        ({"only": ["failed", "missing"]}, ["b", "d"]),
        ({"only": ["[bd]"], "resume": True}, ["b", "d"]),
        ({"only": ["b"], "resubmit": True}, ["b"]),
        ({"resubmit": True}, ["a", "b", "d"]),
    ],
)
def test_which_points_are_sent(
    sweep: Sweep, fake: FakeSlurm, options: Mapping[str, Any], expected: list[str]
) -> None:
    send(sweep, fake, stages=["fit"], only=["a", "b", "c"])
    finish(sweep, fake, "a", "fit")
    finish(sweep, fake, "b", "fit", "FAILED")
    done = send(sweep, fake, stages=["fit"], **options)
    assert units(sweep, done.arrays[0]) == expected
    assert ("--resume" in done.commands[0]) == bool(options.get("resume"))


def test_a_point_is_itself_also_where_its_name_is_a_word_of_only(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "r" / "s", ["failed", "b"], sharing=["failed", "b"])
    which = which_of(sweep.points / "failed", (), ())
    assert choose_labels(which.manifest, which.only) == ("failed",)
    assert not set(KINDS) & set(which.only)
    users = which_of(sweep.shared / WORK, (), ())
    assert choose_labels(users.manifest, users.only) == ("failed", "b")
    assert not set(KINDS) & set(users.only)


@pytest.mark.parametrize("shared", [{"pre": "pre-none"}, {"fit": WORK}])
def test_a_point_that_shares_what_is_not_there_is_one_clear_error(
    tmp_path: Path, shared: Mapping[str, str]
) -> None:
    sweep = make_sweep(tmp_path / "r" / "s", LABELS, sharing=["a", "c"])
    data = json.loads(sweep.manifest.read_text())
    data["points"][0]["shared"] = shared
    sweep.manifest.write_text(json.dumps(data))
    with pytest.raises(ManifestError, match="which point 'a' needs"):
        manifest_of(sweep)


def test_a_label_that_is_none_is_refused(sweep: Sweep, fake: FakeSlurm) -> None:
    with pytest.raises(UsageError, match="no point of this sweep fits 'x\\*'"):
        send(sweep, fake, only=["x*"])
    assert fake.jobs() == {}


def test_work_that_is_used_is_not_run_again(sweep: Sweep, fake: FakeSlurm) -> None:
    send(sweep, fake)
    for label in LABELS:
        finish(sweep, fake, label, "fit")
    with pytest.raises(SubmissionError, match=r"judge of a \(job 101_0\) uses it"):
        send(sweep, fake, stages=["fit"], resubmit=True)
    assert len(fake.jobs()) == 8


def test_shared_work_that_another_point_uses_is_not_run_again(
    tmp_path: Path, fake: FakeSlurm
) -> None:
    sweep = make_sweep(tmp_path / "r" / "s", LABELS, sharing=["a", "c"])
    send(sweep, fake)
    finish(sweep, fake, WORK, "pre")
    for stage in ("fit", "null"):
        finish(sweep, fake, "a", stage)
    done = send(sweep, fake, only=["a"], resubmit=True)
    assert "fit of c (job 101_1) uses it" in done.blocked[f"shared/{WORK}", "pre"]
    assert [(array.stage, array.dependency) for array in done.arrays] == [
        ("fit", None), ("null", None),
    ]  # fmt: skip


def test_two_submits_do_not_meet(sweep: Sweep, fake: FakeSlurm) -> None:
    with directory_lock(sweep.bundle.submit_lock), pytest.raises(LockedError):
        send(sweep, fake)
    assert fake.jobs() == {}


def test_a_scheduler_that_does_not_answer_stops_a_second_submit(
    sweep: Sweep, fake: FakeSlurm
) -> None:
    send(sweep, fake)
    (fake.path / "down").touch()
    with pytest.raises(SubmissionError, match="is not known"):
        send(sweep, fake, resume=True)
    assert len(fake.jobs()) == 8


def test_what_somebody_runs_by_hand_is_not_sent(sweep: Sweep, fake: FakeSlurm) -> None:
    send(sweep, fake, stages=["fit"])
    for label in LABELS:
        finish(sweep, fake, label, "fit", "FAILED")
    with (fake.path / "queue").open("a") as queue:
        queue.write("55|RUNNING|None|0:10|1:00|toy-fit\n")
    put_task_record(sweep, "points/a", "fit", "55", "running", name="toy-fit")
    put_task_record(sweep, "points/b", "fit", "56", "running", name="toy-fit")
    done = send(sweep, fake, stages=["fit"], resume=True)
    assert units(sweep, done.arrays[0]) == ["b", "c", "d"], "job 56 is gone"
    assert done.live == 1
    later = send(sweep, fake, stages=["judge"], only=["a"])
    assert [array.dependency for array in later.arrays] == ["afterok:55"]


def test_an_end_that_is_not_clear_is_not_run_again_by_resume(sweep: Sweep, fake: FakeSlurm) -> None:
    send(sweep, fake, only=["a"], stages=["fit"])
    fake.set_state("100_0", "COMPLETED")
    done = send(sweep, fake, resume=True, stages=["fit"])
    assert "its end is not clear" in done.blocked["points/a", "fit"]
    assert units(sweep, done.arrays[0]) == ["b", "c", "d"]
    again = send(sweep, fake, only=["a"], stages=["fit"], resubmit=True)
    assert units(sweep, again.arrays[0]) == ["a"]


@pytest.mark.parametrize("what", ["config/run.yaml", "SHA256SUMS", "manifest.json"])
def test_an_altered_point_is_left_out(sweep: Sweep, fake: FakeSlurm, what: str) -> None:
    with (sweep.points / "b" / what).open("a") as file:
        file.write("\n")
    done = send(sweep, fake)
    assert set(done.blocked) == {("points/b", "fit"), ("points/b", "judge")}
    assert units(sweep, done.arrays[0]) == ["a", "c", "d"]


@pytest.mark.parametrize("path", ["/dev/zero", "../../../../etc/passwd", "config/../../../x"])
def test_a_unit_whose_seal_leads_elsewhere_is_left_out(
    sweep: Sweep, fake: FakeSlurm, path: str
) -> None:
    sums = sweep.points / "b" / "SHA256SUMS"
    with sums.open("a") as file:
        file.write(f"{'0' * 64}  {path}\n")
    data = json.loads(sweep.manifest.read_text())
    data["points"][1]["seal"] = sha256_file(sums)
    sweep.manifest.write_text(json.dumps(data))
    done = send(sweep, fake)
    assert done.blocked["points/b", "fit"] == f"its SHA256SUMS names {path!r}"
    assert units(sweep, done.arrays[0]) == ["a", "c", "d"]


def test_points_of_altered_shared_work_are_left_out_and_told_why(
    tmp_path: Path, fake: FakeSlurm
) -> None:
    sweep = make_sweep(tmp_path / "r" / "s", LABELS, sharing=["a", "c"])
    with (sweep.shared / WORK / "config/run.yaml").open("a") as file:
        file.write("\n")
    done = send(sweep, fake)
    assert not done.unsent
    assert "run.yaml was altered" in done.blocked["points/c", "fit"]
    assert {place for place, _ in done.blocked} == {f"shared/{WORK}", "points/a", "points/c"}


@pytest.mark.parametrize("change", ["gone", "shorter", "elsewhere"])
def test_an_array_of_unknown_units_stops_what_would_send_them_again(
    sweep: Sweep, fake: FakeSlurm, change: str
) -> None:
    array = send(sweep, fake).arrays[0]
    path = sweep.path / array.list
    if change == "gone":
        path.unlink()
    elif change == "shorter":
        path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    else:
        path.write_text(path.read_text().replace("points/a", "points/../a"))
    with pytest.raises(JobsError, match=array.list) as caught:
        send(sweep, fake, resume=True)
    assert caught.value.hint
    with pytest.raises(JobsError):
        end(sweep, fake)
    assert len(fake.jobs()) == 8


def test_an_altered_common_file_stops_all(sweep: Sweep) -> None:
    require_common_intact(sweep, manifest_of(sweep), read_common(sweep))
    with sweep.bundle.script("fit").open("a") as script:
        script.write("\n")
    with pytest.raises(VerificationError, match=r"submit_fit\.sh") as caught:
        require_common_intact(sweep, manifest_of(sweep), read_common(sweep))
    assert caught.value.exit_code == 5


# --- limits


def configure(fake: FakeSlurm, **limits: object) -> None:
    lines = [f"{name:24}= {value}\n" for name, value in limits.items()]
    (fake.path / "config").write_text("Configuration data\n" + "".join(lines))


def test_slices_are_no_larger_than_an_array_may_be(sweep: Sweep, fake: FakeSlurm) -> None:
    configure(fake, MaxArraySize=3)
    done = send(sweep, fake, new_token=lambda: "0a1b2c3d")
    assert said(done) == [
        ("fit", "0-2", None), ("judge", "0-2", "aftercorr:100"),
        ("fit", "0", None), ("judge", "0", "aftercorr:102"),
    ]  # fmt: skip
    assert [units(sweep, array) for array in done.arrays[::2]] == [["a", "b", "c"], ["d"]]
    assert [array.name for array in done.arrays] == [
        f"vk-0a1b2c3d-{name}" for name in ("fit.0", "judge.0", "fit.1", "judge.1")
    ]


@pytest.mark.parametrize(
    ("most", "sent", "unsent"),
    [(3, ["fit", "judge"], 3), (6, ["fit", "judge"], 2), (2, ["fit"], 3), (1, [], 4)],
)
def test_what_has_no_room_is_counted(
    sweep: Sweep, fake: FakeSlurm, most: int, sent: list[str], unsent: int
) -> None:
    configure(fake, MaxJobCount=most)
    done = send(sweep, fake)
    assert [array.stage for array in done.arrays] == sent
    assert done.unsent["judge"] == (4 if sent == ["fit"] else unsent)
    assert f"MaxJobCount={most}" in (done.why_unsent or "")
    assert sum(array.count for array in done.arrays) <= most - 1


@pytest.mark.parametrize("how", ["limit", "full"])
def test_a_limit_that_only_refusals_tell_is_found_out(
    sweep: Sweep, fake: FakeSlurm, how: str
) -> None:
    (fake.path / "most").write_text(f"5 {how}\n")
    configure(fake, MaxArraySize=3)
    begin = time.monotonic()
    done = send(sweep, fake)
    assert time.monotonic() - begin < 20, "nobody waits for the queue"
    assert said(done) == [("fit", "0-2", None)]
    assert len(fake.jobs()) == 3
    assert done.unsent == {"fit": 1, "judge": 4}
    assert ("queue is full" if how == "full" else "SubmitJobLimit") in (done.why_unsent or "")
    assert all((sweep.path / array.list).is_file() for array in done.arrays)
    assert len(list(sweep.arrays.iterdir())) == len({array.list for array in done.arrays})
    (fake.path / "most").unlink()
    rest = send(sweep, fake)
    assert not rest.unsent
    counted = dict.fromkeys(TWO, 0)
    for array in read_arrays(sweep):
        counted[array.stage] += array.count
    assert counted == {"fit": 4, "judge": 4}


def test_a_slice_that_is_refused_is_made_smaller_until_it_fits(
    tmp_path: Path, fake: FakeSlurm
) -> None:
    sweep = make_sweep(tmp_path / "r" / "s", [f"p{number}" for number in range(16)], TWO)
    (fake.path / "most").write_text("13 limit\n")
    done = send(sweep, fake)
    assert [(array.stage, array.count) for array in done.arrays] == [("fit", 8)]
    assert sum(done.unsent.values()) == 32 - sum(array.count for array in done.arrays)
    (fake.path / "most").unlink()
    send(sweep, fake)
    counted = dict.fromkeys(TWO, 0)
    for array in read_arrays(sweep):
        counted[array.stage] += array.count
    assert counted == {"fit": 16, "judge": 16}


def test_a_full_queue_leaves_nothing_behind(sweep: Sweep, fake: FakeSlurm) -> None:
    (fake.path / "most").write_text("0 full\n")
    done = send(sweep, fake)
    assert done.arrays == ()
    assert done.unsent == {"fit": 4, "judge": 4}
    assert "queue is full" in (done.why_unsent or "")
    assert not sweep.bundle.jobs.exists()
    assert list(sweep.arrays.iterdir()) == []


# --- sbatch fails


def test_a_refused_slice_leaves_the_others(sweep: Sweep, fake: FakeSlurm) -> None:
    configure(fake, MaxArraySize=2)
    fake.fault("refuse")
    done = send(sweep, fake)
    assert set(done.blocked) == {(f"points/{x}", stage) for x in "ab" for stage in TWO}
    assert "Invalid account" in done.blocked["points/a", "fit"]
    assert units(sweep, done.arrays[0]) == ["c", "d"]
    assert units(sweep, send(sweep, fake).arrays[0]) == ["a", "b"]


def test_refused_shared_work_keeps_its_points_back(tmp_path: Path, fake: FakeSlurm) -> None:
    sweep = make_sweep(tmp_path / "r" / "s", LABELS, sharing=["a", "c"])
    fake.fault("refuse")
    done = send(sweep, fake)
    assert {place for place, _ in done.blocked} == {f"shared/{WORK}", "points/a", "points/c"}
    assert [units(sweep, array) for array in done.arrays] == [["b", "d"]] * 3


@pytest.mark.parametrize("fault", ["timeout-after", "hang-after", "garble"])
def test_an_array_taken_by_an_sbatch_that_failed_to_say_so_is_adopted(
    sweep: Sweep, fake: FakeSlurm, fault: str
) -> None:
    fake.fault(fault)
    done = send(sweep, fake, scheduler=slurm(fake, sbatch_timeout_s=1.0))
    assert said(done) == [("fit", "0-3", None), ("judge", "0-3", "aftercorr:100")]
    assert len(fake.jobs()) == 8


def test_an_array_that_cannot_be_found_is_unknown_and_never_sent_blindly(
    sweep: Sweep, fake: FakeSlurm
) -> None:
    fake.fault("timeout-before")
    with pytest.raises(OutcomeUnknownError, match="not known"):
        send(sweep, fake)
    assert [array.job_id for array in read_arrays(sweep)] == [None]
    (fake.path / "down").touch()
    with pytest.raises(OutcomeUnknownError):
        send(sweep, fake)
    (fake.path / "down").unlink()
    done = send(sweep, fake)
    assert (done.found, len(done.arrays)) == ((), 2)
    assert len(fake.jobs()) == 8


def test_a_lost_array_that_has_ended_is_known_by_a_record(sweep: Sweep, fake: FakeSlurm) -> None:
    fake.fault("timeout-before")
    with pytest.raises(OutcomeUnknownError):
        send(sweep, fake)
    name = read_arrays(sweep)[0].name
    put_task_record(sweep, "points/c", "fit", "77_2", "completed", name=name)
    done = send(sweep, fake)
    assert [array.job_id for array in done.found] == ["77"]
    assert "fit" not in [array.stage for array in done.arrays]


# --- killed


@pytest.mark.parametrize("fault", ["kill-before", "kill-after"])
def test_a_submit_killed_around_sbatchs_acceptance_sends_nothing_twice(
    sweep: Sweep, fake: FakeSlurm, fault: str
) -> None:
    fake.fault(fault)
    assert killed(lambda: send(sweep, fake)) == signal.SIGKILL
    assert [array.job_id for array in read_arrays(sweep)] == [None]
    done = send(sweep, fake)
    assert len(done.found) == (1 if fault == "kill-after" else 0)
    assert sent_tasks(fake) == sorted(f"{stage}_{i}" for stage in TWO for i in range(4))


def test_what_an_interrupted_resubmit_has_run_is_not_run_again(
    sweep: Sweep, fake: FakeSlurm
) -> None:
    options: Mapping[str, Any] = {"stages": ["fit"], "resubmit": True}
    send(sweep, fake, stages=["fit"])
    for label in LABELS:
        finish(sweep, fake, label, "fit")
    fake.fault("kill-after")
    assert killed(lambda: send(sweep, fake, **options)) == signal.SIGKILL
    name = read_arrays(sweep)[-1].name
    for index, label in enumerate(LABELS):
        fake.set_state(f"101_{index}", "COMPLETED")
        put_task_record(sweep, f"points/{label}", "fit", f"101_{index}", "completed", name=name)
    again = send(sweep, fake, **options)
    assert ([array.job_id for array in again.found], again.arrays) == (["101"], ())
    assert [array.count for array in send(sweep, fake, **options).arrays] == [4]


def test_a_submit_killed_before_any_of_its_effects_is_taken_up(tmp_path: Path) -> None:
    at, ended = 0, False
    while not ended:
        at += 1
        sweep = make_sweep(tmp_path / f"b{at}" / "s", ["a", "b", "c"], TWO)
        fake = FakeSlurm(tmp_path / f"s{at}")
        configure(fake, MaxArraySize=2)
        ended = killed(lambda s=sweep, f=fake: send(s, f), at) == 0  # type: ignore[misc]
        if sweep.bundle.jobs.exists():
            read_arrays(sweep)
        abandon_lock(sweep.bundle)
        if not ended and len(fake.jobs()) < 6:
            send(sweep, fake)
        counted = dict.fromkeys(TWO, 0)
        for name, _ in fake.jobs().values():
            counted[name.split("-", 2)[2].partition(".")[0]] += 1
        assert counted == {"fit": 3, "judge": 3}, f"killed before effect {at}"
        assert all((sweep.path / array.list).is_file() for array in read_arrays(sweep))
    assert at > 25, "the effects were counted"


# --- cancelling


def test_a_sweep_is_cancelled_by_its_arrays(sweep: Sweep, fake: FakeSlurm) -> None:
    send(sweep, fake)
    found = end(sweep, fake)
    assert [ref.job_id for ref in found.refs] == ["100", "101"]
    assert {stage: len(places) for stage, places in found.cancelled.items()} == {
        "fit": 4, "judge": 4,
    }  # fmt: skip
    assert {state for _, state in fake.jobs().values()} == {"CANCELLED"}
    calls = [call for call in fake.calls() if call.startswith("scancel")]
    assert calls == ["scancel --state=PENDING 101 100"]
    assert [array.cancelled_tasks for array in read_arrays(sweep)] == [None, None]
    assert all(array.cancelled_utc for array in read_arrays(sweep))


def test_some_points_are_cancelled_by_their_tasks(sweep: Sweep, fake: FakeSlurm) -> None:
    send(sweep, fake)
    end(sweep, fake, only=["b", "c"])
    states = {job: state for job, (_, state) in fake.jobs().items()}
    assert {job for job, state in states.items() if state == "CANCELLED"} == {
        "100_1", "100_2", "101_1", "101_2",
    }  # fmt: skip
    calls = [call for call in fake.calls() if call.startswith("scancel")]
    assert calls == ["scancel --state=PENDING 101_[1-2] 100_[1-2]"]
    assert [array.cancelled_tasks for array in read_arrays(sweep)] == ["1-2", "1-2"]


def test_a_cancelled_stage_takes_what_waits_for_it(sweep: Sweep, fake: FakeSlurm) -> None:
    send(sweep, fake)
    assert set(end(sweep, fake, stages=["fit"], only=["a"]).cancelled) == {"fit", "judge"}


def test_shared_work_is_cancelled_with_the_last_of_its_points(
    tmp_path: Path, fake: FakeSlurm
) -> None:
    sweep = make_sweep(tmp_path / "r" / "s", LABELS, sharing=["a", "c"])
    send(sweep, fake)
    assert "pre" not in end(sweep, fake, only=["a"], dry_run=True).cancelled
    both = end(sweep, fake, only=["a", "c"], dry_run=True)
    assert both.cancelled["pre"] == [f"shared/{WORK}"]
    assert [ref.job_id for ref in both.refs] == ["100", "101", "102"]
    assert {state for _, state in fake.jobs().values()} == {"PENDING"}


def test_cancelling_nothing_is_no_fault(sweep: Sweep, fake: FakeSlurm) -> None:
    assert end(sweep, fake).cancelled == {}
    assert not sweep.bundle.jobs.exists()


# --- a program that is to be ended


def test_a_program_that_says_it_waits_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        f"sleep 60 & echo $! >{shlex.quote(str(pid))}; echo one >&2; sleep 0.1; echo full >&2; wait"
    )
    begin = time.monotonic()
    done = run(["bash", "-c", code], timeout=30, stop=lambda text: "full" in text)
    assert time.monotonic() - begin < 10
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "one\nfull\n")
    child = int(pid.read_text())
    eventually(lambda: _gone(child))


def test_a_watched_program_that_ends_by_itself_is_like_any_other() -> None:
    done = run(["bash", "-c", "echo out; echo err >&2; exit 3"], stop=lambda text: False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def _gone(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"

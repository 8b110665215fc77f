import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from handmade import eventually, make_bundle, manifest_of

from valska.external_tools.core import local
from valska.external_tools.core.errors import SubmissionError
from valska.external_tools.core.jobs import Submission, cancel, load_jobs_json, submit
from valska.external_tools.core.local import Local, supervisor
from valska.external_tools.core.local.job import Queue
from valska.external_tools.core.local.queue import create_queue, read_queue
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.scheduler import JobRef, JobState, SchedulerError
from valska.external_tools.core.status import RunStatus, StageState, run_status, wait

SLEEP = "exec sleep 60"


def make(tmp_path: Path, stages: dict[str, dict[str, Any]]) -> Bundle:
    return make_bundle(tmp_path / "it's a $(bundle)", stages)


def send(bundle: Bundle, **options: Any) -> Submission:
    return submit(bundle, manifest_of(bundle), Local(), settle_s=0.0, **options)


def status(bundle: Bundle) -> RunStatus:
    return run_status(bundle, manifest_of(bundle), Local())


def states(bundle: Bundle) -> dict[str, str]:
    return {one.stage: one.state.value for one in status(bundle).stages}


def finished(bundle: Bundle) -> dict[str, str]:
    wait(bundle, manifest_of(bundle), Local(), poll=0.02)
    return states(bundle)


def queue(bundle: Bundle, found: Submission) -> Queue:
    read = read_queue(bundle.local_queue(found.token))
    assert read is not None
    return read


def kill_supervisor(bundle: Bundle, found: Submission) -> None:
    who = queue(bundle, found).supervisor
    assert who is not None
    os.kill(who.pid, signal.SIGKILL)
    eventually(lambda: who.alive() is False)


def running(bundle: Bundle, stage: str) -> bool:
    return status(bundle).stage(stage).state is StageState.RUNNING and any(
        bundle.records.glob(f"{stage}-*.json")
    )


@pytest.fixture
def long_run(tmp_path: Path) -> Iterator[tuple[Bundle, Submission]]:
    """A chain whose first stage runs until it is stopped."""
    bundle = make(tmp_path, {"long": {"body": SLEEP}, "next": {"after": ["long"]}})
    found = send(bundle)
    eventually(lambda: running(bundle, "long"))
    yield bundle, found
    process = queue(bundle, found).jobs[0].of().process
    if process is not None and process.alive():
        os.killpg(process.pid, signal.SIGKILL)


def test_stages_run_in_order_with_ids_known_beforehand(tmp_path: Path) -> None:
    bundle = make(tmp_path, {"a": {}, "b": {"after": ["a"]}, "c": {"after": ["a", "b"]}})
    found = send(bundle)
    assert finished(bundle) == dict.fromkeys("abc", "completed")
    assert (bundle.outputs / "ran").read_text().split() == ["a", "b", "c"]
    stored = load_jobs_json(bundle.path)
    assert stored is not None
    assert (stored["scheduler"], stored["sbatch"]) == ("local", "bash")
    assert stored["jobs"]["b"]["dependency"] == f"afterok:{stored['jobs']['a']['job_id']}"
    for stage, job in found.jobs.items():
        assert job.command == ("bash", f"submit_{stage}.sh", stored["seal"])
        log = bundle.logs / f"vk-{found.token}-{stage}-{job.job_id}.log"
        assert log.is_file()
        assert status(bundle).stage(stage).log == f"logs/{log.name}"


def test_submit_returns_while_the_stage_still_runs(long_run: tuple[Bundle, Submission]) -> None:
    bundle, _ = long_run
    assert states(bundle) == {"long": "running", "next": "pending"}
    one = status(bundle).stage("long")
    assert one.started_utc is not None
    assert one.job_id is not None
    cancel(bundle, manifest_of(bundle), Local())


def test_the_supervisor_holds_nothing_of_its_caller(long_run: tuple[Bundle, Submission]) -> None:
    bundle, found = long_run
    who = queue(bundle, found).supervisor
    assert who is not None
    proc = Path(f"/proc/{who.pid}")
    assert (proc / "cwd").readlink() == Path("/")
    assert (proc / "fd/0").readlink() == Path("/dev/null")
    assert (proc / "fd/1").readlink() == Path("/dev/null")
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    parent, session, terminal = int(fields[1]), int(fields[3]), int(fields[4])
    assert parent != os.getpid()
    assert session != os.getsid(0)
    assert terminal == 0
    os.kill(who.pid, signal.SIGHUP)
    time.sleep(0.3)
    assert who.alive(), "it survives the terminal"
    cancel(bundle, manifest_of(bundle), Local())


def test_jobs_survive_the_caller_and_need_nothing_of_its_python(tmp_path: Path) -> None:
    bundle = make(tmp_path, {"a": {"body": "sleep 0.5; printenv PYTHONPATH"}})
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "json.py").write_text("raise SystemExit('shadowed')")
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "from valska.external_tools.core.jobs import submit\n"
        "from valska.external_tools.core.local import Local\n"
        "from valska.external_tools.core.manifest import read_manifest\n"
        "from valska.external_tools.core.run_directory import Bundle\n"
        "b = Bundle(Path(sys.argv[1]))\n"
        f"environment = {{**os.environ, 'PYTHONPATH': {str(trap)!r}}}\n"
        "submit(b, read_manifest(b), Local(environment=environment))\n"
        "os.killpg(0, 9)"
    )
    caller = subprocess.run(
        [sys.executable, "-P", "-c", code, str(bundle.path)],
        cwd=trap, check=False, start_new_session=True,
    )  # fmt: skip
    assert caller.returncode == -signal.SIGKILL
    assert finished(bundle) == {"a": "completed"}
    one = status(bundle).stage("a")
    assert one.log is not None
    assert (bundle.path / one.log).read_text().strip() == str(trap)


def test_a_failed_stage_cancels_its_dependants_only(tmp_path: Path) -> None:
    bundle = make(
        tmp_path,
        {"bad": {"body": "return 3"}, "after": {"after": ["bad"]}, "other": {}},
    )
    send(bundle)
    assert finished(bundle) == {"bad": "failed", "after": "cancelled", "other": "completed"}
    assert sorted((bundle.outputs / "ran").read_text().split()) == ["bad", "other"]
    bad, after = status(bundle).stage("bad"), status(bundle).stage("after")
    assert bad.exit_code == 3
    assert "did not succeed" in (after.reason or "")


def test_a_stage_alone_waits_for_the_live_job_of_its_parent(tmp_path: Path) -> None:
    bundle = make(tmp_path, {"a": {"body": "sleep 1"}, "b": {"after": ["a"]}})
    send(bundle, stages=["a"])
    send(bundle, stages=["b"])
    assert finished(bundle) == {"a": "completed", "b": "completed"}
    assert (bundle.outputs / "ran").read_text().split() == ["a", "b"]


def test_the_time_limit_is_told_before_it_strikes(tmp_path: Path) -> None:
    directives = {"time": "0:02", "signal": "B:TERM@1"}
    bundle = make(tmp_path, {"slow": {"body": SLEEP, "directives": directives}, "b": {
        "after": ["slow"]}})  # fmt: skip
    send(bundle)
    assert finished(bundle) == {"slow": "timeout", "b": "cancelled"}
    record = json.loads(next(bundle.records.glob("slow-*.json")).read_text())
    assert record["state"] == "signalled", "its script had the time to write its end"


def test_a_script_that_ignores_its_time_limit_is_killed_with_all_it_started(
    tmp_path: Path,
) -> None:
    body = "trap '' TERM; sleep 61 & echo $! >child; wait; sleep 61"
    bundle = make(tmp_path, {"slow": {"body": body, "directives": {"time": "0:01"}}})
    script = bundle.script("slow")
    # The script's own trap would end it: this one is deaf.
    assert "trap 'kill" in script.read_text()
    script.write_text("#!/bin/bash\ntrap '' TERM\nsleep 61 & echo $! >logs/child\nwait\nsleep 61\n")
    found = send(bundle, seal="0" * 64)
    eventually(lambda: queue(bundle, found).jobs[0].of().state is JobState.TIMEOUT)
    child = int((bundle.logs / "child").read_text())
    eventually(lambda: not Path(f"/proc/{child}").exists())
    assert queue(bundle, found).jobs[0].of().signal == signal.SIGKILL


def test_what_a_stage_leaves_running_is_ended_with_it(tmp_path: Path) -> None:
    bundle = make(tmp_path, {"a": {"body": "sleep 61 & echo $! >logs/child"}})
    send(bundle)
    assert finished(bundle) == {"a": "completed"}
    child = int((bundle.logs / "child").read_text())
    eventually(lambda: not Path(f"/proc/{child}").exists())


def test_cancel_ends_the_payload_and_never_starts_dependants(
    long_run: tuple[Bundle, Submission],
) -> None:
    bundle, _ = long_run
    found = cancel(bundle, manifest_of(bundle), Local())
    assert found.cancelled == ("long", "next")
    assert states(bundle) == {"long": "cancelled", "next": "cancelled"}
    assert (bundle.outputs / "ran").read_text().split() == ["long"]
    record = json.loads(next(bundle.records.glob("long-*.json")).read_text())
    assert (record["state"], record["exit_code"]) == ("signalled", 143)
    assert list(bundle.logs.glob(".cancel-*")) == []


def test_a_waiting_stage_can_be_cancelled_alone(long_run: tuple[Bundle, Submission]) -> None:
    bundle, _ = long_run
    assert cancel(bundle, manifest_of(bundle), Local(), stages=["next"]).cancelled == ("next",)
    assert states(bundle) == {"long": "running", "next": "cancelled"}


def test_a_supervisor_asked_to_end_cancels_its_jobs(long_run: tuple[Bundle, Submission]) -> None:
    bundle, found = long_run
    who = queue(bundle, found).supervisor
    assert who is not None
    os.kill(who.pid, signal.SIGTERM)
    eventually(lambda: states(bundle) == {"long": "cancelled", "next": "cancelled"})


def test_a_job_that_outlives_its_supervisor_is_running_and_can_be_cancelled(
    long_run: tuple[Bundle, Submission],
) -> None:
    bundle, found = long_run
    kill_supervisor(bundle, found)
    one = status(bundle).stage("long")
    assert one.state is StageState.RUNNING
    assert "supervisor was killed" in (one.reason or "")
    assert states(bundle)["next"] == "lost"
    with pytest.raises(SubmissionError, match="running already"):
        send(bundle, resubmit=True)
    cancel(bundle, manifest_of(bundle), Local())
    assert states(bundle)["long"] == "cancelled"


def test_jobs_killed_with_their_supervisor_are_lost_and_can_be_sent_again(
    long_run: tuple[Bundle, Submission],
) -> None:
    bundle, found = long_run
    process = queue(bundle, found).jobs[0].of().process
    assert process is not None
    kill_supervisor(bundle, found)
    os.killpg(process.pid, signal.SIGKILL)
    eventually(lambda: process.alive() is False)
    assert states(bundle) == {"long": "lost", "next": "cancelled"}
    again = send(bundle, resubmit=True)
    assert [job.attempt for job in again.jobs.values()] == [2, 2]
    eventually(lambda: running(bundle, "long"))
    cancel(bundle, manifest_of(bundle), Local())


def test_a_job_that_finished_after_its_supervisor_was_killed_is_known_by_its_record(
    tmp_path: Path,
) -> None:
    bundle = make(tmp_path, {"a": {"body": "sleep 1.5"}})
    found = send(bundle)
    eventually(lambda: running(bundle, "a"))
    kill_supervisor(bundle, found)
    assert finished(bundle) == {"a": "completed"}


def test_a_job_that_finished_after_its_supervisor_was_killed_releases_what_waits_for_it(
    tmp_path: Path,
) -> None:
    bundle = make(tmp_path, {"a": {"body": "sleep 1.5"}, "b": {"after": ["a"]}})
    found = send(bundle, stages=["a"])
    eventually(lambda: running(bundle, "a"))
    kill_supervisor(bundle, found)
    send(bundle, stages=["b"])
    assert finished(bundle) == {"a": "completed", "b": "completed"}


def test_a_supervisor_on_another_host_is_named(tmp_path: Path) -> None:
    bundle = make(tmp_path, {"a": {"body": "true"}})
    found = send(bundle)
    finished(bundle)
    path = bundle.local_queue(found.token)
    data = json.loads(path.read_text())
    data["supervisor"]["host"] = "elsewhere"
    data["jobs"][0] |= {"running": [[None, 1, None, "2026-01-02T03:04:05Z"]], "ended": []}
    path.write_text(json.dumps(data))
    one = status(bundle).stage("a")
    assert (one.state, one.reason) == (StageState.RUNNING, "on elsewhere")
    ref = JobRef(found.jobs["a"].job_id or "", found.jobs["a"].name)
    impatient = Local(sleep=lambda seconds: None)
    with pytest.raises(SchedulerError, match="has not ended") as caught:
        impatient.cancel(bundle, [ref], 0.0)
    assert "another host" in (caught.value.hint or "")


def test_a_supervisor_that_cannot_start_is_an_error_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make(tmp_path, {"a": {}})
    monkeypatch.setattr(supervisor, "_BOOT", "import sys; sys.exit('no room')")
    with pytest.raises(SubmissionError, match="did not start: no room"):
        send(bundle)
    assert not bundle.jobs.exists()
    assert not bundle.outputs.exists()


def test_a_supervisor_that_was_given_up_never_runs_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make(tmp_path, {"a": {}})
    monkeypatch.setattr(local, "START_TIMEOUT_S", 0.0)
    monkeypatch.setattr(supervisor, "_BOOT", "import time; time.sleep(1); " + supervisor._BOOT)
    with pytest.raises(SubmissionError, match="did not start"):
        send(bundle)
    time.sleep(2)
    assert not bundle.outputs.exists()


def test_of_submit_and_supervisor_only_one_makes_the_queue(tmp_path: Path) -> None:
    path = tmp_path / "logs/local-0a1b2c3d.json"
    assert create_queue(path, Queue("0a1b2c3d", None, ()))
    assert not create_queue(path, Queue("ffffffff", None, ()))
    read = read_queue(path)
    assert read is not None
    assert read.token == "0a1b2c3d"
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_damaged_queue_is_a_scheduler_that_does_not_answer(tmp_path: Path) -> None:
    bundle = make(tmp_path, {"a": {}})
    found = send(bundle)
    finished(bundle)
    bundle.local_queue(found.token).write_text('{"token": ')
    assert states(bundle)["a"] == "completed", "its record says so"
    assert any("not JSON" in note for note in status(bundle).notes)

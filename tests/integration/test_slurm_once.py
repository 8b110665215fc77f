"""Never twice, never lost: whatever happens to valska, each stage has one job."""

import json
import shutil
import time

import pytest
from slurmjobs import ask, ended, jobs_of, records, wait_until

pytestmark = pytest.mark.slurm

HOLD = ("--slurm", "hold")
KILLED_AFTER = """#!/bin/bash
/usr/bin/sbatch "$@" >/dev/null
kill -KILL $PPID
"""
KILLED_BEFORE = """#!/bin/bash
kill -KILL $PPID
"""
KILLED_AT_THE_SECOND = """#!/bin/bash
/usr/bin/sbatch "$@"
[[ $* != *submit_double.sh* ]] || kill -KILL $PPID
"""
MOMENTS = (0.5, 0.8, 0.9, 1.0, 1.05, 1.1, 1.2)
"""When valska is killed, as parts of the time that a dry run takes."""


def with_sbatch(user, text):
    """Return the options by which valska calls another sbatch."""
    program = user.write("my sbatch", text, mode=0o755)
    config = user.write("config.yaml", json.dumps({"sbatch": str(program)}))
    return "--config", config


def read_jobs(bundle):
    """Read both files that must be whole at every moment; None where there is no jobs.json."""
    json.loads((bundle / "manifest.json").read_text())
    path = bundle / "jobs.json"
    return json.loads(path.read_text()) if path.exists() else None


def kill_during_submit(user, bundle, sbatch, *options):
    done = user.valska("submit", bundle, *options, *with_sbatch(user, sbatch), check=False)
    assert done.returncode != 0
    found = read_jobs(bundle)
    assert [stage["job_id"] for stage in found["jobs"].values()] == [None]


@pytest.fixture
def bundle(slurm, user):
    return user.lines()


def test_killed_after_sbatch_took_the_job_which_still_waits(user, bundle):
    kill_during_submit(user, bundle, KILLED_AFTER, *HOLD)
    (lost,) = jobs_of(bundle)
    assert user.states(bundle)["count"] == "unconfirmed"
    jobs = user.submit(bundle)
    assert jobs["count"] == lost
    assert jobs_of(bundle) == [lost, jobs["double"]]
    ask("scontrol", "release", lost)
    assert ended(jobs["double"]) == "COMPLETED"
    assert user.states(bundle) == {"count": "completed", "double": "completed"}


@pytest.mark.parametrize("record", ["with", "without"])
def test_killed_after_sbatch_took_a_job_which_has_ended(user, bundle, record):
    kill_during_submit(user, bundle, KILLED_AFTER)
    (lost,) = jobs_of(bundle)
    ended(lost)
    if record == "without":
        shutil.rmtree(bundle / "records")
    done = user.valska("submit", bundle, "--json", check=record == "with")
    assert jobs_of(bundle)[0] == lost
    assert read_jobs(bundle)["jobs"]["count"]["job_id"] == lost
    if record == "with":
        assert json.loads(done.stdout)["found"] == ["count"]
        assert len(jobs_of(bundle)) == 2
    else:
        assert jobs_of(bundle) == [lost]


def test_killed_after_sbatch_took_the_second_job(user, bundle):
    options = with_sbatch(user, KILLED_AT_THE_SECOND)
    assert user.valska("submit", bundle, *HOLD, *options, check=False).returncode != 0
    found = {stage: job["job_id"] for stage, job in read_jobs(bundle)["jobs"].items()}
    first, second = jobs_of(bundle)
    assert found == {"count": first, "double": None}
    assert user.submit(bundle) == {"count": first, "double": second}
    assert jobs_of(bundle) == [first, second]
    user.valska("cancel", bundle)
    assert user.states(bundle) == {"count": "cancelled", "double": "cancelled"}


def test_killed_before_sbatch_was_called(user, bundle):
    kill_during_submit(user, bundle, KILLED_BEFORE)
    assert jobs_of(bundle) == []
    jobs = user.submit(bundle)
    assert jobs_of(bundle) == sorted(jobs.values(), key=int)
    assert read_jobs(bundle)["jobs"]["count"]["attempt"] == 1


def test_killed_at_any_moment(slurm, user):
    bundles = [user.lines(output=f"bundle {moment}") for moment in MOMENTS]
    command = (user.bin / "valska", "submit")
    begin = time.monotonic()
    user.run(*command, bundles[0], "--dry-run")
    length = time.monotonic() - begin
    for moment, bundle in zip(MOMENTS, bundles, strict=True):
        killed = user.start("timeout", "-s", "KILL", moment * length, *command, bundle)
        while killed.poll() is None:
            read_jobs(bundle)
    again = [user.start(*command, bundle) for bundle in bundles]
    while any(process.poll() is None for process in again):
        list(map(read_jobs, bundles))
        time.sleep(0.1)
    for bundle, process in zip(bundles, again, strict=True):
        assert process.returncode in (0, 4)
        jobs = read_jobs(bundle)["jobs"]
        assert jobs_of(bundle) == [jobs["count"]["job_id"], jobs["double"]["job_id"]]


def test_two_submits_at_the_same_time_send_one_chain(user, bundle):
    two = [user.start(user.bin / "valska", "submit", bundle, *HOLD) for _ in range(2)]
    assert sorted(process.wait(timeout=300) for process in two) == [0, 4]
    jobs = jobs_of(bundle)
    assert len(jobs) == 2
    user.run("scancel", *jobs)


def test_a_live_stage_is_not_sent_again(user, bundle):
    jobs = user.submit(bundle, *HOLD)
    for options in ((), ("--resubmit",), ("--stage", "count", "--resubmit")):
        done = user.valska("submit", bundle, *options, check=False)
        assert done.returncode == 4
        assert "is pending already" in done.stderr
    assert jobs_of(bundle) == sorted(jobs.values(), key=int)
    assert not list(bundle.glob("jobs_*"))
    user.valska("cancel", bundle)


def test_resubmit_archives_and_runs_again(user, bundle):
    first = user.submit(bundle)
    wait_until(lambda: user.states(bundle)["double"] == "completed")
    earlier = (bundle / "jobs.json").read_bytes()
    refused = user.valska("submit", bundle, check=False)
    assert refused.returncode == 4
    assert "--resubmit" in refused.stderr
    second = user.submit(bundle, "--resubmit")
    (archived,) = bundle.glob("jobs_*.json")
    assert archived.read_bytes() == earlier
    assert not set(first.values()) & set(second.values())
    wait_until(lambda: user.states(bundle)["double"] == "completed")
    assert (bundle / "outputs.1" / "count.txt").is_file()
    assert len(records(bundle, "count")) == 2
    assert read_jobs(bundle)["jobs"]["count"]["attempt"] == 2

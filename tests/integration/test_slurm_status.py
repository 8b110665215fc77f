"""What valska says of its jobs while they wait, run, and after their end."""

import shutil
import subprocess
import time
from dataclasses import replace

import pytest
from slurmjobs import ended, jobs_of, wait_until

pytestmark = pytest.mark.slurm

NO_ACCOUNTING = "#!/bin/bash\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n"
FORGOTTEN = "#!/bin/bash\necho 'slurm_load_jobs error: Invalid job id specified' >&2\nexit 1\n"
SILENT = (
    "#!/bin/bash\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n"
)
NOTHING = "#!/bin/bash\n"
WAITS = "; until [[ -e ../go ]]; do sleep 0.2; done"


@pytest.fixture
def other(account):
    """Somebody who may read but not write, and whose jobs these are not."""
    if account.name is None:
        pytest.skip("not root: there is no other account to become")
    return replace(account, name="nobody")


def shadowing(user, **programs):
    """Return an environment in which other programs hide Slurm's."""
    folder = user.work / "programs"
    folder.mkdir()
    for name, text in programs.items():
        user.write(f"programs/{name}", text, mode=0o755)
    return {"PATH": f"{folder}:{user.bin}:/usr/bin:/bin"}


def test_from_pending_to_completed(slurm, user, other):
    bundle = user.lines(then=WAITS)
    assert user.states(bundle) == {"count": "not-submitted", "double": "not-submitted"}
    jobs = user.submit(bundle, "--slurm", "hold")
    watch = user.start(
        user.bin / "valska", "status", bundle, "--watch", stdout=subprocess.PIPE, text=True
    )
    for who in (user, other):
        assert who.states(bundle) == {"count": "pending", "double": "pending"}
    user.run("scontrol", "release", *jobs.values())
    wait_until(lambda: user.states(bundle) == {"count": "running", "double": "pending"})
    status = other.status(bundle)
    assert status["state"] == "running"
    assert (
        status["stages"][0]["log"] == f"logs/{status['stages'][0]['job_name']}-{jobs['count']}.log"
    )
    time.sleep(2)
    user.write("bundle/go", "")
    ended(jobs["double"])
    for who in (user, other):
        assert who.states(bundle) == {"count": "completed", "double": "completed"}
    status = user.status(bundle)
    assert [stage["job_id"] for stage in status["stages"]] == list(jobs.values())
    assert [stage["exit_code"] for stage in status["stages"]] == [0, 0]
    text = user.valska("status", bundle).stdout
    assert text.count("completed") == 2
    said, _ = watch.communicate(timeout=60)
    assert watch.returncode == 0
    order = [said.index(word) for word in ("pending", "running", "completed")]
    assert order == sorted(order)


def test_watch_ends_when_the_stages_have(slurm, user):
    bundle = user.lines(then="; sleep 1")
    user.submit(bundle)
    said = user.valska("status", bundle, "--watch").stdout
    assert said.rstrip().splitlines()[-1].split()[:2] == ["double", "completed"]


def test_failure_names_the_log(slurm, user):
    bundle = user.lines(then="; echo what went wrong >&2; exit 7")
    done = user.valska("submit", bundle, "--wait", check=False)
    assert done.returncode == 1
    count = user.status(bundle)["stages"][0]
    assert (count["state"], count["exit_code"]) == ("failed", 7)
    assert "what went wrong" in (bundle / count["log"]).read_text()
    assert str(bundle / count["log"]) in done.stderr
    assert count["log"] in user.valska("status", bundle).stderr


@pytest.mark.parametrize(
    "programs",
    [
        {"sacct": NO_ACCOUNTING},
        {"sacct": NO_ACCOUNTING, "squeue": FORGOTTEN},
        {"sacct": NOTHING, "squeue": FORGOTTEN},
    ],
    ids=["no-accounting", "no-accounting-and-forgotten", "forgotten-by-both"],
)
def test_the_jobs_own_records_tell(slurm, user, programs):
    good, bad = user.lines(), user.lines(then="; exit 7", output="bad")
    user.submit(good)
    user.submit(bad)
    for bundle in (good, bad):
        user.valska("status", bundle, "--watch")
    env = shadowing(user, **programs)
    assert user.states(good, env=env) == {"count": "completed", "double": "completed"}
    states = user.states(bad, env=env)
    assert states["count"] == "failed"
    assert states["double"] in ("cancelled", "lost")
    assert user.status(bad, env=env)["stages"][0]["exit_code"] == 7


def test_slurm_that_does_not_answer_is_no_answer(slurm, user):
    bundle = user.lines(then=WAITS)
    jobs = user.submit(bundle)
    env = shadowing(user, squeue=SILENT, sacct=SILENT)
    status = user.status(bundle, env=env)
    assert {stage["state"] for stage in status["stages"]} == {"unknown"}
    assert any("Unable to contact" in note for note in status["notes"])
    refused = user.valska("submit", bundle, "--resubmit", env=env, check=False)
    assert refused.returncode == 4
    assert jobs_of(bundle) == list(jobs.values())
    user.valska("cancel", bundle)


def test_lost_job(slurm, user):
    """A job that neither Slurm nor a record knows any more."""
    bundle = user.lines()
    job = user.submit(bundle, "--stage", "count")["count"]
    ended(job)
    shutil.rmtree(bundle / "records")
    env = shadowing(user, squeue=FORGOTTEN, sacct=NOTHING)
    assert user.states(bundle, env=env) == {"count": "lost", "double": "not-submitted"}

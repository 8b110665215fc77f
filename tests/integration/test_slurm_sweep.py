"""Sweeps on a real Slurm: never a point twice, never a point lost, and no more than fits."""

import json
import os
import shutil
import subprocess
import time
from dataclasses import replace

import pytest
from services import unavailable
from slurmjobs import accounts, ask, jobs_of, processes, wait_until
from smallslurm import SmallSlurm

pytestmark = pytest.mark.slurm

STAGES = ("count", "double")
QUICK = [f"true {number}" for number in range(9)]
MOMENTS = (0.5, 0.7, 0.85, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3)
"""When valska is killed, as parts of the time that a dry run takes."""
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


def make(user, runs, name="sweep", *options):
    """Make a sweep of the small tool; each point runs a piece of shell code."""
    values = "run=" + ",".join(json.dumps(run) for run in runs)
    source = ("linetool", "--template", "three", "--runner", "host")
    done = user.valska("sweep", *source, "--values", values, *options, "-o", name)
    return user.work / done.stdout.splitlines()[-1]


def labels(sweep):
    """Return the labels of the points, in order."""
    points = json.loads((sweep / "sweep_manifest.json").read_text())["points"]
    return [point["label"] for point in points]


def submit(user, sweep, *options, code=0):
    done = user.valska("submit", sweep, "--json", *options, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def states(user, sweep):
    """Return the state of each stage of each point, in the order of the points."""
    points = user.status(sweep)["points"]
    return [tuple(point["stages"][stage]["state"] for stage in STAGES) for point in points]


def finished(user, sweep, timeout=300):
    """Wait until nothing of a sweep waits or runs, and return the states."""
    live = {"pending", "running", "unconfirmed"}

    def settled():
        found = states(user, sweep)
        return found if not any(live & set(row) for row in found) else None

    return wait_until(settled, timeout)


def ran(sweep):
    """Return how many times each stage of each point was started."""
    return [
        tuple(
            len(list((sweep / "points" / label / "records").glob(f"{stage}-*"))) for stage in STAGES
        )
        for label in labels(sweep)
    ]


def read_jobs(sweep):
    """Read the files that must be whole at every moment; None where there is no jobs.json."""
    json.loads((sweep / "sweep_manifest.json").read_text())
    path = sweep / "jobs.json"
    return json.loads(path.read_text()) if path.exists() else None


def arrays_of(sweep):
    """Return the ids of all arrays, live or not, that were ever sent from a sweep."""
    return sorted({job.partition("_")[0] for job in task_ids(sweep)}, key=int)


def task_ids(sweep):
    rows = accounts("--starttime=now-1hour", fields="JobID,WorkDir")
    rows += [
        line.split("|") for line in ask("squeue", "-h", "-r", "--states=all", "--format=%i|%Z")
    ]
    return {job for job, place in rows if place == str(sweep)}


@pytest.fixture
def nine(slurm, user):
    return make(user, QUICK)


def test_nine_points_of_two_stages_all_finish(user, nine):
    done = submit(user, nine)
    assert [(array["stage"], array["tasks"]) for array in done["arrays"]] == [
        ("count", "0-8"), ("double", "0-8"),
    ]  # fmt: skip
    assert finished(user, nine) == [("completed", "completed")] * 9
    assert arrays_of(nine) == [array["job_id"] for array in done["arrays"]]
    assert ran(nine) == [(1, 1)] * 9
    assert [
        (nine / "points" / label / "outputs/double.txt").read_text() for label in labels(nine)
    ] == ["6\n"] * 9
    user.valska("verify", nine)
    again = user.valska("submit", nine, check=False)
    assert again.returncode == 4
    assert "--resume" in again.stderr
    assert submit(user, nine, "--resume")["arrays"] == []


def with_sbatch(user, text):
    """Return the options by which valska calls another sbatch."""
    program = user.write("my sbatch", text, mode=0o755)
    config = user.write("config.yaml", json.dumps({"sbatch": str(program)}))
    return "--config", config


@pytest.mark.parametrize(
    "how",
    [KILLED_AFTER, KILLED_BEFORE, KILLED_AT_THE_SECOND],
    ids=["after", "before", "at the second"],
)
def test_killed_around_sbatch(user, nine, how):
    done = user.valska("submit", nine, *with_sbatch(user, how), check=False)
    assert done.returncode != 0
    known = [array["job_id"] for array in read_jobs(nine)["arrays"]]
    assert known.count(None) == 1
    taken = {KILLED_AFTER: 1, KILLED_BEFORE: 0, KILLED_AT_THE_SECOND: 2}[how]
    assert len(arrays_of(nine)) == taken
    again = submit(user, nine)
    assert len(again["found"]) == taken
    counts = dict.fromkeys(STAGES, 0)
    for array in read_jobs(nine)["arrays"]:
        counts[array["stage"]] += array["count"]
    assert counts == {"count": 9, "double": 9}
    assert arrays_of(nine) == [array["job_id"] for array in read_jobs(nine)["arrays"]]
    assert finished(user, nine) == [("completed", "completed")] * 9
    assert ran(nine) == [(1, 1)] * 9


def test_killed_at_any_moment(slurm, user):
    sweeps = [make(user, QUICK[:3], f"sweep {moment}") for moment in MOMENTS]
    command = (user.bin / "valska", "submit")
    begin = time.monotonic()
    user.run(*command, sweeps[0], "--dry-run")
    length = time.monotonic() - begin
    for moment, sweep in zip(MOMENTS, sweeps, strict=True):
        killed = user.start("timeout", "-s", "KILL", moment * length, *command, sweep)
        while killed.poll() is None:
            read_jobs(sweep)
    again = [user.start(*command, sweep) for sweep in sweeps]
    while any(process.poll() is None for process in again):
        list(map(read_jobs, sweeps))
        time.sleep(0.1)
    for sweep, process in zip(sweeps, again, strict=True):
        assert process.returncode in (0, 4)
        found = read_jobs(sweep)["arrays"]
        assert [(array["stage"], array["tasks"]) for array in found] == [
            ("count", "0-2"), ("double", "0-2"),
        ]  # fmt: skip
        assert arrays_of(sweep) == [array["job_id"] for array in found]
        assert finished(user, sweep) == [("completed", "completed")] * 3
        assert ran(sweep) == [(1, 1)] * 3


def test_two_submits_at_the_same_time_send_one_of_each(user, nine):
    two = [user.start(user.bin / "valska", "submit", nine) for _ in range(2)]
    assert sorted(process.wait(timeout=300) for process in two) == [0, 4]
    assert len(arrays_of(nine)) == 2


def test_a_failed_parent_ends_its_child_and_resume_redoes_just_that(slurm, user):
    go = user.work / "go"
    sweep = make(user, ["true 1", f"test -e {go}", "true 3"])
    submit(user, sweep)
    whole = ("completed", "completed")
    assert finished(user, sweep) == [whole, ("failed", "cancelled"), whole]
    before = {path: path.read_bytes() for path in sweep.glob("points/*/records/*")}
    user.write("go", "")
    done = submit(user, sweep, "--resume")
    assert [array["count"] for array in done["arrays"]] == [1, 1]
    assert finished(user, sweep) == [whole] * 3
    assert ran(sweep) == [(1, 1), (2, 1), (1, 1)]
    assert {path: path.read_bytes() for path in before} == before
    assert (sweep / "points" / labels(sweep)[1] / "outputs.1/count.txt").is_file()
    user.valska("verify", sweep)


def test_one_point_is_cancelled_and_one_sent_again_by_its_directory(slurm, user):
    go = user.work / "go"
    sweep = make(user, ["true 1", f"test -e {go} || sleep 600", "sleep 4"])
    points = [sweep / "points" / label for label in labels(sweep)]
    submit(user, sweep)
    wait_until(lambda: states(user, sweep)[1][0] == "running")
    done = user.valska("cancel", sweep, "--only", points[1].name, "--json")
    assert len(json.loads(done.stdout)["jobs"]) == 2
    whole = ("completed", "completed")
    assert finished(user, sweep) == [whole, ("cancelled", "cancelled"), whole]
    user.write("go", "")
    user.valska("submit", points[1], "--resume", "--wait")
    assert states(user, sweep) == [whole] * 3
    assert ran(sweep) == [(1, 1), (2, 1), (1, 1)]


def test_a_whole_sweep_is_cancelled_in_two_jobs(slurm, user):
    sweep = make(user, [f"sleep {600 + number}" for number in range(12)])
    jobs = [array["job_id"] for array in submit(user, sweep, "--throttle", "2")["arrays"]]
    wait_until(lambda: [row[0] for row in states(user, sweep)].count("running") == 2)
    done = user.valska("cancel", sweep, "--json")
    assert sorted(json.loads(done.stdout)["jobs"]) == sorted(jobs)
    assert finished(user, sweep) == [("cancelled", "cancelled")] * 12
    assert ask("squeue", "-h", f"--jobs={','.join(jobs)}", "--states=PENDING,RUNNING") == []


def test_a_stage_sent_later_waits_for_the_tasks_that_still_run(slurm, user):
    go = user.work / "go"
    held = f"until test -e {go}; do sleep 0.2; done"
    sweep = make(user, ["true 1", held, "true 3"])
    (count,) = submit(user, sweep, "--stage", "count")["arrays"]
    wait_until(lambda: [row[0] for row in states(user, sweep)].count("completed") == 2)
    done = submit(user, sweep)["arrays"]
    waits = {array["dependency"]: (array["list"], array["tasks"]) for array in done}
    assert waits[f"aftercorr:{count['job_id']}"] == (count["list"], "1")
    assert waits[None][1] == "0-1"
    user.write("go", "")
    assert finished(user, sweep) == [("completed", "completed")] * 3
    assert ran(sweep) == [(1, 1)] * 3


@pytest.mark.apptainer
def test_tasks_do_not_read_the_image_that_submit_has_read(slurm, user, tiny_image):
    copy = user.work / "copy.sif"
    shutil.copy(tiny_image, copy)
    user.own(copy)
    source = ("linetool", "--template", "three", "--image", tiny_image)
    user.valska("sweep", *source, "--values", 'run="true 1","true 2"', "-o", "sweep")
    sweep = user.work / "sweep"
    submit(user, sweep, "--image", copy)
    assert finished(user, sweep) == [("completed", "completed")] * 2
    images = [json.loads(path.read_text())["image"] for path in sweep.glob("points/*/records/*")]
    assert [(image["path"], image["checked"]) for image in images] == [(str(copy), "receipt")] * 4
    user.valska("verify", sweep)


def test_an_altered_point_is_not_sent_and_the_others_are(slurm, user):
    sweep = make(user, QUICK[:3])
    point = sweep / "points" / labels(sweep)[1]
    with (point / "config/lines.yaml").open("a") as config:
        config.write("# altered\n")
    done = submit(user, sweep, code=4)
    assert {(entry["unit"], entry["stage"]) for entry in done["blocked"]} == {
        (f"points/{point.name}", stage) for stage in STAGES
    }
    whole = ("completed", "completed")
    assert finished(user, sweep) == [whole, ("not-submitted", "not-submitted"), whole]


# --- no more than fits


@pytest.fixture
def small(slurm, place, user):
    """Start a small Slurm with these limits, and return it and the user who works on it."""
    if os.geteuid() != 0:
        unavailable("a second Slurm is started by root only")
    started = []

    def start(**limits):
        path = place / f"slurm-{os.getpid()}-{len(started)}-{time.monotonic_ns()}"
        cluster = SmallSlurm(path, f"small{time.monotonic_ns() % 10**9}")
        started.append(cluster)
        cluster.start(user.name, "root", **limits)
        return cluster, replace(user, env={**user.env, **cluster.env})

    yield start
    for cluster in started:
        cluster.stop()
        shutil.rmtree(cluster.path, ignore_errors=True)


def test_low_limits_of_the_cluster(small):
    _, user = small(MaxArraySize=4, MaxJobCount=12, MinJobAge=3)
    sweep = make(user, [f"true {number}" for number in range(14)])
    begin = time.monotonic()
    first = submit(user, sweep)
    assert time.monotonic() - begin < 30
    assert [(array["stage"], array["tasks"]) for array in first["arrays"]] == [
        ("count", "0-3"), ("double", "0-3"), ("count", "0"), ("double", "0"),
    ]  # fmt: skip
    assert first["unsent"] == {"count": 9, "double": 9}
    assert "MaxJobCount=12" in first["why_unsent"]

    def resume():
        done = submit(user, sweep, "--resume")
        return not done["unsent"] and not done["arrays"] and not done["live"]

    wait_until(resume, timeout=300, pause=2)
    assert finished(user, sweep) == [("completed", "completed")] * 14
    assert ran(sweep) == [(1, 1)] * 14


def test_the_largest_array_is_sent_whole(small):
    _, user = small(MaxArraySize=9, MaxJobCount=100)
    sweep = make(user, QUICK)
    assert [array["tasks"] for array in submit(user, sweep)["arrays"]] == ["0-8", "0-8"]
    assert finished(user, sweep) == [("completed", "completed")] * 9


def test_a_users_limit_of_submitted_jobs(small):
    cluster, user = small(MinJobAge=3)
    cluster.limit(user.name, 7)
    sweep = make(user, [f"true {number}" for number in range(5)])
    done = submit(user, sweep)
    assert [array["tasks"] for array in done["arrays"]] == ["0-2", "0-2"]
    assert done["unsent"] == {"count": 2, "double": 2}
    assert "MaxSubmitJobs=7" in done["why_unsent"]
    wait_until(lambda: not submit(user, sweep, "--resume")["unsent"], pause=2)
    assert finished(user, sweep) == [("completed", "completed")] * 5
    cluster.limit(user.name, 1)
    other = make(user, ["true 1"], "other")
    assert [array["stage"] for array in submit(user, other)["arrays"]] == ["count"]
    wait_until(lambda: states(user, other)[0][0] == "completed")
    assert [array["stage"] for array in submit(user, other)["arrays"]] == ["double"]
    assert finished(user, other) == [("completed", "completed")]
    assert ran(other) == [(1, 1)]


def test_a_queue_full_of_what_cannot_be_seen_blocks_nobody(small):
    cluster, user = small(MaxJobCount=40, MinJobAge=3, PrivateData="jobs")
    script = user.write("other.sh", "#!/bin/bash\nsleep 600\n", mode=0o755)
    cluster.ask("sbatch", "--hold", "--array=0-29", "--output=/dev/null", str(script))
    sweep = make(user, [f"true {number}" for number in range(16)])
    begin = time.monotonic()
    done = submit(user, sweep)
    assert time.monotonic() - begin < 60
    assert "queue is full" in done["why_unsent"]
    sent = sum(array["count"] for array in done["arrays"])
    assert 6 <= sent <= 9
    assert sum(done["unsent"].values()) == 32 - sent
    assert [line for line in processes(str(sweep)) if line] == []
    cluster.ask("scancel", "--user=root")
    wait_until(lambda: not submit(user, sweep, "--resume")["unsent"], pause=2)
    assert finished(user, sweep) == [("completed", "completed")] * 16
    assert ran(sweep) == [(1, 1)] * 16


def test_a_full_queue_refuses_a_bundle_at_once(small):
    cluster, user = small(MaxJobCount=5, PrivateData="jobs")
    script = user.write("other.sh", "#!/bin/bash\nsleep 600\n", mode=0o755)
    cluster.ask("sbatch", "--hold", "--array=0-3", "--output=/dev/null", str(script))
    bundle = user.lines()
    begin = time.monotonic()
    refused = user.valska("submit", bundle, check=False)
    assert time.monotonic() - begin < 30
    assert refused.returncode == 4
    assert "queue is full" in refused.stderr
    assert not (bundle / "jobs.json").exists()
    assert subprocess.run(["pgrep", "-f", f"sbatch.*{bundle}"], check=False).returncode == 1
    assert jobs_of(bundle) == []

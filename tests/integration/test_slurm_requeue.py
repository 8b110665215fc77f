"""A point that Slurm requeues goes on from its chains; its matrices are made once, elsewhere."""

import json

import pytest
from slurmjobs import ask, records, state, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.apptainer]

FIT = "signal_fit"


@pytest.fixture
def sweep(user, contract_image):
    """Two points that share their matrices; a sampling stage takes half a minute."""
    data = user.write("mock.uvh5", json.dumps({"seconds": {FIT: 30}}))
    source = ("bayeseor", "--template", "tiny_cpu", "--cpu", "--hypothesis", FIT)
    values = ("--data", data, "--image", contract_image, "--values", "noise_seed=1,2")
    done = user.valska("sweep", *source, *values, "-o", "sweep")
    return user.work / done.stdout.splitlines()[-1]


def array_of(sweep, stage):
    """Return the id of the only array of a stage."""
    arrays = json.loads((sweep / "jobs.json").read_text())["arrays"]
    (found,) = [array["job_id"] for array in arrays if array["stage"] == stage]
    return found


def begun_again(user, task):
    """Ask for a requeued task's start at once, for as long as Slurm puts it off."""
    if state(task) == "RUNNING":
        return True
    user.run("scontrol", "update", f"jobid={task}", "StartTime=now", check=False)
    return False


def test_requeued_point_goes_on_from_its_chains(slurm, user, sweep):
    user.valska("submit", sweep)
    first, second = sorted((sweep / "points").iterdir())
    array = array_of(sweep, FIT)
    (chain,) = wait_until(lambda: list(first.glob(f"outputs/{FIT}/MN-*/data-resume.dat")))
    user.run("scontrol", "requeue", f"{array}_0")
    wait_until(lambda: any("BeginTime" in line for line in ask("squeue", f"--jobs={array}")))
    drawn = (chain.with_name("data-ev.dat")).read_text().splitlines()
    wait_until(lambda: begun_again(user, f"{array}_0"))
    wait_until(lambda: [r for r in records(first, FIT) if r["job"]["restart"] and r["ended_utc"]])
    wait_until(lambda: not ask("squeue", "--noheader", f"--jobs={array}"))

    stopped, resumed = records(first, FIT)
    assert (stopped["state"], stopped["resumed_from"]) == ("signalled", None)
    assert (resumed["state"], resumed["job"]["restart"]) == ("completed", 1)
    assert resumed["resumed_from"] == f"outputs/{FIT}/{chain.parent.name}"
    assert resumed["runner"]["command"][-2:] == ["--file-root-dir", chain.parent.name]
    kept = len(drawn) // 25 * 25
    after = chain.with_name("data-ev.dat").read_text().splitlines()
    assert kept > 0
    assert after[:kept] == drawn[:kept]
    assert not list(first.glob("outputs.*"))
    (straight,) = records(second, FIT)
    assert straight["state"] == "completed"

    (unit,) = (sweep / "shared").iterdir()
    (built,) = records(unit, "cpu_precompute")
    assert built["state"] == "completed"
    for point in (first, second):
        assert list((point / "outputs/matrices").iterdir()) == []
        (log,) = (point / "logs").iterdir()
        assert "Sampling complete!" in log.read_text()
    user.valska("verify", sweep)

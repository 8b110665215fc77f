"""BayesEoR's stages on a real Slurm: the contract program, its time limits and its requeues."""

import json
import subprocess

import pytest
from slurmjobs import accounts, wait_until

from valska.external_tools.core.run_directory import Bundle

pytestmark = [pytest.mark.slurm, pytest.mark.apptainer]

STAGES = ("cpu_precompute", "signal_fit", "no_signal")


@pytest.fixture
def bundle(user, slurm, contract_image):
    user.write("eor.uvh5", "{}")

    def make(*args, seconds=None):
        source = ("bayeseor", "--template", "tiny_cpu", "--cpu", "--data", "eor.uvh5")
        made = Bundle(user.bundle(*source, "--image", contract_image, "--slurm", "mem=1G", *args))
        if seconds:
            (made.outputs / "contract.json").write_text(json.dumps({"seconds": seconds}))
        return made

    return make


def ended(user, bundle, timeout=300):
    """Return the states of the stages when no job is left."""
    live = ("pending", "running", "unknown")
    wait_until(lambda: not set(user.states(bundle.path).values()) & set(live), timeout)
    return user.states(bundle.path)


def records(bundle, stage):
    found = [json.loads(path.read_text()) for path in bundle.records.glob(f"{stage}-*.json")]
    return sorted(found, key=lambda record: (record["started_utc"], record["job"]["restart"]))


def drawn(bundle):
    """Return what sampling has drawn so far."""
    (chains,) = bundle.outputs.glob("signal_fit/MN-*")
    return (chains / "data-ev.dat").read_text().splitlines()


def test_stages_run_as_they_depend_on_each_other(user, bundle):
    made = bundle(seconds={"matrices": 3})
    user.submit(made.path, "--scheduler", "slurm")
    assert ended(user, made) == dict.fromkeys(STAGES, "completed")
    (built,), (signal,), (none,) = (records(made, stage) for stage in STAGES)
    assert built["ended_utc"] <= min(signal["started_utc"], none["started_utc"])
    user.valska("verify", made.path)


def test_sampling_that_ran_out_of_time_goes_on_where_it_was(user, bundle):
    made = bundle("--slurm", "time=1", seconds={"signal_fit": 75})
    jobs = user.submit(made.path, "--scheduler", "slurm")
    states = ended(user, made)
    assert (states["cpu_precompute"], states["no_signal"]) == ("completed", "completed")
    assert states["signal_fit"] not in ("completed", "running")
    (stopped,) = records(made, "signal_fit")
    assert (stopped["state"], stopped["signal"]) == ("signalled", "TERM")
    first = drawn(made)
    assert 25 < len(first) < 375

    (made.outputs / "contract.json").unlink()
    again = user.submit(made.path, "--resume")
    assert [stage for stage in STAGES if again[stage] != jobs[stage]] == ["signal_fit"]
    assert ended(user, made) == dict.fromkeys(STAGES, "completed")
    _, resumed = records(made, "signal_fit")
    assert resumed["state"] == "completed"
    assert resumed["resumed_from"].startswith("outputs/signal_fit/MN-")
    saved = len(first) // 25 * 25
    assert drawn(made)[:saved] == first[:saved]
    for stage in ("cpu_precompute", "no_signal"):
        assert [record["job"]["id"] for record in records(made, stage)] == [jobs[stage]]
    user.valska("verify", made.path)


def test_a_requeued_stage_goes_on_by_itself(user, bundle):
    made = bundle("--hypothesis", "signal_fit", seconds={"signal_fit": 20})
    jobs = user.submit(made.path, "--scheduler", "slurm")
    wait_until(lambda: list(made.outputs.glob("signal_fit/MN-*/data-resume.dat")))
    subprocess.run(["scontrol", "requeue", jobs["signal_fit"]], check=True)
    assert ended(user, made)["signal_fit"] == "completed"
    first, second = records(made, "signal_fit")
    assert (first["job"]["restart"], second["job"]["restart"]) == (0, 1)
    assert first["state"] == "signalled"
    assert second["resumed_from"].startswith("outputs/signal_fit/MN-")
    assert not list(made.path.glob("outputs.*"))
    assert len(list(made.outputs.glob("signal_fit/MN-*"))) == 1


def test_sampling_does_not_wait_for_ever_for_matrices_that_failed(user, bundle):
    made = bundle()
    (made.outputs / "contract.json").write_text(json.dumps({"exit": {"matrices": 3}}))
    jobs = user.submit(made.path, "--scheduler", "slurm")
    states = ended(user, made)
    assert states["cpu_precompute"] == "failed"
    assert not {"completed", "running"} & {states["signal_fit"], states["no_signal"]}
    rows = {row[0]: row[1] for row in accounts("--jobs", ",".join(jobs.values()))}
    assert rows[jobs["signal_fit"]].startswith("CANCELLED")

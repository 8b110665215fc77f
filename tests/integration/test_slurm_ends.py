"""How a stage can end early: its payload is gone, its record is written, nothing is released."""

import itertools
import os
import signal
from contextlib import suppress

import pytest
from slurmjobs import ended, processes, record_of, records, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.apptainer]

_numbers = itertools.count(1)


@pytest.fixture
def seconds():
    """A time to sleep by which this test's own payload is known among all processes."""
    text = f"9{os.getpid():07d}.{next(_numbers)}"
    yield text
    for pid in processes(f"sleep {text}"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def sleeping(seconds, before=""):
    return f"; {before} echo begun > begun; sleep {seconds}"


@pytest.fixture
def running(slurm, user, tiny_image, seconds):
    """Submit a bundle and wait until its payload runs; return bundle and jobs."""

    def start(*options, before=""):
        bundle = user.lines(*options, then=sleeping(seconds, before), image=tiny_image)
        jobs = user.submit(bundle)
        wait_until((bundle / "outputs" / "begun").is_file)
        assert processes(f"sleep {seconds}")
        return bundle, jobs

    return start


def assert_gone(seconds):
    wait_until(lambda: not processes(f"sleep {seconds}"), timeout=60)


def assert_never_ran(bundle, jobs):
    assert ended(jobs["double"]) == "CANCELLED"
    assert records(bundle, "double") == []
    assert not (bundle / "outputs" / "double.txt").exists()


def test_time_limit(user, running, seconds):
    bundle, jobs = running("--slurm", "time=1")
    assert ended(jobs["count"]) in ("FAILED", "TIMEOUT")
    assert_gone(seconds)
    record = record_of(bundle, "count")
    assert (record["state"], record["signal"], record["exit_code"]) == ("signalled", "TERM", 143)
    assert [one["path"] for one in record["outputs"]] == ["outputs/count.txt"]
    assert_never_ran(bundle, jobs)
    assert user.states(bundle) == {"count": "timeout", "double": "cancelled"}


def test_cancel(user, running, seconds):
    bundle, jobs = running()
    assert user.states(bundle) == {"count": "running", "double": "pending"}
    done = user.valska("cancel", bundle)
    assert done.stdout.splitlines() == ["count cancelled", "double cancelled"]
    assert_gone(seconds)
    record = record_of(bundle, "count")
    assert (record["state"], record["signal"]) == ("signalled", "TERM")
    assert_never_ran(bundle, jobs)
    assert user.states(bundle) == {"count": "cancelled", "double": "cancelled"}
    again = user.valska("cancel", bundle)
    assert again.stdout == ""
    user.valska("verify", bundle)


def test_cancel_of_the_dependant_alone(user, running, seconds):
    bundle, jobs = running()
    user.valska("cancel", bundle, "--stage", "double")
    assert user.states(bundle) == {"count": "running", "double": "cancelled"}
    assert processes(f"sleep {seconds}")
    user.valska("cancel", bundle)
    assert_never_ran(bundle, jobs)


def test_payload_that_does_not_heed_the_signal(user, running, seconds):
    bundle, jobs = running("--slurm", "time=3", before="trap '' TERM;")
    user.valska("cancel", bundle)
    assert_gone(seconds)
    record = record_of(bundle, "count")
    assert (record["state"], record["signal"]) == ("signalled", "TERM")
    assert user.states(bundle) == {"count": "cancelled", "double": "cancelled"}
    assert_never_ran(bundle, jobs)


def test_scancel_by_hand(user, running, seconds):
    bundle, jobs = running()
    user.run("scancel", jobs["count"])
    assert ended(jobs["count"]) == "CANCELLED"
    assert_gone(seconds)
    assert_never_ran(bundle, jobs)
    assert user.states(bundle) == {"count": "cancelled", "double": "cancelled"}


def test_script_killed_without_a_chance(user, running):
    """No trap runs, so the record still says running; Slurm knows that it failed."""
    bundle, jobs = running()
    os.kill(record_of(bundle, "count")["pid"], signal.SIGKILL)
    assert ended(jobs["count"]) == "FAILED"
    assert record_of(bundle, "count")["state"] == "running"
    assert_never_ran(bundle, jobs)
    count = user.status(bundle)["stages"][0]
    assert (count["state"], count["reason"]) == (
        "failed",
        "killed before it could write its record",
    )


def test_requeue_keeps_both_attempts(slurm, user, tiny_image, seconds):
    then = f"; if [[ ! -e ../outputs.1 ]]; then echo first; sleep {seconds}; fi; echo second"
    bundle = user.lines(then=then, image=tiny_image)
    sent = user.run("sbatch", "--parsable", "--requeue", "submit_count.sh", cwd=bundle)
    job = sent.stdout.strip()
    (log,) = wait_until(lambda: list(bundle.glob("logs/*")))
    wait_until(lambda: "first" in log.read_text())
    user.run("scontrol", "requeue", job)
    wait_until(lambda: len(records(bundle, "count")) == 2)
    assert ended(job) == "COMPLETED"
    assert_gone(seconds)
    first, second = records(bundle, "count")
    assert (first["job"]["restart"], second["job"]["restart"]) == (0, 1)
    assert first["state"] in ("signalled", "running")
    assert second["state"] == "completed"
    assert (bundle / "outputs.1" / "count.txt").read_text() == "3\n"
    assert (bundle / "outputs" / "count.txt").read_text() == "3\n"
    text = log.read_text()
    assert text.index("first") < text.index("second")
    assert user.states(bundle)["count"] == "completed"

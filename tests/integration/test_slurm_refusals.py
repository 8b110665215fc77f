"""What must not run does not, and what did not work is no success."""

import shutil

import pytest
from slurmjobs import ask, ended, jobs_of, record_of, records, state, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.apptainer]

HOLD = ("--stage", "count", "--slurm", "hold")
ALTERED = ("submit_count.sh", "config/lines.yaml", "inputs/data.txt", "containers/tiny.def")


def append(path, data=b"#\n"):
    path.write_bytes(path.read_bytes() + data)


@pytest.fixture
def bundle(slurm, user, tiny_image):
    return user.lines(image=tiny_image)


def test_exit_0_without_the_declared_output_is_a_failure(slurm, user, tiny_image):
    bundle = user.lines(then="; rm count.txt", image=tiny_image)
    done = user.valska("submit", bundle, "--wait", check=False)
    assert done.returncode == 1
    assert "count.txt" in done.stderr
    record = record_of(bundle, "count")
    assert (record["state"], record["exit_code"]) == ("failed", 66)
    assert record["missing_outputs"] == ["count.txt"]
    assert user.states(bundle) == {"count": "failed", "double": "cancelled"}
    assert records(bundle, "double") == []
    assert ask("squeue", "--noheader", f"--jobs={jobs_of(bundle)[1]}") == []


@pytest.mark.parametrize("name", ALTERED)
def test_altered_bundle_is_named_and_not_sent(user, bundle, name):
    path = next(bundle.glob("containers/*")) if "containers" in name else bundle / name
    append(path)
    for verb in ("verify", "submit"):
        done = user.valska(verb, bundle, check=False)
        assert done.returncode == 5
        assert path.name in done.stdout + done.stderr
    assert jobs_of(bundle) == []
    assert not (bundle / "jobs.json").exists()


@pytest.mark.parametrize("name", ["config/lines.yaml", "inputs/data.txt", "manifest.json"])
def test_bundle_altered_while_its_job_waits(user, bundle, name):
    job = user.submit(bundle, *HOLD)["count"]
    append(bundle / name, b"\n")
    user.run("scontrol", "release", job)
    assert ended(job) == "FAILED"
    record = record_of(bundle, "count")
    assert (record["state"], record["exit_code"]) == ("refused", 5)
    assert name in record["reason"]
    assert not list(bundle.glob("outputs/*"))


def test_bundle_resealed_while_its_job_waits(user, bundle):
    job = user.submit(bundle, *HOLD)["count"]
    config = bundle / "config" / "lines.yaml"
    append(config)
    sums = bundle / "SHA256SUMS"
    done = user.run("sha256sum", "config/lines.yaml", cwd=bundle)
    lines = [line for line in sums.read_text().splitlines() if not line.endswith("lines.yaml")]
    sums.write_text("\n".join([*lines, done.stdout]))
    user.run("scontrol", "release", job)
    assert ended(job) == "FAILED"
    record = record_of(bundle, "count")
    assert (record["state"], record["exit_code"]) == ("refused", 5)
    assert "changed since it was submitted" in record["reason"]


def test_another_image_in_the_place_of_the_right_one(slurm, user, tiny_image):
    image = user.work / "image.sif"
    shutil.copy(tiny_image, image)
    bundle = user.lines(image=image)
    image.rename(user.work / "the right one.sif")
    shutil.copy(tiny_image, image)
    job = user.submit(bundle, *HOLD, "--image", image)["count"]
    append(image, b"\0")
    user.run("scontrol", "release", job)
    assert ended(job) == "FAILED"
    record = record_of(bundle, "count")
    assert (record["state"], record["exit_code"]) == ("refused", 5)
    assert str(image) in record["reason"]
    assert user.states(bundle)["count"] == "refused"
    refused = user.valska("submit", bundle, "--resubmit", "--image", image, check=False)
    assert refused.returncode == 5


@pytest.mark.parametrize("directive", ["partition=no-such", "mem=900T", "nodelist=no-such"])
def test_sbatch_refuses(user, bundle, directive):
    done = user.valska("submit", bundle, "--slurm", directive, check=False)
    assert done.returncode == 4
    by_hand = ("sbatch", f"--{directive}", "submit_count.sh")
    words = user.run(*by_hand, cwd=bundle, check=False).stderr.splitlines()
    assert words
    for line in words:
        assert line.removeprefix("sbatch: error: ") in done.stderr
    assert "Hint:" in done.stderr
    assert {state(job) for job in jobs_of(bundle)} <= {"FAILED"}
    assert not (bundle / "jobs.json").exists()
    jobs = user.submit(bundle)
    assert ended(jobs["double"]) == "COMPLETED"


HANG = """#!/bin/bash
{before}
exec sleep 60
"""
SEND = """
import sys
from pathlib import Path
from valska.external_tools.core.errors import ValskaError
from valska.external_tools.core.jobs import submit
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.run_directory import open_bundle
from valska.external_tools.core.slurm import Slurm
bundle = open_bundle(Path(sys.argv[1]))
slurm = Slurm(sbatch=sys.argv[2], sbatch_timeout_s=3, settle_s=2)
try:
    sent = submit(bundle, read_manifest(bundle), slurm, stages=["count"])
except ValskaError as error:
    print(error.message)
    sys.exit(error.exit_code)
print(sent.jobs["count"].job_id)
"""


@pytest.mark.parametrize("took", [True, False], ids=["after-it-took-the-job", "before"])
def test_sbatch_hangs(user, bundle, took):
    """The time-out is two minutes for a user; it is the only thing shortened here."""
    before = '/usr/bin/sbatch "$@"' if took else ""
    program = user.write("sbatch", HANG.format(before=before), mode=0o755)
    done = user.run(user.bin / "python", "-c", SEND, bundle, program, check=False)
    if took:
        assert (done.returncode, [done.stdout.strip()]) == (0, jobs_of(bundle)), done.stderr
        return
    assert done.returncode == 4
    assert "not known" in done.stdout
    assert jobs_of(bundle) == []
    assert user.states(bundle)["count"] == "unconfirmed"


def test_dry_run_sends_nothing(user, bundle):
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    done = user.valska("submit", bundle, "--dry-run")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["sbatch", "sbatch"]
    assert "--dependency" in done.stdout.splitlines()[1]
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before
    assert jobs_of(bundle) == []


def test_stages_one_by_one_and_a_directive_for_one_submission(user, bundle):
    early = user.valska("submit", bundle, "--stage", "double", check=False)
    assert early.returncode == 3
    assert "double needs count" in early.stderr
    job = user.submit(bundle, *HOLD, "--slurm", "time=7", "--slurm", "comment=a b")["count"]
    shown = ask("squeue", "--noheader", "--format=%l|%k", f"--jobs={job}")
    assert shown == ["7:00|a b"]
    after = user.submit(bundle, "--stage", "double")["double"]
    assert ask("squeue", "--noheader", "--format=%E", f"--jobs={after}")[0].startswith("afterok:")
    user.run("scontrol", "release", job)
    wait_until(lambda: user.states(bundle) == {"count": "completed", "double": "completed"})

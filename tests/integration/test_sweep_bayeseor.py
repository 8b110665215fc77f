"""A sweep of BayesEoR from a template to its report, and when its points go wrong, on real Slurm.

The commands are those of docs/how-to/sweep-bayeseor.md; the contract program stands for BayesEoR.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest
from howto import Page
from slurmjobs import accounts, ask, records, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.apptainer]

STAGES = ("cpu_precompute", "signal_fit", "no_signal")
WHOLE = dict.fromkeys(STAGES, "completed")
FRACTIONS = [-0.1, -0.05, -0.02, -0.01, 0, 0.01, 0.02, 0.05, 0.1]
PNG = b"\x89PNG\r\n\x1a\n"


def points_of(user, sweep):
    """Return the states of all stages, by point."""
    found = user.status(sweep)["points"]
    return {
        point["label"]: {name: stage["state"] for name, stage in point["stages"].items()}
        for point in found
    }


def reasons(user, sweep):
    """Return why each stage that failed did, by point and stage."""
    return {
        (point["label"], name): stage["reason"]
        for point in user.status(sweep)["points"]
        for name, stage in point["stages"].items()
        if stage["state"] != "completed"
    }


@pytest.fixture
def page(slurm, user, contract_image):
    """The page, in a directory where the script that makes the image hands out the one made."""
    script = user.work / "tests/cluster/contract-image.sh"
    script.parent.mkdir(parents=True)
    script.write_text(f'#!/bin/sh\nexec cp "{contract_image}" "$1"\n')
    script.chmod(0o755)
    return Page("sweep-bayeseor", user)


def test_the_page_from_a_template_to_a_report(page, user):
    sweep = user.work / "beam-width"
    shown = page.go_on("--dry-run")
    assert "jobs: cpu_precompute 9, signal_fit 9, no_signal 9" in shown
    assert shown.splitlines()[-1] == str(sweep)
    page.go_on("valska verify beam-width")
    assert list(points_of(user, sweep).values()) == [WHOLE] * 9
    for point in sweep.glob("points/*"):
        user.valska("verify", point)
        user.run("sha256sum", "--check", "--quiet", "SHA256SUMS", cwd=point)

    table = page.go_on("valska report beam-width")
    assert [line.split()[1] for line in table.splitlines()[1:10]] == [
        str(float(fraction)) for fraction in FRACTIONS
    ]
    report = user.work / "beam-width-report"
    rows = list(csv.DictReader((report / "report.csv").read_text().splitlines()))
    assert [float(row["fwhm_deg_fraction"]) for row in rows] == FRACTIONS
    evidence = [float(row["delta_ln_z"]) for row in rows]
    assert min(evidence) == evidence[FRACTIONS.index(0)] < 0 < min(evidence[0], evidence[-1])
    assert [row["null_test"] for row in rows] == ["fail"] * 2 + ["pass"] * 5 + ["fail"] * 2
    assert (report / "delta_ln_z.png").read_bytes().startswith(PNG)

    before = state_of_files(sweep)
    page.go_on("valska submit beam-width --resume")
    page.go_on("valska cancel beam-width")
    assert len(arrays_of(sweep)) == 3
    page.go_on("valska status beam-width --only 'fwhm_deg_x*0.15' --watch")
    assert list(points_of(user, sweep).values()) == [WHOLE] * 11
    assert [array["tasks"] for array in arrays_of(sweep)[3:]] == ["0-1"] * 3
    assert before.items() <= state_of_files(sweep).items()

    page.go_on("valska submit noise")
    noise = user.work / "noise"
    assert list(points_of(user, noise).values()) == [WHOLE] * 2
    assert [array["count"] for array in arrays_of(noise)] == [1, 2, 2]
    listed = page.go_on("valska clean noise --matrices --execute")
    assert "11/11" in listed
    assert not list(noise.rglob("*.h5"))
    assert page.done == len(page.blocks)


def state_of_files(sweep):
    """Return what tells a file of a point from one that was written again."""
    files = [path for path in sweep.glob("points/*/*/**/*") if path.is_file()]
    files = [path for path in files if not path.is_symlink()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def arrays_of(sweep):
    return json.loads((sweep / "jobs.json").read_text())["arrays"]


# --- Points that go wrong

KILLED, CANCELLED, LATE, BROKEN = "8.9", "9.0", "9.1", "9.2"
KNOBS = {
    KILLED: {"seconds": {"signal_fit": 150}},
    CANCELLED: {"seconds": {"no_signal": 150}},
    LATE: {"seconds": {"signal_fit": 300}},
    BROKEN: {"exit": {"matrices": 3}},
}
WIDTHS = [*KNOBS, "9.3", "9.4"]


def label(width):
    return f"fwhm_deg_{width}"


@pytest.fixture
def struck(slurm, user, contract_image):
    """A sweep with a point for each way of going wrong, as it is once nothing of it is live."""
    shutil.copy(contract_image, user.work / "contract.sif")
    user.write("mock.uvh5", "{}")
    source = ("bayeseor", "--template", "tiny_cpu", "--cpu", "--data", "mock.uvh5")
    # Slurm may signal up to a minute early: of a limit of one minute nothing might be left.
    options = ("--image", "contract.sif", "--slurm", "time=2", "-o", "widths")
    user.valska("sweep", *source, *options, "--values", "fwhm_deg=" + ",".join(WIDTHS))
    sweep = user.work / "widths"
    for width, knobs in KNOBS.items():
        outputs = sweep / "points" / label(width) / "outputs"
        outputs.mkdir()
        (outputs / "contract.json").write_text(json.dumps(knobs))
        user.own(outputs)
    user.valska("submit", sweep)
    signal_fit = arrays_of(sweep)[STAGES.index("signal_fit")]["job_id"]
    sampled(sweep, KILLED, "signal_fit")
    sampled(sweep, CANCELLED, "no_signal")
    script = script_of(sweep, KILLED, f"{signal_fit}_{WIDTHS.index(KILLED)}")
    user.run("kill", "-KILL", script)
    user.valska("cancel", sweep, "--only", label(CANCELLED))
    user.valska("status", sweep, "--watch", timeout=300)
    return sweep


def sampled(sweep, width, stage):
    """Wait until a point has something to go on from, and return it."""
    place = sweep / "points" / label(width)
    (found,) = wait_until(lambda: list(place.glob(f"outputs/{stage}/MN-*/data-resume.dat")))
    return found.parent


def script_of(sweep, width, job):
    """Return the process of a point's job script."""
    (record,) = (sweep / "points" / label(width)).glob(f"records/signal_fit-{job}-r0.json")
    return json.loads(record.read_text())["pid"]


def drawn(sweep, width, stage="signal_fit"):
    """Return what a point has drawn and saved, line by line."""
    (path,) = (sweep / "points" / label(width)).glob(f"outputs/{stage}/MN-*/data-ev.dat")
    lines = path.read_text().splitlines()
    return lines[: len(lines) // 25 * 25]


def rows_of(sweep):
    """Return the task and the state of each job that was ever sent from a sweep."""
    rows = accounts("--starttime=now-1hour", fields="JobID,State,WorkDir")
    return [(job, state) for job, state, place in rows if place == str(sweep)]


def test_each_that_goes_wrong_is_named_and_only_that_is_done_again(user, struck):
    why = reasons(user, struck)
    assert why == {
        (label(KILLED), "signal_fit"): "killed before it could write its record",
        (label(CANCELLED), "no_signal"): "stopped by SIGTERM",
        (label(LATE), "signal_fit"): "the time limit was near: stopped by SIGTERM",
        (label(BROKEN), "cpu_precompute"): "the payload ended with exit code 3",
        (label(BROKEN), "signal_fit"): "never started: cpu_precompute did not succeed",
        (label(BROKEN), "no_signal"): "never started: cpu_precompute did not succeed",
    }
    assert points_of(user, struck) == {
        label(KILLED): WHOLE | {"signal_fit": "failed"},
        label(CANCELLED): WHOLE | {"no_signal": "cancelled"},
        label(LATE): WHOLE | {"signal_fit": "timeout"},
        label(BROKEN): dict(zip(STAGES, ("failed", "cancelled", "cancelled"), strict=True)),
        label("9.3"): WHOLE,
        label("9.4"): WHOLE,
    }
    told = user.valska("status", struck, "--only", "failed").stdout
    causes = [reason for reason in why.values() if not reason.startswith("never started")]
    assert all(reason in told for reason in causes)
    assert told.count("/logs/signal_fit-") == 2
    queue = "|".join(array["job_id"] for array in arrays_of(struck))
    assert ask("squeue", "--noheader", f"--jobs={queue.replace('|', ',')}", "--states=PD,R") == []
    wait_until(lambda: not payloads(struck), timeout=60)

    redo = {
        (label(KILLED), "signal_fit"), (label(CANCELLED), "no_signal"),
        (label(LATE), "signal_fit"), *((label(BROKEN), stage) for stage in STAGES),
    }  # fmt: skip
    saved = {width: drawn(struck, width) for width in (KILLED, LATE)}
    saved[CANCELLED] = drawn(struck, CANCELLED, "no_signal")
    finished = {path: what for path, what in state_of_files(struck).items() if not in_(path, redo)}
    first = {job for job, _ in rows_of(struck)}
    for path in struck.glob("points/*/outputs/contract.json"):
        path.unlink()
        finished.pop(path, None)

    user.valska("submit", struck, "--resume", "--slurm", "time=5")
    user.valska("status", struck, "--watch", timeout=300)
    assert list(points_of(user, struck).values()) == [WHOLE] * len(WIDTHS)
    assert {(label_, stage) for label_, stage in sent(struck, after=first)} == redo
    assert finished.items() <= state_of_files(struck).items()
    for width, lines in saved.items():
        stage = "no_signal" if width == CANCELLED else "signal_fit"
        point = struck / "points" / label(width)
        *_, last = records(point, stage)
        assert last["resumed_from"].startswith(f"outputs/{stage}/MN-"), width
        after = drawn(struck, width, stage)
        assert 0 < len(lines) < len(after) == 375
        assert after[: len(lines)] == lines
        assert not list(point.glob("outputs.*"))
    user.valska("verify", struck)


def in_(path, redo):
    """Return whether a file belongs to one of these stages of points."""
    _, name, *rest = path.parts[path.parts.index("points") :]
    matrices = "matrices" in rest
    return any(
        name == point and (stage in "/".join(rest) or (matrices and stage == STAGES[0]))
        for point, stage in redo
    )


def sent(sweep, after):
    """Return the point and the stage of each task that Slurm's accounts have, but for some."""

    def all_there():
        rows = [job for job, _ in rows_of(sweep) if job not in after]
        return rows if len(rows) >= 6 else None

    jobs = wait_until(all_there)
    for job in jobs:
        array, _, task = job.partition("_")
        (entry,) = [one for one in arrays_of(sweep) if one["job_id"] == array]
        line = (sweep / entry["list"]).read_text().splitlines()[int(task)]
        yield line.split("/")[1], entry["stage"]


def payloads(sweep):
    """Return the processes in containers of a sweep's jobs."""
    jobs = {record["slurm"]["SLURM_JOB_ID"] for record in all_records(sweep)}
    return [pid for job in jobs for pid in processes_with(f"SLURM_JOB_ID={job}")]


def all_records(sweep):
    return [json.loads(path.read_text()) for path in sweep.glob("points/*/records/*.json")]


def processes_with(variable):
    """Return the processes that have a variable in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if variable.encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
        except OSError:
            continue
    return found

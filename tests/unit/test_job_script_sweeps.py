"""Job scripts of sweeps, run by bash for real: which unit, what it sees, what is refused."""

import json
import os
import shutil

import pytest
from processes import children, wait_until
from sweeps import bundle_id, make_list, make_sweep, shell
from toy import stage

from valska.external_tools.core.bundling import BundledImage
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.site import Site
from valska.external_tools.core.utils import sha256_bytes, sha256_file

ARRAY = "19"
SHARING = (
    shell(
        "mkdir -p matrices/deep; cat ../config/run.yaml >matrices/deep/T.h5",
        name="prepare",
        outputs=("matrices/**/T.h5",),
        lends=("matrices",),
    ),
    shell(
        "mkdir fit; cat matrices/deep/T.h5 ../config/run.yaml ../inputs/data.txt >fit/out",
        name="fit",
        outputs=("fit/out",),
        after=("prepare",),
    ),
)


@pytest.fixture
def slurm(tmp_path):
    """Return arguments that run a script as slurmd runs a task: a copy in its spool."""

    def arguments(sweep, task, name="simulate", restart=None):
        spool = tmp_path / f"slurmd-{task}"
        spool.mkdir(exist_ok=True)
        script = shutil.copy(sweep.bundle.script(name), spool / "slurm_script")
        env = {"SLURM_JOB_ID": "20", "SLURM_SUBMIT_DIR": str(sweep.path)}
        env |= {"SLURM_ARRAY_JOB_ID": ARRAY, "SLURM_ARRAY_TASK_ID": str(task)}
        if restart is not None:
            env["SLURM_RESTART_COUNT"] = str(restart)
        return {"script": script, "env": env}

    return arguments


# --- Which unit -----------------------------------------------------------------------------------


def test_each_task_runs_the_unit_of_its_index(tmp_path, scripts, records, slurm):
    sweep = make_sweep(tmp_path, [shell("cat ../config/run.yaml ../inputs/data.txt >out.txt")])
    arguments = make_list(sweep, ["points/b", "points/a"])
    before = sorted(path for path in sweep.path.rglob("*") if "points" not in path.parts)
    for task, label in enumerate("ba"):
        code, out, err = scripts.run(sweep.bundle, *arguments, **slurm(sweep, task))
        assert (code, out, err) == (0, "", "")
        point = sweep.point(label)
        (record,) = records(point)
        assert (record["state"], record["job"]["id"], record["job"]["task"]) == (
            "completed",
            ARRAY,
            str(task),
        )
        assert record["bundle_id"] == bundle_id(point)
        assert record["seal"] == sha256_file(point.sums)
        assert (point.outputs / "out.txt").read_text() == f"unit: {label}\nhello\n"
        assert [path.name for path in point.records.iterdir()] == [f"simulate-19_{task}-r0.json"]
        (log,) = point.logs.iterdir()
        assert log.name == f"simulate-19_{task}.log"
        assert "stage simulate: completed" in log.read_text()
    after = sorted(path for path in sweep.path.rglob("*") if "points" not in path.parts)
    assert after == before
    assert scripts.left_over() == []


@pytest.mark.parametrize("way", ["from the sweep", "from the point", "from anywhere"])
def test_one_unit_by_hand(tmp_path, scripts, records, way):
    sweep = make_sweep(tmp_path)
    point = sweep.point("b")
    script = sweep.bundle.script("simulate")
    arguments, more = {
        "from the sweep": (["points/b"], {}),
        "from the point": (["."], {"script": "../../submit_simulate.sh", "cwd": point.path}),
        "from anywhere": ([str(point.path)], {"script": script, "cwd": "/"}),
    }[way]
    code, _, err = scripts.run(sweep.bundle, *arguments, **more)
    assert (code, "completed" in err) == (0, True), err
    assert records(point)[0]["state"] == "completed"
    assert list(point.logs.iterdir()) == []


def test_the_local_scheduler_names_job_and_task(tmp_path, scripts, records):
    sweep = make_sweep(tmp_path)
    arguments = make_list(sweep, ["points/a", "points/b"])
    job = "local-01234567-89ab-cdef-0123-456789abcdef"
    env = {"VALSKA_JOB_ID": job, "VALSKA_TASK": "1", "VALSKA_JOB_NAME": "vk-01234567-simulate.0"}
    assert scripts.run(sweep.bundle, *arguments, env=env) == (0, "", "")
    point = sweep.point("b")
    assert records(point)[0]["job"] == {
        "scheduler": "local",
        "id": job,
        "task": "1",
        "restart": 0,
        "name": "vk-01234567-simulate.0",
    }
    assert [path.name for path in point.logs.iterdir()] == [f"simulate-{job}_1.log"]


def test_moved_sweep_runs(tmp_path, scripts, records, slurm):
    sweep = make_sweep(tmp_path, name="before")
    arguments = make_list(sweep, ["points/a"])
    sweep.path.rename(tmp_path / "a, b")
    moved = type(sweep)(tmp_path / "a, b")
    assert scripts.run(moved.bundle, *arguments, **slurm(moved, 0))[0] == 0
    assert records(moved.point("a"))[0]["state"] == "completed"


# --- Refused --------------------------------------------------------------------------------------


def _refused(sweep, scripts, arguments, more, code, unit=None):
    """Run a task; return why it was refused. Nothing of the payload is there."""
    got, _, err = scripts.run(sweep.bundle, *arguments, **more)
    assert list(sweep.path.glob("points/*/outputs/*")) == []
    assert scripts.left_over() == []
    if unit is None:
        assert (got, "refused" in err) == (code, True), err
        assert list(sweep.path.glob("points/*/records/*")) == []
        return err
    assert (got, err) == (code, "")
    (path,) = unit.records.iterdir()
    record = json.loads(path.read_text())
    assert (record["state"], record["exit_code"]) == ("refused", code)
    (log,) = unit.logs.iterdir()
    assert record["reason"] in log.read_text()
    return record["reason"]


def test_list_that_was_changed_is_refused(tmp_path, scripts, slurm):
    sweep = make_sweep(tmp_path)
    arguments = make_list(sweep, ["points/a", "points/b"])
    make_list(sweep, ["points/b", "points/a"])
    err = _refused(sweep, scripts, arguments, slurm(sweep, 0), 5)
    assert "task 0: arrays/ab12cd34-0.sums was changed" in err


@pytest.mark.parametrize("task", [2, 10])
def test_index_beyond_the_list_is_refused(tmp_path, scripts, slurm, task):
    sweep = make_sweep(tmp_path)
    arguments = make_list(sweep, ["points/a", "points/b"])
    err = _refused(sweep, scripts, arguments, slurm(sweep, task), 5)
    assert f"task {task}: arrays/ab12cd34-0.sums has no line" in err


def test_list_that_leads_out_of_the_sweep_is_refused(tmp_path, scripts, slurm):
    sweep = make_sweep(tmp_path)
    shutil.copytree(sweep.point("a").path, tmp_path / "elsewhere")
    arguments = make_list(sweep, ["points/../../elsewhere"])
    assert "no line" in _refused(sweep, scripts, arguments, slurm(sweep, 0), 5)


def test_list_without_an_array_is_refused(tmp_path, scripts):
    sweep = make_sweep(tmp_path)
    arguments = make_list(sweep, ["points/a"])
    assert "job array" in _refused(sweep, scripts, arguments, {}, 2)


def test_one_unit_in_all_tasks_of_an_array_is_refused(tmp_path, scripts, slurm):
    sweep = make_sweep(tmp_path)
    err = _refused(sweep, scripts, ("points/a",), slurm(sweep, 1), 2)
    assert "all tasks of an array would run points/a at once" in err


def test_missing_list_is_refused(tmp_path, scripts, slurm):
    sweep = make_sweep(tmp_path)
    digest, name = make_list(sweep, ["points/a"])
    (sweep.path / name).unlink()
    assert name in _refused(sweep, scripts, (digest, name), slurm(sweep, 0), 3)


def test_unit_with_another_seal_than_the_listed_one_is_refused(tmp_path, scripts, slurm):
    sweep = make_sweep(tmp_path)
    arguments = make_list(sweep, ["points/a"])
    point = sweep.point("a")
    lines = point.sums.read_text().splitlines(keepends=True)
    point.sums.write_text("".join(reversed(lines)))
    reason = _refused(sweep, scripts, arguments, slurm(sweep, 0), 5, point)
    assert "was changed since it was submitted" in reason


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("points/a/config/run.yaml", "config/run.yaml"),
        ("inputs/data.txt", "inputs/data.txt"),
        ("common.json", "common.json"),
        ("SHA256SUMS", "../../SHA256SUMS"),
    ],
)
def test_altered_file_is_refused_and_named(tmp_path, scripts, slurm, place, named):
    sweep = make_sweep(tmp_path)
    arguments = make_list(sweep, ["points/a"])
    text = (sweep.path / place).read_text()
    (sweep.path / place).write_text(f"{text}{'0' * 64}  more\n")
    reason = _refused(sweep, scripts, arguments, slurm(sweep, 0), 5, sweep.point("a"))
    assert f"{named}: FAILED" in reason


def test_unit_without_its_manifest_is_refused(tmp_path, scripts, slurm):
    sweep = make_sweep(tmp_path)
    arguments = make_list(sweep, ["points/a"])
    sweep.point("a").manifest.unlink()
    assert "manifest.json" in _refused(sweep, scripts, arguments, slurm(sweep, 0), 5)


@pytest.mark.parametrize("unit", ["points/c", "points", ".", "points/a/config"])
def test_what_is_no_unit_is_refused(tmp_path, scripts, unit):
    sweep = make_sweep(tmp_path)
    code, _, err = scripts.run(sweep.bundle, unit)
    assert code == (3 if unit == "points/c" else 2)
    assert "unit" in err


def test_unit_of_another_sweep_is_refused(tmp_path, scripts):
    sweep, other = (make_sweep(tmp_path, name=name) for name in ("one", "two"))
    code, _, err = scripts.run(sweep.bundle, str(other.point("a").path))
    assert (code, "is no unit of" in err) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [[], ["--points"], ["a" * 64, "arrays/../x"], ["a" * 63, "arrays/x.sums"], ["a", "b", "c"]],
)
def test_unknown_arguments(tmp_path, scripts, arguments):
    sweep = make_sweep(tmp_path)
    code, out, err = scripts.run(sweep.bundle, *arguments)
    assert (code, out) == (2, "")
    assert "Usage" in err


def test_help(tmp_path, scripts):
    sweep = make_sweep(tmp_path)
    code, out, _ = scripts.run(sweep.bundle, "--help")
    assert code == 0
    assert out.startswith("Usage: bash submit_simulate.sh UNIT")
    assert "--array" in out


def test_show_runs_nothing(tmp_path, scripts):
    sweep = make_sweep(tmp_path)
    code, out, err = scripts.run(sweep.bundle, "points/a", "--show")
    assert (code, out, err) == (0, "env cp ../inputs/data.txt out.txt \n", "")
    assert not sweep.point("a").records.exists()


# --- Shared work ----------------------------------------------------------------------------------

UNIT = f"prepare-{sha256_bytes(b'key')[:12]}"


def sharing(folder, stages=SHARING, **more):
    return make_sweep(folder, stages, shares={"prepare": "key"}, **more)


def test_points_read_what_is_shared(tmp_path, scripts, records):
    sweep = sharing(tmp_path)
    assert scripts.run(sweep.bundle, f"shared/{UNIT}", stage="prepare")[0] == 0
    for label in "ab":
        code, _, err = scripts.run(sweep.bundle, f"points/{label}", stage="fit")
        assert code == 0, err
        point = sweep.point(label)
        assert (point.outputs / "fit/out").read_text() == (f"unit: a\nunit: {label}\nhello\n")
        (record,) = records(point, "fit")
        assert [output["path"] for output in record["outputs"]] == ["outputs/fit/out"]
    (record,) = records(sweep.shared_unit(UNIT), "prepare")
    assert [output["path"] for output in record["outputs"]] == ["outputs/matrices/deep/T.h5"]
    assert scripts.left_over() == []


def test_shared_work_that_was_not_done_is_missed(tmp_path, scripts, records):
    sweep = sharing(tmp_path)
    code, _, err = scripts.run(sweep.bundle, "points/a", stage="fit")
    assert code == 3
    assert f"shared/{UNIT}, which has not completed: its newest attempt is none" in err
    (record,) = records(sweep.point("a"), "fit")
    assert record["state"] == "refused"


def test_shared_work_that_failed_is_missed(tmp_path, scripts):
    stages = (
        shell("mkdir matrices; exit 4", "prepare", outputs=("matrices/*",), lends=("matrices",)),
        SHARING[1],
    )
    sweep = sharing(tmp_path, stages)
    assert scripts.run(sweep.bundle, f"shared/{UNIT}", stage="prepare")[0] == 4
    code, _, err = scripts.run(sweep.bundle, "points/a", stage="fit")
    assert (code, "newest attempt is failed" in err) == (3, True)


def _rewrite(unit, name, **changes):
    """Add a record: the one there is, with other words."""
    (path,) = unit.records.glob("prepare-*.json")
    lines = path.read_text().splitlines()
    for key, value in changes.items():
        lines = [
            f'  "{key}": {json.dumps(value)},' if line.startswith(f'  "{key}": ') else line
            for line in lines
        ]
    (unit.records / name).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"state": "running", "started_utc": "2999-01-01T00:00:00Z"}, 3),
        ({"state": "running", "started_utc": "1999-01-01T00:00:00Z"}, 0),
        ({"state": "failed", "started_utc": "2999-01-01T00:00:00Z"}, 3),
        ({"state": "refused", "started_utc": "2999-01-01T00:00:00Z"}, 0),
        (
            {"state": "refused", "started_utc": "2999-01-01T00:00:00Z", "set_aside": "outputs.1"},
            3,
        ),
    ],
)
def test_newest_attempt_at_shared_work_counts(tmp_path, scripts, changes, code):
    sweep = sharing(tmp_path)
    assert scripts.run(sweep.bundle, f"shared/{UNIT}", stage="prepare")[0] == 0
    _rewrite(sweep.shared_unit(UNIT), "prepare-77-r0.json", **changes)
    assert scripts.run(sweep.bundle, "points/a", stage="fit")[0] == code


def test_lent_directory_that_is_gone_is_missed(tmp_path, scripts):
    sweep = sharing(tmp_path)
    assert scripts.run(sweep.bundle, f"shared/{UNIT}", stage="prepare")[0] == 0
    shutil.rmtree(sweep.shared_unit(UNIT).outputs / "matrices")
    code, _, err = scripts.run(sweep.bundle, "points/a", stage="fit")
    assert (code, "matrices, which is not there" in err) == (3, True)


@pytest.mark.parametrize(("unit", "name"), [("points/a", "prepare"), (f"shared/{UNIT}", "fit")])
def test_stage_in_the_wrong_kind_of_unit_is_refused(tmp_path, scripts, unit, name):
    sweep = sharing(tmp_path)
    code, _, err = scripts.run(sweep.bundle, unit, stage=name)
    assert (code, f"stage {name}" in err) == (2, True)


def test_changed_manifest_of_shared_work_is_refused(tmp_path, scripts):
    sweep = sharing(tmp_path)
    assert scripts.run(sweep.bundle, f"shared/{UNIT}", stage="prepare")[0] == 0
    with sweep.shared_unit(UNIT).manifest.open("a") as file:
        file.write("\n")
    code, _, err = scripts.run(sweep.bundle, "points/a", stage="fit")
    assert (code, f"shared/{UNIT}/manifest.json: FAILED" in err) == (5, True)


def test_a_point_that_shares_nothing_does_all_itself(tmp_path, scripts):
    sweep = make_sweep(tmp_path, SHARING)
    for name in ("prepare", "fit"):
        assert scripts.run(sweep.bundle, "points/a", stage=name)[0] == 0
    text = (sweep.point("a").outputs / "fit/out").read_text()
    assert text == "unit: a\nunit: a\nhello\n"


def test_what_another_stage_lends_is_not_made_by_the_one_that_reads_it(tmp_path, scripts):
    sweep = make_sweep(tmp_path, SHARING)
    code, _, err = scripts.run(sweep.bundle, "points/a", stage="fit")
    assert (code, "it needs stage prepare, which has not completed" in err) == (3, True)
    assert scripts.run(sweep.bundle, "points/a", stage="prepare")[0] == 0
    shutil.rmtree(sweep.point("a").outputs / "matrices")
    code, _, err = scripts.run(sweep.bundle, "points/a", stage="fit")
    assert (code, "it needs outputs/matrices of stage prepare" in err) == (3, True)


# --- Many tasks at once ---------------------------------------------------------------------------


def test_tasks_at_once_do_not_meet(tmp_path, scripts, records, slurm):
    labels = [f"p{number}" for number in range(8)]
    sweep = make_sweep(tmp_path, points=labels)
    arguments = make_list(sweep, [f"points/{label}" for label in labels])
    started = [
        scripts.start(sweep.bundle, *arguments, **slurm(sweep, task)) for task in range(len(labels))
    ]
    assert [process.wait(timeout=60) for process in started] == [0] * len(labels)
    for task, label in enumerate(labels):
        (record,) = records(sweep.point(label))
        assert (record["state"], record["job"]["task"]) == ("completed", str(task))


def test_unit_that_runs_already_is_refused(tmp_path, scripts, records):
    sweep = make_sweep(tmp_path, [shell("exec sleep 60")])
    process = scripts.start(sweep.bundle, "points/a")
    wait_until(lambda: "sleep" in children(process.pid))
    code, _, err = scripts.run(sweep.bundle, "points/a")
    assert (code, "is running already" in err) == (3, True)
    other = scripts.start(sweep.bundle, "points/b")
    wait_until(lambda: "sleep" in children(other.pid))
    for one in (process, other):
        one.terminate()
        one.communicate(timeout=20)
    assert records(sweep.point("b"))[0]["state"] == "signalled"


# --- The image ------------------------------------------------------------------------------------


def with_image(folder, content=b"image"):
    """Make a sweep with an image in it, and with a stand-in for Apptainer that does nothing."""
    path = folder / "image"
    path.write_bytes(content)
    return make_sweep(
        folder,
        [stage(outputs=())],
        runner=RunnerKind.CONTAINER,
        image=BundledImage(path=path, sha256=sha256_file(path), size=len(content)),
        embed_image=True,
        site=Site(apptainer="true"),
    )


def test_task_of_an_array_trusts_the_receipt_of_an_image_that_did_not_change(
    tmp_path, scripts, records, slurm
):
    sweep = with_image(tmp_path)
    image = sweep.bundle.containers / "toy.sif"
    arguments = make_list(sweep, ["points/a", "points/b"])
    assert scripts.run(sweep.bundle, *arguments, **slurm(sweep, 0)) == (0, "", "")
    checked = records(sweep.point("a"))[0]["image"]
    assert (checked["checked"], checked["path"]) == ("receipt", str(image))
    os.utime(image, (1, 1))
    assert scripts.run(sweep.bundle, *arguments, **slurm(sweep, 1)) == (0, "", "")
    assert records(sweep.point("b"))[0]["image"]["checked"] == "hash"
    assert scripts.run(sweep.bundle, "points/a")[0] == 0
    assert records(sweep.point("a"))[-1]["image"]["checked"] == "hash"


def test_altered_image_in_a_sweep_is_refused(tmp_path, scripts, slurm):
    sweep = with_image(tmp_path)
    arguments = make_list(sweep, ["points/a"])
    image = sweep.bundle.containers / "toy.sif"
    image.write_bytes(b"imagE")
    os.utime(image, (1, 1))
    reason = _refused(sweep, scripts, arguments, slurm(sweep, 0), 5, sweep.point("a"))
    assert "toy.sif is not the manifest's" in reason


def test_image_that_is_gone_from_a_sweep_is_refused(tmp_path, scripts, slurm):
    sweep = with_image(tmp_path)
    arguments = make_list(sweep, ["points/a"])
    (sweep.bundle.containers / "toy.sif").unlink()
    reason = _refused(sweep, scripts, arguments, slurm(sweep, 0), 5, sweep.point("a"))
    assert "containers/toy.sif: FAILED" in reason

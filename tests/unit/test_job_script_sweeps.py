"""Job scripts of sweeps, run by bash for real: which unit, what it sees, what is refused."""

import shutil

import pytest
from sweeps import bundle_id, make_list, make_sweep, shell

from valska.external_tools.core.utils import sha256_file

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

    def arguments(sweep, task=None, stage="simulate", restart=None):
        spool = tmp_path / "slurmd"
        spool.mkdir(exist_ok=True)
        script = shutil.copy(sweep.bundle.script(stage), spool / "slurm_script")
        env = {"SLURM_JOB_ID": "20" if task else ARRAY, "SLURM_SUBMIT_DIR": str(sweep.path)}
        if task is not None:
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
        assert record["bundle_id"] == bundle_id(f"points/{label}")
        assert record["seal"] == sha256_file(point.sums)
        assert (point.outputs / "out.txt").read_text() == f"unit: points/{label}\nhello\n"
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

"""What a run in a real container sees and can write: of a bundle, and of a point of a sweep."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from sweeps import make_list, make_sweep, shell
from toy import bundle

from valska.external_tools.core.bundling import BundledImage
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.staging import StagingMode
from valska.external_tools.core.utils import sha256_bytes, sha256_file

pytestmark = pytest.mark.apptainer
UNIT = f"prepare-{sha256_bytes(b'key')[:12]}"
LOOK = """
cd /bundle && shopt -s globstar dotglob && echo "$PWD:" ** >/bundle/outputs/fit/seen
for place in . config inputs outputs/matrices outputs outputs/fit; do
    if { : >"$place/written"; } 2>/dev/null; then echo "$place"; fi
done >/bundle/outputs/fit/writable
pwd >/bundle/outputs/fit/pwd
cat config/run.yaml inputs/data.txt outputs/matrices/T.h5 >/bundle/outputs/fit/read
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    if shutil.which("apptainer") is None:
        pytest.skip("apptainer is not installed")
    path = tmp_path_factory.mktemp("image") / "tiny.sif"
    script = Path(__file__).parents[1] / "cluster/tiny-image.sh"
    subprocess.run([script, path], check=True, capture_output=True)
    return BundledImage(path=path, sha256=sha256_file(path), size=path.stat().st_size)


def prepare():
    text = "mkdir matrices; cat ../config/run.yaml >matrices/T.h5"
    return shell(text, "prepare", outputs=("matrices/**/T.h5",), lends=("matrices",))


def look(**more):
    return shell(f"mkdir fit; {LOOK}", "fit", outputs=("fit/seen",), **more)


def _seen(outputs):
    texts = {path.name: path.read_text().splitlines() for path in (outputs / "fit").iterdir()}
    return texts["seen"][0].split(" ")[1:], texts["writable"], texts["pwd"], texts["read"]


@pytest.mark.parametrize("staging", [StagingMode.COPY, StagingMode.REFERENCE])
def test_point_sees_what_a_bundle_sees_and_nothing_of_others(
    tmp_path, scripts, records, image, staging
):
    sweep = make_sweep(
        tmp_path,
        [prepare(), look(after=("prepare",))],
        shares={"prepare": "key"},
        runner=RunnerKind.CONTAINER,
        image=image,
        staging=staging,
    )
    code, _, err = scripts.run(sweep.bundle, f"shared/{UNIT}", stage="prepare")
    assert code == 0, err
    before = sha256_file(sweep.shared_unit(UNIT).outputs / "matrices/T.h5")
    code, _, err = scripts.run(sweep.bundle, "points/b", stage="fit")
    assert code == 0, err
    seen, writable, where, read = _seen(sweep.point("b").outputs)
    assert seen == [
        "config",
        "config/run.yaml",
        "inputs",
        "inputs/data.txt",
        "outputs",
        "outputs/fit",
        "outputs/matrices",
        "outputs/matrices/T.h5",
    ]
    assert writable == ["outputs", "outputs/fit"]
    assert where == ["/bundle"]
    assert read == ["unit: b", "hello", "unit: a"]
    assert list((sweep.point("b").outputs / "matrices").iterdir()) == []
    assert sha256_file(sweep.shared_unit(UNIT).outputs / "matrices/T.h5") == before
    (record,) = records(sweep.point("b"), "fit")
    assert record["inputs_checked"] == (staging is StagingMode.REFERENCE)
    assert "outputs/matrices/T.h5" not in {output["path"] for output in record["outputs"]}
    assert scripts.left_over() == []


def test_borrowed_directory_is_read_only_in_a_bundle(tmp_path, scripts, records, image):
    matrices = tmp_path / 'mat, ri"ces'
    matrices.mkdir()
    (matrices / "T.h5").write_text("borrowed\n")
    made = bundle(
        tmp_path,
        [look()],
        runner=RunnerKind.CONTAINER,
        image=image,
        tool={"borrowed": {"matrices": matrices}},
    )
    for _ in range(2):
        code, _, err = scripts.run(made, stage="fit")
        assert code == 0, err
        _, writable, _, read = _seen(made.outputs)
        assert writable == ["outputs", "outputs/fit"]
        assert read == ["answer: 42", "hello", "borrowed"]
    assert [path.name for path in matrices.iterdir()] == ["T.h5"]


def test_working_directory_of_a_point_is_its_outputs(tmp_path, scripts, image):
    sweep = make_sweep(tmp_path, [shell("pwd >out.txt")], runner=RunnerKind.CONTAINER, image=image)
    assert scripts.run(sweep.bundle, "points/a")[0] == 0
    assert (sweep.point("a").outputs / "out.txt").read_text() == "/bundle/outputs\n"


def test_array_task_checks_an_image_of_the_store_by_its_receipt(tmp_path, scripts, records, image):
    status = image.path.stat()
    receipt = image.path.with_name("tiny.sif.receipt")
    receipt.write_text(f"{image.sha256} {status.st_size} {int(status.st_mtime)} {status.st_ino}\n")
    sweep = make_sweep(tmp_path, runner=RunnerKind.CONTAINER, image=image)
    arguments = make_list(sweep, ["points/a"])
    spool = shutil.copy(sweep.bundle.script("simulate"), tmp_path / "slurm_script")
    env = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}
    try:
        assert scripts.run(sweep.bundle, *arguments, script=spool, env=env) == (0, "", "")
    finally:
        receipt.unlink()
    (record,) = records(sweep.point("a"))
    assert record["image"]["checked"] == "receipt"
    assert json.dumps(record["runner"]["command"]).count("destination") == 3

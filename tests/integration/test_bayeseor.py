"""BayesEoR from configuration to chains: with the contract program, and the real one."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from valska.external_tools.core.run_directory import Bundle

pytestmark = pytest.mark.apptainer

ROOT = Path(__file__).parents[2]
STAGES = ("cpu_precompute", "signal_fit", "no_signal")
PATIENCE = 120


@pytest.fixture
def data(user):
    """Visibilities for the contract program: what they are, and how long it is to take."""
    return user.write("Mock EoR.uvh5", "{}")


@pytest.fixture
def bundle(user, data, contract_image):
    def make(*args, output="bundle", data=data, image=contract_image):
        common = ("bayeseor", "--template", "tiny_cpu", "--cpu", "--data", data, "--image", image)
        return Bundle(user.bundle(*common, *args, output=output))

    return make


def run(user, bundle, *args, code=0):
    done = user.valska(
        "submit", bundle.path, "--scheduler", "local", "--wait", *args, check=False, timeout=900
    )
    assert done.returncode == code, done.stderr
    return done


def records(bundle, stage):
    found = [json.loads(path.read_text()) for path in bundle.records.glob(f"{stage}-*.json")]
    return sorted(found, key=lambda record: record["started_utc"])


def chains_of(bundle, hypothesis):
    note = json.loads((bundle.outputs / hypothesis / "finished.json").read_text())
    return bundle.outputs / hypothesis / note["chains"]


def evidence(bundle, hypothesis):
    lines = (chains_of(bundle, hypothesis) / "data-stats.dat").read_text().splitlines()
    return float(lines[1].split(":")[1].split()[0])


def wait_until(condition, *, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def test_three_stages_one_after_the_other(user, bundle):
    made = bundle()
    run(user, made)
    assert user.states(made.path) == dict.fromkeys(STAGES, "completed")
    assert evidence(made, "signal_fit") < evidence(made, "no_signal") < 0
    (built,) = records(made, "cpu_precompute")
    assert any(output["path"].endswith("T_Ninv_T.h5") for output in built["outputs"])
    for stage in STAGES[1:]:
        (record,) = records(made, stage)
        assert not any("/matrices/" in output["path"] for output in record["outputs"])
        assert built["ended_utc"] <= record["started_utc"]
    user.valska("verify", made.path)


def test_a_wider_beam_looks_like_a_signal(user, bundle):
    made = bundle("--perturb", "fwhm_deg=0.1")
    assert "fwhm_deg: 10.2375" in (made.config / "config_no_signal.yaml").read_text()
    run(user, made)
    assert evidence(made, "signal_fit") > evidence(made, "no_signal")


def test_a_stopped_stage_goes_on_from_its_chains(user, bundle):
    slow = json.dumps({"seconds": {"signal_fit": 90}})
    made = bundle()
    knobs = made.outputs / "contract.json"
    knobs.write_text(slow)
    jobs = user.submit(made.path, "--scheduler", "local")
    wait_until(lambda: list(made.outputs.glob("signal_fit/MN-*/data-resume.dat")))
    wait_until(lambda: user.states(made.path)["no_signal"] == "completed")
    user.valska("cancel", made.path)
    wait_until(lambda: user.states(made.path)["signal_fit"] not in ("running", "pending"))
    (chains,) = made.outputs.glob("signal_fit/MN-*")
    drawn = (chains / "data-ev.dat").read_text().splitlines()
    assert 25 <= len(drawn) < 375
    assert not (made.outputs / "signal_fit" / "finished.json").exists()

    knobs.unlink()
    run(user, made, "--resume")
    assert user.states(made.path) == dict.fromkeys(STAGES, "completed")
    assert chains_of(made, "signal_fit") == chains
    after = (chains / "data-ev.dat").read_text().splitlines()
    saved = len(drawn) // 25 * 25
    assert after[:saved] == drawn[:saved]
    assert not list(made.path.glob("outputs.*"))
    first, second = records(made, "signal_fit")
    assert first["job"]["id"] == jobs["signal_fit"]
    assert first["resumed_from"] is None
    assert second["resumed_from"] == f"outputs/signal_fit/{chains.name}"
    for stage in ("cpu_precompute", "no_signal"):
        assert [record["job"]["id"] for record in records(made, stage)] == [jobs[stage]]
    user.valska("verify", made.path)


def test_an_abort_with_exit_code_0_has_failed_and_a_resubmission_starts_afresh(user, bundle):
    made = bundle("--hypothesis", "signal_fit")
    knobs = made.outputs / "contract.json"
    knobs.write_text(json.dumps({"exit": {"signal_fit": 0}}))
    run(user, made, code=1)
    (record,) = records(made, "signal_fit")
    assert record["missing_outputs"][0] == "signal_fit/finished.json"
    knobs.unlink()
    run(user, made, "--resubmit", "--stage", "signal_fit")
    assert user.states(made.path)["signal_fit"] == "completed"


def test_without_matrices_nothing_is_sampled(user, bundle):
    made = bundle()
    (made.outputs / "contract.json").write_text(json.dumps({"exit": {"matrices": 3}}))
    run(user, made, code=1)
    states = user.states(made.path)
    assert states["cpu_precompute"] == "failed"
    assert not records(made, "signal_fit")
    assert states["signal_fit"] not in ("completed", "running", "pending")


def test_matrices_of_another_run_are_used_and_stay_as_they_are(user, bundle):
    made = bundle()
    run(user, made, "--stage", "cpu_precompute")
    matrices = {p: p.read_bytes() for p in made.outputs.glob("matrices/**/*") if p.is_file()}
    other = bundle("--matrices", made.path, output="other")
    assert not other.script("cpu_precompute").exists()
    run(user, other)
    assert user.states(other.path) == dict.fromkeys(STAGES[1:], "completed")
    assert {path: path.read_bytes() for path in matrices} == matrices
    next(iter(matrices)).write_bytes(b"altered")
    refused = run(user, other, "--resubmit", code=5)
    assert "altered: outputs/matrices" in refused.stderr


@pytest.mark.bayeseor
def test_the_real_bayeseor(user, bundle):
    """The tiny case, and the same again on its matrices after it was stopped while sampling."""
    image, data = (os.environ.get(f"VALSKA_BAYESEOR_{what}") for what in ("IMAGE", "DATA"))
    if not image or not data:
        pytest.skip("VALSKA_BAYESEOR_IMAGE and VALSKA_BAYESEOR_DATA name no image and no data")
    mine = Path(shutil.copy(data, user.work / "eor.uvh5"))
    user.own(mine)
    made = bundle(data=mine, image=image)
    run(user, made)
    assert user.states(made.path) == dict.fromkeys(STAGES, "completed")
    assert evidence(made, "signal_fit") == pytest.approx(-233.85, abs=0.3)
    assert evidence(made, "no_signal") == pytest.approx(-235.93120, abs=1e-4)
    user.valska("verify", made.path)

    args = ("--hypothesis", "signal_fit", "--matrices", made.path)
    wide = json.dumps([[-4, 4]] * 3)
    other = bundle(
        *args, "--override", f"signal_fit_priors={wide}", output="b", data=mine, image=image
    )
    user.submit(other.path, "--scheduler", "local")
    pattern = "signal_fit/MN-*/data-resume.dat"
    wait_until(
        lambda: any(p.stat().st_size > 100 for p in other.outputs.glob(pattern)), seconds=300
    )
    user.valska("cancel", other.path)
    wait_until(lambda: user.states(other.path)["signal_fit"] not in ("running", "pending"))
    (chains,) = other.outputs.glob("signal_fit/MN-*")
    before = len((chains / "data-ev.dat").read_text().splitlines())
    assert not (other.outputs / "signal_fit" / "finished.json").exists()
    run(user, other, "--resume")
    assert chains_of(other, "signal_fit") == chains
    assert len((chains / "data-ev.dat").read_text().splitlines()) >= before


def test_the_image_is_not_built_without_its_lock(user, contract_image):
    """With a base that has no more than the definition needs to find that out."""
    folder = user.work / "containers"
    shutil.copytree(ROOT / "containers", folder, ignore=shutil.ignore_patterns("__pycache__"))
    lock = folder / "bayeseor-cpu.conda.lock"
    lock.write_text("# Not made yet\n")
    definition = folder / "bayeseor.def"
    build = ("build", definition, "--base", contract_image, "--images", user.work / "images")
    refused = user.valska(*build, check=False)
    assert refused.returncode == 1
    assert "run containers/lock-bayeseor.sh cpu where conda-forge can be reached" in refused.stderr
    lock.write_text("# Made.\n@EXPLICIT\n")
    assert "--build-arg micromamba=FILE" in user.valska(*build, check=False).stderr
    (user.work / "env").mkdir()
    given = user.valska(*build, "--build-arg", f"environment={user.work / 'env'}", check=False)
    assert "no lib/libmultinest.so" in given.stderr

"""Matrices of another run: which are taken, and why others are not."""

import json
import sys
from pathlib import Path

import pytest

from valska.external_tools.bayeseor import TOOL
from valska.external_tools.core.bundling import BundleRequest, create, draft
from valska.external_tools.core.errors import PrerequisiteError, UsageError
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.templates import get_template_path
from valska.external_tools.core.tool import RunSpec, default_directives, read_file

PROGRAM = Path(__file__).parents[1] / "data" / "contract" / "run-analysis.py"


@pytest.fixture
def scripts(scripts, tmp_path_factory):
    """Job scripts that find a `python`, which Debian itself does not have."""
    programs = tmp_path_factory.mktemp("programs")
    (programs / "python").symlink_to(sys.executable)
    scripts.environment["PATH"] = f"{programs}:{scripts.environment['PATH']}"
    return scripts


@pytest.fixture
def spec(tmp_path):
    data = tmp_path / "eor.uvh5"
    data.write_text("{}")

    def make(matrices=None, **more):
        options = {"data": str(data), "cpu": True, "matrices": matrices, "program": str(PROGRAM)}
        return RunSpec(
            "bayeseor",
            "r",
            get_template_path(TOOL.templates_dir, "tiny_cpu"),
            options=options,
            directives=default_directives(TOOL, options),
            **more,
        )

    return make


@pytest.fixture
def bundle(tmp_path, spec):
    def make(name, **more):
        request = BundleRequest(
            tool=TOOL, spec=spec(**more), runner=RunnerKind.HOST, output=tmp_path / name
        )
        return create(draft(request))

    return make


@pytest.fixture
def made(bundle, scripts):
    """A bundle that has its matrices."""
    found = bundle("made")
    assert scripts.run(found, stage="cpu_precompute")[0] == 0
    return found


def plan_of(spec):
    return TOOL.plan(spec, TOOL.discover(spec, read_file), read_file)


def test_matrices_of_a_bundle_are_borrowed_and_none_are_made(made, spec):
    plan = plan_of(spec(str(made.path)))
    assert plan.borrowed == {"matrices": made.outputs / "matrices"}
    assert plan.shares == {}
    assert [(stage.name, stage.after) for stage in plan.stages] == [
        ("signal_fit", ()),
        ("no_signal", ()),
    ]


def test_a_directory_is_taken_as_it_is(made, spec):
    place = made.outputs / "matrices"
    assert plan_of(spec(str(place), overrides={"sigma": 1.0})).borrowed == {"matrices": place}


def test_other_priors_may_use_them(made, spec):
    overrides = {"no_signal_priors": [[-5, -4]] * 3, "noise_seed": 1}
    assert plan_of(spec(str(made.path), overrides=overrides)).borrowed


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"fwhm_deg": 9.30682}, "fwhm_deg is 9.306821090681533 there and 9.30682 here"),
        ({"nf": 7}, "nf is 6 there and 7 here"),
        ({"achromatic_beam": True}, "achromatic_beam is null there and true here"),
    ],
)
def test_matrices_that_do_not_fit_are_refused_with_the_keys(made, spec, overrides, told):
    with pytest.raises(UsageError) as caught:
        plan_of(spec(str(made.path), overrides=overrides))
    assert told in caught.value.message


def test_matrices_from_other_visibilities_of_the_same_name_are_refused(made, spec, tmp_path):
    (tmp_path / "eor.uvh5").write_text("[]")
    with pytest.raises(UsageError, match="other files: data_path here is") as caught:
        plan_of(spec(str(made.path)))
    place = made.outputs / "matrices"
    assert f"name {place} itself" in caught.value.hint
    assert plan_of(spec(str(place))).borrowed == {"matrices": place}


def test_matrices_from_another_noise_file_of_the_same_name_are_refused(
    bundle, spec, scripts, tmp_path
):
    noise = [tmp_path / name / "noise.npy" for name in ("a", "b")]
    for number, path in enumerate(noise):
        path.parent.mkdir()
        path.write_bytes(bytes([number]) * 8)
    made = bundle("noisy", overrides={"noise_data_path": str(noise[0])})
    assert scripts.run(made, stage="cpu_precompute")[0] == 0
    assert plan_of(spec(str(made.path), overrides={"noise_data_path": str(noise[0])})).borrowed
    with pytest.raises(UsageError, match="other files: noise_data_path here is"):
        plan_of(spec(str(made.path), overrides={"noise_data_path": str(noise[1])}))


def test_the_same_holds_for_every_point(made, spec):
    specs = [spec(str(made.path)), spec(str(made.path), perturbations={"fwhm_deg": 0.01})]
    points = TOOL.plan_points(specs, read_file)
    assert next(points)[1].borrowed
    with pytest.raises(UsageError, match="do not fit"):
        next(points)


def test_a_bundle_without_matrices_is_refused(bundle, spec, made):
    with pytest.raises(PrerequisiteError, match="has not run"):
        plan_of(spec(str(bundle("new").path)))
    record = next(made.records.iterdir())
    record.write_text(record.read_text().replace('"completed"', '"failed"'))
    with pytest.raises(PrerequisiteError, match="is failed"):
        plan_of(spec(str(made.path)))


@pytest.mark.parametrize("name", ["T_Ninv_T.h5", "T.h5", "Ninv.npz", "N.npz", "version.txt"])
def test_matrices_that_are_not_complete_are_refused(made, spec, name):
    next(made.outputs.rglob(name)).unlink()
    with pytest.raises(PrerequisiteError, match="not complete") as caught:
        plan_of(spec(str(made.path)))
    assert "BayesEoR" in caught.value.hint


def test_what_is_no_directory_of_matrices_is_refused(tmp_path, spec):
    with pytest.raises(UsageError, match="no such directory"):
        plan_of(spec(str(tmp_path / "nowhere")))
    with pytest.raises(PrerequisiteError, match="not complete"):
        plan_of(spec(str(tmp_path)))


def test_the_directory_above_or_below_is_refused(made, spec):
    (below,) = (made.outputs / "matrices").iterdir()
    for place in (made.outputs, below):
        with pytest.raises(PrerequisiteError, match="not complete"):
            plan_of(spec(str(place)))


def test_a_sweep_as_a_whole_is_refused(made, spec, tmp_path):
    (tmp_path / "sweep_manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="is a sweep") as caught:
        plan_of(spec(str(tmp_path)))
    assert caught.value.hint == "Name one of its points."


def test_a_bundle_that_borrowed_names_the_one_that_has_them(made, spec, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    borrowed = [{"path": "outputs/matrices", "source": str(made.outputs / "matrices")}]
    (other / "manifest.json").write_text(json.dumps({"borrowed": borrowed}))
    with pytest.raises(UsageError, match="another run itself") as caught:
        plan_of(spec(str(other)))
    assert str(made.outputs / "matrices") in caught.value.hint


def test_a_run_with_borrowed_matrices_runs_and_leaves_them_alone(made, bundle, scripts):
    before = {path: path.read_bytes() for path in made.outputs.rglob("*") if path.is_file()}
    borrower = bundle("borrower", matrices=str(made.path))
    code, _, err = scripts.run(borrower, stage="signal_fit")
    assert code == 0, err
    assert list(borrower.outputs.glob("signal_fit/MN-*-v1/data-stats.dat"))
    assert {path: path.read_bytes() for path in before} == before

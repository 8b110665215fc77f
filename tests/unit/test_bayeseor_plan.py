"""BayesEoR's plan: stages, configurations, inputs, and many points at once."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from valska.external_tools.bayeseor import TOOL
from valska.external_tools.bayeseor.keys import NO_MATRIX_KEYS, PARAMETERS
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.templates import get_template_path, list_templates
from valska.external_tools.core.tool import (
    HasOptions,
    PlansPoints,
    RunSpec,
    Tool,
    VariesDirectives,
    default_directives,
    read_file,
)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "Mock EoR.uvh5"
    path.write_text("{}")
    return path


@pytest.fixture
def spec(data):
    def make(template="tiny_cpu", *, source=None, options=None, **more):
        chosen = {"data": str(data), "cpu": True, **(options or {})}
        return RunSpec(
            "bayeseor",
            "r",
            source or get_template_path(TOOL.templates_dir, template),
            options=chosen,
            directives=more.pop("directives", default_directives(TOOL, chosen)),
            **more,
        )

    return make


@pytest.fixture
def config(tmp_path, data):
    """Return a function that writes a configuration with some keys changed."""

    def write(**changes):
        text = get_template_path(TOOL.templates_dir, "tiny_cpu").read_text()
        document = {**yaml.safe_load(text), "data_path": str(data), **changes}
        path = tmp_path / "config_mine.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


def plan_of(spec):
    return TOOL.plan(spec, TOOL.discover(spec, read_file), read_file)


def configs_of(plan):
    return {name: yaml.safe_load(data) for name, data in plan.configs.items()}


def test_it_is_a_tool():
    for kind in (Tool, PlansPoints, HasOptions, VariesDirectives):
        assert isinstance(TOOL, kind)
    assert TOOL.stages == ("cpu_precompute", "signal_fit", "no_signal")


def test_importing_it_imports_nothing_heavy():
    code = (
        "import sys, valska.external_tools.bayeseor as p;"
        "print(sorted({'yaml', 'numpy', 'jsonschema', 'click', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("template", list_templates(TOOL.templates_dir))
def test_every_template_only_lacks_data(spec, template):
    plan = plan_of(spec(template))
    assert len(plan.configs) == 2
    with pytest.raises(UsageError, match="no data_path") as caught:
        plan_of(spec(template, options={"data": None}))
    assert "--data" in caught.value.hint


def test_no_signal_priors_of_the_large_templates_are_the_lowest_decade():
    for template in ("airy_14m", "gaussian_achromatic", "gaussian_chromatic"):
        found = yaml.safe_load(get_template_path(TOOL.templates_dir, template).read_text())
        for signal, none in zip(found["signal_fit_priors"], found["no_signal_priors"], strict=True):
            assert none == [signal[0], pytest.approx(signal[0] + 1)]
            assert signal[1] == pytest.approx(signal[0] + 6)


def test_only_templates_for_the_mock_data_have_the_patch_of_sky_that_suits_those(spec):
    rectangular = {
        name
        for name in list_templates(TOOL.templates_dir)
        if configs_of(plan_of(spec(name)))["config_no_signal.yaml"].get("simple_za_filter") is False
    }
    assert rectangular == {"tiny_cpu", "gaussian_achromatic"}


def test_stages_precompute_once_then_sample_both(spec):
    precompute, signal, none = plan_of(spec()).stages
    start = ("python", "-u", "../inputs/driver.py", "/opt/bayeseor/scripts/run-analysis.py")
    config = ("--config", "../config/config_signal_fit.yaml")
    assert precompute.argv == (*start, *config, "--cpu", "--output-dir", "cpu_precompute")
    assert precompute.lends == ("matrices",)
    assert precompute.resume is None
    assert signal.argv == (*start, *config, "--cpu", "--run")
    assert none.argv == (*start, "--config", "../config/config_no_signal.yaml", "--cpu", "--run")
    for stage in (signal, none):
        assert stage.after == ("cpu_precompute",)
        assert f"{stage.name}/MN-*/data-stats.dat" in stage.outputs
        assert stage.resume.pattern == f"{stage.name}/MN-*/data-resume.dat"
        assert stage.resume.option == "--file-root-dir"


def test_sampling_is_on_a_gpu_unless_told_otherwise(spec):
    on_gpu = plan_of(spec(options={"cpu": False})).stages
    assert [stage.gpus for stage in on_gpu] == [False, True, True]
    assert [stage.argv[-2] for stage in on_gpu[1:]] == ["--gpu", "--gpu"]
    assert "gres" in default_directives(TOOL, {})["signal_fit"]
    assert not any(stage.gpus for stage in plan_of(spec()).stages)
    assert not any("gres" in found for found in default_directives(TOOL, {"cpu": True}).values())


@pytest.mark.parametrize("hypothesis", ["signal_fit", "no_signal"])
def test_one_hypothesis_alone(spec, hypothesis):
    plan = plan_of(spec(options={"hypothesis": hypothesis}))
    assert [stage.name for stage in plan.stages] == ["cpu_precompute", hypothesis]
    assert list(plan.configs) == [f"config_{hypothesis}.yaml"]
    assert f"../config/config_{hypothesis}.yaml" in plan.stages[0].argv
    assert list(plan.section["hypotheses"]) == [hypothesis]


def test_threads_and_ranks_follow_the_directives(spec):
    directives = {"cpu_precompute": {"cpus-per-task": "8"}, "signal_fit": {"ntasks": "4"}}
    precompute, signal, none = plan_of(spec(directives=directives)).stages
    assert precompute.env["OMP_NUM_THREADS"] == "8"
    assert signal.env["OMP_NUM_THREADS"] == "1"
    assert (precompute.ranks, signal.ranks, none.ranks) == (1, 4, 1)
    assert signal.probe[0] == "python"


@pytest.mark.parametrize(
    ("stage", "directives", "told"),
    [
        ("cpu_precompute", {"ntasks": "2"}, "one task only"),
        ("signal_fit", {"ntasks": "0"}, "positive whole number"),
        ("signal_fit", {"nodes": "2"}, "leaves the number of MPI ranks open"),
        ("no_signal", {"cpus-per-task": "many"}, "positive whole number"),
    ],
)
def test_directives_that_cannot_be_are_refused(spec, stage, directives, told):
    with pytest.raises(UsageError, match=told):
        plan_of(spec(directives={stage: directives}))


def test_the_program_can_lie_elsewhere_but_not_just_anywhere(spec):
    plan = plan_of(spec(options={"program": "/opt/x/run-analysis.py"}))
    assert all(stage.argv[3] == "/opt/x/run-analysis.py" for stage in plan.stages)
    with pytest.raises(UsageError, match="not a whole path"):
        plan_of(spec(options={"program": "run-analysis.py"}))


def test_each_hypothesis_has_its_configuration(spec):
    plan = plan_of(spec(overrides={"nside": 64, "inverse_LW_power": 1e-16}))
    signal, none = configs_of(plan).values()
    assert signal.pop("priors") == [[0.7, 2.7], [1.5, 3.5], [2.0, 4.0]]
    assert none.pop("priors") == [[-4.0, -3.0], [-3.2, -2.2], [-2.6, -1.6]]
    assert (signal.pop("output_dir"), none.pop("output_dir")) == ("signal_fit", "no_signal")
    assert signal == none
    assert signal["array_dir_prefix"] == "matrices/"
    assert signal["data_path"] == "../inputs/data/mock_eor.uvh5"
    assert (signal["nside"], signal["inverse_LW_power"]) == (64, 1e-16)
    assert signal.keys() < PARAMETERS.keys() - {"signal_fit_priors", "no_signal_priors"}


def test_the_same_spec_gives_the_same_bytes_anywhere(spec, data, tmp_path):
    copy = tmp_path / data.name
    copy.write_bytes(data.read_bytes())
    here, there = plan_of(spec()), plan_of(spec(options={"data": str(copy)}))
    assert here.configs == there.configs
    assert here.stages == there.stages


def test_inputs_are_the_data_and_what_watches_the_program(spec, data):
    found = TOOL.discover(spec(), read_file)
    assert [(item.name, item.target, item.own) for item in found] == [
        ("data_path", "data/mock_eor.uvh5", False),
        ("driver", "driver.py", True),
    ]
    assert found[0].source == data


def test_files_are_found_beside_the_configuration_and_renamed(spec, config, tmp_path, data):
    (tmp_path / "Beams").mkdir()
    (tmp_path / "Beams" / "HERA 14m.BeamFits").write_text("beam")
    (tmp_path / "noise.npy").write_text("noise")
    source = config(beam_type="Beams/HERA 14m.BeamFits", noise_data_path="noise.npy")
    plan = plan_of(spec(source=source, options={"data": None}))
    targets = {item.name: item.target for item in TOOL.discover(spec(source=source), read_file)}
    assert targets["beam_type"] == "beam/hera_14m.beamfits"
    rendered = configs_of(plan)["config_no_signal.yaml"]
    assert rendered["beam_type"] == "../inputs/beam/hera_14m.beamfits"
    assert rendered["beam_type"] == rendered["beam_type"].lower()
    assert rendered["noise_data_path"] == "../inputs/noise/noise.npy"
    assert plan.taxonomy["beam"] == "hera_14m"
    bases = {path["key"]: path["base"] for path in plan.section["paths"]}
    assert bases["beam_type"] == "working directory"
    assert bases["data_path"] == "configuration"


def test_an_instrument_model_is_staged_file_by_file(spec, config, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    vector = tmp_path / "vis.npy"
    vector.write_text("vis")
    source = config(inst_model="model", nf=6, df=237618.0, freq_min=158.3e6)
    chosen = spec(source=source, options={"data": str(vector)})
    with pytest.raises(UsageError, match="has no uvw_model"):
        plan_of(chosen)
    for name in ("uvw_model.npy", "redundancy_model.npy", "antpairs.npy", "notes.txt"):
        (model / name).write_text(name)
    targets = [item.target for item in TOOL.discover(chosen, read_file)]
    assert "inst_model/antpairs.npy" in targets
    assert not any("notes" in target for target in targets)
    assert configs_of(plan_of(chosen))["config_no_signal.yaml"]["inst_model"] == (
        "../inputs/inst_model"
    )
    with pytest.raises(UsageError, match="no inst_model"):
        plan_of(spec(options={"data": str(vector)}))


@pytest.mark.parametrize(
    ("name", "told"),
    [("none.uvh5", "no such file"), ("x.ms", "is a directory"), ("x.fits", "cannot read x.fits")],
)
def test_data_that_bayeseor_cannot_read_are_refused(spec, tmp_path, name, told):
    (tmp_path / "x.ms").mkdir()
    (tmp_path / "x.fits").write_text("")
    with pytest.raises(UsageError, match=told):
        plan_of(spec(options={"data": str(tmp_path / name)}))


def test_a_path_that_bayeseor_would_not_expand_is_refused_with_that_hint(spec, config):
    source = config(data_path="~/eor.uvh5")
    with pytest.raises(UsageError, match="no such file: ~/eor") as caught:
        plan_of(spec(source=source, options={"data": None}))
    assert "expands neither ~" in caught.value.hint


def test_the_number_of_priors_is_that_of_the_k_bins(spec, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "eor.uvh5"
    with h5py.File(path, "w") as file:
        file["Header/freq_array"] = [158.3e6 + i * 237618 for i in range(38)]
    assert plan_of(spec(options={"data": str(path)})).section["k_bins"] == 3
    wrong = spec(options={"data": str(path)}, overrides={"nf": 38})
    with pytest.raises(UsageError, match="there are 9 k bins and 3 priors of signal_fit"):
        plan_of(wrong)


def test_the_taxonomy_is_derived_and_can_be_fixed(spec):
    assert plan_of(spec("airy_14m")).taxonomy == {
        "beam": "airy",
        "sky": "mock_eor",
        "variant": "airy_14m",
        "label": "default",
    }
    chosen = spec(taxonomy={"sky": "GLEAM", "label": "v2"}, overrides={"achromatic_beam": True})
    assert list(plan_of(chosen).taxonomy.values()) == [
        "achromatic_gaussian",
        "GLEAM",
        "tiny_cpu",
        "v2",
    ]
    for wrong in ({"skies": "x"}, {"sky": "../x"}):
        with pytest.raises(UsageError):
            plan_of(spec(taxonomy=wrong))


def test_what_is_not_used_is_said_once(spec, config, caplog):
    plan_of(spec(source=config(output_dir="./chains", quiet=True)))
    assert caplog.text.count("valska sets") == 1


def test_the_section_is_json(spec):
    section = plan_of(spec()).section
    assert json.loads(json.dumps(section)) == section
    assert section["hypotheses"] == {
        "signal_fit": "outputs/signal_fit",
        "no_signal": "outputs/no_signal",
    }
    assert (section["mode"], section["log_priors"]) == ("cpu", True)


def shared(spec):
    return plan_of(spec).shares["cpu_precompute"]


@pytest.mark.parametrize(
    ("overrides", "same"),
    [
        ({"no_signal_priors": [[-5, -3], [-5, -3], [-5, -3]]}, True),
        ({"noise_seed": 7}, True),
        ({"inverse_LW_power": 1.0}, True),
        ({"uprior_bins": "0"}, True),
        ({"fwhm_deg": 9.306821090681534}, False),
        ({"sigma": 0.007}, False),
        ({"nf": 7}, False),
        ({"telescope_latlonalt": [-30.72152777777791, 21.4, 1073.0]}, False),
        ({"pl_min": 1.0}, False),
    ],
)
def test_matrices_are_shared_unless_a_key_may_change_them(spec, overrides, same):
    assert (shared(spec()) == shared(spec(overrides=overrides))) is same


def test_other_data_do_not_share_matrices(spec, tmp_path):
    other = tmp_path / "other.uvh5"
    other.write_text("{}")
    assert shared(spec()) != shared(spec(options={"data": str(other)}))


def test_every_key_that_is_no_matrix_key_is_a_parameter():
    assert PARAMETERS.keys() >= NO_MATRIX_KEYS


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "fwhm_deg": st.floats(0.1, 90),
        "sigma": st.floats(1e-6, 1),
        "nside": st.sampled_from([32, 64]),
        "beta": st.lists(st.floats(1, 3), max_size=2),
        "noise_seed": st.integers(0, 9),
        "taper_func": st.text(st.characters(codec="utf-8", categories=["L", "N"]), max_size=5),
        "signal_fit_priors": st.just([[0, 1], [0, 1], [0, 1]]),
        "use_sparse_matrices": st.booleans(),
        "simple_za_filter": st.none(),
    },
)
FRACTIONS = st.dictionaries(st.just("fwhm_deg"), st.floats(-0.9, 5), max_size=1)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(points=st.lists(st.tuples(VALUES, FRACTIONS), max_size=6))
def test_points_are_planned_as_one_by_one(spec, points):
    specs = [spec(overrides=values, perturbations=fractions) for values, fractions in points]
    many = list(TOOL.plan_points(specs, read_file))
    alone = [(TOOL.discover(one, read_file), plan_of(one)) for one in specs]
    assert many == alone
    assert [list(p.configs.items()) for _, p in many] == [list(p.configs.items()) for _, p in alone]


def test_points_have_the_same_objects_for_what_is_the_same(spec):
    specs = [spec(perturbations={"fwhm_deg": n / 10}) for n in range(3)]
    found = list(TOOL.plan_points(specs, read_file))
    assert all(inputs is found[0][0] for inputs, _ in found)
    assert all(plan.stages is found[0][1].stages for _, plan in found)
    assert len({plan.shares["cpu_precompute"] for _, plan in found}) == 3


def test_a_bad_point_is_told_when_its_turn_comes(spec):
    specs = [spec(), spec(overrides={"sigma": "high"}), spec()]
    planned = TOOL.plan_points(specs, read_file)
    assert next(planned)[1].stages
    with pytest.raises(UsageError, match="sigma is not a number"):
        next(planned)


def test_no_points_no_plans():
    assert list(TOOL.plan_points([], read_file)) == []


def test_the_plan_reads_its_configuration_alone(spec):
    seen = []

    def read(path: Path):
        seen.append(path)
        return read_file(path)

    list(TOOL.plan_points([spec(), replace(spec(), run_id="s")], read))
    assert seen == [spec().source]

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.run_directory import build_run_dir
from valska.external_tools.core.templates import get_template_path, list_templates
from valska.external_tools.core.tool import Launch, RunPlan, RunSpec, Tool, read_file
from valska.external_tools.core.utils import sha256_file
from valska.external_tools.pyuvsim import TOOL
from valska.external_tools.pyuvsim.plan import plan_ranks

UPSTREAM = {
    "RASG.txt": "faa461dd11a0da111bdf4b6077ec1e89cd64fa48bd9a383293f9ed1021b68b5b",
    "mwa_128T_layout.csv": "acf1373520c162f1c7dd78338c4591472b93c2c92a4bc48068fda2738b28bb9b",
    "mwa_config_short_dipole.yaml": (
        "be85e88d29ad1675b7a12cb10f844d4325a19cb2c24248ebbfae2ee276913529"
    ),
}
"""Digests of the files in the wheel of pyuvsim 1.4.2."""


def spec_of(template: str = "hera_small", **directives: str) -> RunSpec:
    source = get_template_path(TOOL.templates_dir, template)
    merged = {"simulate": {**TOOL.directives["simulate"], **directives}}
    return RunSpec("pyuvsim", "r", source, directives=merged)


def plan_of(spec: RunSpec) -> RunPlan:
    return TOOL.plan(spec, TOOL.discover(spec, read_file), read_file)


def test_it_is_a_tool() -> None:
    assert isinstance(TOOL, Tool)
    assert (TOOL.name, TOOL.definition, TOOL.stages) == ("pyuvsim", "pyuvsim.def", ("simulate",))


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, valska.external_tools.pyuvsim as p;"
        "print(sorted({'yaml', 'numpy', 'jsonschema', 'click', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_stage_runs_pyuvsim_in_outputs() -> None:
    (stage,) = plan_of(spec_of()).stages
    assert stage.argv == ("run_pyuvsim", "--param", "../config/obsparam.yaml")
    assert stage.outputs == ("hera_small.uvh5",)
    assert (stage.ranks, stage.launch, stage.gpus, stage.after) == (1, Launch.MPIEXEC, False, ())
    assert stage.probe[:2] == ("python3", "-c")


def test_threads_and_memory_come_from_the_directives() -> None:
    (stage,) = plan_of(spec_of(**{"cpus-per-task": "3", "mem": "2G"})).stages
    assert stage.env["OMP_NUM_THREADS"] == stage.env["OPENBLAS_NUM_THREADS"] == "3"
    assert stage.env["SLURM_MEM_PER_NODE"] == "2048"


@pytest.mark.parametrize(
    ("memory", "mib"),
    [
        ("4G", "4096"),
        ("500", "500"),
        ("500M", "500"),
        ("2048K", "2"),
        ("1T", "1048576"),
        ("0", None),
    ],
)
def test_pyuvsim_learns_the_memory_of_the_job(memory: str, mib: str | None) -> None:
    (stage,) = plan_of(spec_of(mem=memory)).stages
    assert stage.env.get("SLURM_MEM_PER_NODE") == mib


@pytest.mark.parametrize(
    ("directives", "ranks"),
    [
        ({}, 1),
        ({"ntasks": "4"}, 4),
        ({"nodes": "2"}, 2),
        ({"nodes": "2", "ntasks-per-node": "3"}, 6),
        ({"ntasks-per-node": "3"}, 3),
        ({"nodes": "2", "tasks-per-node": "3"}, 6),
        ({"nodes": "2", "ntasks-per-node": "3", "ntasks": "5"}, 5),
    ],
)
def test_ranks_follow_the_slurm_request(directives: Mapping[str, str], ranks: int) -> None:
    assert plan_ranks(directives) == ranks


@pytest.mark.parametrize(
    "directives",
    [
        {"ntasks": "0"},
        {"ntasks": "-1"},
        {"ntasks": "many"},
        {"ntasks": ""},
        {"ntasks": "1.5"},
        {"ntasks": "\u0663"},
        {"ntasks-per-node": "2", "nodes": "1-4"},
        {"ntasks": "1", "ntasks-per-node": "4"},
    ],
)
def test_a_request_that_leaves_the_ranks_open_is_refused(directives: Mapping[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        plan_ranks(directives)
    assert caught.value.hint


def test_the_taxonomy_is_derived_and_can_be_fixed() -> None:
    assert plan_of(spec_of("ref_1_1")).taxonomy == {
        "telescope": "mwa",
        "sky": "rasg",
        "variant": "ref_1_1",
    }
    fixed = replace(spec_of("ref_1_1"), taxonomy={"sky": "Letters", "variant": "v2"})
    assert list(plan_of(fixed).taxonomy.values()) == ["mwa", "Letters", "v2"]


@pytest.mark.parametrize(
    "taxonomy", [{"skies": "x"}, {"sky": "../x"}, {"sky": ""}, {"sky": "a\nb"}]
)
def test_a_taxonomy_that_cannot_be_is_refused(taxonomy: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        plan_of(replace(spec_of(), taxonomy=taxonomy))


@pytest.mark.parametrize("name", ["Ünï cødé!", "...", "42", "a/b\\c", "x" * 300])
def test_any_telescope_name_gives_a_usable_level(tmp_path: Path, name: str) -> None:
    spec = replace(spec_of(), overrides={"telescope_config.telescope_name": name})
    assert build_run_dir(tmp_path, "pyuvsim", plan_of(spec).taxonomy, "r").is_relative_to(tmp_path)


def test_the_section_is_json_and_names_no_place() -> None:
    section = plan_of(spec_of("ref_1_1")).section
    assert json.loads(json.dumps(section)) == section
    assert section["output"] == "ref_1.1_baseline_number.uvh5"
    assert str(Path.cwd()) not in json.dumps(section)
    assert {entry["path"] for entry in section["paths"]} == {
        "inputs/rasg.txt",
        "inputs/mwa_128t_layout.csv",
    }


def test_overrides_reach_both_documents() -> None:
    spec = replace(
        spec_of(),
        overrides={
            "freq.Nfreqs": 4,
            "select.no_autos": True,
            "telescope_config.beam_paths.0.diameter": 12.0,
        },
    )
    plan = plan_of(spec)
    obsparam = yaml.safe_load(plan.configs["obsparam.yaml"])
    assert (obsparam["freq"]["Nfreqs"], obsparam["select"]["no_autos"]) == (4, True)
    assert b"diameter: 12.0" in plan.configs["telescope.yaml"]


def test_the_rendered_obsparam_resolves_from_outputs() -> None:
    obsparam = yaml.safe_load(plan_of(spec_of("ref_1_1")).configs["obsparam.yaml"])
    assert obsparam["sources"] == {"catalog": "../inputs/rasg.txt"}
    assert obsparam["telescope"] == {
        "array_layout": "../inputs/mwa_128t_layout.csv",
        "telescope_config_name": "../config/telescope.yaml",
    }
    assert obsparam["filing"]["outdir"] == "."
    assert obsparam["freq"] == {"freq_array": [1e8], "channel_width": 100000.0}


def test_old_files_without_a_filing_section_work(tmp_path: Path) -> None:
    source = get_template_path(TOOL.templates_dir, "hera_small")
    document = yaml.safe_load(source.read_text())
    del document["filing"]
    document |= {"outdir": "/data/me", "outfile_name": "old.uvfits"}
    for section, key in (("sources", "catalog"), ("telescope", "array_layout")):
        document[section][key] = str(source.parent / document[section][key])
    name = document["telescope"]["telescope_config_name"]
    document["telescope"]["telescope_config_name"] = str(source.parent / name)
    (tmp_path / "obsparam.yaml").write_text(yaml.safe_dump(document))
    plan = plan_of(replace(spec_of(), source=tmp_path / "obsparam.yaml"))
    rendered = yaml.safe_load(plan.configs["obsparam.yaml"])
    assert rendered["filing"] == {"outdir": ".", "outfile_name": "old.uvfits"}
    assert "outdir" not in rendered
    assert plan.stages[0].outputs == ("old.uvfits",)
    assert plan.taxonomy["variant"] == "base"


def test_a_saved_mock_sky_is_an_output(tmp_path: Path) -> None:
    overrides = {
        "sources.catalog": "mock",
        "sources.mock_arrangement": "cross",
        "sources.save": True,
    }
    plan = plan_of(replace(spec_of(), overrides=overrides))
    assert plan.stages[0].outputs == ("hera_small.uvh5", "mock_catalog_cross.npz")
    assert plan.taxonomy["sky"] == "mock_cross"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"sources.catalog": "mock", "sources.mock_arrangement": "random"}, "no seed"),
        ({"sources.catalog": "mock", "sources.mock_arrangement": "diffuse"}, "analytic_diffuse"),
        ({"telescope_config.world": "moon"}, "lunarsky"),
        ({"filing.output_format": "ms"}, "casacore"),
    ],
)
def test_what_will_not_repeat_or_run_in_the_image_is_said(
    overrides: dict[str, str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    plan_of(replace(spec_of(), overrides=overrides))
    assert [words in record.getMessage() for record in caplog.records] == [True]


def test_the_templates_are_listed_and_all_plan() -> None:
    assert list_templates(TOOL.templates_dir) == ["hera_small", "ref_1_1"]
    for name in list_templates(TOOL.templates_dir):
        assert plan_of(spec_of(name)).configs


def test_a_template_is_not_changed_by_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hera_small").mkdir()
    (tmp_path / "hera_small" / "layout.csv").write_text("mine")
    monkeypatch.chdir(tmp_path)
    inputs = TOOL.discover(spec_of(), read_file)
    assert all(file.source.is_relative_to(TOOL.templates_dir) for file in inputs)


@pytest.mark.parametrize("name", sorted(UPSTREAM))
def test_the_reference_simulation_is_upstreams_byte_for_byte(name: str) -> None:
    assert sha256_file(TOOL.templates_dir / "ref_1_1" / name) == UPSTREAM[name]

"""The manifest: the roadmap's functions, its schema, and what readers accept."""

import inspect
import json

import pytest
from toy import bundle, stage

import valska
from valska.external_tools.core import manifest as module
from valska.external_tools.core.bundling import BundledImage
from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.manifest import (
    ManifestBase,
    ManifestError,
    MissingManifestError,
    bundle_id,
    load_manifest,
    read_manifest,
    validate_manifest,
    write_manifest,
)
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.schema import load_schema
from valska.external_tools.core.tool import Launch
from valska.external_tools.core.utils import sha256_bytes


def written(folder, **extra):
    write_manifest(folder, tool="toy", run_id="r1", results_root=folder, extra_fields=extra)
    return load_manifest(folder)


def test_names_and_parameters_of_the_roadmap():
    signature = inspect.signature(write_manifest)
    names = list(signature.parameters)
    assert names[:5] == ["run_dir", "tool", "run_id", "results_root", "extra_fields"]
    assert signature.parameters["extra_fields"].default is None
    assert all(
        signature.parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in names[1:]
    )
    assert list(inspect.signature(load_manifest).parameters) == ["run_dir"]
    assert list(inspect.signature(validate_manifest).parameters) == ["manifest"]
    assert list(ManifestBase.__dataclass_fields__) == [
        "tool",
        "created_utc",
        "valska_version",
        "run_id",
        "run_dir",
        "results_root",
    ]
    assert issubclass(ManifestError, valska.external_tools.core.errors.ValskaError)


def test_write_and_load(tmp_path):
    manifest = written(tmp_path, note="ünlike", n=1)
    assert manifest["tool"] == "toy"
    assert manifest["note"] == "ünlike"
    assert manifest["run_dir"] == manifest["results_root"] == str(tmp_path)
    assert manifest["valska_version"] == valska.__version__
    validate_manifest(manifest)


def test_no_results_root(tmp_path):
    write_manifest(tmp_path, tool="toy", run_id="r1", results_root=None)
    assert load_manifest(tmp_path)["results_root"] is None


@pytest.mark.parametrize("name", [*module.BASE_FIELDS, "schema_version"])
def test_extra_fields_cannot_replace_required_ones(tmp_path, name):
    with pytest.raises((ManifestError, TypeError), match=name):
        write_manifest(
            tmp_path, tool="toy", run_id="r1", results_root=None, extra_fields={name: "x"}
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "extra", [{"x": float("nan")}, {"x": {1, 2}}, {"x": "\udcff"}, {"bundle_id": "x"}]
)
def test_what_is_not_json_or_not_valid_is_not_written(tmp_path, extra):
    with pytest.raises(valska.external_tools.core.errors.ValskaError):
        written(tmp_path, **extra)
    assert list(tmp_path.iterdir()) == []


def test_no_manifest(tmp_path):
    with pytest.raises(MissingManifestError) as caught:
        load_manifest(tmp_path)
    assert caught.value.exit_code == 3
    assert "valska bundle" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_not_a_json_object(tmp_path, data):
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path)
    assert caught.value.exit_code == 5


def test_unknown_fields_are_tolerated_when_reading(tmp_path):
    made = bundle(tmp_path)
    manifest = load_manifest(made.path)
    manifest |= {"schema_version": "1.7", "new": {"a": 1}}
    for part in ("stages", "files", "inputs"):
        manifest[part][0]["newer"] = "x"
    made.manifest.write_text(json.dumps(manifest))
    assert read_manifest(made).stages[0].name == "simulate"


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.0", "", "x"])
def test_another_major_version_is_refused_naming_both_and_the_writer(tmp_path, version):
    manifest = written(tmp_path) | {"schema_version": version, "valska_version": "9.8.7"}
    with pytest.raises(ManifestError) as caught:
        validate_manifest(manifest)
    for word in (f"version {version}", "1.0", "9.8.7", valska.__version__):
        assert word in caught.value.message
    assert "9.8.7" in caught.value.hint


def test_all_findings_are_collected_with_their_paths(tmp_path):
    made = bundle(tmp_path)
    manifest = load_manifest(made.path)
    manifest["stages"][0]["ranks"] = 0
    manifest["files"][1]["sha256"] = "x"
    manifest["run_id"] = "a/b"
    del manifest["git"]
    with pytest.raises(ManifestError) as caught:
        validate_manifest(manifest)
    for place in ("$.stages[0].ranks", "$.files[1].sha256", "$.run_id", "'git'"):
        assert place in caught.value.message


def test_manifest_of_no_bundle_is_not_read_as_one(tmp_path):
    made = bundle(tmp_path)
    written(made.path)
    with pytest.raises(ManifestError, match="not that of a bundle"):
        read_manifest(made)


def test_typed_manifest_says_what_was_asked_for(tmp_path):
    made = bundle(
        tmp_path,
        [
            stage(name="first", outputs=("a",), env={"A": "1"}, ranks=4, probe=("p",)),
            stage(name="second", after=("first",), launch=Launch.SRUN, ranks=2, gpus=True),
        ],
        tool={"section": {"k": [1, None]}},
        spec={"overrides": {"a.b": 1.5}},
        results_root=tmp_path,
    )
    manifest = read_manifest(made)
    first, second = manifest.stages
    assert (first.outputs, first.env, first.ranks, first.probe) == (("a",), {"A": "1"}, 4, ("p",))
    assert (second.after, second.launch, second.gpus) == (("first",), Launch.SRUN, True)
    assert second.script == "submit_second.sh"
    assert manifest.section == {"k": [1, None]}
    assert manifest.spec["overrides"] == {"a.b": 1.5}
    assert manifest.spec["taxonomy"] == {"model": "plain"}
    assert (manifest.run_dir, manifest.results_root) == (str(made.path), str(tmp_path))
    assert manifest.stage("second") is second
    with pytest.raises(UsageError, match="third") as caught:
        manifest.stage("third")
    assert "first, second" in caught.value.hint


def test_what_is_written_is_exactly_what_the_schema_describes(tmp_path):
    """Fails when fields come or go without the schema: change both, and the version."""
    sif = tmp_path / "toy.sif"
    sif.write_bytes(b"x")
    facts = {
        "definition_sha256": None,
        "lock_sha256": None,
        "apptainer_version": "1.4.5",
        "base": {},
        "build_arguments": {},
    }
    image = BundledImage(path=sif, sha256=sha256_bytes(b"x"), size=1, facts=facts)
    made = bundle(tmp_path, image=image, runner=RunnerKind.CONTAINER)
    manifest = load_manifest(made.path)
    schema = load_schema("manifest-1")
    parts = schema["$defs"]
    assert manifest.keys() - {"toy"} == schema["properties"].keys()
    assert manifest["spec"].keys() == schema["properties"]["spec"]["properties"].keys()
    for data, part in (
        (manifest["stages"][0], "stage"),
        (manifest["inputs"][0], "input"),
        (manifest["files"][0], "file"),
        (manifest["image"], "image"),
    ):
        assert data.keys() == parts[part]["properties"].keys(), part
    assert module.SCHEMA_VERSION == "1.0"


BASE = {
    "tool": "toy",
    "configs": {"a.yaml": b"a"},
    "stages": (stage(),),
    "inputs": {"data": "0" * 64},
    "software": "1" * 64,
}


def test_bundle_id_is_pinned():
    """It must never change for what was bundled before."""
    assert bundle_id(**BASE) == bundle_id(**BASE)
    assert bundle_id(**BASE) == ("9d126ccb2a6111f2f6f5a4b931fdbf5f235a4c907e636f0de4c2a075612e96d4")


@pytest.mark.parametrize(
    "change",
    [
        {"tool": "other"},
        {"configs": {"a.yaml": b"b"}},
        {"configs": {"b.yaml": b"a"}},
        {"stages": (stage(argv=("cp", "a", "b")),)},
        {"stages": (stage(ranks=2),)},
        {"stages": (stage(name="other"),)},
        {"inputs": {"data": "2" * 64}},
        {"inputs": {"other": "0" * 64}},
        {"software": "2" * 64},
        {"software": None},
    ],
)
def test_science_changes_the_bundle_id(change):
    assert bundle_id(**{**BASE, **change}) != bundle_id(**BASE)

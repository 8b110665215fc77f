"""The seal of a point of a sweep: its own files, its bond to the sweep, and what lies outside."""

import shutil

import pytest
from sweeps import make_sweep, shell
from toy import bundle

from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.manifest import read_manifest
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.seal import read_sums, verify_bundle
from valska.external_tools.core.site import Site, reference_places, write_site_env
from valska.external_tools.core.staging import StagingMode
from valska.external_tools.core.utils import sha256_bytes, sha256_file

UNIT = f"prepare-{sha256_bytes(b'key')[:12]}"


@pytest.fixture
def sweep(tmp_path):
    stages = [
        shell(": >m/x", "prepare", outputs=("m/*",), lends=("m",)),
        shell(": >out", "fit", outputs=("out",), after=("prepare",)),
    ]
    return make_sweep(tmp_path, stages, shares={"prepare": "key"})


def found(unit, **more):
    return [(str(finding.kind), finding.path) for finding in verify_bundle(unit, **more)]


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("fast", [True, False])
def test_units_as_they_were_made(sweep, fast, common):
    for place in ("points/a", "points/b", f"shared/{UNIT}"):
        assert verify_bundle(sweep.unit(place), fast, common=common) == ()


def test_digests_of_a_point_name_its_sweep_and_what_it_shares(sweep):
    sums = read_sums(sweep.point("a"))
    assert sums.keys() == {
        "manifest.json",
        "config/run.yaml",
        "../../SHA256SUMS",
        f"../../shared/{UNIT}/manifest.json",
    }
    with pytest.raises(VerificationError, match="line 1"):
        read_sums(Bundle(sweep.point("a").path))


@pytest.mark.parametrize(
    "path",
    [
        "../../common.json",
        "../SHA256SUMS",
        "../../../SHA256SUMS",
        "../../shared/../SHA256SUMS",
        "../../shared/../manifest.json",
        "../../points/b/manifest.json",
        "/etc/passwd",
        "config/../../b/manifest.json",
    ],
)
def test_no_other_place_outside_is_named(sweep, path):
    point = sweep.point("a")
    with point.sums.open("a") as file:
        file.write(f"{'0' * 64}  {path}\n")
    assert found(point) == [("altered", "SHA256SUMS")]


def test_own_files_are_checked(sweep):
    point = sweep.point("a")
    (point.config / "run.yaml").write_text("unit: b\n")
    (point.path / "more").touch()
    assert found(point) == [("altered", "config/run.yaml"), ("unexpected", "more")]
    assert found(sweep.point("b")) == []


def test_common_files_are_checked_where_asked(sweep):
    (sweep.bundle.inputs / "data.txt").write_text("hellO\n")
    point = sweep.point("a")
    assert found(point) == [("altered", "../../inputs/data.txt")]
    assert found(point, fast=True) == []
    assert found(point, common=False) == []


def test_sweep_that_was_sealed_anew_is_not_the_points(sweep):
    with sweep.bundle.sums.open("a") as file:
        file.write(f"{sha256_file(sweep.bundle.readme)}  ./README.md\n")
    kinds = found(sweep.point("a"), common=False)
    assert kinds == [("altered", "../../SHA256SUMS")]


def test_manifest_of_shared_work_is_checked(sweep):
    shutil.rmtree(sweep.shared_unit(UNIT).path)
    place = f"../../shared/{UNIT}/manifest.json"
    assert found(sweep.point("a"), common=False) == [("missing", place)]


def test_bond_that_is_missing_is_found(sweep):
    point = sweep.point("a")
    lines = point.sums.read_text().splitlines(keepends=True)
    point.sums.write_text("".join(line for line in lines if "../../" not in line))
    findings = verify_bundle(point, common=False)
    assert [finding.path for finding in findings] == ["SHA256SUMS", "SHA256SUMS"]
    assert {finding.detail for finding in findings} == {
        "../../SHA256SUMS is not in it",
        f"../../shared/{UNIT}/manifest.json is not in it",
    }


# --- What lies outside ----------------------------------------------------------------------------


def test_what_lies_outside_is_named_with_its_place(tmp_path):
    matrices = tmp_path / "m"
    matrices.mkdir()
    made = bundle(tmp_path, staging=StagingMode.REFERENCE, tool={"borrowed": {"m": matrices}})
    assert read_manifest(made).outside() == {
        "inputs/data.txt": str(tmp_path / "data.txt"),
        "outputs/m": str(matrices),
    }


@pytest.mark.parametrize("name", ["plain", "mo'v\"ed $x [a]=b", "é (c)"])
def test_place_that_site_env_names_is_taken_if_something_is_there(tmp_path, name):
    site_env, place = tmp_path / "site.env", f"inputs/{name}"
    recorded = {place: "/was/here", "inputs/other": "/other"}
    write_site_env(site_env, Site(references={place: str(tmp_path / name)}))
    assert reference_places(site_env, recorded) == recorded
    (tmp_path / name).touch()
    assert reference_places(site_env, recorded) == {**recorded, place: str(tmp_path / name)}


@pytest.mark.parametrize(
    "text", ["", "VALSKA_REFERENCES=(\n", "VALSKA_REFERENCES=('\n", "VALSKA_REFERENCES=(x y)\n"]
)
def test_odd_site_env_says_nothing(tmp_path, text):
    (tmp_path / "site.env").write_text(text)
    assert reference_places(tmp_path / "site.env", {"inputs/x": "/x"}) == {"inputs/x": "/x"}
    assert reference_places(tmp_path / "absent", {"inputs/x": "/x"}) == {"inputs/x": "/x"}


def test_site_env_is_not_run_to_read_it(tmp_path):
    witness = tmp_path / "witness"
    site_env = tmp_path / "site.env"
    site_env.write_text(f"touch {str(witness)!r}\nVALSKA_REFERENCES=([inputs/x]=$(touch w))\n")
    reference_places(site_env, {"inputs/x": "/x"})
    assert not witness.exists()

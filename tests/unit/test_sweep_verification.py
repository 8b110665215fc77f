import json
import shutil
from pathlib import Path

import pytest
from handmade import DIGEST
from sweepmade import WORK, make_sweep, manifest_of, put_task_record

from valska.external_tools.core.errors import UsageError
from valska.external_tools.core.seal import Finding, FindingKind, verify_bundle
from valska.external_tools.core.sweep.document import write_sweep_manifest
from valska.external_tools.core.sweep.layout import Sweep
from valska.external_tools.core.sweep.verification import verify_sweep
from valska.external_tools.core.utils import sha256_file

ALTERED, MISSING = FindingKind.ALTERED, FindingKind.MISSING
UNEXPECTED, UNREADABLE = FindingKind.UNEXPECTED, FindingKind.UNREADABLE


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return make_sweep(tmp_path / "s", ["a", "b", "c"], sharing=["a", "b"])


def found(sweep: Sweep, fast: bool = False) -> list[tuple[FindingKind, str]]:
    return [(one.kind, one.path) for one in verify_sweep(sweep, fast).findings]


def details(sweep: Sweep) -> str:
    return "; ".join(map(str, verify_sweep(sweep).findings))


def test_a_sweep_is_as_it_was_made(sweep: Sweep) -> None:
    assert found(sweep) == found(sweep, fast=True) == []
    assert verify_sweep(sweep).units == 4


def test_what_jobs_and_submissions_write_is_expected(sweep: Sweep) -> None:
    for name in ("jobs.json", "jobs_20260102T030405Z.json", "site.env"):
        (sweep.path / name).touch()
    for folder in (sweep.bundle.logs, sweep.arrays, sweep.bundle.submit_lock):
        folder.mkdir(exist_ok=True)
    (sweep.arrays / "0a1b2c3d-0.sums").touch()
    (sweep.points / ".0123456789ab.partial").mkdir()
    for name in ("records", "logs", "outputs", "outputs.1"):
        (sweep.point("a").path / name).mkdir()
    assert found(sweep) == []


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("submit_pre.sh", ALTERED),
        ("common.json", ALTERED),
        ("points/a/config/run.yaml", ALTERED),
        ("points/a/manifest.json", ALTERED),
        (f"shared/{WORK}/config/run.yaml", ALTERED),
    ],
)
def test_a_file_with_other_content_is_altered(sweep: Sweep, place: str, kind: FindingKind) -> None:
    path = sweep.path / place
    data = bytearray(path.read_bytes())
    data[-2] = ord(" ") if data[-2] != ord(" ") else ord("\n")
    path.write_bytes(data)
    assert (kind, place) in found(sweep)


def test_a_seal_that_is_gone_is_missing(sweep: Sweep) -> None:
    sweep.bundle.sums.unlink()
    assert found(sweep) == [(MISSING, "SHA256SUMS")]
    assert verify_bundle(sweep.point("a"))[0] == Finding(MISSING, "../../SHA256SUMS")


def test_fast_does_not_read_what_has_the_right_size(sweep: Sweep) -> None:
    (sweep.point("a").config / "run.yaml").write_text("x: b\n")
    assert found(sweep, fast=True) == []
    (sweep.point("a").config / "run.yaml").write_text("x: bb\n")
    assert found(sweep, fast=True) == [(ALTERED, "points/a/config/run.yaml")]


@pytest.mark.parametrize(
    "place", ["submit_pre.sh", "points/a/config/run.yaml", "points/a/SHA256SUMS", "points/a"]
)
def test_what_is_not_there_is_missing(sweep: Sweep, place: str) -> None:
    path = sweep.path / place
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert found(sweep) == [(MISSING, place)]


@pytest.mark.parametrize(
    "place",
    ["notes.txt", "inputs/x", "points/a/notes.txt", "points/a/config/x/y", "points/d", "shared/d"],
)
def test_what_nobody_sealed_is_unexpected(sweep: Sweep, place: str) -> None:
    path = sweep.path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert (UNEXPECTED, place) in found(sweep)


def test_a_unit_sealed_anew_is_told_by_the_sweeps_manifest(sweep: Sweep) -> None:
    config = sweep.point("a").config / "run.yaml"
    before = sha256_file(config)
    config.write_text("x: z\n")
    for path in (sweep.point("a").manifest, sweep.point("a").sums):
        path.write_text(path.read_text().replace(before, sha256_file(config)))
    manifest = sha256_file(sweep.point("a").manifest)
    lines = sweep.point("a").sums.read_text().splitlines()
    kept = [line for line in lines if not line.endswith("  manifest.json")]
    sweep.point("a").sums.write_text("\n".join([*kept, f"{manifest}  manifest.json"]) + "\n")
    assert found(sweep) == [(ALTERED, "points/a/SHA256SUMS")]
    assert "sweep_manifest.json has another seal" in details(sweep)


def test_common_files_sealed_anew_are_told_once_and_by_each_unit(sweep: Sweep) -> None:
    sums = sweep.bundle.sums
    sums.write_text(sums.read_text() + f"{DIGEST}  extra\n")
    (sweep.path / "extra").touch()
    paths = [path for _, path in found(sweep)]
    assert "SHA256SUMS" in paths
    assert "points/a/SHA256SUMS" in paths
    assert "it was sealed with another ../../SHA256SUMS" in details(sweep)


def test_work_that_is_shared_cannot_be_exchanged(sweep: Sweep) -> None:
    manifest = sweep.shared_unit(WORK).manifest
    manifest.write_text(manifest.read_text() + "\n")
    paths = [path for _, path in found(sweep)]
    assert paths == [
        "points/a/SHA256SUMS",
        "points/b/SHA256SUMS",
        f"shared/{WORK}/manifest.json",
    ]


def test_a_point_that_does_not_seal_what_it_shares_is_told(sweep: Sweep) -> None:
    sums = sweep.point("a").sums
    kept = [line for line in sums.read_text().splitlines() if "shared" not in line]
    sums.write_text("\n".join(kept) + "\n")
    assert f"../../shared/{WORK}/manifest.json is not in it" in details(sweep)


@pytest.mark.parametrize(
    "path",
    [
        "../../../etc/passwd",
        "../x",
        "/etc/passwd",
        "config/../../b/manifest.json",
        "../../shared/../manifest.json",
        "../../shared/x/config/run.yaml",
    ],
)
def test_a_seal_leads_nowhere_else(sweep: Sweep, path: str) -> None:
    sums = sweep.point("a").sums
    sums.write_text(sums.read_text() + f"{DIGEST}  {path}\n")
    assert found(sweep) == [(ALTERED, "points/a/SHA256SUMS")]
    assert "line 5 is not usable" in details(sweep)


def test_a_point_is_what_the_sweeps_manifest_says(sweep: Sweep) -> None:
    manifest = manifest_of(sweep)
    first = manifest.points[0]
    data = json.loads(sweep.manifest.read_text())
    data["points"][0]["values"] = {"x": "other"}
    sweep.manifest.write_text(json.dumps(data))
    assert found(sweep) == [(ALTERED, f"points/{first.label}/manifest.json")]
    assert "sweep_manifest.json has another values" in details(sweep)


def test_a_damaged_sweep_manifest_is_the_only_finding(sweep: Sweep) -> None:
    sweep.manifest.write_text("{")
    assert found(sweep) == [(ALTERED, "sweep_manifest.json")]


def test_a_damaged_point_manifest_is_told(sweep: Sweep) -> None:
    sweep.point("c").manifest.write_text("{}")
    assert found(sweep) == [(ALTERED, "points/c/manifest.json")]


def test_outputs_are_compared_with_the_records(sweep: Sweep) -> None:
    unit = sweep.point("a")
    unit.outputs.mkdir()
    (unit.outputs / "out.txt").write_text("hello\n")
    output = {
        "path": "outputs/out.txt",
        "size": 6,
        "sha256": sha256_file(unit.outputs / "out.txt"),
    }
    put_task_record(sweep, "points/a", "fit", "17_0", "completed", outputs=[output])
    assert verify_sweep(sweep).outputs == {"fit": 1}
    (unit.outputs / "out.txt").write_text("Hello\n")
    assert found(sweep) == [(ALTERED, "points/a/outputs/out.txt")]
    (unit.outputs / "out.txt").unlink()
    assert found(sweep, fast=True) == [(MISSING, "points/a/outputs/out.txt")]


def test_one_point_alone_with_what_it_shares(sweep: Sweep) -> None:
    (sweep.point("b").config / "run.yaml").unlink()
    (sweep.shared_unit(WORK).config / "run.yaml").unlink()
    alone = verify_sweep(sweep, labels=["a"])
    assert [one.path for one in alone.findings] == [f"shared/{WORK}/config/run.yaml"]
    assert alone.units == 2
    assert verify_sweep(sweep, labels=["c"]).findings == ()
    assert verify_sweep(sweep, labels=[WORK]).units == 1
    with pytest.raises(UsageError, match="no point 'x'"):
        verify_sweep(sweep, labels=["x"])


def test_a_manifest_that_was_written_again_is_still_the_sweeps(sweep: Sweep) -> None:
    write_sweep_manifest(sweep, manifest_of(sweep))
    assert found(sweep) == []

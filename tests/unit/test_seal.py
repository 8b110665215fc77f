"""The seal: every change of every sealed file is found and named."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from processes import run_as_nobody
from toy import bundle, stage

from valska.external_tools.core.bundling import BundledImage
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.seal import (
    FindingKind,
    read_sums,
    require_intact,
    seal_of,
    verify_bundle,
)
from valska.external_tools.core.staging import StagingMode
from valska.external_tools.core.utils import sha256_bytes, sha256_file

SEALED = [
    "manifest.json",
    "README.md",
    "config/run.yaml",
    "inputs/data.txt",
    "containers/toy.def",
    "containers/toy.sif",
    "submit_simulate.sh",
]


def flip(path, position=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 1
    path.write_bytes(data)


def found(made, **more):
    return {(finding.kind.value, finding.path) for finding in verify_bundle(made, **more)}


@pytest.fixture
def made(tmp_path):
    sif = tmp_path / "toy.sif"
    sif.write_bytes(b"an image")
    image = BundledImage(
        path=sif,
        sha256=sha256_bytes(b"an image"),
        size=8,
        files={"toy.def": ("definition", b"Bootstrap: docker\n")},
    )
    return bundle(tmp_path, image=image, runner=RunnerKind.CONTAINER, embed_image=True)


def test_all_as_it_was_made(made):
    assert verify_bundle(made) == verify_bundle(made, fast=True) == ()
    assert sorted(read_sums(made)) == sorted(SEALED)
    assert seal_of(made) == sha256_file(made.sums)
    require_intact(made)


@pytest.mark.parametrize("place", SEALED)
def test_one_changed_byte_is_found_and_named(made, place):
    flip(made.path / place)
    assert found(made) == {("altered", place)}
    with pytest.raises(VerificationError, match=place) as caught:
        require_intact(made)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("place", [*SEALED, "SHA256SUMS"])
def test_a_missing_file_is_found_and_named(made, place):
    (made.path / place).unlink()
    assert ("missing", place) in found(made)
    assert ("missing", place) in found(made, fast=True)


@pytest.mark.parametrize("place", SEALED[1:])
def test_a_file_replaced_by_a_link_to_itself_is_found(made, tmp_path, place):
    moved = (made.path / place).rename(tmp_path / "moved")
    (made.path / place).symlink_to(moved)
    assert found(made) == {("altered", place)}


def test_a_directory_replaced_by_a_link_is_found(made, tmp_path):
    made.config.rename(tmp_path / "moved")
    made.config.symlink_to(tmp_path / "moved")
    assert ("unexpected", "config") in found(made)


@pytest.mark.parametrize("place", ["extra", "config/extra", "inputs/.hidden", "containers/x.sif"])
def test_an_unexpected_file_or_directory_is_found(made, place):
    (made.path / place).write_text("")
    assert found(made) == {("unexpected", place)}
    (made.path / place).unlink()
    (made.path / place).mkdir()
    assert found(made) == {("unexpected", place)}


@pytest.mark.parametrize("name", ["jobs.json", "jobs_20260310T090807Z.json", "site.env"])
def test_what_is_not_sealed_may_change_and_be_left_half_written_by_a_crash(made, name):
    (made.path / name).write_text("changed")
    (made.path / f".{name}.0123456789ab.tmp").write_text("half")
    (made.path / "outputs.3").mkdir()
    (made.outputs / "x").write_text("")
    made.submit_lock.mkdir()
    assert verify_bundle(made) == ()


def test_fast_compares_presence_and_size_only(made):
    flip(made.config / "run.yaml")
    assert found(made, fast=True) == set()
    (made.config / "run.yaml").write_text("longer than it was before\n")
    assert found(made, fast=True) == {("altered", "config/run.yaml")}


def test_everything_is_reported_at_once(made):
    flip(made.config / "run.yaml")
    made.readme.unlink()
    (made.inputs / "more").write_text("")
    assert found(made) == {
        ("altered", "config/run.yaml"),
        ("missing", "README.md"),
        ("unexpected", "inputs/more"),
    }
    lines = [str(finding) for finding in verify_bundle(made)]
    assert lines == sorted(lines, key=lambda line: line.split(": ")[1])
    assert "missing: README.md" in lines


def _as_nobody(made, check):
    for folder in (made.path, *made.path.parents):
        if folder not in (Path("/"), Path("/tmp")):
            folder.chmod(0o755)
    return run_as_nobody(check)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("place", ["config/run.yaml", "config", "manifest.json", "SHA256SUMS"])
def test_unreadable(made, place):
    (made.path / place).chmod(0)

    def check():
        assert place in {path for _, path in found(made)}
        if place.startswith("config"):
            assert ("unreadable", place) in found(made)

    assert _as_nobody(made, check)


def test_edited_digests_disagree_with_the_manifest(made):
    flip(made.config / "run.yaml")
    old = read_sums(made)["config/run.yaml"]
    new = sha256_file(made.config / "run.yaml")
    made.sums.write_text(made.sums.read_text().replace(old, new))
    assert found(made) == {("altered", "config/run.yaml")}


def test_digests_and_manifest_edited_together_change_the_seal(made):
    before = seal_of(made)
    old_manifest = sha256_file(made.manifest)
    flip(made.config / "run.yaml")
    old = read_sums(made)["config/run.yaml"]
    new = sha256_file(made.config / "run.yaml")
    made.manifest.write_text(made.manifest.read_text().replace(old, new))
    sums = made.sums.read_text().replace(old, new)
    made.sums.write_text(sums.replace(old_manifest, sha256_file(made.manifest)))
    assert verify_bundle(made) == ()
    assert seal_of(made) != before


@pytest.mark.parametrize("name", ["config/run.yaml", "manifest.json"])
def test_a_line_taken_out_of_the_digests_is_found(made, name):
    lines = made.sums.read_text().splitlines(keepends=True)
    made.sums.write_text("".join(line for line in lines if not line.endswith(f"  {name}\n")))
    assert "SHA256SUMS" in {p for _, p in found(made)} or ("altered", name) in found(made)


@pytest.mark.parametrize(
    "line",
    [
        f"{'0' * 64}  ../../etc/passwd",
        f"{'0' * 64}  /etc/passwd",
        f"{'0' * 64}  config/../x",
        f"{'0' * 64}  ./x",
        f"{'0' * 64}  config//x",
        f"{'0' * 64}  config/x\0y",
        f"{'0' * 64}  manifest.json",
        f"{'0' * 63}  x",
        f"{'A' * 64}  x",
        "",
        "nonsense",
        "\\" + "0" * 64 + "  x",
    ],
)
def test_a_line_that_is_not_usable_is_refused_and_nothing_outside_is_read(made, line):
    with made.sums.open("a") as file:
        file.write(f"{line}\n")
    assert found(made) == {("altered", "SHA256SUMS")}
    with pytest.raises(VerificationError, match=f"line {len(SEALED) + 1}"):
        read_sums(made)


def test_digests_that_are_not_text(made):
    made.sums.write_bytes(b"\xff\xfe")
    assert found(made) == {("altered", "SHA256SUMS")}


def test_names_beyond_ascii_are_sealed_like_any_other(tmp_path, scripts):
    names = ["é\u2028\x85 .yaml", " leading", "back\\slash", "*'\"$x"]
    made = bundle(tmp_path, tool={"configs": dict.fromkeys(names, b"x\n")})
    assert verify_bundle(made) == ()
    assert scripts.run(made)[0] == 0
    flip(made.config / names[0])
    assert found(made) == {("altered", f"config/{names[0]}")}
    assert scripts.run(made)[0] == 5


def test_sha256sum_of_coreutils_reads_the_list(made):
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    subprocess.run(command, cwd=made.path, check=True)
    flip(made.readme)
    assert subprocess.run(command, cwd=made.path, check=False, capture_output=True).returncode == 1


def test_references_are_checked_where_they_lie(tmp_path):
    made = bundle(tmp_path, staging=StagingMode.REFERENCE)
    data = tmp_path / "data.txt"
    assert verify_bundle(made) == ()
    flip(data)
    (finding,) = verify_bundle(made)
    assert (finding.kind, finding.path) == (FindingKind.ALTERED, "inputs/data.txt")
    assert str(data) in finding.detail
    assert verify_bundle(made, fast=True) == ()
    data.unlink()
    assert found(made, fast=True) == {("missing", "inputs/data.txt")}
    data.mkdir()
    assert found(made) == {("altered", "inputs/data.txt")}


@pytest.mark.parametrize("part", range(4))
def test_every_flipped_byte_of_the_manifest_is_found(tmp_path, part):
    made = bundle(tmp_path, [stage(argv=("true",), outputs=())], inputs={})
    whole = made.manifest.read_bytes()
    for position in range(part, len(whole), 4):
        data = bytearray(whole)
        data[position] ^= 1 << position // 4 % 8
        made.manifest.write_bytes(data)
        assert "manifest.json" in {finding.path for finding in verify_bundle(made)}, position


def test_a_copied_bundle_verifies(made, tmp_path):
    copy = shutil.copytree(made.path, tmp_path / "copy")
    assert verify_bundle(type(made)(copy)) == ()

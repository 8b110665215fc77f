"""Verifying what was unpacked of an archive: all of it, and what was run there since."""

import json
import os
import random
import re
import shutil
import signal
from pathlib import Path

import pytest
from archives import finished, pack, run_stages
from sweeps import make_sweep, shell
from toy import bundle as toy_bundle
from toy import stage

from valska.external_tools.core.archive import directory as reading
from valska.external_tools.core.archive import selection
from valska.external_tools.core.archive.errors import ArchiveError
from valska.external_tools.core.archive.people import Author, Description
from valska.external_tools.core.archive.places import is_unpacked, unpacked_around
from valska.external_tools.core.archive.selection import Choice, select_sweep
from valska.external_tools.core.archive.unpacking import unpack_archive
from valska.external_tools.core.archive.verification import verify_archive, verify_unpacked
from valska.external_tools.core.archive.writing import write_archive
from valska.external_tools.core.bundling import BundledImage
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.staging import StagingMode
from valska.external_tools.core.utils import sha256_file

STAGES = (
    stage("first", ("bash", "-c", "echo 1 >one.txt; echo rest >rest.txt"), ("one.txt",)),
    stage("second", ("bash", "-c", "date +%N >two.txt"), ("two.txt",), after=("first",)),
)
AUTHOR = Description(authors=(Author("A. Person"),))
SITE_ENV, JOBS = "data/bundle/site.env", "data/bundle/jobs.json"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The archive of a run with two stages, a referenced input, and who made it."""
    folder = tmp_path_factory.mktemp("archives")
    (folder / "data.txt").write_text("hello\n")
    inputs = {"data.txt": folder / "data.txt"}
    bundle = finished(folder, STAGES, inputs=inputs, staging=StagingMode.REFERENCE)
    pack(bundle, folder / "a.tar.zst", AUTHOR)
    return folder / "a.tar.zst"


@pytest.fixture
def unpacked(archive, tmp_path):
    return unpack_archive(archive, tmp_path, tmp_path / "u").path


def found(path, **more):
    return {(one.kind.value, one.path) for one in verify_unpacked(path, **more).findings}


def files(path):
    return sorted(os.path.relpath(one, path) for one in path.rglob("*") if one.is_file())


def bundle_in(unpacked):
    return Bundle(unpacked / "data/bundle")


def test_it_is_told_what_was_unpacked(unpacked):
    assert is_unpacked(unpacked)
    assert unpacked_around(unpacked / "data/bundle") == unpacked
    assert unpacked_around(unpacked / "data") is None
    assert not is_unpacked(unpacked / "data/bundle")
    assert not is_unpacked(unpacked / "data")
    (unpacked / "archive.json").unlink()
    assert is_unpacked(unpacked)
    for name in ("bagit.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt"):
        (unpacked / name).unlink()
    assert not is_unpacked(unpacked)


def test_other_directories_are_not_taken_for_unpacked_archives(tmp_path, unpacked):
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    (other / "archive.json").write_text("{}")
    assert not is_unpacked(other)
    (other / "archive.json").unlink()
    for name in ("bagit.txt", "manifest-sha256.txt"):
        (other / name).touch()
    assert not is_unpacked(other)
    (unpacked / "data/bundle").rename(tmp_path / "gone")
    assert is_unpacked(unpacked)
    assert ("missing", "data/bundle/manifest.json") in found(unpacked)


@pytest.mark.parametrize("fast", [False, True])
def test_it_is_as_its_archive(archive, unpacked, fast):
    packed, done = verify_archive(archive, fast), verify_unpacked(unpacked, fast)
    assert (done.findings, done.written) == ((), ())
    assert (done.files, done.units, done.outputs) == (packed.files, packed.units, packed.outputs)
    assert done.document == packed.document
    assert done.bag == sha256_file(unpacked / "tagmanifest-sha256.txt")


def test_an_altered_byte_of_any_file_is_found(unpacked):
    chance = random.Random(3)
    names = files(unpacked)
    assert any(name.startswith("data/references/") for name in names)
    for name in names:
        file = unpacked / name
        data = file.read_bytes()
        for place in {0, len(data) // 2, len(data) - 1} if data else ():
            bad = bytearray(data)
            bad[place] ^= 1 << chance.randrange(8)
            file.write_bytes(bad)
            done = verify_unpacked(unpacked)
            if name == SITE_ENV:
                assert (done.findings, done.written) == ((), (name,))
            else:
                told = {one.path for one in done.findings}
                assert name in told or (told and name == "tagmanifest-sha256.txt"), (name, place)
        file.write_bytes(data)
    assert found(unpacked) == set()


@pytest.mark.parametrize("fast", [False, True])
def test_a_file_that_is_gone_or_new_or_longer_is_found(unpacked, fast):
    for name in files(unpacked):
        file = unpacked / name
        kept = file.read_bytes()
        file.unlink()
        assert ("missing", name) in found(unpacked, fast=fast), name
        file.write_bytes(kept)
        if name != SITE_ENV and (name.startswith("data/") or not fast):
            file.write_bytes(kept + b"\n")
            assert found(unpacked, fast=fast), name
            file.write_bytes(kept)
    for name in ("more", "data/more", "data/bundle/more", "data/bundle/inputs/more"):
        (unpacked / name).write_text("x")
        assert ("unexpected", name) in found(unpacked, fast=fast)
        (unpacked / name).unlink()
    assert found(unpacked, fast=fast) == set()


@pytest.mark.parametrize("embed", [False, True])
def test_the_image_is_checked(tmp_path, embed):
    sif = tmp_path / "tool.sif"
    sif.write_bytes(b"no image")
    image = BundledImage(sif, sha256_file(sif), 8, {}, {})
    bundle = toy_bundle(tmp_path, runner=RunnerKind.CONTAINER, image=image, embed_image=embed)
    for name, packed in (("a", True), ("b", False)):
        pack(bundle, tmp_path / name, image=packed, find_image=lambda _: (sif, ()))
    unpacked = unpack_archive(tmp_path / "a", tmp_path, tmp_path / "u").path
    place = next(one for one in files(unpacked) if one.endswith(".sif"))
    assert place.startswith("data/bundle/containers/" if embed else "data/images/")
    for content, levels in ((b"an image", (False,)), (b"another", (False, True))):
        (unpacked / place).write_bytes(content)
        assert {frozenset(found(unpacked, fast=fast)) for fast in levels} == {
            frozenset({("altered", place)})
        }
    without = unpack_archive(tmp_path / "b", tmp_path, tmp_path / "v").path
    assert found(without) == set()
    (without / place).parent.mkdir(exist_ok=True)
    shutil.copy(sif, without / place)
    assert found(without) == (set() if embed else {("unexpected", place)})


def test_links_pipes_and_strange_names_are_found(unpacked):
    file = unpacked / "data/CITATION.cff"
    shutil.copy(file, unpacked.parent / "same")
    file.unlink()
    file.symlink_to(unpacked.parent / "same")
    assert ("altered", "data/CITATION.cff") in found(unpacked)
    file.unlink()
    os.mkfifo(file)
    assert ("altered", "data/CITATION.cff") in found(unpacked)
    file.unlink()
    shutil.copy(unpacked.parent / "same", file)
    (unpacked / "data/bundle/outputs/a\nb").touch()
    assert found(unpacked) == {("unexpected", "data/bundle/outputs/a\\nb")}


def test_what_cannot_be_read_is_told_once(unpacked, monkeypatch):
    """Nothing is unreadable for root, who runs these tests at times."""

    def digest_files(paths):
        for path in paths:
            refused = path.endswith("outputs/one.txt")
            yield PermissionError(13, "Permission denied") if refused else sha256_file(Path(path))

    monkeypatch.setattr(reading, "digest_files", digest_files)
    assert found(unpacked) == {("unreadable", "data/bundle/outputs/one.txt")}


def test_a_directory_that_cannot_be_listed_or_entered_is_told(unpacked, monkeypatch):
    scandir = os.scandir

    def scan(path):
        if str(path).endswith("outputs"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(reading.os, "scandir", scan)
    assert found(unpacked) == {("unreadable", "data/bundle/outputs")}
    monkeypatch.undo()
    look = reading._entry

    def refuse(entry):
        if entry.name in ("one.txt", ".nfs0"):
            raise PermissionError(13, "Permission denied")
        return look(entry)

    (unpacked / "data/bundle/outputs/.nfs0").touch()
    monkeypatch.setattr(reading, "_entry", refuse)
    assert found(unpacked) == {("unreadable", "data/bundle/outputs/one.txt")}
    monkeypatch.undo()
    with pytest.raises(ArchiveError, match="cannot read"):
        verify_unpacked(unpacked / "nothing")


@pytest.mark.parametrize("fast", [False, True])
def test_what_is_run_there_is_no_fault_and_named(unpacked, fast):
    before = set(files(unpacked))
    run_stages(bundle_in(unpacked), "first", "second")
    done = verify_unpacked(unpacked, fast)
    assert done.findings == ()
    assert done.outputs == {"first": 1, "second": 1}
    new = set(files(unpacked)) - before
    assert {name.split("/")[2] for name in new} >= {"records", "outputs.1", "outputs.2"}
    changed = set() if fast else {"data/bundle/outputs/two.txt"}
    assert set(done.written) == new | changed


def test_what_was_run_there_is_judged_by_its_records(unpacked):
    run_stages(bundle_in(unpacked), "first", "second")
    for name in ("data/bundle/outputs/two.txt", "data/bundle/inputs/data.txt", "data/CITATION.cff"):
        file = unpacked / name
        kept = file.read_bytes()
        file.write_bytes(b"other")
        assert ("altered", name) in found(unpacked), name
        file.write_bytes(kept)
    assert found(unpacked) == set()
    for record in (unpacked / "data/bundle/records").iterdir():
        record.write_text(record.read_text().replace('"seal": "', '"seal": "0', 1))
    assert len(found(unpacked)) >= 4


def test_a_stage_that_did_not_run_there_is_judged_by_what_was_packed(unpacked):
    run_stages(bundle_in(unpacked), "second")
    assert found(unpacked) == set()
    (unpacked / "data/bundle/outputs/one.txt").write_text("2\n")
    assert found(unpacked) == {("altered", "data/bundle/outputs/one.txt")}


def test_outputs_without_a_run_are_found(unpacked):
    (unpacked / "data/bundle/outputs/rest.txt").write_text("other\n")
    (unpacked / "data/bundle/outputs.1").mkdir()
    (unpacked / "data/bundle/outputs.1/new.txt").touch()
    refused = next((unpacked / "data/bundle/records").glob("second-*"))
    record = json.loads(refused.read_text()) | {"state": "refused"}
    refused.with_name("second-local-1-r0.json").write_text(json.dumps(record))
    assert found(unpacked) == {
        ("altered", "data/bundle/outputs/rest.txt"),
        ("unexpected", "data/bundle/outputs.1/new.txt"),
    }


def test_jobs_json_is_that_of_a_submission_there(tmp_path):
    bundle = finished(tmp_path)
    bundle.jobs.write_text(json.dumps({"run_dir": str(bundle.path)}))
    pack(bundle, tmp_path / "a.tar.zst")
    unpacked = unpack_archive(tmp_path / "a.tar.zst", tmp_path, tmp_path / "u").path
    jobs = unpacked / JOBS
    packed = jobs.read_bytes()
    jobs.write_text(json.dumps({"run_dir": "/elsewhere"}))
    assert ("altered", JOBS) in found(unpacked)
    jobs.write_text(json.dumps({"run_dir": str(jobs.parent)}))
    assert verify_unpacked(unpacked).written == (JOBS,)
    assert found(unpacked) == set()
    jobs.write_text(json.dumps({"run_dir": "/elsewhere"}))
    jobs.with_name("jobs_20260301T010203Z.json").write_bytes(packed)
    assert found(unpacked) == set()
    jobs.unlink()
    assert ("missing", JOBS) in found(unpacked)


def test_jobs_json_that_is_none_is_found(tmp_path):
    bundle = finished(tmp_path)
    bundle.jobs.write_text(json.dumps({"run_dir": str(bundle.path)}))
    pack(bundle, tmp_path / "a.tar.zst")
    unpacked = unpack_archive(tmp_path / "a.tar.zst", tmp_path, tmp_path / "u").path
    jobs = unpacked / JOBS
    for text in ("[" * 100_000, "[]", "\0"):
        jobs.write_text(text)
        assert ("altered", JOBS) in found(unpacked), text[:9]
    jobs.unlink()
    os.mkfifo(jobs)
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for the pipe"))
    signal.alarm(10)
    try:
        assert ("altered", JOBS) in found(unpacked)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_what_comes_and_goes_is_passed_over_unless_it_was_packed(unpacked, monkeypatch, tmp_path):
    bundle = bundle_in(unpacked).path
    for name in ("outputs/.nfs00ab", ".jobs.json.0123456789ab.tmp"):
        (bundle / name).write_text("x")
    (bundle / ".submit.lock").mkdir()
    (bundle / ".submit.lock/owner.json").touch()
    assert found(unpacked) == set()
    monkeypatch.setattr(selection, "_PASSED_OVER", re.compile("nothing"))
    (bundle / ".jobs.json.0123456789ab.tmp").unlink()
    shutil.rmtree(bundle / ".submit.lock")
    pack(Bundle(bundle), tmp_path / "b.tar.zst")
    again = unpack_archive(tmp_path / "b.tar.zst", tmp_path, tmp_path / "b").path
    assert found(again) == set()
    (again / "data/bundle/outputs/.nfs00ab").write_text("y")
    assert ("altered", "data/bundle/outputs/.nfs00ab") in found(again)


def test_outputs_that_were_not_packed_are_judged_once_they_are_made(tmp_path):
    pack(finished(tmp_path, STAGES), tmp_path / "a.tar.zst", outputs=False)
    unpacked = unpack_archive(tmp_path / "a.tar.zst", tmp_path, tmp_path / "u").path
    assert verify_unpacked(unpacked).outputs == {}
    run_stages(bundle_in(unpacked), "first")
    done = verify_unpacked(unpacked)
    assert (done.findings, done.outputs) == ((), {"first": 1})
    assert done.document.outputs is False
    (unpacked / "data/bundle/outputs/one.txt").write_text("2\n")
    assert found(unpacked) == {("altered", "data/bundle/outputs/one.txt")}


def test_an_input_that_was_left_out_can_be_put_back(tmp_path):
    bundle = finished(tmp_path)
    pack(bundle, tmp_path / "a.tar.zst", inputs="none")
    unpacked = unpack_archive(tmp_path / "a.tar.zst", tmp_path, tmp_path / "u").path
    name = "data/bundle/inputs/data.txt"
    (unpacked / "data/bundle/inputs").mkdir(exist_ok=True)
    shutil.copy(bundle.path / "inputs/data.txt", unpacked / name)
    done = verify_unpacked(unpacked)
    assert (done.findings, done.written) == ((), (name,))
    (unpacked / name).write_text("other\n")
    assert found(unpacked) == {("unexpected", name)}


@pytest.fixture
def sweep(tmp_path):
    """What was unpacked of a sweep's archive."""
    made = make_sweep(tmp_path, (shell("cp ../config/run.yaml out.txt"),))
    _pack_sweep(made, tmp_path / "s.tar.zst")
    return unpack_archive(tmp_path / "s.tar.zst", tmp_path, tmp_path / "u").path


def _pack_sweep(sweep, path):
    write_archive(select_sweep(sweep, Choice()), path, Description())


def test_a_sweep_is_checked_with_all_its_points(sweep):
    done = verify_unpacked(sweep)
    assert (done.findings, done.units) == ((), 2)
    for name in files(sweep):
        file = sweep / name
        kept = file.read_bytes()
        file.write_bytes(kept[:-1] + b"#")
        assert found(sweep) or name == SITE_ENV, name
        file.write_bytes(kept)
    (sweep / "data/bundle/points/c/config").mkdir(parents=True)
    (sweep / "data/bundle/points/c/config/run.yaml").touch()
    assert ("unexpected", "data/bundle/points/c") in found(sweep)


def test_points_of_a_sweep_that_ran_are_told_from_those_that_did_not(sweep):
    whole = sweep / "data/bundle"
    for label in "ab":
        (whole / "points" / label / "outputs").mkdir(exist_ok=True)
    record = {"state": "running", "stage": "simulate"}
    (whole / "points/a/records").mkdir(exist_ok=True)
    (whole / "points/a/records/simulate-1_0-r0.json").write_text(json.dumps(record))
    for label in "ab":
        (whole / "points" / label / "outputs/out.txt").touch()
    assert ("unexpected", "data/bundle/points/b/outputs/out.txt") in found(sweep)
    assert ("unexpected", "data/bundle/points/a/outputs/out.txt") not in found(sweep)

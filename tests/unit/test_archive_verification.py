"""Verifying an archive: every altered byte, every cut, and typed findings of what is wrong."""

import json
import os
import pwd
import random
import subprocess

import pytest
from archives import entries, entry, finished, pack, repacked
from handmade import make_bundle
from sweeps import make_sweep
from toy import stage

from valska.external_tools.core.archive import bag
from valska.external_tools.core.archive.errors import ArchiveError, NoArchiveError
from valska.external_tools.core.archive.people import Description
from valska.external_tools.core.archive.selection import Choice, select_sweep
from valska.external_tools.core.archive.verification import receipt, verify_archive
from valska.external_tools.core.archive.writing import write_archive
from valska.external_tools.core.schema import load_schema, validate
from valska.external_tools.core.seal import FindingKind
from valska.external_tools.core.utils import sha256_bytes, sha256_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("archives")


@pytest.fixture(scope="module")
def archive(folder):
    """The archive of a run with one stage."""
    bundle = finished(folder)
    pack(bundle, folder / "a.tar.zst")
    return folder / "a.tar.zst"


@pytest.fixture(scope="module")
def small(folder):
    """The smallest archive: every byte of it is tried."""
    bundle = make_bundle(folder / "small", {"one": {}})
    bundle.site_env.write_text("")
    pack(bundle, folder / "small.tar.zst")
    return folder / "small.tar.zst"


def found(path, **more):
    return {(one.kind.value, one.path) for one in verify_archive(path, **more).findings}


def resealed(archive, path, changes):
    """Change files and bring the bag's manifests up to date, as an adversary would."""
    held = {name.partition("/")[2]: content for name, (_, content) in entries(archive).items()}
    new = {**held, **changes}
    payload = {
        k: sha256_bytes(v) for k, v in new.items() if k.startswith("data/") and v is not None
    }
    new["manifest-sha256.txt"] = bag.manifest_text(payload)
    sizes = [len(v) for k, v in new.items() if k.startswith("data/") and v is not None]
    old = bag.said_oxum(held["bag-info.txt"])
    info = held["bag-info.txt"].decode().replace(old, bag.payload_oxum(sizes))
    new["bag-info.txt"] = info.encode()
    tags = ("bagit.txt", "README.md", "archive.json", "bag-info.txt", "manifest-sha256.txt")
    new["tagmanifest-sha256.txt"] = bag.manifest_text({k: sha256_bytes(new[k]) for k in tags})
    return repacked(archive, path, instead=new)


def test_an_archive_is_intact(archive):
    done = verify_archive(archive)
    assert done.findings == ()
    assert done.sha256 == sha256_file(archive)
    assert done.size == archive.stat().st_size
    assert done.units == 1
    assert done.outputs == {"simulate": 1}
    assert done.document.tool == "toy"


def test_a_fast_verification_digests_nothing(archive):
    done = verify_archive(archive, fast=True)
    assert done.findings == ()
    assert done.sha256 is None


def test_every_altered_byte_is_found(small, tmp_path):
    data, path = small.read_bytes(), tmp_path / "x.tar.zst"
    chance = random.Random(5)
    for place in range(len(data)):
        bad = bytearray(data)
        bad[place] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        assert verify_archive(path).findings, place


def test_every_cut_is_found(small, tmp_path):
    data, path = small.read_bytes(), tmp_path / "x.tar.zst"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert verify_archive(path).findings, length


@pytest.mark.parametrize("more", [b"\0", b"x", bytes(512), "twice"])
def test_more_at_the_end_is_found(small, tmp_path, more):
    data, path = small.read_bytes(), tmp_path / "x.tar.zst"
    path.write_bytes(data + (data if more == "twice" else more))
    assert verify_archive(path).findings


def test_other_files_are_not_archives(tmp_path):
    path = tmp_path / "x.tar.zst"
    for content in (b"", b"\x28\xb5", b"\x28\xb5\x2f\xfd and no more"):
        path.write_bytes(content)
        assert ("unreadable", "x.tar.zst") in found(path)
    for content in (b"no archive", bytes(10_000)):
        path.write_bytes(content)
        with pytest.raises(NoArchiveError) as caught:
            verify_archive(path)
        assert caught.value.exit_code == 2
    with pytest.raises(ArchiveError, match="cannot read"):
        verify_archive(tmp_path / "nothing")


def test_an_archive_packed_by_something_else_is_told(archive, tmp_path):
    path = repacked(archive, tmp_path / "x.tar.zst")
    assert found(path) == {("altered", "x.tar.zst")}


@pytest.mark.parametrize("fast", [False, True])
def test_a_missing_file_is_found(archive, tmp_path, fast):
    path = repacked(archive, tmp_path / "x.tar.zst", without=["data/bundle/config/run.yaml"])
    assert ("missing", "data/bundle/config/run.yaml") in found(path, fast=fast)


@pytest.mark.parametrize("fast", [False, True])
def test_an_unexpected_file_is_found(archive, tmp_path, fast):
    path = repacked(
        archive, tmp_path / "x.tar.zst", more=[entry("r1/data/bundle/config/more.yaml")]
    )
    assert ("unexpected", "data/bundle/config/more.yaml") in found(path, fast=fast)


def test_an_altered_file_is_found(archive, tmp_path):
    place = "data/bundle/outputs/out.txt"
    path = repacked(archive, tmp_path / "x.tar.zst", instead={place: b"hellO\n"})
    assert ("altered", place) in found(path)
    assert ("altered", place) not in found(path, fast=True)
    path.unlink()
    path = repacked(archive, path, instead={place: b"longer than before"})
    assert ("altered", place) in found(path, fast=True)


def test_an_output_that_agrees_with_the_bag_but_not_with_its_record_is_found(archive, tmp_path):
    place = "data/bundle/outputs/out.txt"
    path = resealed(archive, tmp_path / "x.tar.zst", {place: b"forged"})
    assert ("altered", place) in found(path)


def test_a_configuration_that_agrees_with_the_bag_but_not_with_the_seal_is_found(archive, tmp_path):
    place = "data/bundle/config/run.yaml"
    path = resealed(archive, tmp_path / "x.tar.zst", {place: b"answer: 43\n"})
    assert ("altered", place) in found(path)


def test_a_manifest_that_agrees_with_its_seal_but_not_with_the_archive_is_found(archive, tmp_path):
    held = {name: content for name, (_, content) in entries(archive).items()}
    manifest = json.loads(held["r1/data/bundle/manifest.json"])
    manifest["bundle_id"] = "1" * 64
    text = json.dumps(manifest).encode()
    sums = held["r1/data/bundle/SHA256SUMS"].decode()
    old = sha256_bytes(held["r1/data/bundle/manifest.json"])
    changes = {
        "data/bundle/manifest.json": text,
        "data/bundle/SHA256SUMS": sums.replace(old, sha256_bytes(text)).encode(),
    }
    path = resealed(archive, tmp_path / "x.tar.zst", changes)
    assert ("altered", "archive.json") in found(path)
    record = next(name for name in held if "/records/" in name).partition("/")[2]
    assert ("altered", record) in found(path)


@pytest.mark.parametrize(
    ("place", "content", "kind"),
    [
        ("bagit.txt", b"BagIt-Version: 0.97\n", "altered"),
        ("bag-info.txt", b"Payload-Oxum: 1.1\n", "altered"),
        ("archive.json", b"{}", "altered"),
        ("archive.json", b'{"schema_version": "2.0", "valska_version": "9"}', "altered"),
        ("manifest-sha256.txt", b"\xff", "altered"),
        ("manifest-sha256.txt", b"0  ../x\n", "altered"),
        ("tagmanifest-sha256.txt", b"no manifest", "altered"),
        ("data/ro-crate-metadata.json", b"[]", "altered"),
        ("data/ro-crate-metadata.json", b'{"@graph": [{"@type": "File"}]}', "altered"),
        ("data/bundle/manifest.json", b"{", "altered"),
        ("data/bundle/SHA256SUMS", b"x", "altered"),
    ],
)
def test_damaged_documents_are_found(archive, tmp_path, place, content, kind):
    path = repacked(archive, tmp_path / "x.tar.zst", instead={place: content})
    assert (kind, place) in found(path)


def test_a_newer_archive_names_both_versions(archive, tmp_path):
    text = b'{"schema_version": "2.0", "valska_version": "9.9"}'
    path = repacked(archive, tmp_path / "x.tar.zst", instead={"archive.json": text})
    details = [one.detail for one in verify_archive(path).findings if one.path == "archive.json"]
    assert any("2.0" in one and "1.0" in one and "9.9" in one for one in details)


def test_a_record_that_cannot_be_read_is_told(archive, tmp_path):
    name = next(name for name in entries(archive) if "/records/" in name).partition("/")[2]
    path = repacked(archive, tmp_path / "x.tar.zst", instead={name: b"{}"})
    assert ("unreadable", name) in found(path)


def test_what_was_left_out_is_no_finding(tmp_path):
    bundle = finished(tmp_path, [stage()])
    pack(bundle, tmp_path / "x.tar.zst", inputs="none", outputs=False)
    done = verify_archive(tmp_path / "x.tar.zst")
    assert done.findings == ()
    assert [one.path for one in done.document.left_out] == ["inputs/data.txt"]


def test_a_receipt_says_what_was_checked(archive):
    done = verify_archive(archive)
    data = receipt(
        kind="archive",
        name=archive.name,
        subject={"sha256": done.sha256, "size": done.size},
        fast=False,
        findings=done.findings,
        units=done.units,
        outputs=done.outputs,
        checked_utc="2026-01-02T03:04:05Z",
    )
    validate(data, "receipt-1", "the receipt")
    assert data["intact"] is True
    assert data["subject"]["sha256"] == sha256_file(archive)


def test_a_receipt_can_hold_every_kind_of_finding():
    finding = load_schema("receipt-1")["properties"]["findings"]["items"]
    assert {kind.value for kind in FindingKind} == set(finding["properties"]["kind"]["enum"])


def test_points_named_like_folders_are_points(tmp_path):
    sweep = make_sweep(tmp_path, points=("records", "config"))
    for label in ("records", "config"):
        argv = ["bash", "submit_simulate.sh", f"points/{label}"]
        subprocess.run(argv, cwd=sweep.path, check=True, capture_output=True)
    path = tmp_path / "s.tar.zst"
    write_archive(select_sweep(sweep, Choice()), path, Description())
    verified = verify_archive(path)
    assert (verified.findings, verified.outputs) == ((), {"simulate": 2})
    held = {name.partition("/")[2]: content for name, (_, content) in entries(path).items()}
    graph = json.loads(held["data/ro-crate-metadata.json"])["@graph"]
    actions = [one for one in graph if one["@type"] == "CreateAction"]
    assert {one["result"]["@id"] for one in actions} == {
        f"bundle/points/{label}/outputs/out.txt" for label in ("records", "config")
    }
    user = pwd.getpwuid(os.geteuid()).pw_name
    assert {one["agent"]["@id"] for one in actions} == {f"#user/{user}"}
    assert [one["name"] for one in graph if one["@id"] == f"#user/{user}"] == [user]
    output = "data/bundle/points/records/outputs/out.txt"
    assert ("altered", output) in found(resealed(path, tmp_path / "x", {output: b"other\n"}))

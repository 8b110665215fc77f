"""Each thing that is said of an archive's files is compared with them, by itself."""

import json

import pytest
from archives import entries, pack
from forged import forged, sha256
from toy import bundle as toy_bundle

from valska.external_tools.core.archive.unpacking import unpack_archive
from valska.external_tools.core.archive.verification import verify_archive
from valska.external_tools.core.bundling import BundledImage
from valska.external_tools.core.errors import VerificationError
from valska.external_tools.core.runner import RunnerKind

CRATE = "data/ro-crate-metadata.json"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The archive of a run with an image that is packed."""
    folder = tmp_path_factory.mktemp("archives")
    sif = folder / "tool.sif"
    sif.write_bytes(b"no image")
    image = BundledImage(sif, sha256(b"no image"), 8, {}, {})
    bundle = toy_bundle(folder, runner=RunnerKind.CONTAINER, image=image)
    pack(bundle, folder / "a.tar.zst", find_image=lambda _: (sif, ()))
    return folder / "a.tar.zst"


def held(archive, name):
    return entries(archive)[f"r1/{name}"][1]


def found(archive, path, **changes):
    """Return what is found of a changed archive; unpacking must tell the same."""
    forged(archive, path, **changes)
    told = {(one.kind.value, one.path) for one in verify_archive(path).findings}
    if told:
        with pytest.raises(VerificationError):
            unpack_archive(path, path.parent)
    return told


def test_an_unchanged_archive_is_intact(archive, tmp_path):
    assert found(archive, tmp_path / "x.tar.zst") == set()


def test_the_image_is_that_of_the_manifest(archive, tmp_path):
    name = next(one for one in entries(archive) if one.endswith(".sif")).removeprefix("r1/")
    for content in (b"an image", b"another image"):
        crate = json.loads(held(archive, CRATE))
        for entity in crate["@graph"]:
            if entity.get("sha256") == sha256(b"no image"):
                entity |= {"sha256": sha256(content), "contentSize": str(len(content))}
        changes = {name: content, CRATE: json.dumps(crate).encode()}
        assert found(archive, tmp_path / "x.tar.zst", instead=changes) == {("altered", name)}


def test_the_crate_is_compared_with_the_files(archive, tmp_path):
    for field, value in (("sha256", "0" * 64), ("contentSize", "1")):
        crate = json.loads(held(archive, CRATE))
        (entity,) = (one for one in crate["@graph"] if one["@id"] == "bundle/manifest.json")
        assert field in entity
        entity[field] = value
        changes = {CRATE: json.dumps(crate).encode()}
        assert found(archive, tmp_path / "x.tar.zst", instead=changes) == {("altered", CRATE)}


def test_the_crate_describes_what_is_there(archive, tmp_path):
    crate = json.loads(held(archive, CRATE))
    crate["@graph"].append({"@id": "bundle/none", "@type": "File", "contentSize": "1"})
    changes = {CRATE: json.dumps(crate).encode()}
    assert found(archive, tmp_path / "x.tar.zst", instead=changes) == {("altered", CRATE)}


@pytest.mark.parametrize("name", ["README.md", "bag-info.txt"])
def test_the_manifest_of_tags_is_compared_with_them(archive, tmp_path, name):
    changes = {name: held(archive, name) + b"More: words\n"}
    assert found(archive, tmp_path / "x.tar.zst", after=changes) == {("altered", name)}


def test_each_tag_file_is_in_the_manifest_of_tags(archive, tmp_path):
    lines = held(archive, "tagmanifest-sha256.txt").decode().splitlines(keepends=True)
    for line in lines:
        rest = "".join(one for one in lines if one != line).encode()
        told = found(archive, tmp_path / "x.tar.zst", after={"tagmanifest-sha256.txt": rest})
        assert told == {("altered", "tagmanifest-sha256.txt")}


def test_the_payload_is_as_large_as_the_bag_says(archive, tmp_path):
    """A reader that compares sizes only has nothing else."""
    info = held(archive, "bag-info.txt").decode()
    for more in ("1.1", "99999999.3"):
        text = "".join(
            f"Payload-Oxum: {more}\n" if line.startswith("Payload-Oxum") else line
            for line in info.splitlines(keepends=True)
        )
        tags = held(archive, "tagmanifest-sha256.txt").decode()
        tags = tags.replace(sha256(info.encode()), sha256(text.encode()))
        changes = {"bag-info.txt": text.encode(), "tagmanifest-sha256.txt": tags.encode()}
        told = found(archive, tmp_path / "x.tar.zst", after=changes)
        assert told == {("altered", "bag-info.txt")}


@pytest.mark.parametrize(
    "text", [b"BagIt-Version: 0.97\nTag-File-Character-Encoding: UTF-8\n", b""]
)
def test_another_declaration_is_found(archive, tmp_path, text):
    changes = {"bagit.txt": text}
    assert found(archive, tmp_path / "x.tar.zst", instead=changes) == {("altered", "bagit.txt")}

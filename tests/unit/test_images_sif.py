"""SIF files: ours as Apptainer reads them, Apptainer's as we read them, and what is none."""

import json
import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images import adopt
from valska.external_tools.core.images.sif import (
    DEFINITION,
    JSON,
    METADATA_NAME,
    SIGNATURE,
    Frame,
    read_sif,
)
from valska.external_tools.core.images.squashfs import require_whole
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.images.store.importing import import_images
from valska.external_tools.core.process import run
from valska.external_tools.core.utils import sha256_file

TIME = 1_700_000_000
METADATA = {
    "data": {"attributes": {"labels": {"a": "ü"}, "deffile": "Bootstrap: docker"}},
    "type": "container",
}
FRAME = Frame(b"Bootstrap: docker\n", json.dumps(METADATA).encode(), TIME)


@pytest.fixture
def squashfs(tmp_path, require):
    """A file system with one file in it, as real as it gets."""
    require(shutil.which("mksquashfs"), "mksquashfs is not here")
    root = tmp_path / "root"
    (root / ".singularity.d").mkdir(parents=True)
    (root / "hello").write_text("hello\n")
    target = tmp_path / "root.squashfs"
    subprocess.run(["mksquashfs", root, target, "-quiet", "-no-progress"], check=True)
    return target


STATUS = """\
Package: hello
Status: install ok installed
Architecture: amd64
Version: 2.10-3
"""


@pytest.fixture
def installed(tmp_path, require):
    """An image with a package of Debian's and one of Python's, packed as asked."""
    require(shutil.which("mksquashfs"), "mksquashfs is not here")
    root = tmp_path / "installed"
    site = root / "opt/env/lib/python3.11/site-packages/six-1.17.0.dist-info"
    for path, text in {
        root / "var/lib/dpkg/status": STATUS,
        root / "etc/os-release": "ID=debian\nVERSION_ID=12\n",
        site / "METADATA": "Name: six\nVersion: 1.17.0\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def installed(*options):
        packed, sif = tmp_path / "installed.squashfs", tmp_path / "installed.sif"
        argv = ["mksquashfs", root, packed, "-quiet", "-no-progress", *options]
        require(subprocess.run(argv, check=False).returncode == 0, f"no {options} here")
        FRAME.write(packed, sif)
        return sif

    return installed


@pytest.fixture
def apptainer(require):
    require(shutil.which("apptainer"), "apptainer is not here")

    def apptainer(*argv):
        done = subprocess.run(["apptainer", *argv], capture_output=True, text=True, check=True)
        return done.stdout

    return apptainer


def test_the_bytes_depend_on_the_parts_alone(squashfs, tmp_path):
    first, second = tmp_path / "a.sif", tmp_path / "b.sif"
    digest = FRAME.write(squashfs, first)
    assert FRAME.write(squashfs, second) == digest == sha256_file(second) == sha256_file(first)
    read = read_sif(first)
    assert [found.kind for found in read.objects[:2]] == [DEFINITION, JSON]
    assert [found.number for found in read.objects] == [1, 2, 3]
    assert read.read(read.objects[0]) == FRAME.definition
    assert read.objects[1].name == METADATA_NAME
    assert json.loads(read.read(read.objects[1])) == METADATA
    assert read.system == read.objects[2]
    assert read.system.offset % 4096 == 0
    assert read.sha256(read.system) == sha256_file(squashfs)
    assert read.signatures == ()


def test_apptainer_reads_what_is_written(squashfs, tmp_path, apptainer):
    sif = tmp_path / "a.sif"
    FRAME.write(squashfs, sif)
    table = apptainer("sif", "list", sif)
    assert "Def.FILE" in table
    assert "FS (Squashfs/*System/" in table
    header = apptainer("sif", "header", sif)
    assert "2023-11-14 22:13:20 +0000 UTC" in header
    shown = json.loads(apptainer("inspect", "--json", "--labels", "--deffile", sif))
    assert shown["data"]["attributes"]["labels"] == {"a": "ü"}
    assert shown["data"]["attributes"]["deffile"] == "Bootstrap: docker"
    dumped = subprocess.run(["apptainer", "sif", "dump", "3", sif], capture_output=True, check=True)
    assert dumped.stdout == squashfs.read_bytes()


def test_apptainers_own_images_are_read(tmp_path, apptainer, squashfs):
    sif = tmp_path / "theirs.sif"
    apptainer("sif", "new", sif)
    assert read_sif(sif).objects == ()
    assert read_sif(sif).system is None
    arguments = ("--datatype", "4", "--partfs", "1", "--parttype", "2", "--partarch", "2")
    apptainer("sif", "add", *arguments, sif, squashfs)
    read = read_sif(sif)
    assert read.sha256(read.system) == sha256_file(squashfs)


def test_a_signature_has_the_fingerprint_of_its_key(squashfs, tmp_path, apptainer, monkeypatch):
    monkeypatch.setenv("APPTAINER_CONFIGDIR", os.fspath(tmp_path / "keys"))
    sif = tmp_path / "a.sif"
    FRAME.write(squashfs, sif)
    unsigned = sha256_file(sif)
    new = ("--name", "a", "--email", "a@example.org", "--comment", "", "--password", "")
    apptainer("key", "newpair", "--push=false", *new)
    apptainer("sign", sif)
    assert (
        "Verified signature"
        in subprocess.run(
            ["apptainer", "verify", sif], capture_output=True, text=True, check=True
        ).stderr
    )
    read = read_sif(sif)
    assert sha256_file(sif) != unsigned
    assert SIGNATURE in {found.kind for found in read.objects}
    (fingerprint,) = read.signatures
    assert fingerprint in apptainer("key", "list")


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n" * 50, b"\0" * 200])
def test_what_is_no_sif(tmp_path, content):
    path = tmp_path / "x.sif"
    path.write_bytes(content)
    with pytest.raises(PrerequisiteError, match="not a SIF"):
        read_sif(path)


def test_a_sif_that_is_not_there(tmp_path):
    with pytest.raises(PrerequisiteError, match="No such file"):
        read_sif(tmp_path / "none.sif")


@pytest.mark.parametrize("kept", [0.99, 0.9, 0.5])
def test_a_sif_that_is_cut_off(squashfs, tmp_path, kept):
    sif = tmp_path / "a.sif"
    FRAME.write(squashfs, sif)
    os.truncate(sif, int(sif.stat().st_size * kept))
    with pytest.raises(PrerequisiteError, match="cut off"):
        read_sif(sif)


@settings(max_examples=300, deadline=None)
@given(st.integers(32, 4096 + 3 * 585), st.binary(min_size=1, max_size=16))
def test_a_damaged_header_is_read_or_refused(tmp_path_factory, place, noise):
    path = tmp_path_factory.mktemp("sif") / "a.sif"
    content = path.with_name("squashfs")
    content.write_bytes(b"hsqs" + bytes(4092))
    FRAME.write(content, path)
    data = bytearray(path.read_bytes())
    data[place : place + len(noise)] = noise
    path.write_bytes(data)
    try:
        read = read_sif(path)
    except PrerequisiteError:
        return
    assert all(found.offset >= 0 and found.size >= 0 for found in read.objects)
    assert isinstance(read.signatures, tuple)
    _ = read.system


def test_a_whole_file_system_is_known_by_its_head(squashfs, tmp_path):
    sif = tmp_path / "a.sif"
    FRAME.write(squashfs, sif)
    system = read_sif(sif).system
    require_whole(sif, system.offset, system.size)
    used = int.from_bytes(squashfs.read_bytes()[40:48], "little")
    require_whole(sif, system.offset, used)
    with pytest.raises(PrerequisiteError, match="cannot be read"):
        require_whole(sif, system.offset, used - 1)
    with pytest.raises(PrerequisiteError, match="cannot be read"):
        require_whole(sif, system.offset, 20)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, b"xsqs"), (12, b"\x01"), (22, b"\xff"), (28, b"\x05"), (47, b"\x01"), (64, b"\xff" * 8)],
)
def test_an_altered_file_system_does_not_come_into_the_store(
    squashfs, tmp_path, apptainer, place, value
):
    sif, store = tmp_path / "a.sif", ImageStore(tmp_path / "store")
    FRAME.write(squashfs, sif)
    with sif.open("r+b") as file:
        file.seek(read_sif(sif).system.offset + place)
        file.write(value)
    with pytest.raises(PrerequisiteError, match="altered image: its file system cannot be read"):
        import_images(sif, store)
    assert store.list() == ()
    with pytest.raises(PrerequisiteError, match="altered image"):
        adopt(sif, store)


def test_packages_of_an_image_built_elsewhere_are_read_and_nothing_of_it_is_run(
    installed, tmp_path, apptainer
):
    called = []

    def watched(argv, **options):
        called.append(argv[1])
        return run(argv, **options)

    sif = installed()
    image = adopt(sif, ImageStore(tmp_path / "store"), run=watched)
    record = json.loads(image.files["installed.image.json"][1])
    assert called == ["inspect"]
    assert record["rootfs_sha256"] == sha256_file(tmp_path / "installed.squashfs")
    packages = record["packages"]
    assert packages["python"] == {"six": "1.17.0"}
    assert packages["system"] == {
        "manager": "dpkg",
        "distribution": "debian-12",
        "packages": {"hello": "2.10-3"},
    }
    assert packages["read_from"] == "files"


def test_an_image_whose_files_cannot_be_read_has_no_packages_in_its_record(
    installed, tmp_path, apptainer, caplog
):
    image = adopt(installed("-comp", "lzo"), ImageStore(tmp_path / "store"))
    record = json.loads(image.files["installed.image.json"][1])
    assert record["packages"] == {"python": None, "system": None}
    assert record["rootfs_sha256"] == sha256_file(tmp_path / "installed.squashfs")
    assert "does not name its packages" in caplog.text

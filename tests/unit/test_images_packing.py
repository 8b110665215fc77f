"""A tree packed with mksquashfs: the same bytes, by however many processors; and when it fails."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from valska.external_tools.core.errors import PrerequisiteError, ValskaError
from valska.external_tools.core.images.building.canonical import make_canonical
from valska.external_tools.core.images.building.mksquashfs import Mksquashfs, find_mksquashfs
from valska.external_tools.core.images.building.packing import pack_image
from valska.external_tools.core.images.listing import list_tree
from valska.external_tools.core.images.sif import read_sif
from valska.external_tools.core.process import run
from valska.external_tools.core.utils import sha256_file

TIME = 1_700_000_000


@pytest.fixture
def mksquashfs(require):
    require(shutil.which("mksquashfs"), "mksquashfs is not here")
    return find_mksquashfs("apptainer")


def fill(root, order=1):
    """Write files of many sizes, alike and unlike, in one order or the other."""
    (root / "usr" / "lib").mkdir(parents=True)
    for number in sorted(range(200), reverse=order < 0):
        path = root / "usr" / "lib" / f"file-{number:03}"
        path.write_bytes(f"{number % 150} ".encode() * number**2)
        path.chmod(0o644)
    (root / "hole").touch()
    os.truncate(root / "hole", 1 << 20)
    (root / "link").symlink_to("usr")
    for path in (root, root / "usr", root / "usr" / "lib"):
        path.chmod(0o755)
    (root / "hole").chmod(0o644)
    return root


def limited(processors):
    def limited(argv, **options):
        return run([*argv, "-processors", str(processors)], **options)

    return limited


def pack(mksquashfs, root, target, run=run):
    make_canonical(root, time=TIME, definition=b"")
    mksquashfs.pack(root, target, time=TIME, run=run)
    return sha256_file(target)


def test_the_bytes_do_not_depend_on_processors_order_or_place(mksquashfs, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "7")
    digests = set()
    for number, processors in enumerate((1, 2, 7)):
        root = fill(tmp_path / f"root {number}", order=(-1) ** number)
        digests.add(pack(mksquashfs, root, tmp_path / f"{number}.sqsh", limited(processors)))
    assert len(digests) == 1


def test_owners_links_and_attributes_are_not_packed(mksquashfs, tmp_path):
    first, second = fill(tmp_path / "a"), fill(tmp_path / "b")
    (first / "copy").write_bytes((first / "usr/lib/file-100").read_bytes())
    os.link(second / "usr/lib/file-100", second / "copy")
    (first / "copy").chmod(0o644)
    if os.geteuid() == 0:
        os.chown(second / "hole", 7, 8)
    try:
        os.setxattr(second / "hole", "user.note", b"x")
    except OSError:
        pytest.skip("the file system of the tests has no attributes")
    assert pack(mksquashfs, first, tmp_path / "a.sqsh") == pack(
        mksquashfs, second, tmp_path / "b.sqsh"
    )


def test_an_image_of_a_tree(mksquashfs, tmp_path):
    root = fill(tmp_path / "root")
    own = root / ".singularity.d"
    own.mkdir()
    (own / "labels.json").write_text('{"org.label-schema.build-arch": "amd64", "title": "x"}')
    sif = tmp_path / "image.sif"
    packed = pack_image(root, sif, definition="From: x\n", time=TIME, mksquashfs=mksquashfs)
    assert packed.sha256 == sha256_file(sif)
    assert packed.size == sif.stat().st_size
    read = read_sif(sif)
    assert packed.rootfs_sha256 == read.sha256(read.system)
    assert packed.labels == {"title": "x"}
    assert packed.listing.entries == list_tree(root).entries
    assert not root.with_name("root.squashfs").exists()
    unpacked = tmp_path / "unpacked"
    offset = str(read.system.offset)
    subprocess.run(["unsquashfs", "-o", offset, "-q", "-n", "-d", unpacked, sif], check=True)
    assert list_tree(unpacked).entries == packed.listing.entries
    assert (unpacked / "link").lstat().st_mtime == TIME


def test_a_full_disk_is_named(mksquashfs, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    small = Path(tempfile.mkdtemp(prefix="small-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        small.rmdir()
        pytest.skip("this root cannot mount")
    root = fill(tmp_path / "root")
    (root / "noise").write_bytes(os.urandom(1 << 20))
    try:
        with pytest.raises(ValskaError, match="disk is full"):
            mksquashfs.pack(root, small / "x.sqsh", time=TIME)
        image, own = small / "image.sif", tmp_path / "work"
        shutil.copytree(root, own, symlinks=True)
        with pytest.raises(ValskaError, match="disk is full") as caught:
            pack_image(own, image, definition="", time=TIME, mksquashfs=mksquashfs)
        assert "$VALSKA_IMAGES" in caught.value.hint
    finally:
        subprocess.run(["umount", small], check=True)
        small.rmdir()


def test_a_tree_that_cannot_be_packed(mksquashfs, tmp_path):
    with pytest.raises(ValskaError, match=r"mksquashfs says: .*none"):
        mksquashfs.pack(tmp_path / "none", tmp_path / "x", time=TIME)


@pytest.fixture
def plain():
    """A directory whose name can stand on a PATH, which that of `tmp_path` cannot."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def program(directory, version):
    path = directory / "mksquashfs"
    path.write_text(f"#!/bin/sh\necho 'mksquashfs version {version} (2019/08/29)'\n")
    path.chmod(0o755)
    return path


def test_options_are_those_that_a_version_has(plain, monkeypatch, caplog):
    path = program(plain, "4.3-git.1")
    monkeypatch.setenv("PATH", f"{plain}:{os.environ['PATH']}")
    old = find_mksquashfs("apptainer")
    assert (old.path, old.version, old.release) == (os.fspath(path), "4.3-git.1", (4, 3))
    seen = []

    def look(argv, **options):
        seen.append(argv)
        return run(argv, **options)

    old.pack(plain, plain / "x", time=5, run=look)
    assert "-mkfs-time" not in seen[0]
    assert "not write the same bytes twice" in caplog.text
    assert "-no-hardlinks" not in Mksquashfs("", "4.4", (4, 4)).options
    assert "-no-hardlinks" in Mksquashfs("", "4.6.1", (4, 6)).options


def test_mksquashfs_may_lie_beside_apptainer_alone(plain, monkeypatch):
    beside = plain / "apptainer" / "bin"
    beside.mkdir(parents=True)
    path = program(beside, "4.6.1")
    places = "valska.external_tools.core.images.building.mksquashfs._PLACES"
    monkeypatch.setattr(places, "/nowhere")
    apptainer = plain / "apptainer-program"
    apptainer.write_text(f"#!/bin/sh\necho LIBEXECDIR={plain}\n")
    apptainer.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_mksquashfs(os.fspath(apptainer)).path == os.fspath(path)
    path.unlink()
    with pytest.raises(PrerequisiteError, match="no such program: mksquashfs") as caught:
        find_mksquashfs(os.fspath(apptainer))
    assert "squashfs-tools" in caught.value.hint

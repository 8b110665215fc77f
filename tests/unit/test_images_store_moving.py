"""Images into the store and out of it, and read again there."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import replace

import imagestore
import pytest
from imagestore import DEFINITION, loose, record_of

from valska.external_tools.core.errors import (
    PrerequisiteError,
    UsageError,
    ValskaError,
    VerificationError,
)
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.images.store.exporting import export_images
from valska.external_tools.core.images.store.importing import import_images, rehearse_import
from valska.external_tools.core.images.store.verification import unrecorded, verify_image
from valska.external_tools.core.tarring import write_member
from valska.external_tools.core.utils import sha256_bytes

LISTING = b"a listing"
SBOM = b'{"bomFormat": "CycloneDX"}\n'


@pytest.fixture
def store(tmp_path):
    return ImageStore(tmp_path / "store")


@pytest.fixture
def full(store):
    """The record of an image with all that can lie beside one."""
    import gzip

    record = record_of(
        b"an image",
        tree_sha256=sha256_bytes(LISTING),
        sbom={
            "name": "tool.cdx.json",
            "sha256": sha256_bytes(SBOM),
            "format": "CycloneDX 1.6",
        },
    )
    files = {
        "tool.def": DEFINITION,
        "tool.lock": b"lock",
        "tool.cdx.json": SBOM,
        "tool.files.gz": gzip.compress(LISTING, mtime=0),
    }
    with store.workspace() as work:
        (work / "image.sif").write_bytes(b"an image")
        return store.add(work / "image.sif", record, files)


def names(store):
    return sorted(path.name.partition(".")[2] for path in store.directory.iterdir())


@pytest.mark.parametrize("name", ["out", "out.tar"])
def test_what_goes_out_comes_in_again(store, full, tmp_path, name):
    other = imagestore.put(store, b"another", name="other")
    target = export_images(store, [full, other, full], tmp_path / name)
    into = ImageStore(tmp_path / "into")
    found = import_images(target, into)
    assert {one.record.sha256 for one in found} == {full.sha256, other.sha256}
    assert all(one.new for one in found)
    assert into.get(full.sha256) == full
    assert names(into) == names(store)
    for path in store.directory.iterdir():
        if path.suffix != ".receipt":
            assert (into.directory / path.name).read_bytes() == path.read_bytes()
    assert not any(one.new for one in import_images(target, into))


def test_an_export_is_checked_with_plain_tools_and_is_a_store(store, full, tmp_path):
    target = export_images(store, [full], tmp_path / "out")
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(check, cwd=target, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 6
    assert ImageStore(target).get(full.sha256[:8]) == full


def test_the_same_images_give_the_same_tar(store, full, tmp_path):
    first = export_images(store, [full], tmp_path / "1.tar").read_bytes()
    os.utime(store.sif(full.sha256), (1, 1))
    assert export_images(store, [full], tmp_path / "2.tar").read_bytes() == first


def test_an_export_does_not_take_a_place(store, full, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        export_images(store, [full], tmp_path / "out")


@pytest.mark.parametrize("name", ["out", "out.tar"])
def test_an_altered_image_is_not_exported(store, full, tmp_path, name):
    store.sif(full.sha256).write_bytes(b"an imagf")
    with pytest.raises(VerificationError, match="altered"):
        export_images(store, [full], tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_place_that_cannot_be_written(store, full, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("out", "out.tar"):
        with pytest.raises(ValskaError, match="cannot write"):
            export_images(store, [full], tmp_path / "file" / name)


@pytest.mark.parametrize("beside", ["tool.sif", "{0}.sif"])
def test_a_file_with_its_record(store, tmp_path, beside):
    sif = loose(tmp_path)
    named = beside.format(sha256_bytes(b"an image"))
    for path in list(tmp_path.glob("tool.*")):
        path.rename(path.with_name(named.replace(".sif", path.suffix)))
    (imported,) = import_images(tmp_path / named, store)
    assert imported.new
    assert imported.record == record_of(b"an image")
    assert store.files(imported.record) == {"tool.def": DEFINITION, "tool.lock": b"lock"}
    assert store.is_unchanged(imported.record.sha256)
    assert sif.name


def test_an_altered_file_beside_an_image_is_left_out(store, tmp_path, caplog):
    sif = loose(tmp_path)
    sif.with_suffix(".lock").write_bytes(b"another lock")
    (imported,) = import_images(sif, store)
    assert store.files(imported.record) == {"tool.def": DEFINITION}
    assert "tool.lock is left out" in caplog.text


@pytest.mark.parametrize("stem", ["tool", "0" * 64])
def test_a_file_that_is_not_what_is_said_of_it(store, tmp_path, stem):
    sif = loose(tmp_path)
    sif.write_bytes(b"an ima")
    sif = sif.rename(sif.with_name(f"{stem}.sif"))
    if stem != "tool":
        sif.with_name("tool.json").unlink()
    with pytest.raises(VerificationError, match="altered or cut off"):
        import_images(sif, store)
    assert store.list() == ()


def test_a_file_that_is_no_image(store, tmp_path):
    path = tmp_path / "no.sif"
    path.write_text("hello")
    with pytest.raises(PrerequisiteError, match="not a SIF"):
        import_images(path, store)
    with pytest.raises(PrerequisiteError, match="no such image"):
        import_images(tmp_path / "nothing.sif", store)
    with pytest.raises(UsageError, match="not an export"):
        import_images(tmp_path, store)
    with pytest.raises(PrerequisiteError, match="cannot read"):
        import_images(tmp_path / ("x" * 300), store)


def test_two_at_once_give_one(store, tmp_path):
    content = os.urandom(1 << 22)
    sif = loose(tmp_path, content)
    code = (
        "import sys; from pathlib import Path\n"
        "from valska.external_tools.core.images.store import ImageStore\n"
        "from valska.external_tools.core.images.store.importing import import_images\n"
        "print(import_images(Path(sys.argv[1]), ImageStore(Path(sys.argv[2])))[0].new)\n"
    )
    argv = [sys.executable, "-c", code, sif, store.root]
    started = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=60)[0].strip() for process in started]
    assert sorted(said) == ["False", "False", "False", "True"]
    (record,) = store.list()
    assert store.sif(record.sha256).read_bytes() == content


def test_an_image_that_was_altered_in_the_store_is_replaced(store, tmp_path):
    sif = loose(tmp_path)
    (imported,) = import_images(sif, store)
    place = store.sif(imported.record.sha256)
    place.write_bytes(b"an imagf")
    os.utime(place, (1, 1))
    assert import_images(sif, store)[0].record == imported.record
    assert place.read_bytes() == b"an image"


def test_an_image_whose_times_hide_what_was_done_to_it_is_found_and_replaced(store, tmp_path):
    sif = loose(tmp_path)
    (imported,) = import_images(sif, store)
    place = store.sif(imported.record.sha256)
    status = place.stat()
    place.write_bytes(b"an imagf")
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not import_images(sif, store)[0].new
    assert verify_image(store, store.record(place.stem)).faults
    assert import_images(sif, store)[0].new
    assert place.read_bytes() == b"an image"


def test_a_dry_run_tells_that_an_altered_image_is_replaced(store, tmp_path, caplog):
    sif = loose(tmp_path)
    place = store.sif(import_images(sif, store)[0].record.sha256)
    assert not rehearse_import(sif, store)[0].new
    place.write_bytes(b"an imagf")
    os.utime(place, (1, 1))
    assert rehearse_import(sif, store)[0].new
    assert "is replaced" in caplog.text
    assert place.read_bytes() == b"an imagf"


@pytest.mark.parametrize("there", [True, False])
def test_a_dry_run_of_a_tar_file_needs_room_where_the_store_is(
    store, full, tmp_path, monkeypatch, there
):
    target = export_images(store, [full], tmp_path / "out.tar")
    into = ImageStore(tmp_path / "deep" / "into")
    if there:
        into.directory.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no such place"))
    assert [(one.record, one.new) for one in rehearse_import(target, into)] == [(full, True)]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["out", "out.tar"])
def test_a_dry_run_tells_that_the_store_cannot_be_written(store, full, tmp_path, name):
    target = export_images(store, [full], tmp_path / name)
    (tmp_path / "file").write_text("")
    into = ImageStore(tmp_path / "file" / "into")
    with pytest.raises(PrerequisiteError, match="cannot be written") as real:
        import_images(target, into)
    with pytest.raises(PrerequisiteError) as rehearsed:
        rehearse_import(target, into)
    assert rehearsed.value.message == real.value.message


def test_a_record_that_cannot_be_read_is_replaced(store, tmp_path):
    sif = loose(tmp_path)
    (imported,) = import_images(sif, store)
    store.record(imported.record.sha256).write_text("no record")
    assert import_images(sif, store)[0].record == imported.record
    assert store.get(imported.record.sha256) == imported.record


def test_the_disk_is_full(tmp_path, require):
    """A file system of one megabyte, which a user may mount in a namespace of their own."""
    sif = loose(tmp_path, os.urandom(1 << 21))
    code = (
        "import sys; from pathlib import Path\n"
        "from valska.external_tools.core.errors import ValskaError\n"
        "from valska.external_tools.core.images.store import ImageStore\n"
        "from valska.external_tools.core.images.store.importing import import_images\n"
        "store = ImageStore(Path(sys.argv[2]))\n"
        "try: import_images(Path(sys.argv[1]), store)\n"
        "except ValskaError as error: print(error.exit_code, error.message)\n"
        "print(store.list(), [path.name for path in store.root.glob('.build-*')])\n"
    )
    place = tmp_path / "small"
    place.mkdir()
    script = 'mount -t tmpfs -o size=1m small "$1" && exec "$2" -c "$3" "$4" "$1"'
    argv = ["unshare", "-Urm", "sh", "-c", script, "sh", place, sys.executable, code, sif]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    require("mount" not in done.stderr and "unshare" not in done.stderr, done.stderr)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1 cannot copy tool.sif"), done.stderr
    assert "No space left" in lines[0]
    assert lines[1] == "() []"


def altered(path, change):
    """Write a tar file anew; `change` maps a member and its data to others, or to None."""
    with tarfile.open(path) as tar:
        members = [(entry, tar.extractfile(entry).read()) for entry in tar]
    with tarfile.open(path, "w") as tar:
        for entry, data in members:
            for member, content in change(entry, data):
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def other_name(name):
    def change(entry, data):
        entry.name = name if entry.name.endswith(".lock") else entry.name
        yield entry, data

    return change


def link(entry, data):
    if entry.name.endswith(".lock"):
        entry.type, entry.linkname, data = tarfile.SYMTYPE, "/etc/passwd", b""
    yield entry, data


def twice(entry, data):
    yield entry, data
    if entry.name.endswith(".lock"):
        yield entry, data


def other_content(suffix):
    def change(entry, data):
        yield entry, data + b" " if entry.name.endswith(suffix) else data

    return change


def without_lock(entry, data):
    if not entry.name.endswith(".lock"):
        yield entry, data


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (other_name("../evil"), UsageError, "it holds ../evil"),
        (other_name("/evil"), UsageError, "it holds /evil"),
        (other_name("sha256/evil"), UsageError, "it holds sha256/evil"),
        (link, UsageError, r"it holds sha256/\w+\.lock, which is no plain file"),
        (twice, UsageError, "twice"),
        (other_content(".lock"), VerificationError, "lock has been altered"),
        (other_content(".json"), VerificationError, "json has been altered"),
        (other_content(".sif"), VerificationError, "altered or cut off"),
        (without_lock, VerificationError, "lock is missing"),
    ],
)
def test_an_export_that_was_altered(store, full, tmp_path, change, kind, message):
    target = export_images(store, [full], tmp_path / "out.tar")
    altered(target, change)
    into = ImageStore(tmp_path / "deep" / "into")
    with pytest.raises(kind, match=message) as caught:
        import_images(target, into)
    assert (caught.value.hint == "A kit is taken in by `valska load`.") == ("evil" in message)
    assert into.list() == ()
    assert not (tmp_path / "deep" / "evil").exists()


def test_a_small_tar_file_that_would_fill_the_disk(tmp_path):
    name = f"sha256/{'a' * 64}.sif"
    (tmp_path / "sha256").mkdir()
    with (tmp_path / name).open("wb") as file:
        file.truncate(64 << 20)
    argv = ["tar", "--sparse", "-C", tmp_path, "-cf", tmp_path / "bomb.tar", name]
    subprocess.run(argv, check=True)
    assert (tmp_path / "bomb.tar").stat().st_size < 1 << 20
    with pytest.raises(UsageError, match="it holds sha256/aaa"):
        import_images(tmp_path / "bomb.tar", ImageStore(tmp_path / "into"))


def repacked(target, path, *options):
    """Unpack an export with tar, and pack it again."""
    out = target.with_name("unpacked")
    out.mkdir()
    subprocess.run(["tar", "-C", out, "-xf", target], check=True)
    subprocess.run(["tar", *options, "-C", out, "-cf", path, "."], check=True)
    return path


@pytest.mark.parametrize("kind", ["gnu", "ustar"])
def test_tar_reads_an_export_and_may_write_it(store, full, tmp_path, kind):
    target = export_images(store, [full], tmp_path / "out.tar")
    path = repacked(target, tmp_path / "again.tar", f"--format={kind}")
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    subprocess.run(check, cwd=tmp_path / "unpacked", check=True)
    into = ImageStore(tmp_path / "into")
    assert [one.record for one in import_images(path, into)] == [full]
    assert names(into) == names(store)


def test_an_export_that_python_packed_is_read(store, full, tmp_path):
    target = export_images(store, [full], tmp_path / "out.tar")
    altered(target, lambda entry, data: [(entry, data)])
    assert [one.record for one in import_images(target, ImageStore(tmp_path / "into"))] == [full]


def test_headers_that_could_say_anything_are_not_read(store, full, tmp_path):
    target = export_images(store, [full], tmp_path / "out.tar")
    path = repacked(target, tmp_path / "again.tar", "--format=pax")
    with pytest.raises(UsageError, match="not an export") as caught:
        import_images(path, ImageStore(tmp_path / "into"))
    assert "tar --format=gnu" in caught.value.hint


def test_an_export_with_a_directory_of_its_own(store, full, tmp_path):
    target = export_images(store, [full], tmp_path / "out.tar")
    folder = tarfile.TarInfo("sha512")
    folder.type = tarfile.DIRTYPE
    altered(target, lambda entry, data: [(folder, b""), (entry, data)])
    with pytest.raises(UsageError, match="it holds sha512"):
        import_images(target, ImageStore(tmp_path / "into"))


@pytest.mark.parametrize("more", [b"x", bytes(tarfile.RECORDSIZE + 1), b"x" * 512])
def test_an_export_that_goes_on_after_its_end(store, full, tmp_path, more):
    target = export_images(store, [full], tmp_path / "out.tar")
    with target.open("ab") as file:
        file.write(more)
    with pytest.raises(VerificationError, match="goes on after its end") as caught:
        import_images(target, ImageStore(tmp_path / "into"))
    assert caught.value.hint == "Copy it again."


def test_a_name_that_no_header_has_room_for_is_not_packed(tmp_path):
    with (tmp_path / "out.tar").open("wb") as file, pytest.raises(VerificationError, match="long"):
        write_member(file, "ü" * 51, 0, io.BytesIO())
    assert (tmp_path / "out.tar").read_bytes() == b""


def test_an_export_that_was_cut_off(store, full, tmp_path):
    target = export_images(store, [full], tmp_path / "out.tar")
    data = target.read_bytes()
    target.write_bytes(data[: len(data) - tarfile.RECORDSIZE])
    with pytest.raises(ValskaError) as caught:
        import_images(target, ImageStore(tmp_path / "into"))
    assert caught.value.exit_code in (2, 3, 5)
    assert ImageStore(tmp_path / "into").list() == ()


def test_an_image_that_is_as_recorded(store, full):
    store.receipt(full.sha256).unlink()
    assert verify_image(store, store.record(full.sha256)).faults == ()
    assert store.is_unchanged(full.sha256)


@pytest.mark.parametrize(
    ("suffix", "fault"),
    [
        (".sif", "has been altered"),
        (".def", "tool.def has been altered"),
        (".lock", "tool.lock has been altered"),
        (".cdx.json", "tool.cdx.json has been altered"),
        (".files.gz", "tool.files.gz has been altered"),
        (".json", "its record is not usable"),
    ],
)
def test_an_image_that_is_not_as_recorded(store, full, suffix, fault):
    path = store.extras(full.sha256, suffix)
    status = path.stat()
    path.write_bytes(b"x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert store.is_unchanged(full.sha256)
    (found,) = verify_image(store, store.record(full.sha256)).faults
    assert fault in found


def test_a_part_of_an_image_that_is_missing(store, full):
    store.extras(full.sha256, ".cdx.json").unlink()
    found = verify_image(store, store.record(full.sha256))
    assert found.faults == ()
    assert found.missing == ("tool.cdx.json",)


def test_a_record_of_another_size(store, full):
    shutil.copy(store.record(full.sha256), store.root / "kept")
    store.record(full.sha256).write_bytes(replace(full, size=5).to_bytes())
    (fault,) = verify_image(store, store.record(full.sha256)).faults
    assert "size" in fault


def test_only_a_sif_that_nobody_is_adding_lacks_its_record(store, full):
    place = store.record(full.sha256)
    late = time.time() + 2 * 24 * 3600.0
    assert unrecorded(store, late) == []
    place.unlink()
    assert unrecorded(store) == []
    assert unrecorded(store, late) == [place]
    (fault,) = verify_image(store, place).faults
    assert "it has no record" in fault

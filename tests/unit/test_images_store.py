"""The image store, and what a reference to an image stands for."""

import itertools
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import imagestore
import pytest
from imagestore import DEFINITION, record_of

from valska.external_tools.core.errors import PrerequisiteError, ValskaError, VerificationError
from valska.external_tools.core.images import resolve_image
from valska.external_tools.core.images.building.environment import workspace
from valska.external_tools.core.images.definition import shipped_definitions
from valska.external_tools.core.images.record import read_record
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.schema import SchemaError, load_schema
from valska.external_tools.core.utils import sha256_bytes, sha256_file


@pytest.fixture
def store(tmp_path):
    return ImageStore(tmp_path / "store")


@pytest.fixture
def put(store):
    def put(content=b"an image", name="tool", **more):
        return imagestore.put(store, content, name, **more)

    return put


def test_an_image_lies_under_its_digest_with_all_that_belongs_to_it(store, put):
    record = put()
    assert store.sif(record.sha256).read_bytes() == b"an image"
    assert read_record(store.record(record.sha256)) == record == store.get(record.sha256)
    assert store.files(record) == {"tool.def": DEFINITION, "tool.lock": b"lock"}
    assert sorted(path.suffix for path in store.directory.iterdir()) == [
        ".def",
        ".json",
        ".lock",
        ".receipt",
        ".sif",
    ]
    assert [path.name for path in store.root.iterdir() if path.name.startswith(".")] == []


def test_the_receipt_is_what_a_job_compares(store, put):
    record = put()
    sif = store.sif(record.sha256)
    script = '[[ $(<"$1.receipt") == "$2 $(stat -Lc "%s %Y %i" -- "$1")" ]]'
    argv = ["bash", "-c", script, "check", os.fspath(sif), record.sha256]
    assert subprocess.run(argv, check=False).returncode == 0
    os.utime(sif, (1, 1))
    assert subprocess.run(argv, check=False).returncode == 1


def test_modes_follow_the_umask(store, put):
    before = os.umask(0o007)
    try:
        record = put()
    finally:
        os.umask(before)
    modes = {p.suffix: stat.S_IMODE(p.stat().st_mode) for p in store.directory.iterdir()}
    assert modes.pop(".sif") == 0o770
    assert set(modes.values()) == {0o660}
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o770
    assert store.get(record.sha256) == record


def test_a_half_written_image_is_not_seen(store, put):
    record = put()
    store.record(record.sha256).unlink()
    assert store.list() == ()
    assert store.find(record.sha256) == ()
    put()
    store.sif(record.sha256).unlink()
    assert store.list() == ()


def test_two_at_once_leave_one_whole_image(store, put):
    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (record,) = store.list()
    assert sha256_file(store.sif(record.sha256)) == record.sha256
    store.check(record.sha256)


def test_an_image_that_is_there_stays_where_it_is(store, put):
    record = put()
    before = store.sif(record.sha256).stat()
    put()
    after = store.sif(record.sha256).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    store.sif(record.sha256).write_bytes(b"altered")
    put()
    assert store.sif(record.sha256).read_bytes() == b"an image"


def test_what_was_built_is_not_forgotten_for_what_was_found(store, put):
    built = put(recipe_sha256="a" * 64)
    assert put(origin="adopted", definition=None, lock=None) == built
    assert store.get(built.sha256) == built
    again = put(recipe_sha256="b" * 64)
    assert store.get(built.sha256).recipe_sha256 == again.recipe_sha256 == "b" * 64


def test_a_signed_image_is_not_what_its_recipe_makes(store, put):
    plain = put(recipe_sha256="a" * 64)
    signature = {"fingerprint": "A" * 40, "unsigned_sha256": plain.sha256}
    signed = put(
        b"signed",
        recipe_sha256="a" * 64,
        signature=signature,
        created_utc="2026-05-01T00:00:00Z",
    )
    assert store.newest("tool") == signed
    assert store.newest("tool", signed=False) == plain
    assert store.newest(recipe_sha256="a" * 64) == plain


def test_a_digest_is_found_without_reading_the_others(store, put, monkeypatch):
    wanted = put()
    for number in range(5):
        other = put(str(number).encode())
        store.record(other.sha256).write_text("not a record")
    monkeypatch.setattr(Path, "glob", None)
    assert resolve_image(f"sha256:{wanted.sha256}", store).sha256 == wanted.sha256


def test_a_digest_is_found_without_what_checks_records(store, put):
    """Loading the check takes longer than the whole look-up may."""
    wanted = put()
    code = (
        "import sys; from pathlib import Path\n"
        "from valska.external_tools.core.images.store import ImageStore\n"
        "store = ImageStore(Path(sys.argv[1]))\n"
        "store.check(store.get(sys.argv[2]).sha256)\n"
        "print('jsonschema_rs' in sys.modules)"
    )
    argv = [sys.executable, "-c", code, store.root, wanted.sha256]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    "change",
    [
        {"size": "8"},
        {"definition": "x"},
        {"definition": {"name": 1}},
        {"files": {}},
        {"labels": None},
        {"schema_version": "2.0"},
        {"sha256": "0" * 64},
    ],
)
def test_a_record_of_another_form_is_read_in_full_and_refused(store, put, change):
    path = store.record(put().sha256)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValskaError):
        store.get(path.stem)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("tool.def", ".def"),
        ("tool.v2.def", ".def"),
        ("Singularity", ".def"),
        ("odd.json", ".def"),
        ("odd.sif", ".def"),
        ("tool.lock", ".lock"),
        ("tool.cdx.json", ".cdx.json"),
        ("tool.files.gz", ".files.gz"),
    ],
)
def test_what_is_kept_with_an_image_never_takes_the_place_of_its_record(store, name, suffix):
    assert store.source("0" * 64, name) == store.directory / f"{'0' * 64}{suffix}"


def test_an_unreadable_record_does_not_hide_the_others(store, put, caplog):
    put()
    other = put(b"another image")
    store.record(other.sha256).write_text("{}")
    assert [record.sha256 for record in store.list()] == [sha256_bytes(b"an image")]
    assert other.sha256[:16] in caplog.text


def test_the_newest_of_what_is_asked_for(store, put):
    put(b"1", created_utc="2026-01-01T00:00:00Z")
    newest = put(b"2", created_utc="2026-02-01T00:00:00Z")
    put(b"3", name="other", created_utc="2026-03-01T00:00:00Z")
    assert store.newest("tool") == newest
    assert store.newest("tool", definition_sha256="0" * 64) is None
    assert store.newest("tool", lock_sha256=sha256_bytes(b"lock")) == newest
    assert store.newest("nothing") is None
    broken = json.dumps({"name": "tool", "definition": "x", "created_utc": "2027"})
    store.record(put(b"4").sha256).write_text(broken)
    assert store.newest("tool") == newest


def test_a_prefix_must_be_unique(store, put):
    digests = sorted(put(str(number).encode()).sha256 for number in range(17))
    shared = next(a[0] for a, b in itertools.pairwise(digests) if a[0] == b[0])
    with pytest.raises(PrerequisiteError, match=f"begin with {shared}"):
        store.get(shared)
    assert store.get(digests[0]).sha256 == digests[0]
    with pytest.raises(PrerequisiteError, match="no image"):
        store.get("../../etc/passwd")


def test_an_image_that_cannot_be_read_is_as_one_that_is_not_there(store):
    with pytest.raises(PrerequisiteError, match="cannot read the image /proc/self/mem"):
        resolve_image("/proc/self/mem", store)


def test_an_altered_image_is_refused(store, put):
    record = put()
    sif = store.sif(record.sha256)
    sif.write_bytes(b"an imagf")
    os.utime(sif, (1, 1))
    with pytest.raises(VerificationError, match="altered") as caught:
        resolve_image("tool", store)
    assert caught.value.exit_code == 5


def test_a_stale_receipt_is_written_anew(store, put):
    record = put()
    os.utime(store.sif(record.sha256), (1, 1))
    before = store.receipt(record.sha256).read_text()
    store.check(record.sha256)
    assert store.receipt(record.sha256).read_text() != before


def test_what_killed_builds_left_is_removed_and_what_lives_is_not(store, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", os.fspath(tmp_path.parent))
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from valska.external_tools.core.images.building.environment import workspace\n"
        "from valska.external_tools.core.images.store import ImageStore\n"
        "with ImageStore(Path(sys.argv[1])).workspace() as out, workspace(os.environ) as work:\n"
        "    print(out, work, sep=chr(10), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, store.root], capture_output=True, text=True, check=False
    )
    left = [Path(name) for name in killed.stdout.splitlines()]
    assert len(left) == 2, killed.stderr
    assert all(map(Path.is_dir, left))
    nameless = store.root / ".build-nameless"
    nameless.mkdir()
    with store.workspace() as mine, workspace(os.environ):
        assert not any(map(Path.exists, left))
        with store.workspace():
            assert mine.is_dir()
    assert nameless.is_dir()


def test_a_store_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(PrerequisiteError, match="cannot be written") as caught,
        ImageStore(tmp_path / "file" / "store").workspace(),
    ):
        pass
    assert "VALSKA_IMAGES" in caught.value.hint


@pytest.mark.parametrize(
    "reference",
    ["tool", "tool.def", "sha256:{0}", "{0}", "sha256:{1}", "{1}", "{2}"],
)
def test_a_reference(store, put, reference):
    record = put()
    text = reference.format(record.sha256, record.sha256[:9], store.sif(record.sha256))
    image = resolve_image(text, store)
    assert (image.path, image.sha256, image.size) == (store.sif(record.sha256), record.sha256, 8)
    assert image.files["tool.def"] == ("definition", DEFINITION)
    assert image.files["tool.lock"] == ("lock", b"lock")
    role, text = image.files["tool.image.json"]
    assert role == "image-record"
    assert json.loads(text) == record.to_json()
    assert image.facts["definition_sha256"] == sha256_bytes(DEFINITION)
    assert image.facts["build_arguments"] == {}


@pytest.mark.parametrize("reference", ["nothing", "sha256:00", "./nothing.sif", "/no/such"])
def test_a_reference_to_nothing(store, put, reference):
    put()
    with pytest.raises(PrerequisiteError) as caught:
        resolve_image(reference, store)
    assert caught.value.exit_code == 3
    assert caught.value.hint


def shipped(name="pyuvsim"):
    path = shipped_definitions()[name]
    return {
        "definition": {"name": path.name, "sha256": sha256_file(path)},
        "lock": {"name": f"{name}.lock", "sha256": sha256_file(path.with_suffix(".lock"))},
    }


def test_without_a_reference_the_shipped_definition_counts(store, put):
    with pytest.raises(PrerequisiteError) as caught:
        resolve_image(None, store, definition="pyuvsim.def")
    assert "valska build containers/pyuvsim.def" in caught.value.hint
    old = put(b"old", name="pyuvsim")
    with pytest.raises(PrerequisiteError, match="another definition") as caught:
        resolve_image(None, store, definition="pyuvsim.def")
    assert "valska build containers/pyuvsim.def" in caught.value.hint
    assert old.sha256[:12] in caught.value.hint
    new = put(b"new", name="pyuvsim", **shipped())
    put(b"newer", name="pyuvsim", created_utc="2026-09-09T00:00:00Z")
    assert resolve_image(None, store, definition="pyuvsim.def").sha256 == new.sha256


def test_an_image_of_another_store_brings_its_record(tmp_path, store, put):
    record = put()
    image = resolve_image(os.fspath(store.sif(record.sha256)), ImageStore(tmp_path / "mine"))
    assert image.path == store.sif(record.sha256)
    assert image.facts["definition_sha256"] == record.definition["sha256"]
    assert set(image.files) == {"tool.image.json", "tool.def", "tool.lock"}


def test_a_record_beside_another_image_is_not_believed(tmp_path, store, put, require):
    record = put()
    copy = tmp_path / "x.sif"
    copy.write_bytes(b"other content")
    copy.with_suffix(".json").write_bytes(record.to_bytes())
    with pytest.raises(PrerequisiteError):
        resolve_image(os.fspath(copy), store, apptainer="false")


def test_the_record_says_what_its_schema_knows():
    properties = load_schema("image-1")["properties"]
    assert set(record_of(b"x").to_json()) == set(properties)
    assert load_schema("image-1")["$id"] == "urn:valska:schema:image-1"


def test_a_record_of_another_major_version_is_refused(store, put):
    path = store.record(put().sha256)
    data = json.loads(path.read_text()) | {"schema_version": "2.0"}
    path.write_text(json.dumps(data))
    with pytest.raises(SchemaError, match="schema_version"):
        read_record(path)


def test_a_later_minor_version_is_read(store, put):
    path = store.record(put().sha256)
    data = json.loads(path.read_text()) | {"schema_version": "1.7", "new": 1}
    path.write_text(json.dumps(data))
    assert read_record(path).name == "tool"

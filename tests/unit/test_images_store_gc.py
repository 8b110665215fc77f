"""Which images stay and which go: bundles, roots, ages, current definitions, and races."""

import json
import os
import shutil
import subprocess
import sys
import time

import imagestore
import pytest
import toy
from click.testing import CliRunner
from sweeps import make_sweep

from valska.cli import main
from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images import resolve_image
from valska.external_tools.core.images.definition import shipped_definitions
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.images.store import gc as clearing
from valska.external_tools.core.images.store.gc import Order, collect, survey
from valska.external_tools.core.images.store.uses import Use, add_use, note_use, read_uses
from valska.external_tools.core.runner import RunnerKind
from valska.external_tools.core.utils import sha256_bytes, sha256_file

WEEK_S = 7 * 24 * 3600.0


@pytest.fixture
def store(tmp_path):
    return ImageStore(tmp_path / "store")


@pytest.fixture
def put(store):
    def put(content=b"an image", name="tool", **more):
        return imagestore.put(store, content, name, **more)

    return put


@pytest.fixture
def later(store):
    """Return an order given a week from now."""

    def later(**more):
        return Order(store=store, now=time.time() + WEEK_S, **more)

    return later


def bundle(folder, store, record, **more):
    image = resolve_image(f"sha256:{record.sha256}", store)
    return toy.bundle(folder, image=image, runner=RunnerKind.CONTAINER, **more)


def kept(found):
    return {one.sha256: "; ".join(one.why) for one in found.kept}


def going(found):
    return {one.sha256 for one in found.items}


def test_what_nothing_uses_goes_and_only_when_told(store, put, later):
    record = put()
    found = survey(later())
    assert going(found) == {record.sha256}
    assert found.size > record.size
    assert store.get(record.sha256) == record
    assert going(collect(later())) == {record.sha256}
    assert list(store.directory.iterdir()) == []
    assert collect(later()).items == ()


def test_what_is_young_stays(store, put, later):
    record = put()
    assert "younger than a day" in kept(survey(Order(store=store)))[record.sha256]
    assert collect(Order(store=store)).items == ()
    assert going(survey(Order(store=store, min_age_s=0, now=time.time() + 1))) == {record.sha256}


def test_what_a_bundle_uses_stays_as_long_as_the_bundle(store, put, later, tmp_path):
    used, unused = put(), put(b"another")
    made = bundle(tmp_path, store, used)
    assert [(use.sha256, use.path) for use in read_uses(store)] == [(used.sha256, made.path)]
    assert str(made.path) in kept(survey(later()))[used.sha256]
    assert going(collect(later())) == {unused.sha256}
    shutil.rmtree(made.path)
    assert going(collect(later())) == set()
    assert going(collect(later(gone=True))) == {used.sha256}
    assert read_uses(store) == []


def test_what_a_moved_bundle_used_stays_until_told(store, put, later, tmp_path):
    used = put()
    made = bundle(tmp_path, store, used)
    made.path.rename(tmp_path / "moved")
    reason = f"used by {made.path}, which is gone or moved"
    assert kept(survey(later()))[used.sha256] == reason
    assert kept(collect(later()))[used.sha256] == reason
    assert [use.path for use in read_uses(store)] == [made.path]
    elsewhere = later(forgotten=(tmp_path / "elsewhere",))
    assert kept(survey(elsewhere))[used.sha256] == reason
    assert going(survey(later(forgotten=(made.path,)))) == {used.sha256}
    found = survey(later(gone=True, roots=(tmp_path,)))
    assert kept(found)[used.sha256] == f"{tmp_path / 'moved'} uses it"
    assert going(survey(later(gone=True))) == {used.sha256}


def test_the_command_tells_of_what_is_gone_and_clears_it_when_told(store, put, later, tmp_path):
    used = put()
    add_use(store, Use(used.sha256, "2026-01-02T03:04:05Z", tmp_path / "run"))
    words = ["image", "gc", "--older-than", "0", "--images", os.fspath(store.root), "--json"]
    told = CliRunner().invoke(main, words)
    why = [f"used by {tmp_path / 'run'}, which is gone or moved"]
    found = json.loads(told.stdout)
    assert (told.exit_code, found["items"]) == (0, [])
    assert [(one["sha256"], one["why"]) for one in found["kept"]] == [(used.sha256, why)]
    told = CliRunner().invoke(main, [*words[:-1], "--gone", "--execute"])
    assert "Deleted" in told.output
    assert not store.find(used.sha256)


def test_what_a_sweep_uses_stays(store, put, later, tmp_path):
    used = put()
    image = resolve_image("tool", store)
    sweep = make_sweep(tmp_path, image=image, runner=RunnerKind.CONTAINER)
    assert str(sweep.path) in kept(collect(later()))[used.sha256]
    assert [use.path for use in read_uses(store)] == [sweep.path]


def test_an_image_named_by_its_file_in_a_store_is_noted_there(store, put, tmp_path):
    record = put()
    link = tmp_path / "link.sif"
    link.symlink_to(store.sif(record.sha256))
    image = resolve_image(str(link), ImageStore(tmp_path / "mine"))
    made = toy.bundle(tmp_path, image=image, runner=RunnerKind.CONTAINER)
    assert [use.path for use in read_uses(store)] == [made.path]
    assert not (tmp_path / "mine").exists()


def test_an_image_outside_of_any_store_is_not_noted(tmp_path):
    folder = tmp_path / "sha256"
    folder.mkdir()
    sif = folder / f"{sha256_bytes(b'x')}.sif"
    sif.write_bytes(b"x")
    note_use(sif, sha256_bytes(b"x"), tmp_path / "bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sha256"]


def test_a_bundle_that_was_moved_is_found_below_a_root(store, put, later, tmp_path):
    used = put()
    made = bundle(tmp_path, store, used)
    root = tmp_path / "elsewhere"
    (root / "deep").mkdir(parents=True)
    made.path.rename(root / "deep" / "run")
    assert going(survey(later(gone=True))) == {used.sha256}
    assert str(root / "deep" / "run") in kept(survey(later(roots=(root,))))[used.sha256]
    sweep = make_sweep(tmp_path, image=resolve_image("tool", store), runner=RunnerKind.CONTAINER)
    shutil.rmtree(root / "deep" / "run")
    sweep.path.rename(root / "sweep")
    again = later(gone=True, roots=(root,))
    assert str(root / "sweep") in kept(collect(again))[used.sha256]


def test_a_manifest_that_cannot_be_read_is_told(store, put, later, tmp_path):
    used = put()
    made = bundle(tmp_path, store, used)
    made.manifest.unlink()
    made.manifest.mkdir()
    found = survey(later(roots=(tmp_path,)))
    assert str(made.path) in " ".join(found.notes)
    assert used.sha256 in kept(found)


def test_another_bundle_in_the_place_of_a_noted_one_does_not_count(store, put, later, tmp_path):
    first, second = put(), put(b"another")
    made = bundle(tmp_path, store, first)
    shutil.rmtree(made.path)
    again = bundle(tmp_path, store, second)
    assert again.path == made.path
    assert "gone or moved" in kept(survey(later()))[first.sha256]
    assert going(survey(later(gone=True))) == {first.sha256}


def test_a_place_that_may_only_be_unmounted_counts(store, put, later, tmp_path):
    used = put()
    place = tmp_path / "scratch" / "user" / "run"
    add_use(store, Use(used.sha256, "2026-01-02T03:04:05Z", place))
    assert f"--forget {place.parent}" in kept(survey(later()))[used.sha256]
    (tmp_path / "scratch").mkdir()
    assert going(survey(later())) == set()
    assert going(survey(later(forgotten=(tmp_path / "scratch",)))) == {used.sha256}
    assert going(survey(later(gone=True))) == set()
    place.parent.mkdir()
    assert going(survey(later())) == set()
    assert going(survey(later(gone=True))) == {used.sha256}


def test_a_bundle_in_the_making_counts(store, put, tmp_path):
    used = put()
    note_use(store.sif(used.sha256), used.sha256, tmp_path / "bundle")
    found = survey(Order(store=store, now=time.time() + 60, min_age_s=3600))
    assert "is being made" in kept(found)[used.sha256]


def test_the_current_image_of_a_shipped_definition_stays(store, put, later):
    path = shipped_definitions()["pyuvsim"]
    current = {
        "definition": {"name": path.name, "sha256": sha256_file(path)},
        "lock": {"name": "pyuvsim.lock", "sha256": sha256_file(path.with_suffix(".lock"))},
    }
    old = put(b"old", name="pyuvsim")
    new = put(b"new", name="pyuvsim", **current)
    signature = {"fingerprint": "A" * 40, "unsigned_sha256": new.sha256}
    late = "2026-06-01T00:00:00Z"
    signed = put(b"s", name="pyuvsim", signature=signature, created_utc=late, **current)
    found = collect(later())
    assert going(found) == {old.sha256}
    assert set(kept(found)) == {new.sha256, signed.sha256}


def test_a_bundle_that_comes_between_keeps_its_image(store, put, later, tmp_path, monkeypatch):
    record = put()
    aside = clearing.put_aside

    def put_aside(layout, sha256):
        add_use(store, Use(sha256, "2027-01-02T03:04:05Z", tmp_path))
        aside(layout, sha256)
        assert store.records(sha256) == ()

    monkeypatch.setattr(clearing, "put_aside", put_aside)
    found = collect(later())
    assert found.items == ()
    assert store.get(record.sha256) == record


def test_bundling_waits_for_what_is_being_cleared_away(store, put, tmp_path):
    record = put()
    code = (
        "import sys, time; from pathlib import Path\n"
        "from valska.external_tools.core.images.store import ImageStore\n"
        "from valska.external_tools.core.images.store.adding import put_aside, restore\n"
        "store, sha256 = ImageStore(Path(sys.argv[1])), sys.argv[2]\n"
        "with store.holding_image(sha256):\n"
        "    put_aside(store, sha256); print(flush=True); time.sleep(1)\n"
        "    restore(store, sha256)\n"
    )
    argv = [sys.executable, "-c", code, store.root, record.sha256]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert store.records() == ()
        note_use(store.sif(record.sha256), record.sha256, tmp_path / "bundle")
        assert store.records(record.sha256)
    assert other.returncode == 0


def test_bundling_an_image_that_has_gone_meanwhile(store, put, later, tmp_path):
    record = put()
    image = resolve_image("tool", store)
    (tmp_path / "bystander").mkdir()
    collect(later())
    assert not image.path.exists()
    put()
    store.sif(record.sha256).unlink()
    with pytest.raises(PrerequisiteError, match="has just been cleared away") as caught:
        toy.bundle(tmp_path, image=image, runner=RunnerKind.CONTAINER)
    assert caught.value.exit_code == 3


def test_many_at_once_bundle_and_clear_away(store, put, tmp_path):
    """Bundles of one image, made while it is cleared away again and again: none is left without."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from valska.external_tools.core.images.store import ImageStore\n"
        "from valska.external_tools.core.images.store.gc import Order, collect\n"
        "store = ImageStore(Path(sys.argv[1]))\n"
        "end = time.monotonic() + 4\n"
        "while time.monotonic() < end:\n"
        "    collect(Order(store=store, min_age_s=0, now=time.time() + 1))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, store.root]) as other:
        kept = gone = 0
        while other.poll() is None:
            record = put()
            place = tmp_path / str(kept + gone)
            place.mkdir()
            try:
                note_use(store.sif(record.sha256), record.sha256, place)
            except PrerequisiteError:
                gone += 1
            else:
                kept += 1
                assert store.find(record.sha256)
                assert store.sif(record.sha256).is_file()
            place.rmdir()
    assert other.returncode == 0
    assert kept > 3, gone


def test_remains_go_after_a_day(store, put, later):
    record = put()
    store.record(record.sha256).unlink()
    (store.directory / f".{record.sha256}.json.0a1b2c3d4e5f.tmp").write_text("x")
    (store.root / ".build-nameless").mkdir()
    assert survey(Order(store=store)).items == ()
    found = collect(later())
    assert {item.name for item in found.items} >= {"remains of an image", ".build-nameless"}
    assert len(found.items) == 3
    assert list(store.directory.iterdir()) == []
    assert not (store.root / ".build-nameless").exists()


def test_remains_that_a_bundle_needs_stay(store, put, later, tmp_path):
    record = put()
    made = bundle(tmp_path, store, record)
    store.record(record.sha256).unlink()
    assert str(made.path) in kept(collect(later()))[record.sha256]
    assert store.sif(record.sha256).is_file()


def test_a_record_that_cannot_be_read_is_judged_as_well(store, put, later, tmp_path):
    record = put()
    bundle(tmp_path, store, record)
    store.record(record.sha256).write_text("no record")
    assert record.sha256 in kept(collect(later()))


def test_a_line_that_was_cut_off_spoils_no_other(store, put, tmp_path):
    record = put()
    store.bundles.write_bytes(record.sha256.encode() + b"\t2026-01-02T")
    use = Use(record.sha256, "2026-01-02T03:04:05Z", tmp_path / "a\tb\n\udcff")
    add_use(store, use)
    add_use(store, use)
    assert read_uses(store) == [use, use]


def test_a_store_that_was_never_used(store, later):
    assert survey(later()) == clearing.Survey()
    assert collect(later()) == clearing.Survey()

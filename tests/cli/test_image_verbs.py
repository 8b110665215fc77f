"""`valska image`: what a user sees of the store."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import imagestore
import pytest
from imagestore import loose

from valska.external_tools.core.images.store import ImageStore, verification
from valska.external_tools.core.images.store.uses import Use, add_use


@pytest.fixture
def store(tmp_path, monkeypatch):
    store = ImageStore(tmp_path / "images")
    monkeypatch.setenv("VALSKA_IMAGES", os.fspath(store.root))
    return store


@pytest.fixture
def record(store):
    return imagestore.put(store)


def test_the_group_knows_its_commands(user):
    text = user.ok("image", "--help").stdout
    for name in ("list", "show", "verify", "export", "import", "sign", "gc"):
        assert f"  {name} " in text
    result = user.run("image", "lsit")
    assert result.exit_code == 2
    assert "Did you mean 'list'?" in result.stderr
    done = user.process("image", "shw", "x")
    assert done.stderr.splitlines()[-1] == "Hint: See `valska image --help`."


def test_a_command_loads_only_its_own_module(tmp_path):
    code = (
        "import sys; from valska.cli import main\n"
        "main(['image', 'list', '--images', sys.argv[1]], standalone_mode=False)\n"
        "heavy = {'oras', 'cyclonedx', 'jsonschema', 'h5py', 'spython', 'zstandard', 'uv'}\n"
        "print(sorted(heavy & set(sys.modules)),\n"
        "      sorted(name for name in sys.modules if name.startswith('valska.cli.image_')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.strip().splitlines()[-1]
    assert loaded == "[] ['valska.cli.image_list', 'valska.cli.image_options']"


def test_list(user, store, record, tmp_path):
    add_use(store, Use(record.sha256, "2026-01-02T03:04:05Z", tmp_path))
    add_use(store, Use(record.sha256, "2026-01-02T03:04:06Z", tmp_path))
    add_use(store, Use(record.sha256, "2026-01-02T03:04:05Z", tmp_path / "gone"))
    lines = user.ok("image", "list").stdout.splitlines()
    assert lines[0].split() == ["image", "name", "made", "bundles", "size"]
    assert lines[1].split() == [record.sha256[:12], "tool", "2026-01-02", "built", "1", "8", "B"]
    (found,) = json.loads(user.ok("image", "list", "--json").stdout)
    assert found["path"] == os.fspath(store.sif(record.sha256))
    assert found["bundles"] == 1
    assert user.ok("image", "list", "other").stdout == ""
    assert "no image of other" in user.ok("image", "list", "other").stderr


def test_show(user, store, record, tmp_path):
    add_use(store, Use(record.sha256, "2026-01-02T03:04:05Z", tmp_path / "x\ty"))
    text = user.ok("image", "show", "tool").stdout
    assert record.sha256 in text
    assert os.fspath(store.sif(record.sha256)) in text
    assert "x\\ty" in text
    found = json.loads(user.ok("image", "show", record.sha256[:8], "--json").stdout)
    assert found["record"] == record.to_json()
    assert found["bundles"] == [os.fspath(tmp_path / "x\ty")]
    assert found["unchanged"] is True


@pytest.mark.parametrize("verb", ["show", "verify", "export", "sign"])
@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("sha256:00", "no image 00 in the store"),
        ("0" * 64, "no image 000"),
        ("nothing", "no image of nothing"),
        ("../../etc/passwd", "no image of ../../etc/passwd"),
    ],
)
def test_no_such_image(user, record, verb, image, message):
    more = ["-o", "out"] if verb == "export" else []
    done = user.process("image", verb, image, *more)
    assert done.returncode == 3, done.stderr
    assert message in done.stderr
    assert done.stderr.count("Error:") == done.stderr.count("Hint:") == 1


def test_a_prefix_of_several(user, store):
    digests = sorted(imagestore.put(store, str(n).encode()).sha256 for n in range(17))
    shared = next(a[0] for a, b in itertools.pairwise(digests) if a[0] == b[0])
    done = user.process("image", "show", f"sha256:{shared}")
    assert done.returncode == 3
    assert f"begin with {shared}" in done.stderr
    assert "Give more digits" in done.stderr


def test_an_export_into_a_directory_that_is_not_there(user, store, record):
    result = user.run("image", "export", "tool", "-o", "nodir/x.tar")
    assert (result.exit_code, "no such directory: nodir" in result.stderr) == (2, True)


def test_verify_names_an_image_without_a_record(user, store, record, monkeypatch):
    other = imagestore.put(store, b"another", "other")
    store.record(record.sha256).unlink()
    assert record.sha256[:12] not in user.ok("image", "verify").stdout
    monkeypatch.setattr(verification, "MIN_AGE_S", 0)
    done = user.run("image", "verify")
    assert done.exit_code == 5
    assert "it has no record" in done.stdout
    assert f"1 image is not as recorded: {record.sha256[:12]}" in done.stderr
    found = json.loads(user.run("image", "verify", "--json").stdout)
    assert {one["sha256"]: one["ok"] for one in found} == {record.sha256: False, other.sha256: True}


def test_verify(user, store, record):
    other = imagestore.put(store, b"another", name="other")
    assert user.ok("image", "verify").stdout.count("ok") == 2
    store.sif(record.sha256).write_bytes(b"an imagf")
    done = user.process("image", "verify")
    assert done.returncode == 5
    assert "has been altered" in done.stdout
    assert f"1 image is not as recorded: {record.sha256[:12]}" in done.stderr
    assert user.ok("image", "verify", "other").stdout.split() == [other.sha256[:12], "other", "ok"]
    found = json.loads(user.process("image", "verify", record.sha256, "--json").stdout)
    assert [one["ok"] for one in found] == [False]
    store.record(record.sha256).write_text("no record")
    done = user.process("image", "verify", record.sha256)
    assert done.returncode == 5
    assert "its record is not usable" in done.stdout


def test_export_and_import(user, store, record, tmp_path):
    assert (
        "Nothing was written" in user.ok("image", "export", "tool", "-o", "x", "--dry-run").stderr
    )
    user.ok("image", "export", "tool", "-o", "out.tar")
    other = tmp_path / "other"
    result = user.ok("image", "import", "out.tar", "--images", other)
    assert result.stdout.strip() == os.fspath(other / "sha256" / f"{record.sha256}.sif")
    assert "Imported tool" in result.stderr
    again = user.ok("image", "import", "out.tar", "--images", other, "--json")
    assert json.loads(again.stdout)[0]["new"] is False
    done = user.process("image", "export", "tool", "-o", "out.tar")
    assert done.returncode == 2
    assert "exists already" in done.stderr


def test_import_of_a_file(user, store):
    sif = loose(user.cwd)
    place = user.ok("image", "import", sif).stdout.strip()
    assert ImageStore(store.root).get("a5df3fde").name == "tool"
    assert Path(place).read_bytes() == b"an image"


def test_a_dry_run_of_import_checks_and_stores_nothing(user, store, record, tmp_path):
    user.ok("image", "export", "tool", "-o", "out.tar")
    user.ok("image", "export", "tool", "-o", "out")
    other = tmp_path / "other"
    for source in ("out.tar", "out", loose(user.cwd)):
        told = user.ok("image", "import", source, "--dry-run", "--images", other)
        assert f"Would import tool {record.sha256[:12]}" in told.stderr
        assert not other.exists()
    known = user.ok("image", "import", "out.tar", "--dry-run", "--json")
    (one,) = json.loads(known.stdout)
    assert (one["new"], one["dry_run"]) == (False, True)
    (one,) = json.loads(user.ok("image", "import", "out.tar", "--json").stdout)
    assert one["dry_run"] is False
    (user.cwd / "out" / "sha256" / f"{record.sha256}.sif").write_bytes(b"other")
    assert user.run("image", "import", "out", "--dry-run", "--images", other).exit_code == 5


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("nothing.sif", 3, "no such image"),
        ("text.sif", 3, "not a SIF"),
        (".", 2, "not an export"),
        ("ftp://host/x", 2, "do not come from ftp://"),
    ],
)
def test_import_of_what_is_no_image(user, store, source, code, message):
    user.write("text.sif", "hello")
    done = user.process("image", "import", source)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert store.list() == ()


def test_gc_tells_and_then_does_it(user, store, record, tmp_path):
    assert "younger than a day" in user.ok("image", "gc").stderr
    told = user.ok("image", "gc", "--older-than", "0")
    assert record.sha256[:12] in told.stdout
    assert "--execute does it" in told.stderr
    assert store.find(record.sha256)
    add_use(store, Use(record.sha256, "2026-01-02T03:04:05Z", tmp_path))
    kept = user.ok("image", "gc", "--older-than", "0", "--execute")
    assert f"Kept {record.sha256[:12]} tool: {tmp_path} uses it" in kept.stderr
    store.bundles.unlink()
    done = json.loads(user.ok("image", "gc", "--older-than", "0", "--execute", "--json").stdout)
    assert [one["sha256"] for one in done["items"]] == [record.sha256]
    assert store.find(record.sha256) == ()


def test_gc_keeps_what_the_results_use(user, store, record, tmp_path):
    user.write("runtime_paths.yaml", f"results_root: {json.dumps(str(tmp_path / 'results'))}\n")
    manifest = tmp_path / "results" / "run" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"image": {"sha256": record.sha256}}))
    (manifest.parent / "SHA256SUMS").write_text("")
    command = ("image", "gc", "--older-than", "0", "--execute")
    found = user.ok(*command, "--config", "runtime_paths.yaml")
    assert f"{manifest.parent} uses it" in found.stderr
    found = user.ok(*command, "--root", tmp_path / "results")
    assert f"{manifest.parent} uses it" in found.stderr
    assert user.ok(*command).stdout
    assert store.find(record.sha256) == ()


def test_a_store_that_cannot_be_written(user, tmp_path):
    (tmp_path / "file").write_text("")
    sif = loose(user.cwd)
    done = user.process("image", "import", sif, "--images", tmp_path / "file" / "store")
    assert done.returncode == 3
    assert "cannot be written" in done.stderr
    assert "VALSKA_IMAGES" in done.stderr


def test_signer_is_for_certain_images(user, record):
    done = user.process("image", "verify", "--signer", "A" * 40)
    assert done.returncode == 2
    assert "Name them" in done.stderr


@pytest.mark.parametrize(
    ("name", "packages", "told"),
    [
        ("hello", {"python": {"pip": "24.0"}}, True),
        ("hello", {"python": {"pip": "24.0", "pyuvsim": "1.4"}}, False),
        ("hello", {"conda": [{"name": "PyUVSim", "version": "1", "build": None, "channel": None,
                              "place": "opt"}]}, False),
        ("pyuvsim", {"python": {"pip": "24.0"}}, False),
        ("hello", {}, False),
    ],
)  # fmt: skip
def test_an_image_without_the_tool_is_told(user, store, name, packages, told):
    imagestore.put(store, name=name, packages=packages)
    made = ("bundle", "pyuvsim", "--template", "hera_small", "--image", name, "-o", "run")
    said = user.ok(*made).stderr
    assert ("hello may be the wrong image: it has no package pyuvsim" in said) == told

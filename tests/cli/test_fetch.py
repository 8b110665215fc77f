"""``valska fetch`` and ``valska load``, as a user types them, and ``valska submit`` after them."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.utils import load_json, sha256_bytes

DEFINITION = "Bootstrap: docker\nFrom: 127.0.0.1:9/base@sha256:" + "c" * 64 + "\n"
IMAGE = b"no image, but that is not looked at here"


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Whoever asks an index finds none."""
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_CACHE_DIR", os.fspath(tmp_path / "uv"))


@pytest.fixture
def source(user):
    """An input of the user's own, which can be taken away."""
    user.write("lines.yaml", "data: lines.txt\n")
    return user.write("lines.txt", "1\n2\n3\n")


@pytest.fixture
def make(user, source):
    def make(*args, runner=("--runner", "host"), output="bundle"):
        words = ("bundle", "linetool", "lines.yaml", *runner, "--inputs", "reference")
        user.ok(*words, "-o", output, *args)
        return Bundle(user.cwd / output)

    return make


@pytest.fixture
def image(user, monkeypatch):
    """A store with an image of a definition."""
    store = ImageStore(user.cwd / "images")
    monkeypatch.setenv("VALSKA_IMAGES", os.fspath(store.root))
    definition = {"name": "linetool.def", "sha256": sha256_bytes(DEFINITION.encode())}
    sha256 = sha256_bytes(IMAGE)
    record = ImageRecord(
        sha256=sha256,
        size=len(IMAGE),
        name="linetool",
        created_utc="2026-01-02T03:04:05Z",
        origin="built",
        definition=definition,
    )
    with store.workspace() as work:
        (work / "image.sif").write_bytes(IMAGE)
        store.add(work / "image.sif", record, {"linetool.def": DEFINITION.encode()})
    return sha256


def rows(text):
    return [line.split() for line in text.splitlines()[1:]]


def test_a_bundle_runs_where_its_input_never_was(user, make, source):
    bundle = make()
    planned = user.ok("fetch", "bundle", "--dry-run")
    assert rows(planned.stdout) == [["input", "data", "6", "B", *str(source).split()]]
    assert planned.stderr == "1 file, 6 B.\nNothing was fetched.\n"
    done = user.ok("fetch", "bundle", "-o", "kit.tar")
    assert done.stdout == "kit.tar\n"
    assert "Packed 1 file: 0 fetched, 1 from here." in done.stderr
    source.unlink()
    refused = user.run("submit", "bundle", "--scheduler", "local")
    assert refused.exit_code == 3
    assert f"not here: the input data ({source})" in refused.stderr
    assert "valska fetch bundle --for run -o kit.tar" in refused.stderr
    assert "valska load kit.tar" in refused.stderr
    loaded = user.ok("load", "kit.tar")
    assert loaded.stdout == "valska submit bundle\n"
    user.ok("submit", "bundle", "--scheduler", "local", "--wait")
    assert (bundle.outputs / "double.txt").read_text() == "6\n"
    user.ok("verify", "bundle")


def test_a_sweep_runs_where_its_input_never_was(user, source):
    user.write("points.csv", "label,run\na,true\nb,echo\n")
    user.ok("sweep", "linetool", "lines.yaml", "--runner", "host", "--points", "points.csv",
            "--inputs", "reference", "-o", "S")  # fmt: skip
    user.ok("fetch", "S", "-o", "kit.tar")
    source.unlink()
    refused = user.run("submit", "S", "--scheduler", "local")
    assert (refused.exit_code, "not here: the input data" in refused.stderr) == (3, True)
    assert user.ok("load", "kit.tar").stdout == "valska submit S\n"
    user.ok("submit", "S", "--scheduler", "local", "--wait")
    assert (user.cwd / "S/points/b/outputs/double.txt").read_text() == "6\n"


def test_a_point_of_a_sweep_is_a_target(user, source):
    user.ok("sweep", "linetool", "lines.yaml", "--runner", "host", "--values", "run=true,false",
            "--inputs", "reference", "-o", "S")  # fmt: skip
    point = sorted((user.cwd / "S/points").iterdir())[0]
    shown = json.loads(user.ok("fetch", point, "--dry-run", "--json").stdout)
    assert [file["kind"] for file in shown["files"]] == ["input"]


def test_an_archive_needs_what_is_not_in_it(user, make, source, image, monkeypatch):
    make(runner=("--image", f"sha256:{image}"))
    user.ok("archive", "bundle", "--without-image", "--inputs", "copied", "-o", "obs.tar.zst")
    shutil.rmtree(user.cwd / "bundle")
    made = json.loads(
        user.ok("fetch", "obs.tar.zst", "--for", "run", "-o", "kit.tar", "--json").stdout
    )
    assert made["targets"][0]["kind"] == "archive"
    assert [file["kind"] for file in made["files"]] == [
        "image-file",
        "image-file",
        "image",
        "input",
    ]
    monkeypatch.setenv("VALSKA_IMAGES", os.fspath(user.cwd / "there"))
    loaded = user.ok("load", "kit.tar")
    assert loaded.stdout == "valska reproduce obs.tar.zst\n"
    whole = (user.cwd / "obs.tar.zst").read_bytes()
    (user.cwd / "obs.tar.zst").write_bytes(whole[: len(whole) // 2])
    refused = user.run("fetch", "obs.tar.zst", "--dry-run")
    assert refused.exit_code == 5


def test_submit_names_everything_at_once(user, make, source, image):
    make(runner=("--image", f"sha256:{image}"))
    source.unlink()
    shutil.rmtree(user.cwd / "images")
    refused = user.run("submit", "bundle", "--scheduler", "slurm", "--config", slurm(user))
    assert refused.exit_code == 3
    first = refused.stderr.splitlines()[0]
    assert f"the image {image[:12]} is neither in the store" in first
    assert f"; the input data ({source})" in first


def slurm(user):
    """Return a configuration whose sbatch is a program that does nothing."""
    return user.write("runtime_paths.yaml", "sbatch: 'true'\n")


def test_an_image_travels_with_all_that_belongs_to_it(user, make, image, monkeypatch):
    make(runner=("--image", f"sha256:{image}"))
    made = user.ok("fetch", "bundle", "--for", "run", "-o", "kit.tar", "--json")
    kit = json.loads(made.stdout)
    assert [file["kind"] for file in kit["files"]] == ["image-file", "image-file", "image", "input"]
    assert kit["targets"][0]["kind"] == "bundle"
    assert kit["targets"][0]["id"] == load_json(user.cwd / "bundle/manifest.json")["bundle_id"]
    monkeypatch.setenv("VALSKA_IMAGES", os.fspath(user.cwd / "there"))
    rehearsed = json.loads(user.ok("load", "kit.tar", "--dry-run", "--json").stdout)
    assert rehearsed["possible"] == ["valska submit bundle"]
    assert not ImageStore(user.cwd / "there").find(image)
    loaded = json.loads(user.ok("load", "kit.tar", "--json").stdout)
    assert loaded["sha256"] == kit["sha256"] == rehearsed["sha256"]
    assert loaded["new"] == [file["path"] for file in kit["files"]]
    there = ImageStore(user.cwd / "there")
    assert there.sif(image).read_bytes() == IMAGE
    assert there.files(there.get(image)) == {"linetool.def": DEFINITION.encode()}
    assert json.loads(user.ok("load", "kit.tar", "--json").stdout)["new"] == []


def test_an_image_that_is_in_no_store_travels_too(user, make, image, monkeypatch):
    store = ImageStore(user.cwd / "images")
    path = user.cwd / "own.sif"
    shutil.copy(store.sif(image), path)
    shutil.copy(store.record(image), path.with_suffix(".json"))
    shutil.rmtree(store.root)
    make(runner=("--image", "./own.sif"))
    user.ok("fetch", "bundle", "--for", "run", "-o", "kit.tar")
    monkeypatch.setenv("VALSKA_IMAGES", os.fspath(user.cwd / "there"))
    user.ok("load", "kit.tar")
    assert ImageStore(user.cwd / "there").get(image).name == "linetool"


def test_a_bundle_whose_image_cannot_be_built_elsewhere_still_runs(user, make, image):
    store = ImageStore(user.cwd / "images")
    local = b"Bootstrap: localimage\nFrom: base.sif\n"
    store.source(image, "linetool.def").write_bytes(local)
    make(runner=("--image", f"sha256:{image}"))
    done = user.ok("fetch", "bundle", "-o", "kit.tar")
    assert "the image cannot be built from this kit: no such base" in done.stderr
    refused = user.run("fetch", "bundle", "--for", "build", "-o", "2.tar")
    assert (refused.exit_code, "no such base" in refused.stderr) == (3, True)


def test_what_a_run_needs_is_named_at_once_when_it_is_not_here(user, make, source, image):
    make(runner=("--image", f"sha256:{image}"))
    source.unlink()
    shutil.rmtree(user.cwd / "images")
    refused = user.run("fetch", "bundle", "-o", "kit.tar")
    assert refused.exit_code == 3
    first = refused.stderr.splitlines()[0]
    assert f"the input data, {source}" in first
    assert f"the image {image[:12]}" in first
    assert not (user.cwd / "kit.tar").exists()


def test_an_input_that_was_altered_is_not_packed(user, make, source):
    make()
    source.write_text("3\n2\n1\n")
    refused = user.run("fetch", "bundle", "-o", "kit.tar")
    assert refused.exit_code == 5
    assert f"{source} has been altered" in refused.stderr
    assert sorted(path.name for path in user.cwd.iterdir() if "kit" in path.name) == []


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("pyuvsi", "Did you mean 'pyuvsim'?"),
        ("linetool", "does not come with valska"),
        ("old.tar.zst", "old.tar.zst is not an archive"),
        ("lines.yaml", "neither a bundle, a sweep, an archive nor a definition"),
        (".", "there is no bundle, sweep, tool or definition '.'"),
    ],
)
def test_what_is_no_target_is_refused(user, source, target, told):
    user.write("old.tar.zst", "an archive")
    refused = user.run("fetch", target, "--dry-run")
    assert refused.exit_code == (3 if target == "linetool" else 2)
    assert told in refused.stderr


def test_a_run_that_needs_nothing_needs_no_kit(user):
    user.bundle()
    refused = user.run("fetch", "bundle", "--dry-run")
    assert (refused.exit_code, "there is nothing to fetch" in refused.stderr) == (2, True)


def test_a_file_is_not_replaced_unasked(user, make):
    make()
    refused = user.run("fetch", "bundle")
    assert (refused.exit_code, "-o KIT.tar" in refused.stderr) == (2, True)
    kit = user.write("kit.tar", "mine")
    refused = user.run("fetch", "bundle", "-o", "kit.tar")
    assert (refused.exit_code, kit.read_text()) == (2, "mine")
    user.ok("fetch", "bundle", "-o", "kit.tar", "--force")
    user.ok("load", "kit.tar")


def test_without_a_network_the_cause_is_told_and_nothing_is_left(user):
    before = sorted(user.cwd.iterdir())
    refused = user.run("fetch", "pyuvsim", "--for", "build", "-o", "kit.tar")
    assert refused.exit_code == 3
    assert "cannot be looked up" in refused.stderr
    assert "127.0.0.1:9" in refused.stderr
    assert "network" in refused.stderr.splitlines()[-1]
    assert sorted(user.cwd.iterdir()) == before


def test_a_kit_in_a_directory_that_is_not_there(user):
    result = user.run("fetch", "nothing", "-o", "nodir/kit.tar")
    assert (result.exit_code, "no such directory: nodir" in result.stderr) == (2, True)


def test_a_definition_without_an_image_is_for_building(user):
    refused = user.run("fetch", "pyuvsim", "--for", "run", "-o", "kit.tar")
    assert refused.exit_code == 3
    assert "no image of pyuvsim as it is now" in refused.stderr
    assert "--for build" in refused.stderr


def test_a_platform_that_the_lock_is_not_for_is_refused(user):
    words = ("fetch", "pyuvsim", "--for", "build", "--platform", "linux/arm64", "--dry-run")
    refused = user.run(*words)
    assert (refused.exit_code, "is for linux/amd64" in refused.stderr) == (2, True)


def test_no_kit_is_refused(user):
    missing = user.run("load", "none.tar")
    assert (missing.exit_code, "no such kit" in missing.stderr) == (3, True)
    user.write("no.tar", "no tar\n" * 200)
    refused = user.run("load", "no.tar")
    assert (refused.exit_code, "no.tar" in refused.stderr) == (5, True)


def test_a_file_that_is_no_kit_leaves_no_store(user):
    (user.cwd / "folder").mkdir()
    with tarfile.open(user.cwd / "other.tar", "w") as tar:
        tar.add(user.cwd / "folder", "folder")
    refused = user.run("load", "other.tar", "--images", "st")
    assert (refused.exit_code, "is not a kit" in refused.stderr) == (5, True)
    assert "valska fetch" in refused.stderr.splitlines()[-1]
    assert not (user.cwd / "st").exists()


def test_build_without_a_network_names_all_that_is_missing(user, monkeypatch, require):
    require(shutil.which("apptainer"), "valska build needs Apptainer")
    monkeypatch.setenv("VALSKA_IMAGES", os.fspath(user.cwd / "images"))
    refused = user.run("build", "--offline", "pyuvsim")
    assert refused.exit_code == 3
    first = refused.stderr.splitlines()
    text = next(line for line in first if "lacks" in line)
    assert "base docker://docker.io/library/python@sha256:" in text
    assert "wheel numpy==" in text
    assert "wheel pyuvsim==" in text
    assert "valska fetch pyuvsim --for build -o kit.tar" in refused.stderr


def test_the_definition_that_comes_with_valska_is_named_so(user, monkeypatch):
    from valska.external_tools.core.images.definition import shipped_definitions
    from valska.external_tools.core.kit.document import Kind, KitDocument, KitFile
    from valska.external_tools.core.kit.loading import built_from

    path = shipped_definitions()["pyuvsim"]
    files = [path, path.with_suffix(".lock")]
    entries = tuple(
        KitFile(
            path=f"definitions/{'a' * 12}/{p.name}",
            sha256=sha256_bytes(p.read_bytes()),
            size=p.stat().st_size,
            kind=Kind.DEFINITION,
            name=p.name,
        )
        for p in files
    )
    document = KitDocument(purpose="build", platform="linux/amd64", targets=(), files=entries)
    assert list(built_from(document, ImageStore(Path("x")))) == ["pyuvsim"]
    older = KitDocument(purpose="build", platform="linux/amd64", targets=(), files=(entries[0],))
    assert list(built_from(older, ImageStore(Path("x")))) == ["pyuvsim"]

"""A real registry on loopback: what a tag names, bases and SIFs out of it, SIFs into it."""

import base64
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from registries import Registry, TokenService, Wire, make_certificate

from valska.cli import main
from valska.external_tools.core.bundling import BundledImage
from valska.external_tools.core.errors import PrerequisiteError, UsageError, VerificationError
from valska.external_tools.core.images import resolve_image
from valska.external_tools.core.images.record import ImageRecord
from valska.external_tools.core.images.registry.client import (
    INDEX,
    config,
    connect,
    environment,
    manifest,
    resolve,
)
from valska.external_tools.core.images.registry.options import Http
from valska.external_tools.core.images.registry.pulling import (
    has_base,
    import_docker,
    import_oras,
    pull_base,
    pull_sif,
)
from valska.external_tools.core.images.registry.pushing import (
    push_image,
    read_target,
    stored_extras,
)
from valska.external_tools.core.images.registry.referrers import (
    RECORD_TYPE,
    Part,
    attach,
    list_referrers,
)
from valska.external_tools.core.images.registry.uploading import upload_manifest
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.utils import load_json, sha256_bytes, sha256_file

pytestmark = pytest.mark.apptainer

TINY_IMAGE = Path(__file__).parents[1] / "cluster" / "tiny-image.sh"
QUICK = Http(attempts=3, pause=0.3, timeout=(5, 20), environ={"HOME": "/nonexistent"})
PATIENT = replace(QUICK, attempts=8)
"""For a registry that comes back; a busy machine takes seconds to start it."""
BIG = 32 << 20
"""Bytes that do not fit into the buffers of a connection."""
PASSWORD = "correct horse"
IMPORT = """
import sys
from pathlib import Path
from valska.external_tools.core.images.registry.pulling import import_oras
from valska.external_tools.core.images.store import ImageStore

print(import_oras(sys.argv[1], ImageStore(Path(sys.argv[2]))).sha256)
"""

PULL_BASE = """
import sys
from pathlib import Path
from valska.external_tools.core.images.registry.pulling import pull_base

print(pull_base(sys.argv[1], Path(sys.argv[2])))
"""


@pytest.fixture(scope="module", autouse=True)
def programs(apptainer):
    for program in ("docker-registry", "skopeo"):
        if shutil.which(program) is None:
            reason = f"{program} is not here: tests/cluster/registry.sh install installs it"
            required = os.environ.get("VALSKA_REQUIRE_SERVICES") == "1"
            (pytest.fail if required else pytest.skip)(reason)


@pytest.fixture(scope="module")
def registry(programs, tmp_path_factory):
    registry = Registry(tmp_path_factory.mktemp("registry's files"))
    yield registry
    registry.stop()


@pytest.fixture(scope="module")
def sif(tmp_path_factory):
    """An image of bash and coreutils."""
    path = tmp_path_factory.mktemp("sif") / "tiny.sif"
    subprocess.run([TINY_IMAGE, path], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def tree(sif, tmp_path_factory):
    """The root of a file system of bash and coreutils."""
    root = tmp_path_factory.mktemp("tree") / "root"
    build = ["apptainer", "build", "--sandbox", root, sif]
    subprocess.run(build, check=True, capture_output=True)
    for path in (*root.glob(".*"), root / "singularity", root / "environment"):
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)
    return root


@pytest.fixture(scope="module")
def big(sif):
    """The image with many bytes more at its end, of which Apptainer takes no notice."""
    path = sif.with_name("big.sif")
    path.write_bytes(sif.read_bytes() + os.urandom(BIG))
    return path


@pytest.fixture(scope="module")
def pushed_big(registry, big):
    return push(big, f"{registry.host}/big:1")


@pytest.fixture
def wire(registry):
    wire = Wire(registry.port)
    yield wire
    wire.close()


@pytest.fixture
def store(tmp_path):
    return ImageStore(tmp_path / "images")


def push(path, name, http=QUICK, **options):
    """Push a file of which nothing is known."""
    image = BundledImage(path, sha256_file(path), path.stat().st_size)
    return push_image(image, read_target(f"oras://{name}"), http=http, **options)


class Told(list):
    """What a transfer has told of how far it is."""

    def __call__(self, done, total):
        self.append((done, total))

    def is_whole(self, size):
        """Tell whether it went to the end, and never beyond."""
        return self[-1] == (size, size) and max(self) == (size, size)

    @property
    def went_back(self):
        """Whether bytes went again."""
        return any(later < sooner for sooner, later in pairwise(self))


def change_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def left_in(directory):
    """Return the names of the files below a directory."""
    found = (path for path in directory.rglob("*") if path.is_file())
    return sorted(path.relative_to(directory).as_posix() for path in found)


# What a tag names


def test_a_tag_stands_for_the_digest_that_it_names_now(registry, tree):
    name = f"{registry.host}/names/base"
    first = registry.push_tree(tree, "names/base:1", IMAGE_ENV="PYTHON_VERSION=3.11.9")
    assert resolve(f"{name}:1", http=QUICK) == first
    second = registry.push_tree(tree, "names/base:1", IMAGE_ENV="PYTHON_VERSION=3.12.1")
    assert resolve(f"docker://{name}:1", http=QUICK) == second != first
    assert resolve(f"{name}@{first}", http=QUICK) == first
    assert environment(config(f"{name}@{first}", http=QUICK))["PYTHON_VERSION"] == "3.11.9"


def test_a_dry_run_of_import_names_the_digest_and_stores_nothing(registry, tree, tmp_path):
    pin = registry.push_tree(tree, "dry/base:1")
    source = f"docker://{registry.host}/dry/base:1"
    argv = ["image", "import", source, "--dry-run", "--images", str(tmp_path / "store")]
    done = CliRunner().invoke(main, argv)
    assert (done.exit_code, done.stdout) == (0, f"docker://{registry.host}/dry/base@{pin}\n")
    assert not (tmp_path / "store").exists()


def test_a_tag_that_names_images_for_several_platforms_stands_for_them_all(registry, tree):
    name = f"{registry.host}/names/many"
    index = push_index(registry, tree, "names/many")
    assert resolve(f"{name}:many", http=QUICK) == index
    assert resolve(f"{name}:many", platform="linux/arm64", http=QUICK) == index
    ours = manifest(f"{name}:many", platform="linux/amd64", http=QUICK)
    assert ours.digest == resolve(f"{name}:amd64", http=QUICK)
    with pytest.raises(PrerequisiteError, match="no image for linux/s390x") as caught:
        resolve(f"{name}:many", platform="linux/s390x", http=QUICK)
    assert caught.value.hint == "It has: linux/amd64, linux/arm64/v8."


def push_index(registry, tree, repository):
    """Push two images, and an index of them under the tag ``many``; return its digest."""
    entries = []
    for architecture, variant in (("amd64", None), ("arm64", "v8")):
        registry.push_tree(tree, f"{repository}:{architecture}", IMAGE_ENV=f"A={architecture}")
        image = manifest(f"{registry.host}/{repository}:{architecture}", http=QUICK)
        platform = {"os": "linux", "architecture": architecture}
        platform |= {"variant": variant} if variant else {}
        entries.append({**image.descriptor, "platform": platform})
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    upload_manifest(connect(f"{registry.host}/{repository}", QUICK), "many", INDEX, data)
    return f"sha256:{sha256_bytes(data)}"


@pytest.mark.parametrize(
    "wanted", ["names/base:nope", "no/such/repository:1", "names/base@sha256:" + "0" * 64]
)
def test_what_a_registry_does_not_have_is_named(registry, tree, wanted):
    registry.push_tree(tree, "names/base:1")
    with pytest.raises(PrerequisiteError, match="does not have") as caught:
        resolve(f"{registry.host}/{wanted}", http=QUICK)
    assert wanted in caught.value.message
    assert "tag" in caught.value.hint


# Bases


def test_a_base_has_the_same_bytes_wherever_it_is_pulled(registry, tree, tmp_path):
    digest = push_index(registry, tree, "bases/same")
    name = f"{registry.host}/bases/same"
    told = Told()
    one = pull_base(f"{name}:many", tmp_path / "one", http=QUICK, progress=told)
    other = pull_base(f"{name}@{digest}", tmp_path / "other", http=QUICK)
    assert told.is_whole(told[-1][1])
    assert not told.went_back
    assert one.name == other.name == f"{digest.removeprefix('sha256:')}.oci.tar"
    assert one.read_bytes() == other.read_bytes()
    assert left_in(tmp_path / "one") == [one.name]


def test_apptainer_builds_on_a_base_that_was_pulled(registry, tree, tmp_path_factory):
    directory = tmp_path_factory.mktemp("bases")
    digest = push_index(registry, tree, "bases/build")
    base = pull_base(f"{registry.host}/bases/build@{digest}", directory, http=QUICK)
    definition = directory / "x.def"
    definition.write_text(f"Bootstrap: oci-archive\nFrom: {base}\n")
    root = directory / "root"
    built = subprocess.run(
        ["apptainer", "build", "--fakeroot", "--sandbox", root, definition],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert (root / "bin/bash").read_bytes() == (tree / "bin/bash").read_bytes()


def test_a_base_that_is_there_is_not_fetched_again(registry, tree, wire, tmp_path):
    digest = registry.push_tree(tree, "bases/kept:1")
    name = f"{wire.host}/bases/kept@{digest}"
    pull_base(name, tmp_path, http=QUICK)
    passed = wire.passed
    pull_base(name, tmp_path, http=QUICK)
    assert wire.passed == passed


def test_two_pulls_at_once_fetch_a_base_once(registry, tree, wire, tmp_path):
    root, bases = tmp_path / "root", tmp_path / "bases"
    shutil.copytree(tree, root, symlinks=True)
    (root / "random").write_bytes(os.urandom(1 << 20))
    digest = registry.push_tree(root, "bases/two:1")
    wire.pause = 0.01
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PULL_BASE, f"{wire.host}/bases/two@{digest}", bases],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    first, second = (one.communicate(timeout=300)[0] for one in both)
    assert first == second
    assert has_base(Path(first.strip()), digest)
    assert left_in(bases) == [Path(first.strip()).name]
    size = Path(first.strip()).stat().st_size
    assert size // 2 < wire.passed < size * 3 // 2


def test_a_base_that_was_altered_or_cut_short_is_fetched_anew(registry, tree, tmp_path):
    digest = registry.push_tree(tree, "bases/altered:1")
    name = f"{registry.host}/bases/altered@{digest}"
    path = pull_base(name, tmp_path, http=QUICK)
    whole = path.read_bytes()
    for harm in (change_a_byte, lambda path: os.truncate(path, 2000)):
        harm(path)
        assert not has_base(path, digest)
        pull_base(name, tmp_path, http=QUICK)
        assert path.read_bytes() == whole
        assert has_base(path, digest)


def test_a_base_for_another_platform_does_not_count(registry, tree, tmp_path):
    digest = push_index(registry, tree, "bases/platforms")
    name = f"{registry.host}/bases/platforms@{digest}"
    path = pull_base(name, tmp_path, platform="linux/arm64", http=QUICK)
    assert has_base(path, digest, "linux/arm64")
    assert not has_base(path, digest, "linux/amd64")


# What a registry serves is not what its digest says


def test_a_layer_that_is_not_what_its_digest_says_is_refused(registry, tree, tmp_path):
    digest = registry.push_tree(tree, "tampered/layer:1", IMAGE_ENV="TAMPERED=layer")
    name = f"{registry.host}/tampered/layer@{digest}"
    configuration = manifest(name, http=QUICK).content["config"]["digest"]
    change_a_byte(registry.blob(configuration))
    with pytest.raises(VerificationError, match=configuration) as caught:
        pull_base(name, tmp_path / "bases", http=QUICK)
    assert caught.value.exit_code == 5
    assert left_in(tmp_path / "bases") == []


def test_a_manifest_that_is_not_what_its_digest_says_is_refused(registry, tree, tmp_path):
    digest = registry.push_tree(tree, "tampered/manifest:1", IMAGE_ENV="TAMPERED=manifest")
    path = registry.blob(digest)
    path.write_bytes(path.read_bytes().replace(b'"layers"', b'"lay\\u0065rs"'))
    with pytest.raises(VerificationError, match=digest):
        pull_base(f"{registry.host}/tampered/manifest@{digest}", tmp_path, http=QUICK)
    assert left_in(tmp_path) == []


def test_a_sif_that_is_not_what_its_digest_says_is_refused(registry, sif, store, tmp_path):
    path = tmp_path / "other.sif"
    path.write_bytes(sif.read_bytes() + b"other")
    pushed = push(path, f"{registry.host}/tampered/sif:1")
    change_a_byte(registry.blob(pushed.sha256))
    with pytest.raises(VerificationError, match=pushed.sha256):
        import_oras(pushed.uri, store, http=QUICK)
    assert store.list() == ()
    assert left_in(store.root) == []


# A registry that goes away


def test_a_registry_gone_in_the_middle_of_a_pull_is_asked_again(
    registry, wire, pushed_big, tmp_path, caplog
):
    def restart():
        registry.stop()
        registry.start()

    wire.when_passed(BIG // 8, restart)
    name, told = f"oras://{wire.host}/big:1", Told()
    with caplog.at_level(logging.WARNING):
        pulled = pull_sif(name, tmp_path, http=PATIENT, progress=told)
    assert sha256_file(pulled.path) == pushed_big.sha256
    assert told.is_whole(pulled.path.stat().st_size)
    assert told.went_back
    assert wire.passed > BIG * 9 // 8
    assert "trying again" in caplog.text


def test_a_registry_that_does_not_come_back_is_named_and_nothing_is_stored(
    registry, wire, pushed_big, store, caplog
):
    wire.when_passed(BIG // 8, registry.stop)
    try:
        with (
            caplog.at_level(logging.WARNING),
            pytest.raises(PrerequisiteError, match=f"{wire.host} does not answer") as caught,
        ):
            import_oras(f"oras://{wire.host}/big:1", store, http=QUICK)
    finally:
        registry.start()
    assert caught.value.exit_code == 3
    assert caplog.text.count("trying again") == QUICK.attempts - 1
    assert left_in(store.root) == []


def test_a_registry_gone_in_the_middle_of_a_push_is_asked_again(registry, wire, sif, tmp_path):
    def restart():
        registry.stop()
        registry.start()

    path = tmp_path / "other.sif"
    path.write_bytes(sif.read_bytes() + os.urandom(BIG))
    wire.when_passed(BIG // 8, restart)
    told = Told()
    pushed = push(path, f"{wire.host}/gone/push:1", PATIENT, progress=told)
    assert wire.passed > BIG * 9 // 8
    assert told.is_whole(path.stat().st_size)
    assert told.went_back
    again = Told()
    assert not push(path, f"{registry.host}/gone/push:1", progress=again).uploaded
    assert again == []
    at_home = pushed.uri.replace(wire.host, registry.host)
    assert sha256_file(pull_sif(at_home, tmp_path, http=QUICK).path) == sha256_file(path)


def test_a_push_that_fails_leaves_no_tag(registry, wire, sif, tmp_path):
    path = tmp_path / "other.sif"
    path.write_bytes(sif.read_bytes() + os.urandom(BIG))
    wire.when_passed(BIG // 8, registry.stop)
    with pytest.raises(PrerequisiteError, match="does not answer"):
        push(path, f"{wire.host}/gone/failed:1")
    registry.start()
    with pytest.raises(PrerequisiteError, match="does not have"):
        resolve(f"{registry.host}/gone/failed:1", http=QUICK)


def test_a_disk_that_takes_no_more_is_told_and_nothing_is_stored(registry, pushed_big, store):
    limited = ["bash", "-c", 'ulimit -f 4096; exec "$@"', "-"]
    done = subprocess.run(
        [*limited, sys.executable, "-c", IMPORT, pushed_big.uri, store.root],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"PrerequisiteError: {store.root} cannot be written: file too large" in done.stderr
    assert left_in(store.root) == []


def test_a_registry_that_never_answers_is_given_up(store):
    began = time.monotonic()
    with pytest.raises(PrerequisiteError, match="connection refused"):
        import_oras("oras://127.0.0.1:9/x:1", store, http=QUICK)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("part", [0.2, 1.0])
def test_a_killed_import_leaves_the_store_whole(registry, wire, pushed_big, store, part):
    wire.pause = 0.003
    importing = start_import(f"oras://{wire.host}/big:1", store)
    wait_for(lambda: wire.passed > BIG * part)
    importing.send_signal(signal.SIGKILL)
    importing.communicate()
    assert store.list() == ()
    assert list(store.directory.iterdir()) == []
    record = import_oras(f"oras://{registry.host}/big:1", store, http=QUICK)
    assert record.sha256 == pushed_big.sha256 == sha256_file(store.sif(record.sha256))
    assert not list(store.root.glob(".build-*"))


def test_two_imports_at_once_fetch_an_image_once(registry, wire, pushed_big, store):
    wire.pause = 0.002
    both = [start_import(f"oras://{wire.host}/big:1", store) for _ in range(2)]
    told = [one.communicate(timeout=300) for one in both]
    assert [out.strip() for out, _ in told] == [pushed_big.sha256] * 2, told
    assert wire.passed < BIG * 3 // 2
    assert len(store.list()) == 1


def start_import(uri, store):
    return subprocess.Popen(
        [sys.executable, "-c", IMPORT, uri, store.root],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# Images in and out


def test_what_is_pushed_apptainer_pulls(registry, sif, tmp_path):
    pushed = push(sif, f"{registry.host}/out/tiny:1")
    back = tmp_path / "back.sif"
    pull = ["apptainer", "pull", "--no-https", back, f"oras://{registry.host}/out/tiny:1"]
    subprocess.run(pull, check=True, capture_output=True)
    assert sha256_file(back) == pushed.sha256 == sha256_file(sif)
    at_digest = pull_sif(pushed.uri, tmp_path, http=QUICK)
    assert sha256_file(at_digest.path) == pushed.sha256


def test_what_apptainer_pushes_is_imported(registry, sif, store):
    uri = f"oras://{registry.host}/out/pushed-by-apptainer:1"
    subprocess.run(
        ["apptainer", "push", "--no-https", "--allow-unsigned", sif, uri],
        check=True,
        capture_output=True,
    )
    record = import_oras(uri, store, http=QUICK)
    assert (record.sha256, record.origin) == (sha256_file(sif), "adopted")
    assert record.name == "pushed-by-apptainer"
    assert record.source["tag"] == "1"
    assert record.source["uri"].endswith(f"@{resolve(uri, http=QUICK)}")
    assert sha256_file(store.sif(record.sha256)) == record.sha256


def test_the_same_image_has_the_same_digest_in_every_registry(registry, sif, tmp_path_factory):
    other = Registry(tmp_path_factory.mktemp("other"))
    try:
        digests = {
            push(sif, f"{r.host}/same/tiny:{r.port}").reference.digest for r in (registry, other)
        }
    finally:
        other.stop()
    again = push(sif, f"{registry.host}/same/tiny:again")
    assert digests == {again.reference.digest}
    assert not again.uploaded


def test_all_that_is_known_of_an_image_comes_back_with_it(registry, built, store, tmp_path):
    record, home = built
    extras = stored_extras(home, record.sha256)
    assert sorted(extras) == [".cdx.json", ".files.gz"]
    image = resolve_image(record.sha256, home)
    target = read_target(f"oras://{registry.host}/in/known:1")
    pushed = push_image(image, target, extras=extras, http=QUICK)
    pull = ["apptainer", "pull", "--no-https", tmp_path / "back.sif", pushed.uri]
    subprocess.run(pull, check=True, capture_output=True)
    assert sha256_file(tmp_path / "back.sif") == record.sha256
    back = import_oras(target.uri, store, http=QUICK)
    source = {"uri": pushed.uri, "tag": "1", "digest": pushed.reference.digest}
    assert back == replace(record, source=source)
    assert store.files(back) == home.files(record) != {}
    assert stored_extras(store, back.sha256) == extras


def test_a_list_of_files_that_is_not_the_images_is_left_out(registry, built, store):
    record, home = built
    extras = {".cdx.json": b"{}", ".files.gz": b"nothing"}
    image = resolve_image(record.sha256, home)
    target = read_target(f"oras://{registry.host}/in/false:1")
    push_image(image, target, extras=extras, http=QUICK)
    back = import_oras(target.uri, store, http=QUICK)
    assert back.tree_sha256 == record.tree_sha256
    assert stored_extras(store, back.sha256) == {}


def test_pushing_again_attaches_nothing_twice(registry, sif, store):
    image = resolve_image(str(sif), store)
    target = read_target(f"oras://{registry.host}/in/twice:1")
    first, second = (push_image(image, target, http=QUICK) for _ in range(2))
    assert first.attached == second.attached
    assert first.reference == second.reference
    subject = manifest(first.reference, http=QUICK)
    found = list_referrers(connect(first.reference, QUICK), subject)
    assert [entry["digest"] for entry in found] == list(first.attached)


NOBODY = {"name": "../../x.def", "sha256": "0" * 64}


@pytest.mark.parametrize(
    "changes", [{"sha256": "0" * 64}, {"name": "../x"}, {"definition": NOBODY}, {"origin": "else"}]
)
def test_a_record_that_cannot_be_the_images_own_is_left_out(registry, sif, store, changes, caplog):
    key = "-".join(changes)
    pushed = push(sif, f"{registry.host}/evil/{key}:1")
    facts = {"sha256": pushed.sha256, "size": sif.stat().st_size, "name": "tiny", "origin": "built"}
    record = ImageRecord(**facts, created_utc="2026-01-02T03:04:05Z").to_json()
    data = json.dumps({**record, **changes}).encode()
    subject = manifest(pushed.reference, http=QUICK)
    connection = connect(pushed.reference, QUICK)
    attach(connection, subject, RECORD_TYPE, (Part("x.image.json", RECORD_TYPE, data),))
    with caplog.at_level(logging.WARNING):
        imported = import_oras(pushed.uri, store, http=QUICK)
    assert (imported.origin, imported.name) == ("adopted", key)
    assert "the record" in caplog.text


def test_an_image_of_layers_is_not_imported_as_a_sif(registry, tree, store):
    registry.push_tree(tree, "in/layers:1")
    with pytest.raises(PrerequisiteError, match="is not a SIF") as caught:
        import_oras(f"oras://{registry.host}/in/layers:1", store, http=QUICK)
    assert "docker://" in caught.value.hint


@pytest.fixture(scope="module")
def built(registry, tree, tmp_path_factory):
    """An image that was built of layers in the registry, and the store that it is in."""
    store = ImageStore(tmp_path_factory.mktemp("built") / "images")
    registry.push_tree(tree, "in/docker:1", IMAGE_ENV="BUILT=yes")
    return import_docker(
        f"docker://{registry.host}/in/docker:1", store, http=Http(attempts=1)
    ), store


def test_an_image_of_layers_is_built_at_the_digest_of_its_tag(registry, built):
    record, store = built
    digest = resolve(f"{registry.host}/in/docker:1", http=QUICK)
    assert record.base["sha256"] == digest.removeprefix("sha256:")
    assert record.source["tag"] == "1"
    assert record.source["digest"] == digest
    done = subprocess.run(
        ["apptainer", "exec", store.sif(record.sha256), "id", "-u"], capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == str(os.geteuid())
    assert [found.source for found in store.list()] == [record.source]


def test_valska_image_push_prints_what_others_pull_and_notes_it(registry, sif, store, tmp_path):
    uri = push(sif, f"{registry.host}/cli/from:1").uri
    record = import_oras(uri, store, http=QUICK)
    target = f"oras://{registry.host}/cli/to"
    printed = valska("image", "push", record.sha256[:12], target, "--images", store.root)
    assert printed == f"{target}@{resolve(f'{target}:latest', http=QUICK)}"
    notes = load_json(store.extras(record.sha256, ".published.json"))["published"]
    assert [(note["uri"], note["tag"]) for note in notes] == [(printed, "latest")]
    assert pull_sif(printed, tmp_path, http=QUICK).sha256 == record.sha256


def test_valska_image_import_takes_what_valska_image_push_printed(registry, sif, tmp_path):
    target = f"oras://{registry.host}/cli/both:1"
    printed = valska("image", "push", sif, target, "--images", tmp_path / "one")
    for uri in (printed, target):
        path = valska("image", "import", uri, "--images", tmp_path / "other")
        assert sha256_file(Path(path)) == sha256_file(sif)
    record = ImageStore(tmp_path / "other").list()[0]
    assert record.source == {"uri": printed, "tag": None, "digest": printed.partition("@")[2]}
    assert not (tmp_path / "one" / "sha256").exists()


def valska(*words):
    """Run valska, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "valska", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_image_is_pushed_to_a_tag_of_an_oras_registry_only():
    for target in ("docker://h/x:1", "h/x:1", f"oras://h/x@sha256:{'0' * 64}", "oras://x:1"):
        with pytest.raises(UsageError):
            read_target(target)


# Logins and certificates


def logins(directory, host, password=PASSWORD):
    """Write a file of logins, and return the options that use it."""
    word = base64.b64encode(f"somebody:{password}".encode()).decode()
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"auths": {host: {"auth": word}}}))
    environ = {"HOME": "/nonexistent", "DOCKER_CONFIG": os.fspath(directory)}
    return Http(attempts=1, environ=environ)


@pytest.fixture
def plain(tmp_path_factory):
    """A directory whose name can stand in a setting of the registry."""
    return tmp_path_factory.mktemp("plain")


def test_a_registry_with_passwords_takes_those_of_the_login_files(sif, plain):
    (plain / "htpasswd").write_text(hashed(PASSWORD))
    registry = Registry(
        plain / "registry",
        AUTH="htpasswd",
        AUTH_HTPASSWD_REALM="loopback",
        AUTH_HTPASSWD_PATH=plain / "htpasswd",
    )
    try:
        name = f"{registry.host}/private/tiny:1"
        with pytest.raises(PrerequisiteError, match="does not give you") as caught:
            push(sif, name)
        assert "Log in" in caught.value.hint
        with pytest.raises(PrerequisiteError) as caught:
            push(sif, name, logins(plain / "wrong", registry.host, "wrong horse"))
        assert "horse" not in f"{caught.value.message} {caught.value.hint}"
        right = logins(plain / "right", registry.host)
        pushed = push(sif, name, right)
        assert pull_sif(pushed.uri, plain, http=right).sha256 == pushed.sha256
    finally:
        registry.stop()


def hashed(password):
    """Return a line of an htpasswd file, in the only form that the registry reads."""
    done = subprocess.run(
        ["perl", "-e", 'print crypt($ARGV[0], q($2b$05$) . "a" x 22)', password],
        capture_output=True,
        text=True,
        check=True,
    )
    return f"somebody:{done.stdout}\n"


def test_a_registry_with_tokens_is_read_without_a_login_and_written_with_one(sif, plain):
    service = TokenService(plain, "somebody", PASSWORD)
    registry = Registry(plain / "registry", **service.settings)
    try:
        name = f"{registry.host}/tokens/tiny:1"
        with pytest.raises(PrerequisiteError, match="does not give you"):
            push(sif, name)
        pushed = push(sif, name, logins(plain / "right", registry.host))
        assert any(known and "push" in str(scopes) for known, scopes in service.asked)
        service.asked.clear()
        assert pull_sif(pushed.uri, plain, http=QUICK).sha256 == pushed.sha256
        assert service.asked
        assert not any(known for known, _ in service.asked)
    finally:
        registry.stop()
        service.close()


def test_a_certificate_has_to_be_trusted(plain):
    key, certificate = make_certificate(plain)
    registry = Registry(plain / "registry", HTTP_TLS_KEY=key, HTTP_TLS_CERTIFICATE=certificate)
    try:
        with pytest.raises(PrerequisiteError, match="is not trusted") as caught:
            resolve(f"{registry.host}/x:1", http=QUICK)
        assert "ca_bundle" in caught.value.hint
        with pytest.raises(PrerequisiteError, match="does not have"):
            resolve(f"{registry.host}/x:1", http=Http(attempts=1, ca_bundle=certificate))
    finally:
        registry.stop()


def test_the_archive_of_a_base_is_a_plain_tar(registry, tree, tmp_path):
    registry.push_tree(tree, "bases/plain:1")
    path = pull_base(f"{registry.host}/bases/plain:1", tmp_path, http=QUICK)
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    assert [member.name for member in members][:2] == ["blobs", "blobs/sha256"]
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}

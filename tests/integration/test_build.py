"""Real builds of a small image from a local base, through the library and the command line."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from valska.external_tools.core.errors import PrerequisiteError, UsageError, ValskaError
from valska.external_tools.core.images import resolve_image
from valska.external_tools.core.images.building.draft import (
    EARLIEST_EPOCH,
    BuildRequest,
    draft_build,
)
from valska.external_tools.core.images.building.make import build
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.utils import load_json, sha256_file

pytestmark = pytest.mark.apptainer

PROGRAMS = (
    "bash base64 cat chown date env find grep head id ls mkdir mktemp od rm sed sleep touch tr wc"
)
PINNED = "docker://127.0.0.1:9/library/base@sha256:" + "c" * 64
DEFINITION = """\
Bootstrap: {bootstrap}
From: {source}

%arguments
    lock=tool.lock
    level=3

%files
    {{{{ lock }}}} /opt/tool.lock

%post
    echo "level {{{{ level }}}}"
    echo "{{{{ level }}}}" >/opt/level
    {post}

%labels
    org.opencontainers.image.title tool
    org.opencontainers.image.base.name a base
    org.opencontainers.image.base.digest sha256:0

%test
    cat /opt/level
    {test}
"""


@pytest.fixture(scope="module")
def root(apptainer, place):
    """The root of a file system with bash and what a definition needs, of this machine's own."""
    root = place / "tiny-root"
    for name in ("bin", "dev", "etc", "home", "opt", "proc", "root", "sys", "tmp", "var/tmp"):
        (root / name).mkdir(parents=True)
    for program in PROGRAMS.split():
        path = shutil.which(program, path="/usr/bin:/bin")
        shutil.copy(path, root / "bin" / program)
        needed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"/\S+", needed):
            target = root / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
    (root / "bin" / "sh").symlink_to("bash")
    (root / "usr").mkdir(exist_ok=True)
    (root / "usr" / "bin").symlink_to("../bin")
    (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    return root


@pytest.fixture(scope="module")
def base(root, place):
    """The root as an image."""
    path = place / "tiny-base.sif"
    subprocess.run(["apptainer", "--quiet", "build", path, root], check=True, capture_output=True)
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def base_tar(root, place):
    """The root as a tar file."""
    path = place / "tiny-base.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(root, arcname=".")
    path.chmod(0o644)
    return path


@pytest.fixture
def write(tmp_path, base):
    def write(*, bootstrap="localimage", source=base, post="true", test="true", name="tool.def"):
        text = DEFINITION.format(bootstrap=bootstrap, source=source, post=post, test=test)
        (tmp_path / name).write_text(text)
        (tmp_path / "tool.lock").write_text("numpy==2\n")
        return tmp_path / name

    return write


@pytest.fixture
def make(tmp_path, place, write):
    scratch = Path(tempfile.mkdtemp(prefix="scratch ü ", dir=place))
    store = ImageStore(tmp_path / "store")

    def make(definition=None, *, force=False, progress=None, environ=None, **options):
        environ = {**os.environ, "TMPDIR": os.fspath(scratch), **(environ or {})}
        request = BuildRequest(
            definition=definition or write(), store=store, environ=environ, **options
        )
        try:
            return build(draft_build(request), force=force, progress=progress)
        finally:
            assert list(scratch.iterdir()) == []
            assert [path.name for path in store.root.glob(".*")] == []

    return make


def test_a_build_is_in_the_store_with_its_record(make, write, base, tmp_path):
    lines = []
    definition = write()
    made = make(definition, progress=lines.append)
    record = made.record
    assert made.built
    assert sha256_file(made.path) == record.sha256 == made.path.stem
    assert record.size == made.path.stat().st_size
    assert record.definition == {"name": "tool.def", "sha256": sha256_file(definition)}
    assert record.lock == {"name": "tool.lock", "sha256": sha256_file(tmp_path / "tool.lock")}
    assert record.base["sha256"] == sha256_file(base)
    assert record.base["replaced"] is False
    assert record.labels["org.opencontainers.image.title"] == "tool"
    assert record.apptainer_version[0].isdigit()
    assert len(record.rootfs_sha256) == 64
    assert "level 3" in lines
    assert "level 3" in made.log.read_text().splitlines()
    shown = subprocess.run(
        ["apptainer", "exec", made.path, "cat", "/opt/level", "/opt/tool.lock"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "3\nnumpy==2\n"
    image = resolve_image("tool", ImageStore(tmp_path / "store"))
    assert image.files["tool.def"] == ("definition", definition.read_bytes())
    assert image.files["tool.lock"] == ("lock", b"numpy==2\n")
    assert os.fspath(tmp_path) not in json.dumps(record.to_json())


def test_what_is_there_is_not_built_again(make, write, tmp_path):
    definition = write()
    first = make(definition)
    again = make(definition)
    assert (again.built, again.record) == (False, first.record)
    assert make(definition, force=True).built
    assert make(definition, build_arguments={"level": "4"}).built
    (tmp_path / "tool.lock").write_text("numpy==3\n")
    third = draft_build(BuildRequest(definition=definition, store=ImageStore(tmp_path / "store")))
    assert third.existing is None


def test_build_arguments_arrive_as_they_are(make):
    value = "a, \"b\" 'c'=d"
    made = make(build_arguments={"level": value.replace('"', "")})
    assert made.record.build_arguments == {"level": value.replace('"', "")}
    assert f"level {value}".replace('"', "") in made.log.read_text().splitlines()


def test_another_base_is_recorded_as_such(make, write, base_tar):
    definition = write(bootstrap="docker", source=PINNED.removeprefix("docker://"))
    made = make(definition, base=os.fspath(base_tar))
    assert made.record.base == {
        "reference": "tiny-base.tar",
        "kind": "tar",
        "sha256": sha256_file(base_tar),
        "replaced": True,
        "original": PINNED,
    }
    assert made.record.definition["sha256"] == sha256_file(definition)
    labels = made.record.labels
    assert "org.opencontainers.image.base.name" not in labels
    assert labels["org.opencontainers.image.base.digest"] == f"sha256:{sha256_file(base_tar)}"


def test_nothing_of_the_caller_reaches_the_build_but_what_should(make, write, tmp_path):
    bundle, secret = tmp_path / "ca.pem", tmp_path / "secret"
    bundle.write_text("a certificate\n")
    secret.mkdir()
    see = 'env; ls -A /tmp; cat "$SSL_CERT_FILE"'
    environ = {
        "PYTHONPATH": "/leak",
        "APPTAINERENV_PYTHONPATH": "/leak",
        "APPTAINER_BIND": f"{secret}:/tmp/leak",
        "PIP_INDEX_URL": "the-index",
        "PIP_CERT": os.fspath(bundle),
    }
    made = make(write(post=see, test=see), environ=environ)
    text = made.log.read_text()
    assert "leak" not in text
    assert text.count("PIP_INDEX_URL=the-index") == 2
    assert text.count("a certificate") == 2
    assert text.count(".valska") >= 2
    assert "the-index" not in json.dumps(made.record.to_json())


@pytest.mark.parametrize(
    ("faults", "told"),
    [({"post": "cat /nope"}, "%post"), ({"test": "cat /nope; false"}, "own test")],
)
def test_a_build_that_fails_leaves_its_log_and_nothing_else(make, write, tmp_path, faults, told):
    with pytest.raises(ValskaError, match=told) as caught:
        make(write(**faults))
    (log,) = (tmp_path / "store" / "logs").iterdir()
    assert os.fspath(log) in caught.value.hint
    assert "/nope" in caught.value.hint
    assert ImageStore(tmp_path / "store").list() == ()
    assert list((tmp_path / "store" / "sha256").iterdir()) == []


def test_where_no_registry_answers_the_hint_is_another_base(make, write):
    with pytest.raises(PrerequisiteError, match="cannot be fetched") as caught:
        make(write(bootstrap="docker", source=PINNED.removeprefix("docker://")))
    assert caught.value.exit_code == 3
    assert "--base" in caught.value.hint


def test_a_base_without_a_digest_is_warned_of(write, tmp_path, caplog):
    definition = write(bootstrap="docker", source="127.0.0.1:9/library/base:1")
    draft = draft_build(BuildRequest(definition=definition, store=ImageStore(tmp_path / "store")))
    assert "not named by its digest" in caplog.text
    assert draft.recipe_sha256 is None
    assert not (tmp_path / "store").exists()


LOCKED = "# Locked by valska 0.2: valska lock tool.def\n# source-date-epoch: 1500000000\n"


def test_the_time_of_the_files_is_given_locked_declared_or_the_callers(write, tmp_path):
    definition = write()

    def epoch(**options):
        store = ImageStore(tmp_path / "store")
        return draft_build(BuildRequest(definition=definition, store=store, **options)).epoch

    assert epoch(environ={}) == EARLIEST_EPOCH
    assert epoch(environ={"SOURCE_DATE_EPOCH": "1400000000"}) == 1400000000
    text = definition.read_text().replace("level=3", "level=3\n    source_date_epoch=1450000000")
    definition.write_text(text)
    assert epoch(environ={"SOURCE_DATE_EPOCH": "1400000000"}) == 1450000000
    (tmp_path / "tool.lock").write_text(LOCKED)
    assert epoch() == 1500000000
    assert epoch(build_arguments={"source_date_epoch": "1600000000"}) == 1600000000
    with pytest.raises(UsageError, match="no time for the files"):
        epoch(build_arguments={"source_date_epoch": "yesterday"})
    with pytest.raises(UsageError, match="is in the future"):
        epoch(build_arguments={"source_date_epoch": "4000000000"})


def test_an_image_built_with_an_option_does_not_stand_for_one_without(write, tmp_path):
    request = BuildRequest(definition=write(), store=ImageStore(tmp_path / "store"))
    with_option = replace(request, options=("--section=setup",))
    recipes = {draft_build(one).recipe_sha256 for one in (request, with_option)}
    assert len(recipes - {None}) == 2


def test_findings_are_told_before_anything_is_built(write, tmp_path):
    valska = Path(sys.executable).with_name("valska")
    definition = write(bootstrap="docker", source="library/base:1")
    words = [valska, "build", "--check-only", definition]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{definition}:2: error: " in done.stdout
    told = json.loads(subprocess.run([*words, "--json"], capture_output=True, check=False).stdout)
    assert "base-tag" in {finding["code"] for finding in told["findings"]}
    refused = subprocess.run([*words, "--check"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "--check-only and --check exclude each other" in refused.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"build_arguments": {"levl": "1"}}, "levl"),
        ({"build_arguments": {"lock": "none.lock"}}, "none.lock"),
        ({"build_arguments": {"level": "1\n2"}}, "control character"),
        ({"base": "nowhere://x"}, "no kind of base"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(make, write, tmp_path, options, told):
    with pytest.raises(UsageError, match=told):
        make(write(), **options)
    assert not (tmp_path / "store").exists()


def test_no_apptainer(make):
    with pytest.raises(PrerequisiteError, match="no such program"):
        make(apptainer="no-such-apptainer")


def test_a_temporary_directory_that_apptainer_cannot_use_is_refused(make, tmp_path):
    with pytest.raises(PrerequisiteError, match="cannot unpack") as caught:
        make(environ={"TMPDIR": os.fspath(tmp_path)})
    assert "TMPDIR" in caught.value.hint


def test_two_builds_at_once_do_not_harm_each_other(write, tmp_path, place):
    store = ImageStore(tmp_path / "store")
    environ = {**os.environ, "TMPDIR": os.fspath(place)}
    draft = draft_build(BuildRequest(definition=write(), store=store, environ=environ))
    results = []
    threads = [threading.Thread(target=lambda: results.append(build(draft))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    for made in results:
        assert sha256_file(made.path) == made.record.sha256
    assert list(store.root.glob(".*")) == []


def test_a_full_disk_is_named(make, write, place):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    small = Path(tempfile.mkdtemp(prefix="small-", dir=place))
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", small]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this root cannot mount")
    try:
        fill = "while cat /bin/* >>/full; do :; done; false"
        with pytest.raises(ValskaError, match="disk is full"):
            make(write(post=fill), environ={"TMPDIR": os.fspath(small)})
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_image_built_elsewhere_is_taken_where_it_lies(base, tmp_path):
    image = resolve_image(os.fspath(base), ImageStore(tmp_path / "store"))
    assert (image.path, image.sha256) == (base, sha256_file(base))
    role, text = image.files["tiny-base.image.json"]
    record = json.loads(text)
    assert role == "image-record"
    assert record["origin"] == "adopted"
    assert record["lock"] is None
    assert record["base"] is None
    assert not (tmp_path / "store").exists()


def test_an_ordinary_user_builds_and_bundles(user, base):
    (user.work / "tool.lock").write_text("")
    definition = user.work / "linetool.def"
    definition.write_text(
        DEFINITION.format(bootstrap="localimage", source=base, post="id -u", test="true")
    )
    images = {"VALSKA_IMAGES": user.work / "images"}
    dry = user.valska("build", definition, "--dry-run", "--json", env=images)
    assert json.loads(dry.stdout)["existing"] is None
    assert not (user.work / "images").exists()
    done = user.valska("build", definition, env=images)
    assert "level 3" in done.stderr
    assert "Running post scriptlet\n" in done.stderr
    assert "Build complete" not in done.stderr
    path = Path(done.stdout.strip())
    assert sha256_file(path) == path.stem
    again = user.valska("build", definition, "--json", env=images)
    assert json.loads(again.stdout)["built"] is False
    bundle = Bundle(
        user.bundle("linetool", "--template", "three", "--image", "linetool", env=images)
    )
    assert load_json(bundle.manifest)["image"]["sha256"] == path.stem
    names = sorted(path.name for path in bundle.containers.iterdir())
    assert names == ["linetool.def", "linetool.image.json", "tool.lock"]
    nowhere = {**images, "PATH": "/nowhere"}
    refused = user.valska("submit", bundle.path, env=nowhere, check=False)
    assert refused.returncode == 3
    assert "no such program: apptainer" in refused.stderr
    assert not bundle.jobs.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_nothing(user, base, number):
    definition = user.work / "slow.def"
    (user.work / "tool.lock").write_text("")
    definition.write_text(
        DEFINITION.format(
            bootstrap="localimage", source=base, post="touch /a; chown 7:7 /a; sleep 95", test=""
        )
    )
    scratch = user.work / "scratch"
    scratch.mkdir()
    user.own(scratch)
    images = user.work / "images"
    process = user.start(
        user.bin / "valska",
        *("build", definition, "--images", images),
        env={"TMPDIR": scratch},
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if "sleep 95" in line:
            break
    time.sleep(0.5)
    _signal_child(process.pid, number)
    assert process.wait(30) == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    process.stderr.close()
    assert list(scratch.iterdir()) == []
    assert list(images.glob(".*")) == []
    assert list((images / "sha256").iterdir()) == []


def _signal_child(pid, number):
    """Signal valska itself, where runuser stands before it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    os.kill(int(children[0]) if name == "runuser" else pid, number)

"""From a connected machine to one without a network: fetch, load, build, submit; and faults."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from airgap import Index, Isolated
from howto import Page
from pythontree import has_python, make_python_tree
from registries import Registry, Wire
from services import need, unavailable
from simpleindex import add_wheel

from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.run_directory import Bundle
from valska.external_tools.core.utils import load_json, sha256_file

pytestmark = pytest.mark.apptainer

DEFINITION = """\
Bootstrap: docker
From: {base}

%arguments
    lock=survey.lock

%files
    {{{{ lock }}}} /opt/survey.lock

%post
    set -eu
    export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
    python3 -m venv /opt/survey
    /opt/survey/bin/pip install --require-hashes --no-deps --only-binary=:all: -r /opt/survey.lock

%test
    /opt/survey/bin/python -c 'import tinything'

%labels
    org.opencontainers.image.title survey
    org.opencontainers.image.base.name {name}
"""


@pytest.fixture(scope="module")
def registry(apptainer, place):
    """A registry that has a base with Python."""
    need("docker-registry", "tests/cluster/registry.sh install installs it")
    need("skopeo", "tests/cluster/registry.sh install installs it")
    if not has_python():
        unavailable("Debian's python3-venv is not here: tests/cluster/python.sh installs it")
    root = Path(tempfile.mkdtemp(prefix="gap-root-", dir=place)) / "root"
    version = make_python_tree(root)
    registry = Registry(Path(tempfile.mkdtemp(prefix="gap-registry-", dir=place)))
    variable = f"PYTHON_VERSION={version}"
    registry.digest = registry.push_tree(root, "survey/base:1", IMAGE_ENV=variable)
    shutil.rmtree(root)
    yield registry
    registry.stop()


@pytest.fixture(scope="module")
def index(place):
    """A package index that has a wheel."""
    directory = Path(tempfile.mkdtemp(prefix="gap-index-", dir=place))
    add_wheel(directory, "tinything", "1.0")
    index = Index(directory)
    yield index
    index.stop()


@pytest.fixture
def here(user, index):
    """The user of the connected machine."""
    return settled(user, "here", PIP_INDEX_URL=index.url)


@pytest.fixture
def there(user):
    """The user of the machine without a network."""
    if os.geteuid() != 0:
        unavailable("only root can take the network away (unshare --net)")
    found = settled(user, "there")
    return Isolated(found.name, found.home, found.work, found.bin, found.env)


def settled(user, name, **variables):
    found = user.in_directory(name)
    own = {"VALSKA_IMAGES": found.work / "images", "UV_CACHE_DIR": found.work / "uv", **variables}
    config = found.write("runtime_paths.yaml", "scheduler: local\n")
    return replace(found, env={**found.env, **own, "VALSKA_CONFIG": config})


@pytest.fixture
def definition(here, registry):
    """A definition that is pinned by `valska lock`."""
    name = f"{registry.host}/survey/base:1"
    path = here.write("survey.def", DEFINITION.format(base=name, name=name))
    here.write("survey.in", "tinything\n")
    here.valska("lock", "survey.def")
    assert registry.digest in path.read_text()
    return path


def carry(here, there, *names):
    for name in names:
        there.own(shutil.copy(here.work / name, there.work / name))


def sole(user, pattern):
    (found,) = user.work.glob(pattern)
    return found


def test_the_page_on_clusters_without_a_network(here, there, definition, registry, index):
    page = Page("air-gapped", here)
    listed = page.go_on("--dry-run")
    assert f"docker://{registry.host}/survey/base@{registry.digest}" in listed
    assert "tinything-1.0-py3-none-any.whl" in listed
    assert "127.0.0.1" in listed
    page.go_on("valska fetch survey.def --for build")
    carry(here, there, "survey-kit.tar", "survey.def", "survey.lock")
    page.user = there
    said = page.go_on("valska build --offline").splitlines()
    offline = Path(said[-1])
    assert said[0] == f"valska build --offline {sole(there, 'images/definitions/*/survey.def')}"

    online = Path(here.valska("build", "survey.def", "--option=--no-https").stdout.strip())
    assert offline.name == online.name
    assert sha256_file(offline) == sha256_file(online) == online.stem
    records = [ImageStore(path.parents[1]).get(path.stem) for path in (online, offline)]
    assert records[0].base == records[1].base
    assert records[0].recipe_sha256 == records[1].recipe_sha256

    here.write("data.txt", "1\n2\n3\n")
    here.write("lines.yaml", "data: data.txt\n")
    words = ("--image", "survey", "--inputs", "reference")
    here.bundle("linetool", "lines.yaml", *words, output="obs")
    page.user = here
    page.go_on("tar -cf obs.tar obs")
    carry(here, there, "obs-kit.tar", "obs.tar")
    here.work.rename(here.work.with_name("gone"))
    page.user = there
    assert page.go_on("valska submit obs").splitlines()[-3:] == ["valska submit obs", *jobs(there)]
    bundle = Bundle(there.work / "obs")
    wait(there, bundle)
    assert (bundle.outputs / "double.txt").read_text() == "6\n"
    (record,) = bundle.records.glob("count-*.json")
    assert load_json(record)["image"]["sha256"] == offline.stem
    page.go_on("sha256sum")
    assert page.done == len(page.blocks)


def jobs(user):
    found = load_json(user.work / "obs" / "jobs.json")["jobs"]
    return [f"{stage} {job['job_id']}" for stage, job in found.items()]


def wait(user, bundle):
    end = time.monotonic() + 120
    while set(user.states(bundle.path).values()) - {"completed", "failed"}:
        assert time.monotonic() < end, user.states(bundle.path)
        time.sleep(0.5)
    assert set(user.states(bundle.path).values()) == {"completed"}


def test_without_a_network_nothing_is_fetched_and_nothing_is_left(there, here, definition):
    carry(here, there, "survey.def", "survey.lock")
    refused = there.valska("fetch", "survey.def", "-o", "kit.tar", check=False)
    assert refused.returncode == 3
    assert "cannot be looked up" in refused.stderr
    assert not (there.work / "kit.tar").exists()
    refused = there.valska("build", "--offline", "survey.def", check=False)
    assert refused.returncode == 3
    lacking = next(line for line in refused.stderr.splitlines() if "lacks" in line)
    assert "base docker://" in lacking
    assert "wheel tinything==1.0" in lacking
    assert ImageStore(there.work / "images").list() == ()


def test_a_fetch_that_was_killed_goes_on_where_it_was(here, definition, registry, index):
    wire = Wire(registry.port, pause=0.02)
    text = definition.read_text().replace(registry.host, wire.host)
    definition.write_text(text)
    before = index.asked.count("/tinything/tinything-1.0-py3-none-any.whl")
    process = here.start(
        here.bin / "valska", "fetch", "survey.def", "-o", "kit.tar", "--for", "build",
        start_new_session=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 60
    while wire.passed < 3_000_000:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)
    store = here.work / "images"
    assert list(store.glob("bases/sha256/*.oci.tar")) == []
    assert not (here.work / "kit.tar").exists()
    wire.pause = 0.0
    made = json.loads(here.valska("fetch", "survey.def", "-o", "kit.tar", "--json").stdout)
    assert [file["kind"] for file in made["files"]] == ["base", "definition", "definition", "wheel"]
    assert [path.name for path in store.glob("bases/sha256/.pull-*")] == []
    assert sorted(path.name for path in here.work.iterdir() if "kit" in path.name) == ["kit.tar"]
    passed = wire.passed
    again = json.loads(here.valska("fetch", "survey.def", "-o", "2.tar", "--json").stdout)
    assert again["fetched"] == []
    assert wire.passed == passed
    asked = index.asked.count("/tinything/tinything-1.0-py3-none-any.whl")
    assert asked == before + 1
    assert sha256_file(here.work / "2.tar") == sha256_file(here.work / "kit.tar")
    wire.close()


def test_a_base_that_the_registry_alters_is_refused(here, definition, registry, place):
    directory = Path(tempfile.mkdtemp(prefix="gap-altered-", dir=place))
    shutil.copytree(registry.directory / "data", directory / "data")
    other = Registry(directory)
    blob = max((directory / "data").rglob("data"), key=lambda path: path.stat().st_size)
    with blob.open("r+b") as file:
        file.seek(1000)
        file.write(b"altered")
    definition.write_text(definition.read_text().replace(registry.host, other.host))
    refused = here.valska("fetch", "survey.def", "-o", "kit.tar", check=False)
    other.stop()
    assert refused.returncode == 5
    assert "does not serve what was asked for" in refused.stderr
    assert not (here.work / "kit.tar").exists()
    assert list((here.work / "images").glob("bases/sha256/*.oci.tar")) == []


@pytest.fixture
def small(place):
    """A small file system."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    path = Path(tempfile.mkdtemp(prefix="small-", dir=place))
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=1777", "tmpfs", path]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this root cannot mount")
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_full_disk_is_named_and_nothing_is_left(here, definition, small):
    refused = here.valska("fetch", "survey.def", "-o", small / "kit.tar", check=False)
    assert refused.returncode == 1
    assert "has room for" in refused.stderr
    assert list(small.iterdir()) == []
    here.valska("fetch", "survey.def", "-o", "kit.tar")
    into = {"VALSKA_IMAGES": small / "images"}
    refused = here.valska("load", "kit.tar", env=into, check=False)
    assert refused.returncode == 1
    assert "has room for" in refused.stderr
    assert [path for path in small.rglob("*") if path.is_file()] == []
    refused = here.valska("fetch", "survey.def", "-o", "2.tar", env=into, check=False)
    assert refused.returncode in (1, 3)
    assert "no space left" in refused.stderr
    assert [path for path in small.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("after", [0.0, 0.1])
def test_a_load_that_was_killed_leaves_the_store_whole(here, definition, after):
    here.valska("fetch", "survey.def", "-o", "kit.tar")
    into = {"VALSKA_IMAGES": here.work / "other"}
    process = here.start(
        here.bin / "valska", "load", "kit.tar", env=into,
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not list((here.work / "other").glob(".build-*")) and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.002)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)
    seen = [p for p in (here.work / "other").rglob("*") if p.is_file() and ".build-" not in str(p)]
    kit = load_json_of(here)
    assert all(sha256_file(path) in kit for path in seen)
    loaded = json.loads(here.valska("load", "kit.tar", "--json", env=into).stdout)
    assert list((here.work / "other").glob(".*")) == []
    assert len(loaded["new"]) + len(seen) == len(loaded["files"]) == 4


def load_json_of(user):
    done = user.run("tar", "-xOf", "kit.tar", "kit.json")
    return {file["sha256"] for file in json.loads(done.stdout)["files"]}

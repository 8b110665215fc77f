"""`valska lock` against a real registry on loopback, and against the real package index."""

import os
import shutil

import pytest
from registries import Registry
from services import unavailable
from simpleindex import add_wheel

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images.linting import lint
from valska.external_tools.core.images.locking.document import read_lock
from valska.external_tools.core.images.locking.lock import LockRequest, draft_lock, write_lock
from valska.external_tools.core.images.locking.pins import pinned_versions, unhashed
from valska.external_tools.core.images.registry.options import Http

QUICK = Http(attempts=1, timeout=(5, 20), environ={"HOME": "/nonexistent"})
TEXT = """\
Bootstrap: docker
From: BASE

# A comment stays.
%files
    tool.lock /opt/tool.lock
%post
    pip install --require-hashes -r /opt/tool.lock
%labels
    org.opencontainers.image.title tool
    org.opencontainers.image.description A tool
    org.opencontainers.image.source https://example.org/tool
    org.opencontainers.image.version 1
    org.opencontainers.image.licenses BSD-3-Clause
%test
    true
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    for program in ("docker-registry", "skopeo"):
        if shutil.which(program) is None:
            unavailable(f"{program} is not here: tests/cluster/registry.sh install installs it")
    registry = Registry(tmp_path_factory.mktemp("registry's files"))
    yield registry
    registry.stop()


@pytest.fixture
def push(registry, tmp_path):
    """Push a base that says which Python it has; return its digest."""

    def push(python, tag="3"):
        root = tmp_path / f"root-{python}"
        (root / "etc").mkdir(parents=True)
        (root / "etc" / "python").write_text(python)
        variables = {"IMAGE_ENV": f"PYTHON_VERSION={python}"} if python else {}
        return registry.push_tree(root, f"python:{tag}", **variables)

    return push


@pytest.fixture
def environ(tmp_path):
    index = tmp_path / "index"
    add_wheel(index, "tiny", "1.0")
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "UV_DEFAULT_INDEX": index.as_uri()}


@pytest.fixture
def lock(tmp_path, registry, environ):
    path = tmp_path / "tool.def"
    path.write_text(TEXT.replace("BASE", f"{registry.host}/python:3"))
    path.with_suffix(".in").write_text("tiny\n")

    def lock(**options):
        drafted = draft_lock(LockRequest(definition=path, http=QUICK, environ=environ, **options))
        write_lock(drafted)
        return drafted

    return lock


def test_a_tag_becomes_the_digest_that_the_registry_has(registry, push, lock):
    digest = push("3.11.9")
    drafted = lock()
    made = read_lock(drafted.path)
    assert (made.base, made.base_digest) == (f"{registry.host}/python:3", digest)
    assert made.python == "3.11"
    definition = drafted.definition.path
    labels = (
        f"    org.opencontainers.image.base.name {registry.host}/python:3\n"
        f"    org.opencontainers.image.base.digest {digest}\n"
    )
    text = TEXT.replace("BASE", f"{registry.host}/python@{digest}")
    assert definition.read_text() == text.replace("%test", f"{labels}%test")
    assert lint(definition) == ()


def test_a_moved_tag_is_followed_when_asked(registry, push, lock):
    old = push("3.11.9")
    lock()
    new = push("3.12.1")
    assert new != old
    assert lock().changes == ()
    drafted = lock(upgrade_base=True)
    whats = {change.what: (change.old, change.new) for change in drafted.changes}
    assert whats["base-digest"] == (old, new)
    assert whats["python"] == ("3.11", "3.12")
    text = drafted.definition.path.read_text()
    assert (text.count(old), text.count(new)) == (0, 2)
    assert read_lock(drafted.path).base_digest == new
    assert lock(upgrade=True).changes == ()


def test_what_is_pinned_needs_no_registry(registry, push, lock):
    push("3.11.9")
    lock()
    registry.stop()
    try:
        assert lock().changes == ()
        with pytest.raises(PrerequisiteError, match=registry.host):
            lock(upgrade=True)
    finally:
        registry.start()


def test_a_base_that_does_not_say_its_python(push, lock):
    push("")
    with pytest.raises(Exception, match="PYTHON_VERSION") as caught:
        lock()
    assert "--python" in caught.value.hint
    assert lock(python="3.12").lock.python == "3.12"


def test_a_tag_or_a_platform_that_is_not_there(registry, push, lock, tmp_path):
    push("3.11.9")
    path = tmp_path / "tool.def"
    text = path.read_text().replace("python:3", "python:none")
    path.write_text(text)
    with pytest.raises(PrerequisiteError, match="python:none"):
        lock()
    assert path.read_text() == text
    assert not path.with_suffix(".lock").exists()


def test_requirements_from_the_package_index(push, lock, tmp_path, environ):
    """iniconfig is small, pure Python, and needs nothing."""
    push("3.11.9")
    (tmp_path / "tool.in").write_text("iniconfig==2.0.0\n")
    environ.clear()
    environ.update(os.environ)
    try:
        made = lock().lock
    except PrerequisiteError as error:
        unavailable(error.message)
    assert pinned_versions(made.pins) == {"iniconfig": "2.0.0"}
    assert "b6a85871a79d2e3b22d2d1b94ac2824226a63c6b741c88f7ae975f18b6778374" in made.pins
    assert unhashed(made.pins) == []

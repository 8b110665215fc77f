"""The commands of docs/how-to/lock-an-image.md, with a registry and an index on loopback."""

import shutil
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from howto import Page
from pythontree import has_python, make_python_tree
from registries import Registry
from services import unavailable
from simpleindex import add_wheel

pytestmark = pytest.mark.apptainer

HUMANIZE = "def intcomma(value):\n    return f'{value:,}'\n"


class Quiet(SimpleHTTPRequestHandler):
    """Serves a directory, and says nothing."""

    def log_message(self, *args):
        """Say nothing."""


@contextmanager
def served(directory):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=directory))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    for program in ("docker-registry", "skopeo"):
        if shutil.which(program) is None:
            unavailable(f"{program} is not here: tests/cluster/registry.sh install installs it")
    registry = Registry(tmp_path_factory.mktemp("registry"))
    yield registry
    registry.stop()


@pytest.fixture(scope="module")
def base(apptainer, registry, tmp_path_factory):
    """This machine's Python in the registry, under the name that the page's base has."""
    if not has_python():
        unavailable("Debian's python3-venv is not here: tests/cluster/python.sh installs it")
    root = tmp_path_factory.mktemp("base") / "root"
    version = make_python_tree(root)
    name = "library/python:3.11-slim-bookworm"
    return registry.push_tree(root, name, IMAGE_ENV=f"PYTHON_VERSION={version}")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    index = tmp_path_factory.mktemp("index")
    for version in ("4.12.2", "4.12.3"):
        add_wheel(index, "humanize", version, code=HUMANIZE)
    with served(index) as url:
        yield url


@pytest.fixture
def page(account, registry, base, index):
    user = account.in_directory("lock")
    images = user.work / "images"
    settings = {"VALSKA_IMAGES": images, "PIP_INDEX_URL": index, "APPTAINER_NOHTTPS": "1"}
    page = Page("lock-an-image", replace(user, env={**user.env, **settings}))
    page.blocks = [
        block.replace("docker.io/", f"{registry.host}/").replace(
            "registry.example.org/", f"{registry.host}/"
        )
        for block in page.blocks
    ]
    return page


def test_the_page_from_its_first_command_to_its_last(page, base, registry):
    work = page.user.work
    said = page.go_on("valska lock hello.def")
    assert "hello.lock: humanize 4.12.2\n" in said
    assert f"hello.lock: base-digest {base}\n" in said
    assert f"From: {registry.host}/library/python@{base}\n" in (work / "hello.def").read_text()
    assert page.go_on("lock hello.def --check") == ""
    assert page.go_on("--check-only") == ""
    built = page.go_on("tee built").splitlines()[-1]
    assert page.go_on("build hello.def --check") == "They are one image: the same SIF.\n"
    assert "hello.lock: humanize 4.12.2 -> 4.12.3\n" in page.go_on("4.12.3")
    said = page.go_on("image diff")
    assert "humanize  4.12.2  4.12.3  /opt/hello" in said
    assert "They differ: 1 package" in said
    rebuilt = (work / "rebuilt").read_text().strip()
    assert built != rebuilt
    pushed = page.go_on("image push").splitlines()[-1]
    assert pushed.startswith(f"oras://{registry.host}/lab/hello@sha256:")
    shutil.rmtree(work / "images")
    page.go_on("image import")
    assert page.done == len(page.blocks)
    shown = page.user.valska("image", "show", "hello").stdout
    assert Path(rebuilt).stem in shown

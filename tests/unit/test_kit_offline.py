"""What a build without a network lacks, and how an index is asked for it."""

import http.server
import os
import re
import socketserver
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from kitmade import (
    DEFINITION,
    LOCK,
    PINNED,
    PLATFORM,
    WHEEL,
    oci_archive,
    put_wheel,
)

from valska.external_tools.core.errors import (
    PrerequisiteError,
    UsageError,
    VerificationError,
)
from valska.external_tools.core.images.building.base import own_base
from valska.external_tools.core.images.definition import read_definition, shipped_definitions
from valska.external_tools.core.images.locking.document import read_lock
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.kit.downloading import Downloads
from valska.external_tools.core.kit.fetching import fetch
from valska.external_tools.core.kit.loading import load
from valska.external_tools.core.kit.offline import lay_out_wheels, missing_parts, require_parts
from valska.external_tools.core.kit.parts import KitRequest, Purpose
from valska.external_tools.core.kit.planning import plan_kit
from valska.external_tools.core.kit.supplies import Supplies
from valska.external_tools.core.kit.targets import Target
from valska.external_tools.core.kit.wheels import PackageFile, find_files, fits, requirements
from valska.external_tools.core.utils import sha256_bytes


@pytest.fixture
def store(tmp_path):
    return ImageStore(tmp_path / "store")


@pytest.fixture
def definition(tmp_path):
    (tmp_path / "tool.lock").write_text(LOCK)
    (tmp_path / "tool.def").write_text(DEFINITION)
    return tmp_path / "tool.def"


@pytest.fixture
def draft(store, definition):
    """As much of a build's draft as the kit asks for."""

    def draft(path=definition):
        read = read_definition(path)
        return SimpleNamespace(
            request=SimpleNamespace(store=store),
            definition=read,
            base=own_base(read, {}),
            files=tuple({"source": source} for source, _ in read.pairs({})),
        )

    return draft


def test_a_build_without_a_network_names_all_that_it_lacks(draft, store):
    missing = missing_parts(draft())
    assert [(one.kind, one.name) for one in missing] == [
        ("base", f"docker://127.0.0.1:9/base@sha256:{PINNED}"),
        ("wheel", "tiny==1.0"),
    ]
    with pytest.raises(PrerequisiteError, match=r"base docker://.*; wheel tiny==1\.0") as caught:
        require_parts(draft())
    assert "valska fetch tool.def --for build" in caught.value.hint
    assert not store.root.exists()


def test_what_the_store_has_is_not_missing(draft, store, definition):
    pin, archive = oci_archive()
    place = Supplies(store.root).base_place(pin)
    place.parent.mkdir(parents=True)
    place.write_bytes(archive)
    definition.write_text(DEFINITION.replace(PINNED, pin))
    assert [one.kind for one in missing_parts(draft())] == ["wheel"]
    put_wheel(store)
    assert missing_parts(draft()) == ()
    require_parts(draft())
    place.write_bytes(archive[:-10240] + b"x" * 10240)
    with pytest.raises(VerificationError):
        require_parts(draft())


def test_wheels_for_another_python_do_not_count(draft, store, tmp_path):
    put_wheel(store, "tiny-1.0-cp312-cp312-manylinux_2_28_x86_64.whl")
    assert "tiny==1.0" in [one.name for one in missing_parts(draft())]
    assert lay_out_wheels(draft(), tmp_path / "none") == 0


def test_wheels_are_laid_out_as_copies(draft, store, tmp_path):
    place = put_wheel(store)
    put_wheel(store, "other-1.0-py3-none-any.whl", b"of another lock")
    assert lay_out_wheels(draft(), tmp_path / "w" / "wheels") == 1
    (copy,) = (tmp_path / "w" / "wheels").iterdir()
    copy.write_bytes(b"altered by a build")
    assert place.read_bytes() == WHEEL


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("# python: 3.11\n", "", "for which Python"),
        (
            f"\\\n    --hash=sha256:{sha256_bytes(WHEEL)} \\\n    --hash=sha256:{'e' * 64}",
            "",
            "no hash",
        ),
    ],
)
def test_a_lock_that_cannot_be_met_says_why(draft, definition, old, new, why):
    assert old in LOCK
    definition.with_suffix(".lock").write_text(LOCK.replace(old, new))
    told = [one.why or "" for one in missing_parts(draft()) if one.kind != "base"]
    assert any(why in text for text in told)
    with pytest.raises(PrerequisiteError) as caught:
        require_parts(draft())
    assert "No kit can bring that" in caught.value.hint


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        ("Bootstrap: docker\nFrom: debian:12", "not named by its digest"),
        ("Bootstrap: library\nFrom: x/y/z:sha256." + "a" * 64, "bases of library"),
        ("Bootstrap: docker-archive\nFrom: base.tar", None),
    ],
)
def test_bases_of_other_kinds(draft, definition, header, missing):
    definition.write_text(f"{header}\n%post\n    true\n")
    found = missing_parts(draft())
    assert [one.why is not None and missing in one.why for one in found] == [True] * bool(missing)


def test_the_shipped_locks_are_read_whole():
    for path in shipped_definitions().values():
        lock = read_lock(path.with_suffix(".lock"))
        found = requirements(lock.pins)
        assert len(found) == len(re.findall(r"(?m)^[a-z]", lock.pins)) > 5
        assert sum(len(one.hashes) for one in found) == lock.pins.count("--hash=")
        assert not any(one.conditional for one in found)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.b[c]==1.0 --hash=sha256:" + "a" * 64, [("a.b==1.0", 1, False)]),
        ("a==1 ; sys_platform == 'win32' --hash=sha256:" + "a" * 64, [("a==1", 1, True)]),
        ("a @ https://x/a-1.zip#egg=a --hash=sha256:" + "a" * 64, [("a", 1, False)]),
        ("# a==1\n--index-url https://x\n\n", []),
    ],
)
def test_the_forms_of_a_requirement(line, expected):
    assert [(r.name, len(r.hashes), r.conditional) for r in requirements(line)] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a-1-py3-none-any.whl", True),
        ("a-1-py2.py3-none-any.whl", True),
        ("a-1-2-py3-none-any.whl", True),
        ("a-1-py2-none-any.whl", False),
        ("a-1-py311-none-any.whl", True),
        ("a-1-py312-none-any.whl", False),
        ("a-1-cp311-cp311-manylinux_2_28_x86_64.whl", True),
        ("a-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", True),
        ("a-1-cp311-cp311-linux_x86_64.whl", True),
        ("a-1-cp311-cp311-musllinux_1_2_x86_64.whl", True),
        ("a-1-cp39-abi3-manylinux_2_28_x86_64.whl", True),
        ("a-1-cp312-abi3-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp310-cp310-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp311-cp311-manylinux_2_28_aarch64.whl", False),
        ("a-1-cp311-cp311-macosx_11_0_x86_64.whl", False),
        ("a-1-cp311-cp311-win_amd64.whl", False),
        ("a-1-pp311-pypy311_pp73-manylinux_2_28_x86_64.whl", False),
        ("a-1.tar.gz", True),
        ("a.whl", False),
    ],
)
def test_which_files_fit(name, expected):
    assert fits(name, "3.11", PLATFORM) is expected


@pytest.fixture
def index(tmp_path):
    """A package index on loopback, and what was asked of it."""
    root, asked, fails = tmp_path / "index", [], {}
    (root / "simple" / "tiny").mkdir(parents=True)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=root)

        def do_GET(self):
            asked.append(self.path)
            if fails.get(self.path, 0) > 0:
                fails[self.path] -= 1
                self.send_response(200)
                self.send_header("Content-Length", "999999")
                self.end_headers()
                self.wfile.write(b"only this")
                return
            super().do_GET()

        def log_message(self, *args):
            pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        yield SimpleNamespace(url=url, files=root / "simple" / "tiny", asked=asked, fails=fails)
        server.shutdown()
        thread.join()


def environ(index, tmp_path):
    return {
        **os.environ,
        "PIP_INDEX_URL": f"{index.url}/simple",
        "UV_CACHE_DIR": os.fspath(tmp_path / "uv"),
        "UV_HTTP_RETRIES": "0",
    }


def test_the_index_is_asked_for_the_files_of_the_lock(index, tmp_path):
    (index.files / "tiny-1.0-py3-none-any.whl").write_bytes(WHEEL)
    (index.files / "tiny-1.0.tar.gz").write_bytes(b"its source")
    env = environ(index, tmp_path)
    pins = LOCK.replace("e" * 64, sha256_bytes(b"its source"))
    (found,) = find_files(pins, "3.11", PLATFORM, tmp_path, environ=env)
    assert (found.name, found.sha256) == ("tiny-1.0-py3-none-any.whl", sha256_bytes(WHEEL))
    place = tmp_path / "place"
    Downloads(env).get(found, place)
    assert place.read_bytes() == WHEEL
    with pytest.raises(PrerequisiteError, match=r"no file of tiny==1\.0 with a digest"):
        find_files(
            LOCK.replace(sha256_bytes(WHEEL), "d" * 64), "3.11", PLATFORM, tmp_path, environ=env
        )
    with pytest.raises(UsageError, match="no packages are known for"):
        find_files(LOCK, "3.11", "plan9/mips", tmp_path, environ=env)


def test_a_download_that_breaks_off_is_tried_again(index, tmp_path):
    name = "tiny-1.0-py3-none-any.whl"
    (index.files / name).write_bytes(WHEEL)
    path = f"/simple/tiny/{name}"
    file = PackageFile(name, sha256_bytes(WHEEL), index.url + path)
    counts, pauses = [], []
    index.fails[path] = 2
    Downloads(os.environ, sleep=pauses.append).get(file, tmp_path / "x", counts.append)
    assert (tmp_path / "x").read_bytes() == WHEEL
    assert sum(counts) == len(WHEEL)
    assert pauses == [1.0, 2.0]
    index.fails[path] = 3
    with pytest.raises(PrerequisiteError, match="broke off") as caught:
        Downloads(os.environ, sleep=pauses.append).get(file, tmp_path / "x")
    assert caught.value.exit_code == 3


def test_a_download_with_another_digest_is_refused(index, tmp_path):
    name = "tiny-1.0-py3-none-any.whl"
    (index.files / name).write_bytes(b"another wheel")
    file = PackageFile(name, sha256_bytes(WHEEL), f"{index.url}/simple/tiny/{name}")
    with pytest.raises(VerificationError, match="does not serve the"):
        Downloads(os.environ).get(file, tmp_path / "x")
    gone = PackageFile(name, sha256_bytes(WHEEL), f"{index.url}/simple/none/{name}")
    with pytest.raises(PrerequisiteError, match="it answers 404"):
        Downloads(os.environ).get(gone, tmp_path / "x")
    assert index.asked.count("/simple/none/" + name) == 1


def test_what_the_store_has_needs_no_index(index, tmp_path, store, definition):
    pin, archive = oci_archive()
    place = Supplies(store.root).base_place(pin)
    place.parent.mkdir(parents=True)
    place.write_bytes(archive)
    definition.write_text(DEFINITION.replace(PINNED, pin))
    put_wheel(store)
    nowhere = {**environ(index, tmp_path), "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    target = Target(kind="definition", name="tool", identity="1" * 64, definition=definition)
    request = KitRequest(target=target, purpose=Purpose.BUILD, store=store, environ=nowhere)
    plan = plan_kit(request)
    assert [part.kind for part in plan.parts] == ["base", "definition", "definition", "wheel"]
    assert all(part.is_here for part in plan.parts)
    kit = fetch(plan, tmp_path / "kit.tar", request)
    there = ImageStore(tmp_path / "there")
    loaded = load(kit.path, there)
    built = Path(*loaded.definitions)
    assert built.read_text() == definition.read_text()
    assert built.with_suffix(".lock").read_text() == LOCK
    Path(Supplies(store.root).wheels([sha256_bytes(WHEEL)])[0]).unlink()
    with pytest.raises(PrerequisiteError, match="cannot be looked up"):
        plan_kit(request)

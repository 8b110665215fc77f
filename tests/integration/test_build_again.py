"""One definition gives one image: by whomever, wherever and whenever it is built, and killed."""

import ensurepip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from processes import children, wait_until
from services import unavailable
from simpleindex import add_wheel

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images.building.draft import BuildRequest, draft_build
from valska.external_tools.core.images.building.make import build
from valska.external_tools.core.images.building.mksquashfs import find_mksquashfs
from valska.external_tools.core.images.building.rebuild import check_build
from valska.external_tools.core.images.difference import LOCK, PACKAGE
from valska.external_tools.core.images.store import ImageStore
from valska.external_tools.core.utils import sha256_file

pytestmark = pytest.mark.apptainer

VALSKA = Path(sys.executable).with_name("valska")
SIX = "six==1.17.0 --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274\n"
INICONFIG = {
    "2.0.0": "b6a85871a79d2e3b22d2d1b94ac2824226a63c6b741c88f7ae975f18b6778374",
    "2.1.0": "9deba5723312380e77435581c6bf4935c94cbfab9b1ed33ef8d238ea168eb760",
}
NAMES = ("iniconfig", "six")
SMALL = """\
Bootstrap: localimage
From: {base}

%post
    set -eu
    echo made >/made
    date >/var/tmp/when
    date >/etc/machine-id
    {post}

%labels
    org.opencontainers.image.title small
"""
WITH_PYTHON = """\
Bootstrap: localimage
From: {base}

%arguments
    source_date_epoch=1700000000

%files
    again.lock /opt/again.lock
    {wheel} /opt/{wheel}

%post
    set -eu
    mkdir -p /var/log
    date >/var/log/built
    python3 -m venv --without-pip /opt/env
    python3 /opt/{wheel}/pip --python /opt/env/bin/python install --no-deps --require-hashes \\
        -r /opt/again.lock
    rm /opt/{wheel}
    python3 -c 'import email.mime.text, sqlite3' || true

%environment
    export PATH=/opt/env/bin:$PATH

%labels
    org.opencontainers.image.title again

%test
    python -c 'import iniconfig, six'
"""


@pytest.fixture(scope="module")
def wheel():
    """The wheel of pip that comes with a Python; an image without pip runs it as it is."""
    places = (Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels"))
    found = [path for place in places for path in sorted(place.glob("pip-*.whl"))]
    if not found:
        unavailable("no wheel of pip comes with this Python")
    return found[0]


@pytest.fixture
def scratch(place):
    """A directory for builds that every account can reach."""
    path = Path(tempfile.mkdtemp(prefix="scratch-", dir=place))
    path.chmod(0o1777)
    return path


@pytest.fixture
def write(contract_image, wheel):
    """Write the definition of an image with two packages, and what it copies in."""

    def write(directory, version="2.0.0"):
        directory.mkdir(exist_ok=True)
        text = WITH_PYTHON.format(base=contract_image, wheel=wheel.name)
        (directory / "again.def").write_text(text)
        pin = f"iniconfig=={version} --hash=sha256:{INICONFIG[version]}\n"
        (directory / "again.lock").write_text(pin + SIX)
        shutil.copy(wheel, directory)
        return directory / "again.def"

    return write


@pytest.fixture
def small(tmp_path, tiny_image):
    """Write a definition that needs no network."""

    def small(post="true", name="small.def"):
        path = tmp_path / name
        path.write_text(SMALL.format(base=tiny_image, post=post))
        return path

    return small


def request(definition, store, scratch, **options):
    environ = {**os.environ, "TMPDIR": os.fspath(scratch)}
    return BuildRequest(definition=definition, store=store, environ=environ, **options)


def valska(*argv, scratch, **variables):
    environ = {**os.environ, "TMPDIR": os.fspath(scratch), **variables}
    return subprocess.run([VALSKA, *argv], env=environ, capture_output=True, text=True, check=False)


def test_two_users_two_places_two_umasks_and_one_image(user, write, scratch):
    mine, theirs = scratch / "a", user.work / "other däy's place"
    write(mine)
    first = valska(
        *("build", mine / "again.def", "--images", scratch / "store"),
        scratch=scratch,
    )
    assert first.returncode == 0, first.stderr
    first = Path(first.stdout.strip())
    write(theirs)
    for path in (theirs, *theirs.iterdir()):
        path.chmod(0o600 | (0o100 if path.is_dir() else 0))
        user.own(path)
    code = 'umask 077 && exec "$0" build "$1" --images store 2>log'
    done = user.run(
        *("sh", "-c", code, user.bin / "valska", theirs / "again.def"),
        env={
            "TZ": "Asia/Tokyo",
            "LC_ALL": "C",
            "PYTHONHASHSEED": "7",
            "SOURCE_DATE_EPOCH": "1234567890",
            "TMPDIR": scratch,
            **{name: os.environ[name] for name in ("PIP_CERT",) if name in os.environ},
        },
    )
    second = Path(done.stdout.strip())
    assert second.stem == first.stem == sha256_file(user.work / second)
    shown = user.run("apptainer", "exec", second, "python", "-c", "import six; print(six.__file__)")
    assert shown.stdout.strip() == "/opt/env/lib/python3.11/site-packages/six.py"
    assert user.run("apptainer", "inspect", second).stdout.count("title: again") == 1


def test_a_definition_with_accents_is_the_same_where_the_locale_has_none(small, scratch):
    definition = small(post='echo "Mañana é ü" >/name')
    no_utf8 = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    made = []
    for variables in ({"LC_ALL": "C.UTF-8"}, no_utf8):
        store = scratch / f"store-{len(made)}"
        done = valska("build", definition, "--images", store, scratch=scratch, **variables)
        assert done.returncode == 0, done.stderr
        made.append(Path(done.stdout.strip()).stem)
    assert made[0] == made[1]


def test_a_rebuild_is_identical_and_leaves_nothing(small, scratch):
    store = ImageStore(scratch / "store")
    order = request(small(), store, scratch)
    made = build(draft_build(order))
    before = sorted(store.directory.iterdir())
    again = check_build(order)
    assert again.is_identical
    assert again.record.sha256 == made.record.sha256
    assert sorted(store.directory.iterdir()) == before
    assert list(store.root.glob(".build-*")) == []
    done = valska("build", small(), "--check", "--images", store.root, scratch=scratch)
    assert (done.returncode, done.stdout) == (0, "They are one image: the same SIF.\n")


@pytest.fixture
def index(tmp_path):
    """A package index of which pip may keep what it got; and the wheels that it was asked for."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self):
            self.send_header("Cache-Control", "max-age=86400")
            super().end_headers()

        def log_message(self, *words):
            asked.extend([self.path] if self.path.endswith(".whl") else [])

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path / "index"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path / "index", f"http://127.0.0.1:{server.server_port}/", asked
    server.shutdown()
    server.server_close()


def test_the_cache_of_packages_empty_and_full_gives_one_image(write, index, scratch, monkeypatch):
    directory, url, asked = index
    definition, home = write(scratch / "x"), scratch / "home"
    pins = [f"{name}==1.0 --hash=sha256:{add_wheel(directory, name, '1.0')}" for name in NAMES]
    definition.with_suffix(".lock").write_text("\n".join(pins))
    home.mkdir()
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("PIP_TRUSTED_HOST", "127.0.0.1")
    made = []

    def build_with(*binds):
        """Build, and return how many wheels were got from the index and from pip's cache."""
        asked.clear()
        store = ImageStore(scratch / f"store-{len(made)}")
        made.append(build(draft_build(request(definition, store, scratch, binds=binds))))
        return len(asked), made[-1].log.read_text().count("Using cached")

    assert build_with(f"{home}:/root") == (2, 0)
    assert sum(path.is_file() for path in (home / ".cache" / "pip").rglob("*")) >= 2
    assert build_with(f"{home}:/root") == (0, 2)
    assert build_with() == (2, 0)
    assert len({one.record.sha256 for one in made}) == 1
    assert all(sha256_file(one.path) == one.record.sha256 for one in made)


def test_there_has_to_be_something_to_compare_with(small, scratch):
    with pytest.raises(PrerequisiteError, match="no image of small") as caught:
        check_build(request(small(), ImageStore(scratch / "store"), scratch))
    assert "--against" in caught.value.hint


def test_one_changed_pin_is_one_changed_package(write, scratch):
    store = ImageStore(scratch / "store")
    build(draft_build(request(write(scratch / "x"), store, scratch)))
    changed = request(write(scratch / "x", "2.1.0"), store, scratch)
    found = check_build(changed)
    assert not found.same
    ((ecosystem, _, name, before, after),) = found.difference.packages
    assert (ecosystem, name, before, after) == ("python", "iniconfig", "2.0.0", "2.1.0")
    kinds = {(owner.kind, owner.name) for owner in found.difference.by_owner()}
    assert kinds == {(PACKAGE, "iniconfig"), (LOCK, "")}
    options = ("--check", "--against", store.list()[0].sha256, "--images", store.root, "--json")
    done = valska("build", changed.definition, *options, scratch=scratch)
    assert done.returncode == 5
    told = json.loads(done.stdout)
    assert [change["name"] for change in told["difference"]["packages"]] == ["iniconfig"]
    assert Path(told["log"]).is_file()


def test_an_image_packed_by_another_program_has_the_same_files(small, scratch, monkeypatch):
    store = ImageStore(scratch / "store")
    order = request(small(), store, scratch)
    made = build(draft_build(order))
    real = find_mksquashfs("apptainer").path
    program = scratch / "mksquashfs"
    program.write_text(
        "#!/bin/sh\n"
        'case $1 in -version) echo "mksquashfs version 4.9"; exit ;; esac\n'
        f'exec {real} "$@" -b 65536\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scratch}:{os.environ['PATH']}")
    found = check_build(order)
    assert found.same
    assert not found.is_identical
    assert found.record.tree_sha256 == made.record.tree_sha256
    assert {name: b for name, _, b in found.difference.facts}["mksquashfs"] == "4.9"


def test_arguments_of_the_record_are_given_again(tmp_path, tiny_image, scratch):
    definition = tmp_path / "small.def"
    text = SMALL.format(base=tiny_image, post='echo "{{ level }}" >/level')
    definition.write_text(text.replace("%post", "%arguments\n    level=1\n\n%post"))
    store = ImageStore(scratch / "store")
    build(draft_build(request(definition, store, scratch, build_arguments={"level": "2"})))
    assert check_build(request(definition, store, scratch), "small").is_identical
    other = request(definition, store, scratch, build_arguments={"level": "3"})
    assert b"level" in {change.path for change in check_build(other, "small").difference.files}


def test_two_builds_at_once_give_one_image(small, scratch):
    command = [VALSKA, "build", small("sleep 1"), "--images", scratch / "store"]
    environ = {**os.environ, "TMPDIR": os.fspath(scratch)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, env=environ, **pipes) for _ in range(2)]
    ends = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert len({stdout for stdout, _ in ends}) == 1
    assert len(list((scratch / "store" / "logs").iterdir())) == 1
    assert sum("waiting for it" in stderr for _, stderr in ends) == 1
    assert sum("has it already" in stderr for _, stderr in ends) == 1


MOMENTS = {
    "at once": lambda scratch: True,
    "in post": lambda scratch: _logged(scratch, "sleep 2"),
    "packing": lambda scratch: any(scratch.glob("valska-build-*/root.squashfs")),
    "assembling": lambda scratch: any(scratch.glob("store/.build-*/image.sif")),
    "storing": lambda scratch: any(scratch.glob("store/sha256/*.sif")),
}


def _logged(scratch, text):
    return any(text in path.read_text() for path in scratch.glob("store/logs/*"))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_build_leaves_the_store_whole(small, scratch, moment):
    store = ImageStore(scratch / "store")
    definition = small("sleep 2")
    process = subprocess.Popen(
        [VALSKA, "build", definition, "--images", store.root],
        env={**os.environ, "TMPDIR": os.fspath(scratch)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not MOMENTS[moment](scratch):
        time.sleep(0.001)
    left = children(process.pid)
    process.kill()
    process.wait()
    for pid in left.values():
        _end(pid)
    for record in store.list():
        assert sha256_file(store.sif(record.sha256)) == record.sha256
    made = build(draft_build(request(definition, store, scratch)))
    assert sha256_file(made.path) == made.record.sha256
    assert store.list() == (made.record,)
    assert list(store.root.glob(".build-*")) == []
    if made.built:
        assert list(scratch.glob("valska-build-*")) == []


def _end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or _is_dead(pid))


def _is_dead(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def without_namespaces():
    """Run a command where the kernel gives no user namespace, as on many a cluster."""
    if os.geteuid() != 0:
        pytest.skip("only root can take user namespaces away")
    keeper = subprocess.Popen(["unshare", "--user", "sleep", "300"])
    root = Path("/proc", str(keeper.pid))
    wait_until(lambda: (root / "comm").read_text() == "sleep\n")
    for name in ("uid_map", "gid_map"):
        (root / name).write_text("0 0 4294967295")
    enter = ["nsenter", "--user", "--target", str(keeper.pid), "--setuid", "0", "--setgid", "0"]
    limit = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
    yield [*enter, "sh", "-c", limit, "sh"]
    keeper.kill()
    keeper.wait()


def test_without_user_namespaces_it_is_said_what_to_ask_for(
    user, tiny_image, without_namespaces, scratch
):
    definition = user.write("small.def", SMALL.format(base=tiny_image, post="true"))
    command = user.command(user.bin / "valska", "build", definition, "--images", "store")
    done = subprocess.run(
        [*without_namespaces, *command],
        cwd=user.work,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    error, hint = done.stderr.splitlines()[-2:]
    assert error == "Error: the image was not built: Apptainer has no user namespace to build in"
    assert "user.max_user_namespaces" in hint
    assert "/etc/subuid" in hint

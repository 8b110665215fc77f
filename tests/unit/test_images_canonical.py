"""Two trees of one definition, made at different times in different ways, become one tree."""

import json
import os
import py_compile
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from valska.external_tools.core.images.building.canonical import make_canonical
from valska.external_tools.core.images.building.metadata import inspect_metadata
from valska.external_tools.core.images.building.staging import stage_files
from valska.external_tools.core.images.definition import read_definition
from valska.external_tools.core.images.listing import list_tree

TIME = 1_700_000_000
LATER = TIME + 12345.678


def write(root, name, data=b"x", *, mode=0o644, time=None):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
    if time is not None:
        os.utime(path, (time, time))
    return path


def tree(root, day):
    """Make what a build leaves; `day` is all that differs between two of them."""
    write(root, "usr/bin/tool", mode=0o4755)
    write(root, "usr/share/old", time=TIME - 100)
    write(root, "usr/share/new", time=LATER + day)
    for name in ("var/log/apt/term.log", "var/cache/x/y", "tmp/a/b", "root/.cache/pip/z"):
        write(root, name, b"day %d" % day)
    for name in ("etc/machine-id", "etc/hosts", "etc/resolv.conf", "etc/ssh/ssh_host_rsa_key"):
        write(root, name, b"%d" % day)
    write(root, "etc/passwd-", b"%d" % day)
    write(root, "etc/shadow", b"root:*:%d:0:99999:7:::\nuser:!:10:0:::::\n" % (30000 + day))
    labels = {"b": "2", "a": "1", "org.label-schema.build-date": str(day)}
    labels["org.label-schema.usage.singularity.deffile.from"] = f"/home/{day}/base"
    labels["org.label-schema.usage.apptainer.version"] = "1.4.5"
    write(root, ".singularity.d/labels.json", json.dumps(labels).encode())
    write(root, ".singularity.d/Singularity", b"From: /home/%d" % day)
    write(root, ".singularity.d/runscript", b"#!/bin/sh\n\n    echo hi\n", mode=0o755)
    write(root, ".singularity.d/env/90-environment.sh", b"export A=1\n")
    if day % 2:
        write(root, "var/log/only-today")
        os.mkfifo(root / "run-fifo")


def settle(root):
    return make_canonical(root, time=TIME, definition=b"the definition\n")


def times(root):
    return {str(p.relative_to(root)): p.lstat().st_mtime for p in (root, *root.rglob("*"))}


def test_what_differs_from_build_to_build_goes(tmp_path):
    roots = [tmp_path / "first", tmp_path / "second"]
    for day, root in enumerate(roots):
        root.mkdir(mode=0o755)
        tree(root, day)
    removed = [settle(root) for root in roots]
    first, second = map(list_tree, roots)
    assert first.entries == second.entries
    assert times(roots[0]) == times(roots[1])
    assert {"var/log/apt/term.log", "root/.cache", "etc/passwd-"} <= set(removed[0])
    assert set(removed[1]) - set(removed[0]) == {"var/log/only-today", "run-fifo"}
    root = roots[0]
    assert (root / "var" / "log" / "apt").is_dir()
    assert (root / "etc" / "hosts").read_bytes() == b""
    assert (root / "usr/bin/tool").stat().st_mode & 0o7777 == 0o755
    assert (root / "usr/share/old").stat().st_mtime == TIME - 100
    assert (root / "usr/share/new").stat().st_mtime == TIME
    assert (root / ".singularity.d/Singularity").read_bytes() == b"the definition\n"
    assert json.loads((root / ".singularity.d/labels.json").read_bytes()) == {"a": "1", "b": "2"}
    shadow = (root / "etc/shadow").read_text().splitlines()
    assert shadow == [f"root:*:{TIME // 86400}:0:99999:7:::", "user:!:10:0:::::"]


def test_it_is_canonical_already_the_second_time(tmp_path):
    tree(tmp_path, 3)
    settle(tmp_path)
    before = list_tree(tmp_path), times(tmp_path)
    assert settle(tmp_path) == ()
    assert (list_tree(tmp_path), times(tmp_path)) == before


@pytest.mark.parametrize(
    "name", ["var/log", "tmp", "root", "etc/hosts", ".singularity.d/labels.json", "etc"]
)
def test_no_link_leads_out_of_the_tree(tmp_path, name):
    root, outside = tmp_path / "root", tmp_path / "outside"
    target = write(outside, "hosts", b"the host's own", time=LATER)
    write(outside, "shadow", b"root:*:30000:\n", time=LATER)
    link = root / name
    link.parent.mkdir(parents=True)
    link.symlink_to(target if "/" in name and name != "var/log" else outside)
    settle(root)
    assert target.read_bytes() == b"the host's own"
    assert target.stat().st_mtime == pytest.approx(LATER)
    assert (outside / "shadow").read_bytes() == b"root:*:30000:\n"
    assert link.is_symlink()


def test_a_socket_and_set_id_bits_are_not_packed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared").chmod(0o2775)
        assert settle(tmp_path) == ("socket",)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o775


def compiled(root, name="module.py", *, time=LATER, mode=py_compile.PycInvalidationMode.TIMESTAMP):
    source = write(root, name, b"x = 1\n", time=time)
    return source, Path(py_compile.compile(os.fspath(source), invalidation_mode=mode))


def named_time(path):
    return int.from_bytes(path.read_bytes()[8:12], "little")


def test_byte_code_stays_valid_when_its_source_gets_another_time(tmp_path):
    source, code = compiled(tmp_path)
    assert named_time(code) == int(LATER)
    assert settle(tmp_path) == ()
    assert named_time(code) == TIME == source.stat().st_mtime
    before = code.read_bytes()
    done = subprocess.run(
        [sys.executable, "-v", "-c", "import module"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{code} matches" in done.stderr
    assert code.read_bytes() == before


def test_byte_code_of_an_old_source_is_left_alone(tmp_path):
    _, code = compiled(tmp_path, time=TIME - 5)
    before = code.read_bytes()
    settle(tmp_path)
    assert code.read_bytes() == before


def test_byte_code_that_is_out_of_date_is_not_packed(tmp_path):
    source, code = compiled(tmp_path)
    os.utime(source, (LATER + 60, LATER + 60))
    assert settle(tmp_path) == (os.fspath(code.relative_to(tmp_path)),)


@pytest.mark.parametrize("code_is_linked", [True, False])
def test_byte_code_of_a_source_with_two_names_is_packed_twice(tmp_path, code_is_linked):
    source, code = compiled(tmp_path, "pkgs/module.py")
    _, other = compiled(tmp_path, "lib/module.py")
    other.with_name("x").hardlink_to(code if code_is_linked else other)
    other.with_name("x").replace(other)
    (tmp_path / "lib" / "module.py").unlink()
    (tmp_path / "lib" / "module.py").hardlink_to(source)
    assert settle(tmp_path) == ()
    assert named_time(code) == named_time(other) == TIME


def test_byte_code_by_digest_or_without_a_source_needs_no_source(tmp_path):
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    source, code = compiled(tmp_path, "hashed.py", mode=mode)
    _, other = compiled(tmp_path, "alone.py")
    (tmp_path / "alone.py").unlink()
    legacy = write(tmp_path, "legacy.pyc", other.read_bytes(), time=LATER)
    before = code.read_bytes()
    write(tmp_path, "cut.pyc", b"abc")
    assert settle(tmp_path) == ()
    assert code.read_bytes() == before
    assert named_time(legacy) == TIME
    assert source.stat().st_mtime == TIME


@pytest.mark.parametrize("name", ["env", "../scif"])
def test_metadata_of_what_a_link_leads_out_of_the_tree_to_are_left_to_apptainer(tmp_path, name):
    (tmp_path / "root" / ".singularity.d").mkdir(parents=True)
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "90-environment.sh").write_text("secret")
    (tmp_path / "root" / ".singularity.d" / name).symlink_to(tmp_path / "host")
    assert inspect_metadata(tmp_path / "root", "") is None


def test_metadata_are_what_apptainer_reads(tmp_path):
    tree(tmp_path, 1)
    settle(tmp_path)
    data = json.loads(inspect_metadata(tmp_path, "the definition\n"))
    assert data["type"] == "container"
    assert data["data"]["attributes"] == {
        "deffile": "the definition",
        "runscript": "#!/bin/sh\n\n    echo hi",
        "environment": {"/.singularity.d/env/90-environment.sh": "export A=1"},
        "labels": {"a": "1", "b": "2"},
    }
    (tmp_path / "scif" / "apps").mkdir(parents=True)
    assert inspect_metadata(tmp_path, "") is None


def definition_of(directory, *sources):
    lines = "".join(f"    {source} /opt/\n" for source in sources)
    path = directory / "x.def"
    path.write_text(f"Bootstrap: docker\nFrom: x\n\n%files\n{lines}\n%post\n    true\n")
    return read_definition(path)


def test_files_are_copied_in_with_modes_that_no_umask_has_made(tmp_path):
    home = tmp_path / "home"
    write(home, "a.lock", mode=0o600)
    write(home, "tool.sh", mode=0o700)
    write(home, "data/deep/b", mode=0o640).parent.chmod(0o700)
    (home / "data" / "link").symlink_to("deep/b")
    staged = tmp_path / "staged"
    definition = definition_of(home, "a.lock", "*.sh", "data", "/etc/hostname")
    assert stage_files(definition, {}, staged) == staged
    modes = {
        os.fspath(path.relative_to(staged)): stat.S_IMODE(path.lstat().st_mode)
        for path in staged.rglob("*")
    }
    assert modes == {
        "a.lock": 0o644,
        "tool.sh": 0o755,
        "data": 0o755,
        "data/deep": 0o755,
        "data/deep/b": 0o644,
        "data/link": 0o644,
    }

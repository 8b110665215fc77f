"""Files of subordinate ids: owned and removed in a user namespace, by a user who is not root."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from processes import run_as_nobody

from valska.external_tools.core.errors import PrerequisiteError
from valska.external_tools.core.images.building import namespace, ownership
from valska.external_tools.core.images.building.namespace import subordinate_ids

USER = "valska-test"
"""The account that tests/cluster/user.sh makes."""

PROGRAM = Path(namespace.__file__)


@pytest.fixture
def user(require):
    """The account's id, and the first of its subordinate ids."""
    if os.geteuid() != 0:
        pytest.skip("only root can make files of other users")
    names = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    require(USER in names, f"no account {USER}: tests/cluster/user.sh makes it")
    ranges = subordinate_ids(Path("/etc/subuid"), names[USER])
    require(ranges, f"{USER} has no subordinate ids")
    return names[USER], ranges[0][0]


@pytest.fixture
def place():
    """A directory that every user can reach, which that of pytest is not."""
    path = Path(tempfile.mkdtemp(prefix="valska-namespace-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def tree(user, place):
    """What an ordinary user's build leaves: its own files, and those of its subordinate ids."""
    uid, first = user
    root = place / "root"
    (root / "closed" / "deeper").mkdir(parents=True)
    for name in ("mine", "theirs", "closed/secret", "closed/deeper/x"):
        (root / name).write_text(name)
    (root / "link").symlink_to("theirs")
    (root / "closed" / "secret").chmod(0o000)
    (root / "theirs").chmod(0o4640)
    owners = {"theirs": first + 6, "closed/secret": first + 4, "closed": first + 4, "link": first}
    for path in (root, *root.rglob("*")):
        owner = owners.get(os.fspath(path.relative_to(root)), uid)
        os.chown(path, owner, owner, follow_symlinks=False)
    (root / "closed").chmod(0o000)
    return root


def as_user(uid, function):
    """Run a program of ours as an ordinary user."""
    return subprocess.run(
        ["/usr/bin/python3", "-I", PROGRAM, *function],
        user=uid,
        group=uid,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def readable_program(place, monkeypatch):
    """The program where an ordinary user can read it."""
    copy = Path(shutil.copy(PROGRAM, place / "namespace.py"))
    copy.chmod(0o644)
    monkeypatch.setattr(sys.modules[__name__], "PROGRAM", copy)


def test_all_of_a_tree_becomes_the_users(tree, user, readable_program):
    uid, _ = user
    done = as_user(uid, ["own", tree])
    assert (done.returncode, done.stderr) == (0, "")
    owners = {path.lstat().st_uid for path in (tree, *tree.rglob("*"))}
    assert owners == {uid}
    assert (tree / "closed").stat().st_mode & 0o777 == 0o700
    assert (tree / "closed" / "secret").stat().st_mode & 0o777 == 0o400
    assert (tree / "theirs").stat().st_mode & 0o777 == 0o640
    assert (tree / "closed" / "secret").read_text() == "closed/secret"


def test_a_tree_can_be_removed(tree, user, readable_program):
    uid, _ = user
    os.chown(tree.parent, uid, uid)
    done = as_user(uid, ["remove", tree])
    assert (done.returncode, done.stderr) == (0, "")
    assert not tree.exists()


def test_without_subordinate_ids_it_is_said_what_fails(tree, readable_program):
    done = as_user(65534, ["own", tree])
    assert done.returncode == 1
    assert done.stderr.strip()


def test_root_needs_no_namespace(tree):
    def fail(*_, **__):
        raise AssertionError

    ownership.own_tree(tree, fail)
    assert {path.lstat().st_uid for path in tree.rglob("*")} == {0}


def test_what_is_ones_own_needs_no_namespace(place):
    root = place / "root"
    (root / "closed").mkdir(parents=True)
    (root / "closed" / "x").touch(0o000)
    (root / "closed").chmod(0o000)

    def fail(*_, **__):
        raise AssertionError

    def own():
        ownership.own_tree(root, fail)
        assert (root / "closed" / "x").read_bytes() == b""

    if os.geteuid() != 0:
        own()
        return
    for path in (root / "closed" / "x", root / "closed", root):
        os.chown(path, 65534, 65534)
    assert run_as_nobody(own)


def test_the_error_says_what_to_ask_for(tmp_path):
    def refuse(argv, **_):
        return subprocess.run(
            ["sh", "-c", "echo 'newuidmap: not allowed' >&2; exit 1"],
            capture_output=True,
            text=True,
        )

    with pytest.raises(PrerequisiteError, match="newuidmap: not allowed") as caught:
        ownership.in_namespace("own", tmp_path, refuse)
    assert "/etc/subuid" in caught.value.hint


def test_ranges_of_ids_are_read_by_name_and_by_number(tmp_path):
    path = tmp_path / "subuid"
    name = pwd.getpwuid(os.getuid()).pw_name
    path.write_text(f"{name}:100:5\nother:200:5\n{os.getuid()}:300:7\nbroken\n{name}:x:y\n\n")
    assert subordinate_ids(path, os.getuid()) == [(100, 5), (300, 7)]
    assert subordinate_ids(tmp_path / "none", os.getuid()) == []
